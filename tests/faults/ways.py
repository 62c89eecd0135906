"""Everything that can be loaded into, each with a sandbox that is its API, and the export that goes there.

Each value ends in the number of its row, so that whatever reaches an API tells where it is from. Every fifth row is of
a user who stands three rows above, too. One user is the culprit, for faults that are about one.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import unquote

from loader.request import Request
from loader.sandbox import CalvenOptions, DescopeOptions, DxOptions, RecordsOptions, ScimOptions
from loader.target import Target
from loader.targets.calven import Calven, CalvenHierarchy
from loader.targets.descope import Descope
from loader.targets.dx import Dx
from loader.targets.http import Http
from loader.targets.scim import Scim
from tests.faults.rig import KEY_ID, SECRET, TOKEN, Row

PROJECT, MANAGEMENT_KEY = "P2project", "K2management"

#: The most users of a request that takes many.
TOGETHER = 4

CULPRIT = "culprit@example.com"
CULPRIT_ROW = 9

#: So long is each value of the culprit, in characters.
FAT = 1_000


@dataclass(frozen=True)
class Way:
    """One target as it is set up, and its sandbox: `sandbox` are fields of its Options.

    `about`: how it differs from others, for people. `carries`: the users in a request. `rows`: of a load, or of one so
    many times as long. `requests`: how many a load takes if nothing goes wrong, tokens and all. `first`, `first_call`:
    the number, from 0, of the first request with users, and of the first call for a token, that a fault may be about:
    in the midst of the load where it has one.
    """

    name: str
    about: str
    api: Target
    sandbox: Mapping[str, Any]
    carries: Callable[[Request], list[str]]
    rows: Callable[[int], Sequence[Row]]
    requests: int
    secrets: Mapping[str, str] = field(default_factory=lambda: {"key_id": KEY_ID, "secret": SECRET, "token": TOKEN})
    users_per_request: int = 1
    first: int = 5
    first_call: int = 0

    def options(self, **more: Any) -> dict[str, Any]:
        """Those of the sandbox, some of the API's own changed."""
        name = self.sandbox["api"]
        return {**self.sandbox, name: self.sandbox[name].model_copy(update=more)}


@cache
def users(count: int) -> Sequence[Row]:
    """Rows of users, of whom some come twice, and then send one attribute alone."""
    rows: list[Row] = []
    for row in range(1, count + 1):
        values = {"title": f"t{row}", "nickName": f"n{row}"}
        user = f"user{row:03}@example.com"
        if row == CULPRIT_ROW:
            user, values = CULPRIT, {name: f"culprit {value:x>{FAT}}" for name, value in values.items()}
        elif row % 5 == 0:
            user, values = rows[row - 4][0], {"nickName": f"n{row}"}
        rows.append((user, values))
    return rows


def groups(times: int) -> Sequence[Row]:
    """Rows of a hierarchy: a tree in which each group has three below it."""
    count = 40 * times
    names = [f"group{row:03}" if row != CULPRIT_ROW else "culprit" for row in range(1, count + 1)]
    top = {"groupType": "team", "parent": None, "parentType": None}
    below = [{"groupType": "team", "parent": names[row // 3], "parentType": "team"} for row in range(count - 1)]
    return list(zip(names, [top, *below], strict=True))


def row_of(value: object) -> int:
    """The row that a value is from."""
    found = re.search(r"\d+$", str(value))
    assert found is not None, value
    return int(found[0])


def _listed(wrapper: str, key: str) -> Callable[[Request], list[str]]:
    return lambda request: [record[key] for record in json.loads(request.body)[wrapper]] if request.users else []


def _alone(key: str) -> Callable[[Request], list[str]]:
    return lambda request: [json.loads(request.body)[key]] if request.users else []


def _whole(request: Request) -> list[str]:
    return [record["group"] for record in json.loads(request.body)["groupRelationships"]] if request.users else []


def _scim(request: Request) -> list[str]:
    """Its sandbox's ids tell the names."""
    if not request.users:
        return []
    places = [request.path]
    if request.method == "POST":
        places = [operation["path"] for operation in json.loads(request.body)["Operations"]]
    idents = [unquote(place.rpartition("/")[2]) for place in places]
    return [base64.urlsafe_b64decode(ident + "=" * (-len(ident) % 4)).decode() for ident in idents]


_CALVEN = {"api": "calven", "calven": CalvenOptions(key_id=KEY_ID, secret=SECRET)}
_DESCOPE = {"api": "descope", "descope": DescopeOptions(project_id=PROJECT, management_key=MANAGEMENT_KEY)}
_SCIM = {"api": "scim", "scim": ScimOptions(token=TOKEN)}
_RECORDS: dict[str, Any] = {"key": "email", "client_id": KEY_ID, "client_secret": SECRET}
_BEARER = {"token": f"{PROJECT}:{MANAGEMENT_KEY}"}


def _alone_rows(times: int) -> Sequence[Row]:
    return users(50 * times)


def _many_rows(times: int) -> Sequence[Row]:
    return users(100 * times)


WAYS = {
    way.name: way
    for way in (
        Way(
            "calven",
            "hmac",
            Calven(auth="hmac"),
            _CALVEN,
            _listed("userAttributes", "userName"),
            _many_rows,
            requests=30,
            users_per_request=TOGETHER,
            first_call=1,
        ),
        Way(
            "calven, static",
            "bearer",
            Calven(auth="bearer"),
            {"api": "calven", "calven": CalvenOptions(token=TOKEN, schemes=frozenset({"bearer"}))},
            _listed("userAttributes", "userName"),
            _many_rows,
            requests=30,
            users_per_request=TOGETHER,
        ),
        Way(
            "calven-hierarchy",
            "client-secret",
            CalvenHierarchy(auth="client-secret"),
            _CALVEN,
            _whole,
            groups,
            requests=2,
            users_per_request=1000,
            first=0,
        ),
        Way(
            "dx",
            "bearer",
            Dx(auth="bearer"),
            {"api": "dx", "dx": DxOptions(token=TOKEN)},
            _alone("email"),
            _alone_rows,
            requests=50,
        ),
        Way(
            "descope",
            "one attribute a request",
            Descope(auth="bearer"),
            _DESCOPE,
            _alone("loginId"),
            _alone_rows,
            requests=95,
            secrets=_BEARER,
        ),
        Way(
            "descope, bulk",
            "bearer",
            Descope(auth="bearer", bulk=True),
            _DESCOPE,
            _listed("users", "loginId"),
            _many_rows,
            requests=30,
            secrets=_BEARER,
            users_per_request=TOGETHER,
        ),
        Way("scim", "search, then PATCH", Scim(auth="bearer"), _SCIM, _scim, _alone_rows, requests=100),
        Way(
            "scim, bulk",
            "bearer",
            Scim(auth="bearer", bulk=True),
            _SCIM,
            _scim,
            _many_rows,
            requests=120,
            users_per_request=TOGETHER,
            first=33,
        ),
        Way(
            "http",
            "api-key, one record",
            Http(
                auth="api-key",
                path="/v1/records",
                user="email",
                results="results",
                result_code="status",
                success=("ok",),
                not_found=("not_found",),
            ),
            {"api": "http", "http": RecordsOptions(**_RECORDS, body="one", schemes=frozenset({"api-key"}))},
            _alone("email"),
            _alone_rows,
            requests=50,
            secrets={"token": SECRET},
        ),
        Way(
            "http, list",
            "oauth2",
            Http(
                auth="oauth2",
                token_url="/oauth/token",
                path="/v1/records",
                user="email",
                wrapper="records",
                results="results",
                result_user="email",
                result_code="status",
                success=("ok",),
                not_found=("not_found",),
            ),
            {"api": "http", "http": RecordsOptions(**_RECORDS)},
            _listed("records", "email"),
            _many_rows,
            requests=35,
            users_per_request=TOGETHER,
            first_call=1,
        ),
    )
}

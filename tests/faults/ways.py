"""Everything that can be loaded into, each with a sandbox that is its API, and the export that goes there.

Each value ends in the number of its row, so that whatever reaches an API tells where it is from. Every fifth row is of a
user who stands three rows above, too. One user is the culprit, for faults that are about one.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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

#: Short, so that every load that fetches tokens has to fetch some more on the way.
LIFETIME_S = 2.0

#: The most users of a request that takes many.
TOGETHER = 4

CULPRIT = "culprit@example.com"

#: So long is each value of the culprit, in characters.
FAT = 1_000


@dataclass(frozen=True)
class Way:
    """One target as it is set up, and its sandbox: `sandbox` are fields of its Options.

    `carries`: the users in a request. `requests`: how many a load takes if nothing goes wrong, tokens and all.
    `first`, `first_call`: the number, from 0, of the first request and of the first call for a token that a fault may be
    about, in the midst of the load where it has one.
    """

    name: str
    api: Target
    sandbox: Mapping[str, Any]
    carries: Callable[[Request], list[str]]
    rows: Sequence[Row]
    requests: int
    secrets: Mapping[str, str] = field(default_factory=lambda: {"key_id": KEY_ID, "secret": SECRET, "token": TOKEN})
    users_per_request: int = 1
    first: int = 5
    first_call: int = 0

    def options(self, **more: Any) -> dict[str, Any]:
        """Those of the sandbox, some of the API's own changed."""
        name = self.sandbox["api"]
        return {**self.sandbox, name: self.sandbox[name].model_copy(update=more)}


def users(count: int) -> list[Row]:
    """Rows of users, of whom some come twice, and then send one attribute alone."""
    rows: list[Row] = []
    for row in range(1, count + 1):
        values = {"title": f"t{row}", "nickName": f"n{row}"}
        user = f"user{row:03}@example.com"
        if row == count // 2:
            user, values = CULPRIT, {name: f"culprit {value:x>{FAT}}" for name, value in values.items()}
        elif row % 5 == 0:
            user, values = rows[row - 4][0], {"nickName": f"n{row}"}
        rows.append((user, values))
    return rows


def groups(count: int) -> list[Row]:
    """Rows of a hierarchy: a tree in which each group has three below it."""
    names = [f"group{row:03}" if row != count // 2 else "culprit" for row in range(1, count + 1)]
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


_KEY = {"key_id": KEY_ID, "secret": SECRET, "token_lifetime_s": LIFETIME_S}
_CALVEN = {"api": "calven", "calven": CalvenOptions(**_KEY)}
_DESCOPE = {"api": "descope", "descope": DescopeOptions(project_id=PROJECT, management_key=MANAGEMENT_KEY)}
_SCIM = {"api": "scim", "scim": ScimOptions(token=TOKEN)}
_RECORDS: dict[str, Any] = {"key": "email", "client_id": KEY_ID, "client_secret": SECRET}
_BEARER = {"token": f"{PROJECT}:{MANAGEMENT_KEY}"}

ALONE, MANY = users(50), users(100)

WAYS = {
    way.name: way
    for way in (
        Way(
            "calven",
            Calven(auth="hmac"),
            _CALVEN,
            _listed("userAttributes", "userName"),
            MANY,
            requests=30,
            users_per_request=TOGETHER,
            first_call=1,
        ),
        Way(
            "calven, static",
            Calven(auth="bearer"),
            {"api": "calven", "calven": CalvenOptions(token=TOKEN, schemes=frozenset({"bearer"}))},
            _listed("userAttributes", "userName"),
            MANY,
            requests=30,
            users_per_request=TOGETHER,
        ),
        Way(
            "calven-hierarchy",
            CalvenHierarchy(auth="client-secret"),
            {"api": "calven", "calven": CalvenOptions(**_KEY | {"token_lifetime_s": 600.0})},
            _whole,
            groups(40),
            requests=2,
            users_per_request=1000,
            first=0,
        ),
        Way(
            "dx",
            Dx(auth="bearer"),
            {"api": "dx", "dx": DxOptions(token=TOKEN)},
            _alone("email"),
            ALONE,
            requests=50,
        ),
        Way("descope", Descope(auth="bearer"), _DESCOPE, _alone("loginId"), ALONE, requests=95, secrets=_BEARER),
        Way(
            "descope, bulk",
            Descope(auth="bearer", bulk=True),
            _DESCOPE,
            _listed("users", "loginId"),
            MANY,
            requests=30,
            secrets=_BEARER,
            users_per_request=TOGETHER,
        ),
        Way("scim", Scim(auth="bearer"), _SCIM, _scim, ALONE, requests=100),
        Way(
            "scim, bulk",
            Scim(auth="bearer", bulk=True),
            _SCIM,
            _scim,
            MANY,
            requests=120,
            users_per_request=TOGETHER,
            first=17,
        ),
        Way(
            "http",
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
            ALONE,
            requests=50,
            secrets={"token": SECRET},
        ),
        Way(
            "http, list",
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
            {"api": "http", "http": RecordsOptions(**_RECORDS, token_lifetime_s=LIFETIME_S)},
            _listed("records", "email"),
            MANY,
            requests=35,
            users_per_request=TOGETHER,
            first_call=1,
        ),
    )
}

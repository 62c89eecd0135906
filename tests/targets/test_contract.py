"""The contract of loader/testing.py, kept by every target that is built in, in each of its forms."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from loader.outcome import Code
from loader.request import Request, Response
from loader.targets import BUILT_IN
from loader.targets.calven import Calven, CalvenHierarchy
from loader.targets.descope import Descope
from loader.targets.dx import Dx
from loader.targets.http import Http
from loader.targets.scim import Scim
from loader.testing import VALUES, Said, TargetContract, as_json


class TestCalven(TargetContract):
    target = Calven(auth="hmac")

    def answer(self, request: Request, said: Sequence[Said]) -> Response:
        return as_json({"results": [{"userName": one.user, "resultCode": int(not one.is_known)} for one in said]})


class TestCalvenHierarchy(TargetContract):
    """Groups and not users; all are taken, or none."""

    target = CalvenHierarchy(auth="hmac")
    values: ClassVar[Mapping[str, bytes]] = {"groupType": b'"T\\u00e4am"', "parent": b"null", "parentType": b"null"}
    names_users = False
    status_alone = True
    unknown = None

    def answer(self, request: Request, said: Sequence[Said]) -> Response:
        return Response(204)


class TestCalvenElsewhere(TestCalven):
    """With all that its documents don't say."""

    target = Calven(
        auth="client-secret", region="ause1", path="/v2/users", auth_path="/v2/auth", result_codes={"3": Code.PARTIAL}
    )


class TestDx(TargetContract):
    target = Dx(auth="bearer")
    names_users = False
    overhead = 18 * len(VALUES)

    def carried(self, request: Request) -> Sequence[tuple[str, Mapping[str, bytes]]]:
        body = msgspec.json.decode(request.body, type=_DxBody)
        return [(body.email, {one.name: bytes(one.value) for one in body.attributes})]

    def answer(self, request: Request, said: Sequence[Said]) -> Response:
        (one,) = said
        if not one.is_known:
            return as_json({"ok": False, "error": "user_not_found"}, 404)
        return as_json({"ok": True, "user": {"email": one.user, "attributes": [{"name": "x"}], "failures": []}})


class _DxAttribute(msgspec.Struct):
    name: str
    value: msgspec.Raw


class _DxBody(msgspec.Struct):
    email: str
    attributes: list[_DxAttribute]


class TestDescope(TargetContract):
    """A request for each attribute."""

    target = Descope(auth="bearer")
    secrets: ClassVar[Mapping[str, str]] = {"token": "P2abcdefgh:K2defghijk"}
    names_users = False

    def carried(self, request: Request) -> Sequence[tuple[str, Mapping[str, bytes]]]:
        body = msgspec.json.decode(request.body, type=_DescopeBody)
        return [(body.loginId, {body.attributeKey: bytes(body.attributeValue)})]

    def answer(self, request: Request, said: Sequence[Said]) -> Response:
        (one,) = said
        if not one.is_known:
            return as_json({"errorCode": "E112102", "errorDescription": "User not found"}, 400)
        return as_json({"user": {"loginIds": [one.user], "userId": "U1"}})


class _DescopeBody(msgspec.Struct):
    loginId: str
    attributeKey: str
    attributeValue: msgspec.Raw


class TestDescopeBulk(TargetContract):
    target = Descope(auth="bearer", bulk=True)
    secrets = TestDescope.secrets

    def answer(self, request: Request, said: Sequence[Said]) -> Response:
        failed = [{"failure": "user not found", "user": {"loginId": one.user}} for one in said if not one.is_known]
        return as_json(
            {"patchedUsers": [{"loginIds": [one.user]} for one in said if one.is_known], "failedUsers": failed}
        )


class TestScim(TargetContract):
    """A search for each user, then a change under the id that it found."""

    target = Scim(auth="bearer", token_url="/token")
    values: ClassVar[Mapping[str, bytes]] = {
        "title": b'"R&D \\u2013 \\"x\\""',
        "active": b"true",
        "name.givenName": '"Zo\u00eb"'.encode(),
        "nickName": b"null",
        'emails[type eq "work"].value': b'"ann@example.com"',
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:employeeNumber": b'"00123"',
        "tags": b"[1.0, 12345678901234567890123]",
    }
    names_users = False
    status_alone = True
    own_statuses = frozenset({404})

    def carried(self, request: Request) -> Sequence[tuple[str, Mapping[str, bytes]]]:
        path = urlsplit(request.path)
        if request.method == "GET":
            return _asked_for(parse_qs(path.query)["filter"][0])
        if path.path == "/Users/.search":
            return _asked_for(json.loads(request.body)["filter"])
        if path.path == "/Bulk":
            operations = msgspec.json.decode(request.body, type=_ScimBulk).Operations
            return [(_scim_key(one.path), _scim_values(one.data)) for one in operations]
        return [(_scim_key(path.path), _scim_values(msgspec.json.decode(request.body, type=_ScimPatch)))]

    def answer(self, request: Request, said: Sequence[Said]) -> Response:
        if request.method == "PATCH":
            return Response(204) if said[0].is_known else Response(404)
        if request.path == "/Bulk":
            return as_json({"Operations": self.changed(request, said)})
        found = [{"id": one.user.encode().hex(), "userName": one.user} for one in said if one.is_known]
        return as_json({"totalResults": len(found), "Resources": found})

    def changed(self, request: Request, said: Sequence[Said]) -> list[Mapping[str, object]]:
        operations = msgspec.json.decode(request.body, type=_ScimBulk).Operations
        names = {_scim_key(one.path): one.bulkId for one in operations}
        return [
            {
                "method": "PATCH",
                "bulkId": names.get(one.user, "another"),
                "location": f"https://example.com/v2/Users/{one.user.encode().hex()}",
                "status": "200" if one.is_known else "404",
            }
            for one in said
        ]


class TestScimBySearchTogether(TestScim):
    """One search for some users, by POST."""

    target = Scim(auth="bearer", token_url="/token", users_per_lookup=4, search="post", op="add")


class TestScimBulk(TestScim):
    target = Scim(auth="bearer", token_url="/token", bulk=True, users_per_lookup=3)
    names_users = True
    status_alone = False
    overhead = 60  # the frame's is an estimate


class _ScimOperation(msgspec.Struct):
    op: str
    path: str
    value: msgspec.Raw = msgspec.Raw(b"null")


class _ScimPatch(msgspec.Struct):
    Operations: list[_ScimOperation]


class _ScimChange(msgspec.Struct):
    bulkId: str
    path: str
    data: _ScimPatch


class _ScimBulk(msgspec.Struct):
    Operations: list[_ScimChange]


def _scim_key(path: str) -> str:
    return bytes.fromhex(path.removeprefix("/Users/")).decode()


def _scim_values(patch: _ScimPatch) -> Mapping[str, bytes]:
    return {one.path: bytes(one.value) for one in patch.Operations}


def _asked_for(comparisons: str) -> Sequence[tuple[str, Mapping[str, bytes]]]:
    return [(json.loads(text), {}) for text in re.findall(r'userName eq ("(?:[^"\\]|\\.)*")', comparisons)]


def http(**settings: Any) -> Http:
    return Http(**{"auth": "bearer", "path": "/users/upsert?x=1", "user": "id", "token_url": "/token", **settings})


class TestHttp(TargetContract):
    """A list of results, as many APIs give it."""

    target = http(
        wrapper="rows",
        results="data.items",
        result_user="user.id",
        result_code="status",
        success=["ok"],
        not_found=[404],
    )

    def answer(self, request: Request, said: Sequence[Said]) -> Response:
        items = [{"user": {"id": one.user}, "status": "ok" if one.is_known else 404} for one in said]
        return as_json({"data": {"items": items}})


class TestHttpSingle(TargetContract):
    """A record a request; the status says what became of it."""

    target = http(method="PUT", attributes="attributes", headers={"Content-Type": "application/vnd.api+json"})
    names_users = False
    status_alone = True
    unknown = Code.INVALID

    def answer(self, request: Request, said: Sequence[Said]) -> Response:
        return Response(204) if all(one.is_known for one in said) else as_json({"error": "no such user"}, 422)


class TestHttpWhole(TestHttpSingle):
    """Many records a request, and all are taken or none."""

    target = http(method="PATCH", wrapper="rows", token_url="https://login.example.com/token", client_auth="body")


def test_every_target_that_is_built_in_is_here() -> None:
    kept = [each for each in globals().values() if isinstance(each, type) and hasattr(each, "target")]

    assert {contract.target.api for contract in kept if issubclass(contract, TargetContract)} == set(BUILT_IN)

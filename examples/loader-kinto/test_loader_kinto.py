"""Kinto keeps the contract."""

import json
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from loader_kinto import Kinto

from loader.request import Request, Response
from loader.testing import Said, TargetContract, as_json, elements, members


class TestKinto(TargetContract):
    target = Kinto(auth="basic", bucket="people", collection="staff")

    def carried(self, request: Request) -> Sequence[tuple[str, Mapping[str, bytes]]]:
        found = []
        for one in map(members, elements(members(request.body)["requests"])):
            key = json.loads(one["path"]).rpartition("/")[2]
            found.append((unquote(key), members(members(one["body"])["data"])))
        return found

    def answer(self, request: Request, said: Sequence[Said]) -> Response:
        path = "/v1/buckets/people/collections/staff/records/"
        good = {"status": 200, "body": {"data": {}}}
        missing = {"status": 404, "body": {"errno": 110, "error": "Not Found"}}
        return as_json({"responses": [{"path": path + one.user} | (good if one.is_known else missing) for one in said]})

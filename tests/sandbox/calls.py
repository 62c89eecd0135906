"""Requests as the vendor's page writes them, by hand: nothing here comes from the loader's encoder."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from loader.request import Request, Response

KEY_ID = "C0FFEE00-1111-4222-8333-444455556666"
SECRET = "test-secret"
NOW = 1683257792  # the time of the example on the page about HMAC
# printf 'KEY_ID1683257792' | openssl dgst -sha256 -hmac test-secret
HASH = "3958d1dad2d9761268f408c0adea746a12091c523fb230af1ce88c3d009513b6"
# printf 'KEY_ID:test-secret' | base64
BASIC = "QzBGRkVFMDAtMTExMS00MjIyLTgzMzMtNDQ0NDU1NTU2NjY2OnRlc3Qtc2VjcmV0"
TOKEN = "a-fixed-token"

PATH = "/v1/directory/user-attributes"
HIERARCHY = "/v1/directory/group-hierarchy-relationship"
JSON = {"Content-Type": "application/json"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}

# DOC-1, "Request Example", to the letter.
EXAMPLE = b"""{
    "userAttributes": [
        {
            "attributes": {
                "department": "engineering",
                "costCenter": "cc-1234"
            },
            "userName": "jane.doe@example.com"
        }
    ]
}"""

# DOC-2, "Request Example", to the letter.
HIERARCHY_EXAMPLE = b"""{
    "groupRelationships": [
        {
            "group": "Channel Marketing",
            "groupType": "Department",
            "parent": "Marketing",
            "parentType": "Division"
        },
        {
            "group": "Marketing",
            "groupType": "Division",
            "parent": null,
            "parentType": null
        }
    ]
}"""


def post(path: str = PATH, body: object = EXAMPLE, **headers: str) -> Request:
    """A POST with the fixed token; keyword `content_type` is the header Content-Type."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", path, raw, {**JSON, **BEARER, **given})


def write(*users: str, **attributes: object) -> Request:
    """Writes the same attributes of these users."""
    return post(body={"userAttributes": [{"userName": user, "attributes": attributes} for user in users]})


def relationship(group: object, parent: object = None) -> dict[str, object]:
    """A group of type "T" below another of that type, or at the top."""
    return {"group": group, "groupType": "T", "parent": parent, "parentType": None if parent is None else "T"}


def put_hierarchy(*relationships: object, path: str = HIERARCHY, **headers: str) -> Request:
    """A PUT of these relationships, or of the example."""
    body = {"groupRelationships": relationships} if relationships else HIERARCHY_EXAMPLE
    return replace(post(path, body, **headers), method="PUT")


def auth(timestamp: object = NOW, hash: str = HASH, key_id: str = KEY_ID) -> Request:  # the API's name
    return post("/v1/auth", {"apiKey": key_id, "timestamp": timestamp, "hash": hash})


def body_of(response: Response) -> Any:
    return json.loads(response.body)


def codes(response: Response) -> list[tuple[str, Any]]:
    """User names and result codes, in the answer's order."""
    results: Sequence[dict[str, Any]] = body_of(response)["results"]
    return [(result["userName"], result["resultCode"]) for result in results]

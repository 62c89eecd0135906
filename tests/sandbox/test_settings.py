"""What a sandbox says of how to load into it."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from loader.sandbox.options import (
    CalvenOptions,
    DescopeOptions,
    DxOptions,
    Options,
    RecordsOptions,
    ScimOptions,
)
from loader.sandbox.settings import told
from loader.settings import load_settings

URL = "http://127.0.0.1:1"

CALVEN = CalvenOptions(key_id="me", secret="s")
HTTP = RecordsOptions(client_id="me", client_secret="s")


def tables(options: Options) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(told(options, URL)[1]).get("target", {})
    return found


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (Options(calven=CALVEN), {"CALVEN_KEY_ID": "me", "CALVEN_SECRET": "s"}),
        (Options(api="dx", dx=DxOptions(token="s")), {"DX_TOKEN": "s"}),
        (
            Options(api="descope", descope=DescopeOptions(project_id="P", management_key="s")),
            {"DESCOPE_TOKEN": "P:s"},
        ),
        (Options(api="scim", scim=ScimOptions(token="s")), {"SCIM_TOKEN": "s"}),
        (Options(api="http", http=HTTP), {"HTTP_CLIENT_ID": "me", "HTTP_CLIENT_SECRET": "s"}),
    ],
)
def test_settings_name_the_credentials(options: Options, names: dict[str, str]) -> None:
    """Each by its name in the environment; what is secret stands in no settings."""
    credentials, settings = told(options, URL)

    assert credentials == names
    table = tomllib.loads(settings)["target"]
    assert (table["api"], table["base_url"]) == (options.api, URL)
    assert {f"env:{name}" for name in names} <= set(table["auth"].values())
    assert all(told(Options(api=options.api), URL)[0].values())


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(calven=CalvenOptions(schemes=frozenset({"basic"}))),
        Options(calven=CalvenOptions(schemes=frozenset({"bearer"}), token="t")),
        Options(api="dx"),
        Options(api="descope"),
        Options(api="scim", scim=ScimOptions(prefix="/scim/v2")),
        Options(api="http"),
        Options(api="http", http=RecordsOptions(body="one", schemes=frozenset({"basic"}))),
        Options(api="http", http=RecordsOptions(results=None, client_auth="body")),
        Options(api="http", http=RecordsOptions(results="", result_key="x", schemes=frozenset({"api-key"}))),
        Options(api="http", http=RecordsOptions(attributes="values", schemes=frozenset({"bearer"}), success=0)),
    ],
)
def test_the_loader_takes_them(tmp_path: Path, options: Options) -> None:
    """Every key is one of the loader's, and none is missing."""
    path = tmp_path / "load.toml"
    path.write_text(f'[export]\npath = "users.csv"\n[mapping]\nuser = "email"\n{told(options, URL)[1]}')

    assert load_settings(path).build_target().api == options.api


def test_what_an_api_without_documents_is_like() -> None:
    """Its paths, its fields and its words are told, as its options say; more is not."""
    odd = {"path": "/in", "method": "PUT", "wrapper": "rows", "key": "mail", "results": "a.b", "success": True}

    assert tables(Options(api="http", http=RecordsOptions.model_validate(odd))) == {
        "api": "http",
        "base_url": URL,
        "path": "/in",
        "method": "PUT",
        "user": "mail",
        "wrapper": "rows",
        "results": "a.b",
        "result_user": "mail",
        "result_code": "status",
        "success": [True],
        "not_found": ["not_found"],
        "token_url": "/oauth/token",
        "client_auth": "basic",
        "auth": {"scheme": "oauth2", "key_id": "env:HTTP_CLIENT_ID", "secret": "env:HTTP_CLIENT_SECRET"},
    }
    assert tables(Options(api="http", http=RecordsOptions(body="list"))) == {}


def test_a_base_path_is_part_of_the_address() -> None:
    """Where all of an API's paths begin alike, that is where it is."""
    assert tables(Options(api="scim", scim=ScimOptions(prefix="/scim/v2")))["base_url"] == f"{URL}/scim/v2"

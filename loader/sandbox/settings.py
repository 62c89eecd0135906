"""What it takes to load into a sandbox: credentials for the environment, and the lines of settings that name them."""

from collections.abc import Mapping
from typing import get_args

import orjson

from loader.sandbox.options import Options, RecordsOptions, RecordsScheme, Scheme

_GIVEN = "the one given"  # a fixed bearer token: who named it knows it


def told(options: Options, url: str) -> tuple[dict[str, str], str]:
    """The credentials, by the names that the settings use, and the tables [target] and [target.auth], as TOML."""
    match options.api:
        case "calven":
            calven = options.calven
            own = {"CALVEN_KEY_ID": calven.key_id, "CALVEN_SECRET": calven.secret}
            scheme = next(scheme for scheme in get_args(Scheme) if scheme in calven.schemes)
            keys = {"key_id": "env:CALVEN_KEY_ID", "secret": "env:CALVEN_SECRET"}
            auth = {"scheme": scheme, **({"token": _GIVEN} if scheme == "bearer" else keys)}
            return own, _toml({"api": "calven", "base_url": url}, auth)
        case "dx":
            auth = {"scheme": "bearer", "token": "env:DX_TOKEN"}
            return {"DX_TOKEN": options.dx.token}, _toml({"api": "dx", "base_url": url}, auth)
        case "descope":
            token = f"{options.descope.project_id}:{options.descope.management_key}"
            auth = {"scheme": "bearer", "token": "env:DESCOPE_TOKEN"}
            return {"DESCOPE_TOKEN": token}, _toml({"api": "descope", "base_url": url}, auth)
        case "scim":
            auth = {"scheme": "bearer", "token": "env:SCIM_TOKEN"}
            base_url = url + options.scim.prefix
            return {"SCIM_TOKEN": options.scim.token}, _toml({"api": "scim", "base_url": base_url}, auth)
        case "http":
            http = options.http
            own = {"HTTP_CLIENT_ID": http.client_id, "HTTP_CLIENT_SECRET": http.client_secret}
            if http.body == "list":
                return own, "  # No target sends a list without a wrapper.\n"
            more, auth = _authorized(http)
            return own, _toml({"api": "http", "base_url": url, **_described(http), **more}, auth)


def _described(http: RecordsOptions) -> dict[str, object]:
    """What there are no documents to say of such an API."""
    found: dict[str, object] = {"path": http.path, "method": http.method, "user": http.key}
    if http.attributes is not None:
        found["attributes"] = http.attributes
    if http.body == "wrapped":
        found["wrapper"] = http.wrapper
        if http.results is not None:
            found |= {"results": http.results or ".", "result_user": http.result_key or http.key}
            found |= {"result_code": http.status, "success": [http.success], "not_found": [http.unknown]}
    return found


def _authorized(http: RecordsOptions) -> tuple[dict[str, str], dict[str, str]]:
    """What [target] and [target.auth] hold for the first scheme that the API takes."""
    keys = {"key_id": "env:HTTP_CLIENT_ID", "secret": "env:HTTP_CLIENT_SECRET"}
    match next(scheme for scheme in get_args(RecordsScheme) if scheme in http.schemes):
        case "oauth":
            client_auth = "body" if http.client_auth == "body" else "basic"
            return {"token_url": http.token_path, "client_auth": client_auth}, {"scheme": "oauth2", **keys}
        case "basic":
            return {}, {"scheme": "basic", **keys}
        case "api-key":
            auth = {"scheme": "api-key", "token": "env:HTTP_CLIENT_SECRET"}
            return {"api_key_header": http.api_key_header}, auth
        case _:
            return {}, {"scheme": "bearer", "token": _GIVEN}


def _toml(target: Mapping[str, object], auth: Mapping[str, object]) -> str:
    """TOML writes text, numbers, booleans and lists of them as JSON does."""
    lines = ["[target]", *map(_line, target.items()), "[target.auth]", *map(_line, auth.items())]
    return "".join(f"  {line}\n" for line in lines)


def _line(item: tuple[str, object]) -> str:
    return f"{item[0]} = {orjson.dumps(item[1]).decode()}"

"""No secret in any byte of what a load leaves behind or says, whatever an API makes of it; and nobody else can read it.

The API is the sandbox behind a parrot: it repeats what it was sent, above all who we are, in good answers as it is, and
in refusals and redirects in whatever form a program may write it down. Everything is looked at: files, stdout, stderr.
"""

import asyncio
import base64
import json
import os
import stat
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

import pytest
from anyio import to_thread
from anyio.from_thread import start_blocking_portal

from loader.request import Request, Response
from loader.sandbox import CalvenOptions, DescopeOptions, DxOptions, Options, RecordsOptions, ScimOptions, serve
from tests.end_to_end import oracle
from tests.end_to_end.command import Ended, loader
from tests.test_transport import Server

#: With all that is written otherwise in URLs, in JSON or in base64.
KEY_ID = "key-id/OF+this=test"
SECRET = 'secr3t+"of&the/test"=?%41~'
TOKEN = "t0ken.of-the_test/+~=="

ENVIRONMENT = {"PARROT_KEY": KEY_ID, "PARROT_SECRET": SECRET, "PARROT_TOKEN": TOKEN}
_PAIR = 'key_id = "env:PARROT_KEY"\nsecret = "env:PARROT_SECRET"'
_TOKEN = 'token = "env:PARROT_TOKEN"'


Answer = Callable[[Request], Coroutine[Any, Any, Response]]


class Way(NamedTuple):
    """A target with a scheme: its lines in [target], what the sandbox knows."""

    api: str
    scheme: str
    options: Options
    lines: str = ""
    more: Mapping[str, str] = {}

    def __str__(self) -> str:
        return f"{self.api}-{self.scheme}"


_CALVEN = Options(api="calven", calven=CalvenOptions(key_id=KEY_ID, secret=SECRET, token=TOKEN))
_SCIM = Options(api="scim", scim=ScimOptions(token=TOKEN, basic_user=KEY_ID, basic_password=SECRET))
_HTTP = Options(
    api="http", http=RecordsOptions(client_id=KEY_ID, client_secret=SECRET, token=TOKEN, client_encoding="form")
)
_HTTP_LINES = """path = "/v1/records"
wrapper = "records"
user = "id"
results = "results"
result_user = "id"
result_code = "status"
result_message = "message"
success = ["ok"]
"""
_PROJECT = {"PARROT_TOKEN": f"P2project:{TOKEN}"}
_DESCOPE = Options(api="descope", descope=DescopeOptions(project_id="P2project", management_key=TOKEN))

WAYS = [
    *(Way("calven", scheme, _CALVEN) for scheme in ("hmac", "client-secret", "basic", "bearer")),
    *(Way("calven-hierarchy", scheme, _CALVEN) for scheme in ("hmac", "basic")),
    Way("dx", "bearer", Options(api="dx", dx=DxOptions(token=TOKEN))),
    Way("descope", "bearer", _DESCOPE, more=_PROJECT),
    *(Way("scim", scheme, _SCIM) for scheme in ("bearer", "basic")),
    Way("http", "api-key", Options(api="http", http=RecordsOptions(client_secret=TOKEN)), _HTTP_LINES),
    Way("http", "oauth2", _HTTP, _HTTP_LINES + 'token_url = "/oauth/token"\n'),
    Way("http", "basic", _HTTP, _HTTP_LINES),
]

#: How a program may write down what it was sent.
FORMS: tuple[Callable[[str], str], ...] = (
    str,
    quote_plus,
    lambda text: quote(text, safe=""),
    json.dumps,
    lambda text: json.dumps(text).replace("/", "\\/"),
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: base64.b64encode(b"x" + text.encode()).decode(),
    lambda text: base64.urlsafe_b64encode(b"xy" + text.encode()).decode(),
)


@dataclass
class Parrot:
    """What stands before the sandbox. `refuses`: an answer to everything, instead of some trouble at first.

    `tokens`: those that were handed out. `modes`: of the files in `folder` while a request was on its way.
    """

    folder: Path
    url: str = ""
    refuses: int | None = None
    tokens: set[str] = field(default_factory=set)
    modes: dict[str, int] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)

    def wrap(self, answer: Answer) -> Answer:
        async def repeating(request: Request) -> Response:
            self.modes |= await to_thread.run_sync(modes, self.folder)
            sent = self._sent(request)
            number = next(self.numbers)
            said = FORMS[number % len(FORMS)](sent)
            if self.refuses is not None:
                return Response(self.refuses, {"location": f"http://127.0.0.1:9/?{said}"}, said.encode())
            if number < 12 and number % 3:
                return Response((500, 408)[number % 2], {}, said.encode())
            if b"culprit" in request.body:
                return Response(400, {"content-type": "text/plain"}, said.encode())
            response = await answer(request)
            return self._heard(response, sent)

        return repeating

    def _sent(self, request: Request) -> str:
        """Who says it; and what a call for a token asks with."""
        named = ("authorization", "x-api-key", "X-API-Key", "Authorization")
        said = " ".join(text for name, text in request.headers.items() if name in named)
        if "token" in request.path or "auth" in request.path.lower():
            said += " " + request.body.decode()
        return said

    def _heard(self, response: Response, sent: str) -> Response:
        """A good answer that repeats it beside what it has to say, and in it."""
        try:
            body = json.loads(response.body)
        except ValueError:
            return response
        if not isinstance(body, dict):
            return response
        if token := body.get("token") or body.get("access_token"):
            self.tokens.add(token)
        for results in body.values():
            for result in results if isinstance(results, list) else ():
                if isinstance(result, dict):
                    result |= {"message": sent, "resultMessage": sent}
        return replace(response, body=json.dumps({**body, "debug": sent}).encode())


@contextmanager
def parrot(options: Options, folder: Path) -> Iterator[Parrot]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serve(options)) as sandbox:
        found = Parrot(folder, sandbox.url)
        sandbox.answer = found.wrap(sandbox.answer)  # type: ignore[method-assign, assignment]
        yield found


def modes(folder: Path) -> dict[str, int]:
    found = {}
    for path in folder.iterdir():
        try:
            found[path.name] = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            pass  # a log or a draft, that has gone
    return found


class Load:
    """One load in a folder of its own, which is the working directory; all that it says is kept."""

    def __init__(self, folder: Path, way: Way) -> None:
        self.folder = folder
        self.way = way
        self.said: list[Ended] = []
        self.given = {"load.toml", "export.csv"}
        if way.api == "calven-hierarchy":
            text, mapping = "group,groupType,parent,parentType\nculprits,Team,,\nb,Team,culprits,Team\n", ""
        else:
            text = "email,Dept\n" + "".join(f"{name}@x.com,Sales\n" for name in ("a", "b", "culprit", "d")) + ",Sales\n"
            mapping = '[mapping]\nuser = "email"\nattributes = { department = "Dept" }\n'
        (folder / "export.csv").write_text(text)
        (folder / "load.toml").write_text(
            f'[export]\npath = "export.csv"\n{mapping}[target]\napi = "{way.api}"\nbase_url = "http://127.0.0.1:9"\n'
            f'{way.lines}[target.auth]\nscheme = "{way.scheme}"\n'
            f"{_TOKEN if way.scheme in ('bearer', 'api-key') else _PAIR}\n"
            "[limits]\ngive_up_s = 3\nrequests_per_minute = 60_000\n"
        )

    def loader(self, *arguments: str, status: int | tuple[int, ...] = (0, 1)) -> Ended:
        ended = loader(*arguments, environment={**ENVIRONMENT, **self.way.more})
        self.said.append(ended)
        assert ended.status in (status if isinstance(status, tuple) else (status,)), ended.err
        return ended

    def everything(self) -> str:
        """All files, which it must have made for their owner alone, and all that was said."""
        found = [*self.said]
        assert modes(self.folder) | dict.fromkeys(self.given, 0o600) == dict.fromkeys(modes(self.folder), 0o600)
        files = [path.read_bytes().decode("latin-1") for path in self.folder.iterdir()]
        return "\n".join([*files, *(ended.out + ended.err for ended in found)])


def traces(secret: str) -> list[str]:
    """A secret in every form. Of base64 only what the neighbours have no part in: it may begin anywhere."""
    found = [form(secret) for form in FORMS[:3]] + [form(secret)[1:-1] for form in FORMS[3:5]]
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found += [encode(b"x" * shift + secret.encode() + b"xxx").decode()[4:-7] for shift in range(3)]
    return found


def assert_secret(text: str, *secrets: str) -> None:
    for secret in secrets:
        for trace in traces(secret):
            assert len(trace) >= 8
            at = text.find(trace)
            assert at < 0, f"{trace} in: {text[max(at - 200, 0) : at + 100]}"


@pytest.fixture(autouse=True)
def _quick_and_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Backoffs that are hardly any; a working directory for crash files; files are anybody's, unless told otherwise."""
    monkeypatch.setattr("loader.retry.BASE_S", 0.01)
    monkeypatch.chdir(tmp_path)
    old = os.umask(0)
    yield
    os.umask(old)


def test_the_traces_are_found_in_what_a_parrot_says() -> None:
    """Else nothing would be proved by what follows."""
    for form in FORMS:
        said = form(f"Basic x {SECRET} y")
        assert any(trace in said for trace in traces(SECRET))


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_no_secret_in_anything_that_a_load_leaves_or_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    """From the check to the results, with refusals, a redirect, wrong credentials and an internal error on the way."""
    load = Load(tmp_path, way)
    with parrot(way.options, tmp_path) as api:
        target = ("--set", f"target.base_url={api.url}")
        load.loader("check", "load.toml", *target, "--show", "--format", "json", status=(0, 1, 3))
        load.loader("run", "load.toml", *target)
        load.loader("run", "load.toml", *target)
        load.loader("retry", "load.toml", *target)
        for form in ("text", "json"):
            load.loader("status", "export.ckpt", "--format", form)
        for form in ("csv", "ndjson"):
            load.loader("results", "export.ckpt", "--format", form, "-o", f"results.{form}")
        if way.api != "calven-hierarchy":
            load.loader("results", "export.ckpt", "--rows", "-o", "rows.csv")
        name = "token" if way.scheme in ("bearer", "api-key") else "secret"
        literal = f"target.auth.{name}={way.more.get('PARROT_TOKEN', TOKEN)}"
        for api.refuses, more in ((302, ()), (401, ()), (403, ()), (404, ()), (500, ("--set", literal))):
            another = ("--set", f"checkpoint.path={api.refuses}.ckpt", "--set", "limits.give_up_s=0.1")
            load.loader("run", "load.toml", *target, *another, *more, status=3)
        api.refuses = None

        async def broken(self: object, request: Request) -> Response:
            raise RuntimeError(f"{self!r} can't do {request!r}")

        monkeypatch.setattr("loader.transport.Transport.__call__", broken)
        load.loader("run", "load.toml", *target, "--set", "checkpoint.path=broken.ckpt", status=3)

    assert "internal error" in load.said[-1].err
    assert list(tmp_path.glob("loader-crash-*"))
    assert {"export.ckpt-wal", "export.ckpt-shm", "export.ckpt.lock"} <= set(api.modes)
    assert {name: oct(mode) for name, mode in api.modes.items() if mode != 0o600 and name not in load.given} == {}
    text = load.everything()
    assert "***" in text, "nothing was repeated, so nothing is shown"
    assert_secret(text, SECRET, TOKEN, *api.tokens)


def test_nor_in_the_figures_of_a_bench(tmp_path: Path) -> None:
    load = Load(tmp_path, WAYS[0])
    with parrot(WAYS[0].options, tmp_path) as api:
        settings = ("load.toml", "--set", f"target.base_url={api.url}")
        load.loader("bench", *settings, "--seconds", "1", "--users", "3", "-o", "bench.json", status=(0, 1, 3))

    assert (tmp_path / "bench.json").exists()
    assert_secret(load.everything(), SECRET, TOKEN, *api.tokens)


def test_nor_where_python_tells_all_it_knows(tmp_path: Path) -> None:
    """A process of its own, in Python's development mode and with asyncio's debug log."""
    load = Load(tmp_path, WAYS[0])
    debug = {"PYTHONDEVMODE": "1", "PYTHONASYNCIODEBUG": "1", **ENVIRONMENT}
    with parrot(WAYS[0].options, tmp_path) as api:
        settings = (tmp_path / "load.toml", "--set", f"target.base_url={api.url}")
        load.said.append(Ended(*oracle.run("run", *settings, environment=debug)))

    assert load.said[0].status == 1, load.said[0].err
    assert_secret(load.everything(), SECRET, *api.tokens)


@pytest.mark.parametrize("way", [way for way in WAYS if way.scheme in ("basic", "bearer", "api-key")], ids=str)
def test_nor_where_an_answer_is_not_http_and_is_shown(tmp_path: Path, way: Way) -> None:
    """Headers of ours come back in a way that the parser complains of, in their words."""

    async def echo(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = served.requests[-1].split(b"\r\n")
        (ours,) = (line for line in lines if line.lower().startswith((b"authorization:", b"x-api-key:")))
        writer.write(b"HTTP/1.1 200 OK\r\n" + ours + b"\0\r\n\r\n")
        await writer.drain()

    served = Server(echo)
    load = Load(tmp_path, way)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(served.run()):
        address = ("--set", f"target.base_url={served.url}", "--set", "limits.give_up_s=0.05")
        ended = load.loader("run", "load.toml", *address, status=3)

    assert "the answer is not HTTP" in ended.err
    assert "***" in ended.err, "it was not shown"
    assert_secret(load.everything(), SECRET, TOKEN)

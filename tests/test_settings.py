"""Settings: every mistake names its key and the way out, and no secret is ever shown."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from loader.batch import BatchLimits
from loader.errors import ExportError, SettingsError
from loader.settings import Settings, access_from, arguments, load_settings
from tests import make

SECRET = "hunter2-hunter2"


def refusal(folder: Path, *overrides: str, text: str = make.SETTINGS) -> str:
    """The message with which the settings are refused, without the file's name."""
    with pytest.raises(SettingsError) as caught:
        make.settings(folder, text, overrides)
    return str(caught.value).removeprefix(f"{folder / 'load.toml'}: ")


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    """Or the target's own."""
    made = make.settings(tmp_path)

    assert made.limits.model_dump() == {
        "users_per_request": None,
        "bytes_per_request": None,
        "requests_per_minute": None,
        "quota": None,
        "concurrency": 16,
        "timeout_s": 30.0,
        "attempts": 8,
        "max_failures": "100%",
        "give_up_s": 600.0,
    }
    assert made.batch_limits == BatchLimits(100, 1_000_000)
    assert made.quotas == []
    assert (made.mapping.empty, made.mapping.types, made.mapping.attributes) == ("omit", {}, None)
    assert made.export.max_row_bytes == 1_048_576


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("exprt.path=x", "exprt is not a setting; did you mean export?"),
        ("folder=x", "folder is not a setting; known here: export, mapping, target, limits, checkpoint"),
        ("export.pth=x", "export.pth is not a setting; did you mean path?"),
        ("mapping.users=x", "mapping.users is not a setting; did you mean user?"),
        ("limits.concurency=4", "limits.concurency is not a setting; did you mean concurrency?"),
        ("limits.zzz=4", "limits.zzz is not a setting; known here: users_per_request, bytes_per_request"),
        ("checkpoint.file=x", "checkpoint.file is not a setting"),
        ("target.regoin=x", "target.regoin is not a setting; did you mean region?"),
        ("target.baseurl=x", "target.baseurl is not a setting; did you mean base_url?"),
        ("target.auth.secrets=x", "target.auth.secrets is not a setting of hmac; did you mean secret?"),
        ("target.auth.token=x", "target.auth.token is not a setting of hmac; it takes key_id and secret"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(tmp_path: Path, override: str, message: str) -> None:
    """At every level."""
    assert refusal(tmp_path, override).startswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("export.path=5", "export.path: 5 is not a text in quotes"),
        ("export.path=", "export.path: '' is not a path: it must not be empty"),
        (
            "export.format=xml",
            "export.format: 'xml' is not 'csv', 'tsv', 'ndjson', 'json', 'parquet' or 'arrow'",
        ),
        (
            "export.delimiter=ab",
            "export.delimiter: 'ab' is not a single ASCII character that is neither a quote nor a line end",
        ),
        ("export.delimiter=§", "export.delimiter: '§' is not a single ASCII character"),
        ("export.delimiter='\"'", "export.delimiter: '\"' is not a single ASCII character"),
        ('export.delimiter="\\n"', "export.delimiter: '\\n' is not a single ASCII character"),
        ("export.max_row_bytes=0", "export.max_row_bytes: 0 is too little: the least is 1"),
        ("mapping.types.n=int", "mapping.types.n: 'int' is not 'string', 'number', 'boolean' or 'json'"),
        ("mapping.empty=drop", "mapping.empty: 'drop' is not 'omit', 'null' or 'keep'"),
        ("mapping.attributes={}", "mapping.attributes: {} is empty: leave the key out, or give it a value"),
        ("mapping.attributes.a=5", "mapping.attributes.a: 5 is not a text in quotes"),
        ("limits=5", "limits: 5 is not a table"),
        ("limits.concurrency=0", "limits.concurrency: 0 is too little: the least is 1"),
        ("limits.concurrency=true", "limits.concurrency: true is not a whole number"),
        ('limits.concurrency="4"', "limits.concurrency: '4' is not a whole number"),
        ("limits.timeout_s=nan", "limits.timeout_s: nan is not a finite number"),
        ("limits.timeout_s=0", "limits.timeout_s: 0 is too little: it must be more than 0"),
        ("limits.requests_per_minute=inf", "limits.requests_per_minute: inf is not a finite number"),
        ("limits.max_failures=-1", 'limits.max_failures: -1 is not a count such as 100, or share such as "5%"'),
        ("limits.max_failures=true", "limits.max_failures: true is not a count such as 100"),
        ("limits.max_failures=some", "limits.max_failures: 'some' is not a count such as 100"),
        *(
            (
                f"limits.quota={wrong}",
                f'limits.quota: {shown} is not a list such as ["500/60s", "5000 users/60s"]: each of a number above 0',
            )
            for wrong, shown in (
                ('["500"]', "['500']"),
                ('["500/60s", "0/60s"]', "['500/60s', '0/60s']"),
                ('["5 rows/60s"]', "['5 rows/60s']"),
                ('"500/60s"', "'500/60s'"),
                ("[]", "[]"),
                ("[5]", "[5]"),
            )
        ),
        ("notify.command=[5]", "notify.command: 5 is not a"),
        ("target=x", "target: what stands there is not a table"),
        ("target.api=calvn", "target.api: 'calvn' is not an API; known: calven, "),
        ("target.api=[1]", "target.api is missing: one of calven"),
        ("target.write=add", "target.write: 'add' is not 'merge' or 'replace'"),
        ("target.path=v1/x", "target.path: 'v1/x' is not written as it must be: ^/"),
        ("target.region='a b'", "target.region: 'a b' is not written as it must be: "),
        ("target.result_codes.3=MAYBE", "target.result_codes.3: 'MAYBE' is not 'SUCCESS', 'USER_NOT_FOUND'"),
        ("target.result_codes.3=REJECTED", "target.result_codes.3: 'REJECTED' is not 'SUCCESS', 'USER_NOT_FOUND'"),
        ("target.auth=x", "target.auth.scheme is missing: one of hmac, client-secret, basic, bearer"),
        ("target.auth.scheme=oauth", "target.auth.scheme: 'oauth' is not one of hmac, client-secret, basic, bearer"),
        ("target.auth.scheme=['hmac']", "target.auth.scheme: ['hmac'] is not one of"),
        ("target.auth.scheme=bearer", "target.auth.key_id is not a setting of bearer; it takes token"),
        ("target.auth.key_id=''", "target.auth.key_id is missing"),
        ("target.auth.secret=5", "target.auth.secret is missing"),
        ("target.base_url=5", "target.base_url: 5 is not an address"),
        ("target.base_url=api.calven.com", "target.base_url: 'api.calven.com' is not an address"),
        ("target.base_url=ftp://x", "target.base_url: 'ftp://x' is not an address"),
        ("target.base_url=https://x:99999", "target.base_url: 'https://x:99999' is not an address"),
        ("target.base_url='https://x y'", "target.base_url: 'https://x y' is not an address"),
        ('target.base_url="https://x\\n"', "target.base_url: 'https://x\\n' is not an address"),
        ("target.base_url=https://x/?q", "target.base_url: 'https://x/?q' is not an address"),
    ],
)
def test_a_wrong_value_names_its_key(tmp_path: Path, override: str, message: str) -> None:
    """And what would be right."""
    assert refusal(tmp_path, override).startswith(message)


@pytest.mark.parametrize("table", ["export", "target", "target.auth"])
def test_a_missing_table_is_named(tmp_path: Path, table: str) -> None:
    """As far as it is needed."""
    text = re.sub(rf"\[{re.escape(table)}\]\n([^\[].*\n)*", "", make.SETTINGS)

    assert refusal(tmp_path, text=text).split()[0].startswith(table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[export", "is not valid TOML: "),
        (b"a = 1\na = 2", "is not valid TOML: "),
        (b"\xff", "is not UTF-8: invalid start byte at byte 0"),
    ],
)
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    """With the place."""
    path = tmp_path / "load.toml"
    path.write_bytes(content)

    with pytest.raises(SettingsError, match=message):
        load_settings(path)


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    """Some editors write one."""
    path = tmp_path / "load.toml"
    path.write_text(make.SETTINGS, "utf-8-sig")

    assert load_settings(path).api.api == "calven"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(SettingsError, match=r"can't read the settings .*load\.toml: No such file"):
        load_settings(tmp_path / "load.toml")


# Overrides


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("limits.max_failures=5", 5),
        ("limits.max_failures=5%", "5%"),
        ('limits.max_failures="5%"', "5%"),
        ("limits.max_failures=0.5%", "0.5%"),
        (" limits.max_failures = 7", 7),
    ],
)
def test_an_override_is_a_toml_value_or_else_text(tmp_path: Path, override: str, value: Any) -> None:
    """For any key; the last one wins."""
    made = make.settings(tmp_path, overrides=["limits.max_failures=1", override])

    assert made.limits.max_failures == value


def test_overrides_make_the_tables_they_need(tmp_path: Path) -> None:
    """Names in them may hold spaces."""
    made = make.settings(tmp_path, overrides=["mapping.attributes.cost=Cost Centre", "export.delimiter=;"])

    assert made.mapping.attributes == {"cost": "Cost Centre"}
    assert made.export.delimiter == ";"


def test_give_up_may_be_never(tmp_path: Path) -> None:
    """Infinity is a number of seconds, too."""
    assert math.isinf(make.settings(tmp_path, overrides=["limits.give_up_s=inf"]).limits.give_up_s)


# Paths


def test_relative_paths_begin_at_the_settings_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the command is given."""
    (tmp_path / "a").mkdir()
    made = make.settings(tmp_path / "a", overrides=["export.path=../x/users.csv.gz"])

    assert made.source.paths[0] == tmp_path / "a/../x/users.csv.gz"
    assert made.checkpoint_path == tmp_path / "a/../x/users.ckpt"
    monkeypatch.chdir(tmp_path / "a")
    assert load_settings(Path("load.toml")).source.paths[0] == tmp_path / "a/users.csv"


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        (["export.path=/data/u.2024.ndjson.gz"], "/data/u.2024.ckpt"),
        (["export.path=/data/u.txt", "export.format=csv"], "/data/u.txt.ckpt"),
        (["checkpoint.path=/else/x"], "/else/x"),
        (["export.path=/", "export.format=csv"], "/.ckpt"),
    ],
)
def test_the_checkpoint_stands_beside_the_export(tmp_path: Path, overrides: list[str], path: str) -> None:
    """Under its name without format and compression, unless the settings say otherwise."""
    assert make.settings(tmp_path, overrides=overrides).checkpoint_path == Path(path)


def test_a_name_that_tells_no_format_is_refused(tmp_path: Path) -> None:
    """With the setting that would."""
    with pytest.raises(ExportError, match=r"export.format: 'users\.txt'"):
        _ = make.settings(tmp_path, overrides=["export.path=users.txt"]).source


# The target


@pytest.mark.parametrize(
    "url",
    ["http://localhost:1", "http://127.0.0.1", "http://127.1.2.3:80", "http://[::1]:8080/x/", "HTTPS://API.example"],
)
def test_plain_http_is_for_loopback(tmp_path: Path, url: str) -> None:
    """Where credentials go nowhere."""
    assert make.settings(tmp_path, overrides=[f"target.base_url={url}"]).base_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["http://api.calven.com", "http://127.0.0.1.example", "http://10.0.0.1", "http://0.0.0.0"]
)
def test_credentials_never_go_in_the_clear(tmp_path: Path, url: str) -> None:
    """However near the host seems."""
    assert "would send credentials in the clear" in refusal(tmp_path, f"target.base_url={url}")


def test_the_target_gets_its_own_settings(tmp_path: Path) -> None:
    """And knows which scheme is in use; the vendor's address is the default."""
    text = make.SETTINGS.replace('base_url = "http://127.0.0.1:8080"', 'region = "ause1"')
    made = make.settings(tmp_path, text, ["target.result_codes.3=INVALID"])
    target = made.build_target()

    assert made.base_url == "https://api.calven.com"
    assert target.model_dump()["region"] == "ause1"
    assert target.auth == "hmac"


def test_the_load_is_known_by_what_shapes_it(tmp_path: Path) -> None:
    """Not by credentials, limits, or where things stand: a rotated secret must resume."""
    same = make.settings(tmp_path).identity()
    for override in ("limits.concurrency=1", "target.auth.secret=other", "checkpoint.path=x", "export.path=y.csv"):
        assert make.settings(tmp_path, overrides=[override]).identity() == same
    for override in (
        "export.format=tsv",
        "export.delimiter=;",
        "export.max_row_bytes=99",
        "mapping.user=upn",
        "mapping.empty=null",
        "mapping.types.a=json",
        "mapping.attributes.a=b",
        "target.base_url=https://x",
        "target.write=replace",
    ):
        key = override.partition("=")[0]
        other = make.settings(tmp_path, overrides=[override]).identity()
        assert [name for name in same if other[name] != same[name]] == [re.sub(r"\.a$", "", key)]


# Secrets


def auth(folder: Path, value: str) -> Settings:
    return make.settings(folder, make.SETTINGS.replace("env:CALVEN_SECRET", value))


@pytest.mark.parametrize(
    ("content", "secret"),
    [("s3", "s3"), ("s3\n", "s3"), ("s3\r\n", "s3"), (" s3 ", " s3 "), ("a:b", "a:b"), ("pä$$", "pä$$")],
)
def test_a_secret_in_a_file_loses_one_line_end(tmp_path: Path, content: str, secret: str) -> None:
    """And nothing else; the path is relative to the settings."""
    (tmp_path / "secret").write_bytes(content.encode())

    assert auth(tmp_path, "file:secret").secrets() == {"key_id": "KEY", "secret": secret}


def test_a_secret_is_read_anew_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a rotated one is found."""
    made = make.settings(tmp_path)
    for secret in ("one", "two"):
        monkeypatch.setenv("CALVEN_SECRET", secret)
        assert made.secrets()["secret"] == secret


def test_a_literal_secret_is_warned_about(tmp_path: Path) -> None:
    """One that is pointed at is not; neither is a key's name."""
    assert auth(tmp_path, "a:literal").secrets()["secret"] == "a:literal"
    assert auth(tmp_path, "a:literal").literal_secrets() == ["target.auth.secret"]
    assert make.settings(tmp_path).literal_secrets() == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("env:NOT_THERE", "target.auth.secret: the environment variable NOT_THERE is not set"),
        ("env:EMPTY", "target.auth.secret: the environment variable EMPTY is empty"),
        ("file:nowhere", "target.auth.secret: can't read the file nowhere: No such file or directory"),
        ("file:folder", "target.auth.secret: can't read the file folder: Is a directory"),
        ("file:empty", "target.auth.secret: the file empty is empty"),
        ("file:binary", "target.auth.secret: can't read the file binary: not UTF-8"),
        ("file:lines", "target.auth.secret: the text holds a line break"),
        ("env:LINES", "target.auth.secret: the text holds a line break"),
    ],
)
def test_a_secret_that_can_not_be_had_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    """By its key and where it was looked for, and without a word of it."""
    monkeypatch.delenv("NOT_THERE", raising=False)
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("LINES", f"{SECRET}\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "lines").write_text(f"{SECRET}\n\n")

    with pytest.raises(SettingsError) as caught:
        auth(tmp_path, value).secrets()

    assert str(caught.value).startswith(message)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "limits.concurrency=0",
        "target.zzz=1",
        "target.region=5",
        "target.auth.zzz=1",
        "target.auth.scheme=zzz",
        "target.auth.key_id=5",
        "target=hunter2-hunter2",
        "target.auth=hunter2-hunter2",
        "target.secret=hunter2-hunter2",
        "target.auth.token=hunter2-hunter2",
        "target.auth.secret.x=hunter2-hunter2",
        "target.auth.secret:hunter2-hunter2",
        "target.base_url=https://user:hunter2-hunter2@api.example",
        "target.base_url=https://:hunter2-hunter2@api.example",
        "zzz=1",
    ],
)
def test_no_message_shows_a_secret(tmp_path: Path, override: str) -> None:
    """Whatever else is wrong, and wherever the secret was put by mistake."""
    text = make.SETTINGS.replace("env:CALVEN_SECRET", SECRET)

    assert SECRET not in refusal(tmp_path, override, text=text)


def test_settings_do_not_print_their_secrets(tmp_path: Path) -> None:
    """Not even those that stand in the file."""
    made = auth(tmp_path, SECRET)

    assert SECRET not in repr(made) + str(made) + f"{made!r}" + repr(made.identity()) + repr(made.build_target())


# Exports that lie elsewhere


def located(folder: Path, path: str, more: str = "") -> Settings:
    """With a checkpoint, as an address gives none."""
    text = make.SETTINGS.replace("users.csv", path).replace("[mapping]", f"{more}\n[mapping]")
    return make.settings(folder, text, ["checkpoint.path=users.ckpt"])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("ftp://example.com/users.csv", "export.path: ftp:// can't be read here; known: s3, gs, az, https"),
        ("http://example.com/users.csv", "export.path: http would show the export to everybody on the way"),
        ("https://user:hunter2-hunter2@example.com/users.csv", "credentials don't belong into the address"),
        ("https://", "export.path: not an address such as https://example.com/users.csv"),
        ("https://example.com:x/users.csv?sig=hunter2-hunter2", "export.path: not an address"),
        ("s3://exports", "export.path: write it as s3://bucket/path/to/users.csv"),
        ("s3://exports/", "export.path: write it as s3://bucket/path/to/users.csv"),
    ],
)
def test_an_address_that_cant_be_one_is_refused(tmp_path: Path, path: str, message: str) -> None:
    found = refusal(tmp_path, f"export.path={path}")

    assert message in found
    assert SECRET not in found


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["export.storage.region=eu"], "export.storage is for an address such as s3://bucket/users.csv"),
        (
            ["export.path=s3://b/k.csv", "export.storage.regin=eu"],
            "regin is not a setting; did you mean region?",
        ),
        (["export.path=s3://b/k.csv", "export.storage.endpoint=http://example.com"], "plain http is for loopback"),
        (
            ["export.path=https://h/k.csv", 'export.storage.headers={"a b"="hunter2-hunter2"}'],
            "'a b' can't be the name",
        ),
        (
            ["export.path=https://h/k.csv", "export.storage.headers=hunter2-hunter2"],
            "export.storage.headers: what stands there is not a table",
        ),
    ],
)
def test_the_way_to_an_address_is_checked(tmp_path: Path, overrides: list[str], message: str) -> None:
    found = refusal(tmp_path, *overrides)

    assert message in found
    assert SECRET not in found


@pytest.mark.parametrize("path", ["s3://exports/users.csv", "https://example.com/users.csv", "env:EXPORT_URL"])
def test_an_address_gives_the_checkpoint_no_name(tmp_path: Path, path: str) -> None:
    made = make.settings(tmp_path, make.SETTINGS.replace("users.csv", path))

    with pytest.raises(SettingsError, match=r"checkpoint\.path is missing"):
        _ = made.checkpoint_path
    assert located(tmp_path, path).state_path == tmp_path / "users.state"


def test_an_address_may_stand_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = located(tmp_path, "env:EXPORT_URL")

    with pytest.raises(SettingsError, match=r"export\.path: the environment variable EXPORT_URL is not set"):
        _ = made.source
    monkeypatch.setenv("EXPORT_URL", SECRET)
    with pytest.raises(SettingsError, match="what it points at is no address") as refused:
        _ = made.source
    assert SECRET not in str(refused.value)
    monkeypatch.setenv("EXPORT_URL", f"https://example.com/users.csv.gz?sig={SECRET}")
    assert str(made.source) == "https://example.com/users.csv.gz?…"
    assert made.source.format == "csv"
    assert made.literal_secrets() == []


def test_secrets_of_an_address_are_shown_and_kept_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORT_TOKEN", SECRET)
    headers = f'[export.storage]\nheaders = {{ Authorization = "env:EXPORT_TOKEN", "X-Key" = "{SECRET}" }}'
    made = located(tmp_path, f"https://example.com/users.csv?sig={SECRET}", headers)

    assert made.literal_secrets() == ["export.path", "export.storage.headers.X-Key"]
    assert made.export.name == "https://example.com/users.csv?…"
    assert made.access.headers() == {"Authorization": SECRET, "X-Key": SECRET}
    for text in (repr(made), str(made), repr(made.source), str(made.source), repr(made.access.facts)):
        assert SECRET not in text
    again = access_from(made.access.facts)
    with pytest.raises(ExportError, match="needs the header X-Key"):
        again.headers()


def test_the_signature_of_an_address_in_a_query_is_kept_nowhere(tmp_path: Path) -> None:
    query = f"select * from 'https://example.com/u.csv?name=u(1)&sig={SECRET}' where a = '?'"
    made = located(tmp_path, "users.csv")
    export = made.export.model_copy(update={"path": None, "query": query, "database": "duckdb://"})
    made = made.model_copy(update={"export": export})

    assert made.shown()["export"]["query"] == "select * from 'https://example.com/u.csv?…' where a = '?'"
    assert SECRET not in repr(made._asked())


def test_a_checkpoint_keeps_the_way_to_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORT_TOKEN", SECRET)
    table = '[export.storage]\nregion = "eu-west-1"\nheaders = { Authorization = "env:EXPORT_TOKEN" }'
    made = located(tmp_path, "https://example.com/users.csv", table).access

    again = access_from(json.loads(json.dumps(made.facts)))

    assert (again.region, again.anonymous, again.endpoint) == ("eu-west-1", False, None)
    assert again.headers() == {"Authorization": SECRET}
    assert access_from({}).headers() == {}


@pytest.mark.parametrize(
    ("override", "kept"),
    [
        ("limits.concurrency=4", "limits.concurrency=4"),
        ("target.auth.scheme=basic", "target.auth.scheme=basic"),
        ("target.auth.secret=env:NAME", "target.auth.secret=env:NAME"),
        ("target.auth.secret=hunter2", "target.auth.secret=…"),
        ('target.auth={secret="hunter2"}', "target.auth=…"),
        ('target.auth={scheme="hmac", key_id="env:K", secret="hunter2"}', "target.auth=…"),
        ('target.auth={scheme="bearer", token="env:T"}', 'target.auth={scheme="bearer", token="env:T"}'),
        ('target={auth={secret="hunter2"}}', "target=…"),
        ("network.proxy=http://ann:hunter2@proxy:3128", "network.proxy=…"),
        ("export.database=postgresql://ann:hunter2@h/d", "export.database=…"),
        ("export.database=file:url", "export.database=file:url"),
        ("export.query=select * from 'https://h/x.csv?sig=hunter2'", "export.query=…"),
        ("export.path=https://h/x.csv?sig=hunter2", "export.path=https://h/x.csv?…"),
        ('export.path="https://h/x.csv?sig=hunter2"', "export.path=https://h/x.csv?…"),
        ("export.path=b c.csv", "export.path=b c.csv"),
        ("export.storage.headers.Authorization=hunter2", "export.storage.headers.Authorization=…"),
        ("export.options.token=hunter2", "export.options.token=…"),
        ('notify.command=["curl", "hunter2"]', "notify.command=…"),
    ],
)
def test_what_is_kept_of_an_override_holds_no_secret(override: str, kept: str) -> None:
    """It stands in messages, which are logged, and in the checkpoint."""
    assert arguments(Path("load.toml"), [override]) == ["load.toml", "--set", kept]

"""The settings file: TOML into checked, frozen values. The only reader of the environment and of secrets' files.

Every error names the key, what is wrong with it, and the nearest valid one. The text below a key says what it means: it
becomes the reference in docs/settings.md, and what an editor shows (schema.py). What checks a value by code says beside
it, as JSON Schema, what it takes.
"""

import glob
import os
import re
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
)

from loader.batch import BatchLimits
from loader.errors import ExportError, SettingsError
from loader.export import Export
from loader.export.address import SCHEMES, STORES, Access, scheme_of, shown, without_secrets
from loader.export.files import Files, Format, matching, stem
from loader.mapping import Empty, RowMapping, Type
from loader.network import Network, Proxy, is_loopback, tls_of
from loader.outcome import GOOD, Code
from loader.refresh.night import Missing, Rules
from loader.target import NOT_A, Target, WholeTarget, not_a
from loader.targets import find, known
from loader.tempo.quota import Pace, Quota, fitting, pace_of
from loader.whole import Store

if TYPE_CHECKING:
    from loader.sources import CustomSource


class _Table(BaseModel):
    # strict: true is no number, and "4" is none either
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


_DELIMITER = {"type": "string", "pattern": r"^[\x00-\x09\x0b\x0c\x0e-\x21\x23-\x7f]$"}


def _delimiter(text: str) -> str:
    if len(text) != 1 or not text.isascii() or text in '"\r\n':
        raise not_a("single ASCII character that is neither a quote nor a line end")
    return text


#: What `_count_or_share` takes, for editors.
_COUNT_OR_SHARE = WithJsonSchema(
    {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"}]}
)


def _count_or_share(value: object) -> str | int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?%", value):
        return value
    raise not_a('count such as 100, or share such as "5%"')


def _known_encoding(name: str) -> str:
    try:
        "".encode(name)  # codecs.lookup() knows some that are no encodings of text, such as hex
        b"a".decode(name, "surrogateescape")  # and some can't keep a bad byte for its row to be told, such as idna
    except UnicodeDecodeError:
        pass  # half a letter
    except (LookupError, ValueError, TypeError):
        raise not_a("known encoding such as utf-8, utf-16 or cp1252") from None
    return name


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise not_a("path: it must not be empty, nor hold a NUL")
    return text


_Path = Annotated[str, AfterValidator(_path)]


def _quotas(value: object) -> list[str]:
    try:
        if isinstance(value, list) and value and all(map(Quota.parse, value)):
            return value
    except (ValueError, AttributeError):  # one of them is none, or no text
        pass
    raise not_a('list such as ["500/60s", "5000 users/60s"]: each of a number above 0 and a time in s, min or h')


#: The same for editors.
_QUOTAS = WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1})


class StorageTable(_Table):
    """`[export.storage]`: how an export that lies elsewhere is reached."""

    endpoint: str | None = None
    """the address of a store that speaks as S3, Google's or Azure's does; plain `http` only to loopback. Not set: the
    vendor's"""
    region: str | None = None
    """of S3; not set: `AWS_REGION`, or the profile's"""
    account: str | None = None
    """of Azure; not set: `AZURE_STORAGE_ACCOUNT_NAME`"""
    anonymous: bool = False
    """ask as nobody"""
    headers: dict[str, str] = Field(default={}, repr=False)  # they may be secrets
    """`{ Authorization = "env:EXPORT_TOKEN" }`, for https: `env:NAME`, `file:PATH`, or the text itself, which is
    warned about"""


class ExportTable(_Table):
    """`[export]`. `path`: an address may hold a secret."""

    path: _Path | None = Field(default=None, repr=False)
    """a file, a pattern such as `users-*.csv`, `-` for stdin, or
    [an address](sources.md#object-stores-and-https): `s3://`, `gs://`, `az://`, `https://`; `env:NAME` or `file:PATH`
    where that is a secret"""
    query: Annotated[str, Field(min_length=1)] | None = None
    """instead of `path`: the rows of a [database query](sources.md#databases)"""
    database: Annotated[str, Field(min_length=1)] | None = Field(default=None, repr=False)  # it may hold a password
    """its URL, `env:NAME` or `file:PATH`: `postgresql://`, `mysql://`, `sqlite:///`, `duckdb://`,
    `snowflake://`"""
    order_by: str | None = None
    """the column that tells the rows of a query apart:
    [they come in its order](sources.md#order-and-how-a-run-goes-on). Not set: that of `mapping.user`; `""`: none"""
    source: str | None = None
    """instead of `path`: the name of [a source of an installed package](sources.md#a-source-of-your-own)"""
    options: dict[str, Any] | None = Field(default=None, repr=False)  # it may hold secrets
    """what that source takes, as a table `[export.options]`"""
    format: Format | None = None
    """`csv`, `tsv`, `ndjson`, `json`, `parquet` or `arrow`: [formats](formats.md). Not set: the name tells"""
    delimiter: Annotated[str, AfterValidator(_delimiter), WithJsonSchema(_DELIMITER)] | None = None
    """one character; not set: `,`, and for TSV a tab"""
    encoding: Annotated[str, AfterValidator(_known_encoding)] = "utf-8"
    """of text formats, such as `utf-8`, `utf-16` or `cp1252`"""
    max_row_bytes: Annotated[int, Field(ge=1, le=1 << 28)] = 1 << 20
    """a longer row is rejected"""
    storage: StorageTable = StorageTable()
    """how an address is reached: `[export.storage]`"""

    @property
    def name(self) -> str | None:
        """The path as messages show it."""
        return None if self.path is None else shown(self.path)


class MappingTable(_Table):
    """`[mapping]`"""

    user: str | None = None
    """the column with the user's key. It is sent as it stands: never trimmed, never folded to lower case"""
    columns: dict[str, str] | None = None
    """only for `calven-hierarchy`, and instead of all the others: `{ group = "Team" }` names the columns that hold its
    four fields; those that it doesn't name have the fields' own names"""
    attributes: Annotated[dict[str, str], Field(min_length=1)] | None = None
    """`{ apiName = "column" }`; not set: every other column, under its own name, but for `loader_row`,
    `loader_code` and `loader_message`, which [`results --rows`](commands.md#correct-and-load-again) adds"""
    types: dict[str, Type] = {}
    """`{ apiName = "number" }`, or `"boolean"`, `"json"`, `"string"`; nothing is guessed: `00123` stays `"00123"`"""
    empty: Empty = "omit"
    """an empty cell: `omit` (not sent), `null`, or `keep` (sent as `""`)"""


class LimitsTable(_Table):
    """`[limits]`. What is None is set by the target."""

    users_per_request: Annotated[int, Field(ge=1)] | None = None
    """not set: the target's, 100, or 1 where the API takes one user a request; above what the API takes at all it is
    refused. Requests may be smaller: a quota in users is divided evenly, and
    [what the target calls too large](pace.md) is not tried again"""
    bytes_per_request: Annotated[int, Field(ge=100)] | None = None
    """the body, uncompressed; not set: the target's, 1,000,000. A single record that is larger is rejected"""
    requests_per_minute: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """not set: the target's. Retries and token calls count; it holds in every window of 2 s or longer"""
    quota: Annotated[list[str], PlainValidator(_quotas), _QUOTAS] | None = None
    """instead of `requests_per_minute`, and one or several: `["500/60s", "5000 users/60s"]`; `s`, `min` or `h`. Not
    set: the target's, dx `1000/60s`, descope `500/60s`, else none. None is ever passed, however the server counts:
    [pace](pace.md)"""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 16
    """the most requests at once; [the right number below it is found](pace.md)"""
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """a whole request"""
    attempts: Annotated[int, Field(ge=1)] = 8
    """for a user whose requests fail while others succeed"""
    max_failures: Annotated[str | int, PlainValidator(_count_or_share), _COUNT_OR_SHARE] = "100%"
    """stop when more rows fail: a number, or a share of the rows so far (of 100, while there are fewer)"""
    give_up_s: Annotated[float, Field(gt=0)] = 600.0
    """stop when the target gives no usable answer for so long"""


class CheckpointTable(_Table):
    """`[checkpoint]`"""

    path: _Path | None = None
    """the file that holds the outcomes: [what is in it](checkpoint.md). Not set: beside the export, under its name
    without suffixes: `users.csv.gz` → `users.ckpt`. A must for patterns, addresses, stdin, queries and sources"""
    keep: Annotated[int, Field(ge=0)] = 7
    """of a [refresh](refresh.md): the checkpoints of so many nights before"""


def _acceptable(code: str) -> Code:
    found = {each.value: each for each in Code if each not in GOOD}.get(code.upper())
    if found is None:
        raise not_a(f"outcome that counts as a failure: {', '.join(each for each in Code if each not in GOOD)}")
    return found


_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


_TIME = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? *(s|min|h|d|w)$"}


def _seconds(value: object) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *(s|min|h|d|w)", value) if isinstance(value, str) else None
    if found is None:
        raise not_a('time such as "30d": a number and s, min, h, d or w, in quotes')
    return float(found[1]) * _UNITS[found[2]]


class RefreshTable(_Table):
    """`[refresh]`"""

    mode: Literal["all", "changed"] = "all"
    """`changed`: what the target acknowledged before is `UNCHANGED`, and not sent"""
    state: _Path | None = None
    """what the target acknowledged. Not set: beside the export: `users.csv.gz` → `users.state`; for patterns beside the
    checkpoint"""
    missing: Missing = "ignore"
    """users and attributes that are gone from the export: `ignore`, `report` (those gone since the run before, each
    once) or `clear` (also those gone earlier)"""
    max_missing: Annotated[str | int, PlainValidator(_count_or_share), _COUNT_OR_SHARE] = "5%"
    """send nothing if more of the users of the export before are gone, or would be cleared: a number or a share"""
    max_changed: Annotated[str | int, PlainValidator(_count_or_share), _COUNT_OR_SHARE] | None = None
    """send nothing if more of the known users have other values: a number or a share; not set: any"""
    accept: list[Annotated[Code, BeforeValidator(_acceptable)]] = []
    """outcomes that count as well, for the exit status and what tells of it: `["USER_NOT_FOUND"]`, where the export has
    people whom the target need not know. They are sent each night all the same"""
    full_every: Annotated[float, PlainValidator(_seconds), WithJsonSchema(_TIME)] | None = None
    """`"30d"`: send all users if the last time is so long ago; `s`, `min`, `h`, `d` or `w`. Not set: never"""


class NotifyTable(_Table):
    """`[notify]`"""

    command: Annotated[list[str], Field(min_length=1)] | Annotated[str, Field(min_length=1)] | None = None
    """what is run at the end of each run, with [a summary as JSON](refresh.md#unattended) on its stdin:
    `["mail-me", "--high"]`, or a text that is split as a shell would. No shell runs it; a path begins at the
    settings' folder"""
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """it is ended when it takes longer"""


def _listen(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 65_536):
        raise not_a('host and port such as "127.0.0.1:9464"')
    return text


def _collector(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise not_a('URL such as "http://127.0.0.1:4318"; headers come from OTEL_EXPORTER_OTLP_HEADERS')
    return text


class MetricsTable(_Table):
    """`[metrics]`"""

    listen: Annotated[str, AfterValidator(_listen)] | None = None
    """`"127.0.0.1:9464"`: a page there for Prometheus, `/metrics`"""
    linger: Annotated[
        float, PlainValidator(_seconds), WithJsonSchema(_TIME), Field(json_schema_extra={"default": "0s"})
    ] = 0.0
    """the end of a run waits so long, at most, for Prometheus to ask once more"""
    file: _Path | None = None
    """the same in a file, every 15 s, for Prometheus' node exporter"""
    otlp: Annotated[str, AfterValidator(_collector)] | None = None
    """`"http://127.0.0.1:4318"`: an OpenTelemetry collector that takes them, every 10 s"""

    def __bool__(self) -> bool:
        return bool(self.listen or self.file or self.otlp)


class NetworkTable(_Table):
    """`[network]`"""

    proxy: str | None = Field(default=None, repr=False)  # it may hold a password
    """`http://host:port` or `https://host:port`; with `user:password@` before the host if it wants that (then better as
    `env:NAME` or `file:PATH`). `""`: none, whatever the environment says; not set: the environment's `HTTPS_PROXY`"""
    ca_file: _Path | None = None
    """a PEM file with the certificates of authorities that are trusted besides the system's"""
    client_cert: _Path | None = None
    """a PEM file with the certificate that we show if the target asks for one, and its key"""
    client_key: _Path | None = None
    """the PEM file with the key, if it doesn't stand in `client_cert`; without a passphrase"""
    compress: Literal["gzip"] | None = None
    """`"gzip"`: requests go out packed, at about an eighth of their size, for some 0.3 ms of CPU each 100 kB: worth it
    on a slow line alone. None of the APIs' pages says that it takes this; one that doesn't answers 415 or 400"""


class Settings(_Table):
    """A whole settings file, and where it stands: relative paths begin at its folder."""

    export: ExportTable
    """what is loaded"""
    mapping: MappingTable = MappingTable()
    """how its rows become records"""
    target: dict[str, Any] = Field(repr=False)  # it may hold secrets
    """the API that takes them, and the credentials"""
    limits: LimitsTable = LimitsTable()
    """how much at once, how fast, and when to stop"""
    checkpoint: CheckpointTable = CheckpointTable()
    """where the outcomes are kept"""
    refresh: RefreshTable = RefreshTable()
    """the nightly refresh: only what changed is sent"""
    notify: NotifyTable = NotifyTable()
    """who is told how a run ended"""
    metrics: MetricsTable = MetricsTable()
    """who is told how a run goes"""
    network: NetworkTable = NetworkTable()
    """how the target is reached"""
    _folder: Path = PrivateAttr(default=Path())
    _path: Path | None = PrivateAttr(default=None)
    _overrides: tuple[str, ...] = PrivateAttr(default=())
    _export: Export | None = PrivateAttr(default=None)

    @property
    def source(self) -> Export:
        """The export to read. Raises ExportError if its name doesn't tell the format."""
        if self._export is not None:
            return self._export
        table = self.export
        if table.query is not None:
            return self._query()
        if table.source is not None:
            return self._custom(table.source)
        assert table.path is not None, "_check_export() saw to that"
        paths = matching(self._address or table.path, self._folder, self.access)
        return Files.of(paths, table.format, table.delimiter, table.max_row_bytes, table.encoding)

    def reading(self, export: Export) -> "Settings":
        """The same settings, but that this is the export."""
        found = self.model_copy()
        found._export = export
        return found

    def _query(self) -> Export:
        from loader.export.query import Query  # late: files are loaded without it
        from loader.export.table import Table

        table = self.export
        assert table.query is not None
        assert table.database is not None
        order_by = table.order_by
        if order_by is None and not isinstance(self.build_target(), WholeTarget):
            order_by = self.row_mapping().user
        url = _pointed_at("export.database", table.database, self._folder)
        return Table.of(Query(table.query, url, order_by or None, self._folder), "query")

    def _custom(self, name: str) -> Export:
        from loader.export.table import Table

        return Table.of(self._custom_source(name), name)

    def _custom_source(self, name: str) -> "CustomSource":
        """A source of a package. Raises SettingsError if its options are wrong, or a secret isn't there."""
        from loader.sources import find

        found, options = find(name), dict(self.export.options or {})
        for secret in found.secrets():
            if isinstance(options.get(secret), str):
                options[secret] = _pointed_at(f"export.options.{secret}", options[secret], self._folder)
        try:
            return found.model_validate(options)
        except ValidationError as error:
            raise SettingsError(_first(error, found, "export.options", secrets=found.secrets())) from error

    @property
    def _named(self) -> Path | None:
        """The export's file, if it is one and has a name that others can take."""
        path = self.export.path
        is_file = path is not None and not (_is_pointer(path) or scheme_of(path) or glob.has_magic(path))
        return self._folder / path if path is not None and is_file and path != "-" else None

    @property
    def _address(self) -> str | None:
        """Where a remote export lies; None: it is a file, a pattern of files, or stdin. Raises SettingsError."""
        path = self.export.path
        if path is None or not (_is_pointer(path) or scheme_of(path)):
            return None
        return _checked_address(_pointed_at("export.path", path, self._folder) if _is_pointer(path) else path)

    @property
    def access(self) -> Access:
        """How a remote export is reached."""
        table, network = self.export.storage, self.network
        headers = {name: value for name, value in table.headers.items() if value.startswith(("env:", "file:"))}
        kept = {
            "storage": table.model_dump(exclude_none=True) | {"headers": headers},
            "left_out": sorted(table.headers.keys() - headers.keys()),
            "network": network.model_dump(include={"ca_file"}, exclude_none=True),
            "folder": str(self._folder),
        }
        return _access(table, network, self._folder, self.limits.give_up_s, kept)

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint stands: beside the export if nothing else is said."""
        if self.checkpoint.path is not None:
            return self._folder / self.checkpoint.path
        if self._named is None:
            is_path = self.export.path is not None
            what = "stdin, patterns and addresses have" if is_path else "the export has"
            raise SettingsError(f"checkpoint.path is missing: {what} no name that it could take")
        return self._named.parent / f"{stem(self._named)}.ckpt"

    @property
    def store(self) -> Store | None:
        """Where the export that the target accepted last is kept, if it takes it whole: beside it.

        Beside the checkpoint, if the export has no name of its own.
        """
        target = self.build_target()
        if not isinstance(target, WholeTarget):
            return None
        return Store(self._beside(".state", f"what {target.api} accepted last"), target, self.base_url)

    @property
    def state_path(self) -> Path:
        """Where a refresh keeps what the target acknowledged last."""
        if self.refresh.state is None:
            return self._beside(".state", "what the target acknowledged last")
        path = self._folder / self.refresh.state
        if path == self.checkpoint_path:
            raise SettingsError("refresh.state: the checkpoint has that name; choose another")
        return path

    @property
    def stale_state(self) -> Path | None:
        """Where a refresh of this export would have left a state; None: nowhere."""
        try:
            return self.state_path
        except SettingsError:
            return None

    @property
    def refresh_rules(self) -> Rules | None:
        """How a refresh goes; None: all users are sent each time."""
        table = self.refresh
        if table.mode == "all":
            return None
        return Rules(
            self.state_path,
            table.missing,
            table.max_missing,
            table.max_changed,
            table.full_every,
            self.checkpoint.keep,
            self.build_target().write == "replace",
        )

    @property
    def accepted(self) -> list[str]:
        """Outcomes that count as well."""
        return sorted(set(self.refresh.accept)) if self.refresh.mode == "changed" else []

    def _beside(self, suffix: str, what: str) -> Path:
        """A file beside the export that has its name, or the checkpoint's if the export has none of its own."""
        export = self._named
        path = export.parent / f"{stem(export)}{suffix}" if export else self.checkpoint_path.with_suffix(suffix)
        if path == self.checkpoint_path:
            raise SettingsError(f"checkpoint.path: {path.name} is for {what}; choose another")
        return path

    @property
    def api(self) -> type[Target]:
        """The target's class."""
        return find(self.target["api"])

    def build_target(self) -> Target:
        """The target with its own settings."""
        options = {key: value for key, value in self.target.items() if key not in ("api", "base_url", "auth")}
        return self.api.model_validate(options | {"auth": self.target["auth"]["scheme"]})

    @property
    def base_url(self) -> str:
        """The API's address, without a slash at its end. Raises SettingsError if it needs a secret that isn't there."""
        return str(self.target.get("base_url") or self.build_target().home(self.secrets)).rstrip("/")

    @property
    def address(self) -> str:
        """The same as far as it is known without credentials: the API may have another in each region."""
        return str(self.target.get("base_url") or self.api.address).rstrip("/")

    @property
    def is_local(self) -> bool:
        """Is the API on this machine?"""
        return is_loopback(urlsplit(self.base_url).hostname or "")

    def shown(self) -> dict[str, Any]:
        """All that is set, without secrets: as a report may show it."""
        tables = self.model_dump(exclude_unset=True)
        auth = {name: _masked(name, text) for name, text in self.target["auth"].items()}
        tables["target"] = self.target | {"auth": auth}
        export = tables["export"]
        if self.export.path is not None:
            export["path"] = self.export.name
        if self.export.database is not None:
            export["database"] = _masked("database", self.export.database)
        if self.export.query is not None:
            export["query"] = without_secrets(self.export.query)
        if self.export.options is not None:  # what they mean is their package's matter
            export["options"] = {name: _masked(name, str(value)) for name, value in self.export.options.items()}
        if headers := self.export.storage.headers:
            export["storage"]["headers"] = {name: _masked(name, text) for name, text in headers.items()}
        if self.network.proxy:
            tables["network"]["proxy"] = _masked("proxy", self.network.proxy)
        return tables

    @property
    def path(self) -> Path | None:
        """The settings file. None: they come from elsewhere."""
        return self._path

    @property
    def arguments(self) -> list[str]:
        """What stands behind `loader run` for these settings, without secrets; nothing, if they are in no file."""
        return [] if self._path is None else arguments(self._path, self._overrides)

    @property
    def folder(self) -> Path:
        """Where relative paths begin."""
        return self._folder

    @property
    def batch_limits(self) -> BatchLimits:
        """Users and bytes of a request."""
        target, limits = self.build_target(), self.limits
        if isinstance(target, WholeTarget):
            return BatchLimits(sys.maxsize, sys.maxsize)
        users = limits.users_per_request or target.defaults.users_per_request
        for quota in self.quotas:
            users = fitting(users, quota)
        return BatchLimits(users, limits.bytes_per_request or target.defaults.bytes_per_request)

    @property
    def quotas(self) -> list[Quota]:
        """What must not be passed; none: there is no limit."""
        if self.limits.requests_per_minute is not None:
            return [Quota(self.limits.requests_per_minute, 60)]
        return [Quota.parse(text) for text in self.limits.quota or self.build_target().defaults.quota]

    @property
    def paces(self) -> list[Pace]:
        """How the quotas are kept."""
        return [pace_of(quota, self.batch_limits.users) for quota in self.quotas]

    def row_mapping(self) -> RowMapping:
        """How rows become records for this target."""
        target, table = self.build_target(), self.mapping
        frame = target.frame
        room = self.batch_limits.body_bytes - frame.body_bytes(1, 0)
        if target.columns:  # fields that are fixed, each in the column of its name if no other is said
            user, *attributes = target.columns
            named = {name: (table.columns or {}).get(name, name) for name in attributes}
            key = (table.columns or {}).get(user, user)
            return RowMapping(frame, room, key, named, empty="null", fields=target.columns)
        return RowMapping(frame, room, table.user, table.attributes, table.types, table.empty, target.names)

    def way(self, address: str | None = None) -> Network:
        """How the target is reached, or one at `address`. Raises SettingsError for a wrong proxy or certificate."""
        table = self.network
        if table.client_key is not None and table.client_cert is None:
            raise SettingsError("network.client_key: the key needs its certificate, network.client_cert")
        named = {"ca_file": table.ca_file, "client_cert": table.client_cert, "client_key": table.client_key}
        paths = [_from(self._folder, f"network.{key}", name) if name else None for key, name in named.items()]
        elsewhere = self.build_target().scheme.elsewhere
        return Network(
            _proxy(table, self._folder, address or self.base_url),
            tls_of(*paths) if any(paths) else None,
            {elsewhere: _proxy(table, self._folder, elsewhere)} if elsewhere else {},
            table.compress,
        )

    def secrets(self) -> dict[str, str]:
        """The credentials, read anew at each call, so that a rotated secret is found. Raises SettingsError."""
        auth = self.target["auth"]
        scheme = self.api.schemes[auth["scheme"]]
        found = {name: _secret(f"target.auth.{name}", auth[name], self._folder) for name in scheme.needs}
        if flaw := scheme.flaw(found):
            raise SettingsError(f"target.auth.{flaw}")
        return found

    def literal_secrets(self) -> list[str]:
        """The keys of credentials that stand in the file itself, to be warned about."""
        named = {f"target.auth.{name}": self.target["auth"].get(name, "") for name in ("secret", "token")}
        if "@" in (self.export.database or ""):
            named["export.database"] = self.export.database
        if "@" in (self.network.proxy or ""):
            named["network.proxy"] = self.network.proxy
        if self.export.path != self.export.name:
            named["export.path"] = self.export.path
        named |= {f"export.storage.headers.{name}": value for name, value in self.export.storage.headers.items()}
        return [key for key, value in named.items() if value and not value.startswith(("env:", "file:"))]

    def identity(self) -> dict[str, Any]:
        """What makes this load the same load: not auth and not limits, so that a rotated secret can resume."""
        target = self.build_target()
        return {
            "export.format": self.source.format,
            "export.delimiter": self.export.delimiter,
            "export.encoding": self.export.encoding,
            "export.max_row_bytes": self.export.max_row_bytes,  # behind a row that is too long, others count
            "mapping.user": self.mapping.user,
            "mapping.attributes": self.mapping.attributes,
            "mapping.types": self.mapping.types,
            "mapping.empty": self.mapping.empty,
            "mapping.columns": self.mapping.columns,
            **self._asked(),
            "target.api": target.api,
            "target.base_url": self.base_url,
            "target.write": target.write,
            **({"refresh.mode": self.refresh.mode} if self.refresh.mode != "all" else {}),
            **{f"target.{name}": value for name, value in target.identity().items()},
        }

    def _asked(self) -> dict[str, Any]:
        """What is asked of which database or source; not by whom."""
        table = self.export
        if table.source is not None:
            return {"export.options": self._custom_source(table.source).identity()}
        if table.query is None or table.database is None:
            return {}
        from loader.export.engines import place_of, split

        place = place_of(split(_pointed_at("export.database", table.database, self._folder)))
        query = without_secrets(table.query)  # of DuckDB's an address that was signed, which another time is another
        return {"export.query": query, "export.database": place, "export.order_by": table.order_by}


def access_from(kept: Mapping[str, Any]) -> Access:
    """How a remote export was reached, by what a checkpoint keeps of that (`Access.facts`)."""
    if not kept:
        return Access(proxy=partial(_proxy, NetworkTable(), Path()))
    folder = Path(kept["folder"])
    storage, network = StorageTable.model_validate(kept["storage"]), NetworkTable.model_validate(kept["network"])
    return _access(storage, network, folder, 60.0, kept)


def _access(
    table: StorageTable, network: NetworkTable, folder: Path, give_up_s: float, kept: Mapping[str, Any]
) -> Access:
    def headers() -> dict[str, str]:
        if missing := [name for name in kept["left_out"] if name not in table.headers]:
            raise ExportError(
                f"the export needs the header {missing[0]}, whose value stood in the settings and is kept nowhere; "
                "write it there as env:NAME or file:PATH, or get the export and name the file with --export"
            )
        return {name: _secret(f"export.storage.headers.{name}", value, folder) for name, value in table.headers.items()}

    ca_file = _from(folder, "network.ca_file", network.ca_file) if network.ca_file else None
    return Access(
        table.endpoint,
        table.region,
        table.account,
        table.anonymous,
        headers,
        ca_file,
        partial(_proxy, network, folder),
        give_up_s,
        kept,
    )


def _proxy(table: NetworkTable, folder: Path, url: str) -> Proxy | None:
    """The proxy that is set, "" being none, else the environment's. Loopback is reached without any."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port
    if is_loopback(host):
        return None
    key, address = "network.proxy", table.proxy
    if address is None:
        known = getproxies_environment()
        if proxy_bypass_environment(f"{host}:{port}" if port else host, known):
            return None
        key, address = "the environment variable HTTPS_PROXY", known.get("https")
    elif address:
        address = _pointed_at(key, address, folder)
    try:
        return Proxy.of(address) if address else None
    except ValueError:  # it may hold a password: not shown
        raise SettingsError(f"{key}: not an address such as http://proxy.example.com:3128") from None


def load_settings(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Read and check a settings file. `overrides` are `key.key=value`, a TOML value or else text.

    Raises SettingsError.
    """
    data = read_tables(path)
    for override in overrides:
        _override(data, override)
    settings = settings_from(data, path.absolute().parent, path)
    settings._overrides = tuple(overrides)
    return settings


def read_tables(path: Path) -> dict[str, Any]:
    """A settings file as it stands. Raises SettingsError."""
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"can't read the settings {path}: {error.strerror}{_beside(path, error)}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8: {error.reason} at byte {error.start}{_doubt(path)}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}{_doubt(path)}") from error


def settings_from(
    data: dict[str, Any], folder: Path, path: Path | None = None, export: Export | None = None
) -> Settings:
    """Check settings, of the file at `path` if they are of one. Relative paths in them begin at `folder`.

    `export`: what is read in place of `[export]`, which need not be there. Raises SettingsError.
    """
    if export is not None:
        data = data | {"export": {"path": "-"}}  # like stdin: no file, and no name that others could take
    try:
        settings = Settings.model_validate(data)
        settings._folder, settings._path, settings._export = folder, path, export
        _check_export(settings.export)
        _check_target(settings)
        settings.way(settings.address)  # credentials need not be there yet
        if export is not None and settings.checkpoint.path is None:
            raise SettingsError("checkpoint.path is missing: an export in memory has no name that it could take")
    except (ValidationError, SettingsError) as error:
        message = _first(error, Settings) if isinstance(error, ValidationError) else str(error)
        raise SettingsError(f"{path}: {message}" if path else message) from error
    return settings


def _doubt(path: Path) -> str:
    """Is it the settings at all, and how are they written?"""
    if path.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "; it looks like UTF-16: save it as UTF-8"
    return "" if path.suffix == ".toml" else "; this takes the settings, which loader init EXPORT writes"


def _beside(path: Path, error: OSError) -> str:
    """What may have been meant, if there is no such file."""
    if not isinstance(error, FileNotFoundError):
        return ""
    return _guess(path.name, [each.name for each in path.parent.glob("*.toml")]) or "; loader init EXPORT writes them"


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")  # the text may be a secret: no message shows it
    if not equals or not all(key.strip().split(".")):
        raise SettingsError("--set: write it as key=value, such as limits.concurrency=4")
    put(data, key.strip(), _value(text), "--set")


def _value(text: str) -> Any:
    """What an override sets: a TOML value, or else the text."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def arguments(path: Path, overrides: Sequence[str]) -> list[str]:
    """What stands behind `loader run` for a settings file with overrides, as messages and checkpoints may hold it."""
    return [str(path), *(part for each in overrides for part in ("--set", _without_secret(each)))]


#: What may hold a secret, as tables and keys.
_SECRETS = re.compile(
    r"(target|export|network)"
    r"|(target\.auth|network\.proxy|export\.(database|query|storage|options)|notify)(\..*)?"
)


def _without_secret(override: str) -> str:
    """An override without what may be secret in it."""
    key, _, text = override.partition("=")
    key, value = key.strip(), _value(text)
    if key == "export.path" and isinstance(value, str) and shown(value) != value:
        return f"{key}={shown(value)}"
    is_secret = _SECRETS.fullmatch(key) is not None and key != "target.auth.scheme"
    return f"{key}=…" if is_secret and not _only_points(value, is_auth=key == "target.auth") else override


def _only_points(value: Any, *, is_auth: bool) -> bool:
    """Does it say where secrets stand, and none itself? `is_auth`: a table of them, beside the scheme."""
    if is_auth and isinstance(value, dict):
        return all(name == "scheme" or _only_points(each, is_auth=False) for name, each in value.items())
    return isinstance(value, str) and _is_pointer(value)


def put(data: dict[str, Any], key: str, value: Any, whence: str) -> None:
    """Set `limits.concurrency` or the like. Raises SettingsError, which begins with `whence`."""
    *tables, name = key.split(".")
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise SettingsError(f"{whence} {key}: {table} is not a table")
    data[name] = value


def _check_export(table: ExportTable) -> None:
    """One thing is read, and what is said of it has a meaning."""
    kinds = ("path", "query", "source")
    given = [name for name in kinds if getattr(table, name) is not None]
    if not given:
        raise SettingsError("export.path is missing")
    if len(given) > 1:
        raise SettingsError(
            f"export.{given[0]} and export.{given[1]}: one export is loaded at a time; keep one of them"
        )
    if table.query is not None and table.database is None:
        raise SettingsError("export.database is missing: a URL such as postgresql://…, or duckdb:// for SQL over files")
    meant = {
        **dict.fromkeys(("format", "delimiter", "encoding", "max_row_bytes", "storage"), "path"),
        **dict.fromkeys(("database", "order_by"), "query"),
        "options": "source",
    }
    for name, kind in meant.items():
        if name in table.model_fields_set and kind != given[0]:
            raise SettingsError(f"export.{name} is for export.{kind}, and the export is given by export.{given[0]}")
    if table.path is not None:
        _check_address(table.path, table.storage, has_storage="storage" in table.model_fields_set)


def _check_address(path: str, storage: StorageTable, *, has_storage: bool) -> None:
    """Where the export lies, and the way there. What stands in the environment is checked when it is read."""
    if scheme_of(path):
        _checked_address(path)
    elif not _is_pointer(path) and has_storage:
        raise SettingsError(f"export.storage is for an address such as s3://bucket/users.csv; {path!r} is a file")
    if storage.endpoint is not None:
        _check_url("export.storage.endpoint", storage.endpoint)
    for name, value in storage.headers.items():
        if not _HEADER.fullmatch(name) or not value.isprintable():
            raise SettingsError(f"export.storage.headers: {name!r} can't be the name of a header, or can't be sent")


_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _checked_address(address: str) -> str:
    """The address of a remote export. No message shows it whole: it may hold a secret. Raises SettingsError."""
    scheme = scheme_of(address)
    if scheme is None:
        raise SettingsError("export.path: what it points at is no address such as https://example.com/users.csv")
    if scheme in STORES:
        if not re.fullmatch(r"[^/\s]+/.*[^/]", address.partition("://")[2], re.DOTALL):
            raise SettingsError(f"export.path: write it as {scheme}://bucket/path/to/users.csv, or with a pattern")
        return address
    if scheme not in ("https", "http"):
        raise SettingsError(f"export.path: {scheme}:// can't be read here; known: {', '.join(SCHEMES)}")
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018  # reading it checks it
    except ValueError:
        parts = urlsplit("")
    if not parts.hostname or not address.isprintable() or " " in address or parts.fragment:
        raise SettingsError("export.path: not an address such as https://example.com/users.csv")
    if parts.username is not None or parts.password is not None:
        raise SettingsError("export.path: credentials don't belong into the address, but into export.storage.headers")
    if scheme == "http" and not is_loopback(parts.hostname):
        raise SettingsError(
            "export.path: http would show the export to everybody on the way; plain http is for loopback"
        )
    return address


def _check_target(settings: Settings) -> None:
    """The part of `[target]` that depends on which API it is."""
    table = settings.target
    api = table.get("api")
    if not isinstance(api, str):
        raise SettingsError(f"target.api is missing: one of {', '.join(known())}")
    target = find(api)
    auth = table.get("auth")
    if not isinstance(auth, dict) or "scheme" not in auth:
        raise SettingsError(f"target.auth.scheme is missing: one of {', '.join(target.schemes)}")
    scheme = auth["scheme"]
    if not isinstance(scheme, str) or scheme not in target.schemes:
        raise SettingsError(f"target.auth.scheme: {scheme!r} is not one of {', '.join(target.schemes)}")
    needs = target.schemes[scheme].needs
    for name in auth:
        if name not in ("scheme", *needs):
            way_out = _guess(name, needs) or f"; it takes {' and '.join(needs)}"
            raise SettingsError(f"target.auth.{name} is not a setting of {scheme}{way_out}")
    for name in needs:
        if not isinstance(auth.get(name), str) or not auth[name]:
            raise SettingsError(f"target.auth.{name} is missing: env:NAME, file:PATH or the text itself, in quotes")
    try:
        built = settings.build_target()
    except ValidationError as error:
        raise SettingsError(_first(error, target, "target", ("api", "base_url", "auth"))) from error
    if "base_url" in table:
        _check_url("target.base_url", table["base_url"])
        if complaint := target.wrong_address(table["base_url"]):
            raise SettingsError(f"target.base_url: {table['base_url']!r} {complaint}")
    elif not target.address:
        raise SettingsError(
            f"target.base_url is missing: the address of your {api} API, such as https://api.example.com"
        )
    if elsewhere := built.scheme.elsewhere:
        _check_url("target: where tokens come from", elsewhere.partition("?")[0])
    _check_limits(settings, built)
    _check_mapping(settings.mapping, built)
    _check_refresh(settings.refresh, built)


def _check_limits(settings: Settings, target: Target) -> None:
    limits, api = settings.limits, target.api
    if limits.requests_per_minute is not None and limits.quota is not None:
        raise SettingsError("limits.quota and limits.requests_per_minute say the same; keep one of them")
    if isinstance(target, WholeTarget):
        for key in ("users_per_request", "bytes_per_request"):
            if getattr(limits, key) is not None:
                raise SettingsError(f"limits.{key}: {api} takes the whole export in one request")
        if any(quota.unit == "users" for quota in settings.quotas):
            raise SettingsError(f"limits.quota: {api} takes the whole export in one request; count requests, not users")
        return
    most = target.defaults.max_users
    if most is not None and (limits.users_per_request or 1) > most:
        raise SettingsError(f"limits.users_per_request: {api} takes at most {most} user{'s' * (most > 1)} a request")
    for quota in settings.quotas:
        if quota.unit == "users" and (limits.users_per_request or 1) > quota.amount:
            raise SettingsError(
                f"limits.users_per_request: {limits.users_per_request} are more than limits.quota allows"
            )


def _check_mapping(mapping: MappingTable, target: Target) -> None:
    """Records of fixed fields are mapped by `columns`, others by the rest."""
    if not target.columns:
        if mapping.columns is not None:
            raise SettingsError(
                f"mapping.columns is not a setting of {target.api}; mapping.attributes names its columns"
            )
        return
    for key in ("user", "attributes", "types", "empty"):
        if key in mapping.model_fields_set:
            raise SettingsError(f"mapping.{key} is not a setting of {target.api}; mapping.columns names its columns")
    for name in mapping.columns or {}:
        if name not in target.columns:
            raise SettingsError(
                f"mapping.columns.{name} is not a field of {target.api}; it has {', '.join(target.columns)}"
                f"{_guess(name, target.columns)}"
            )


def _check_refresh(refresh: RefreshTable, target: Target) -> None:
    if refresh.mode == "changed" and isinstance(target, WholeTarget):
        raise SettingsError(f"refresh.mode: {target.api} takes the whole export in one request, changed or not")
    if refresh.missing == "clear" and not target.null_removes:
        raise SettingsError(
            f'refresh.missing: nothing says that null removes an attribute at {target.api}; use "report"'
        )


def _check_url(key: str, url: object) -> None:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        parts.port  # noqa: B018  # reading it checks it
    except ValueError:
        parts = urlsplit("")
    host = parts.hostname
    if parts.username is not None or parts.password is not None:
        raise SettingsError(f"{key}: credentials don't belong into the address, but under [target.auth]")
    is_clean = isinstance(url, str) and url.isprintable() and " " not in url
    if not host or not is_clean or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise SettingsError(f"{key}: {url!r} is not an address such as https://api.example.com")
    if parts.scheme == "http" and not is_loopback(host):
        raise SettingsError(f"{key}: {url!r} would send credentials in the clear; plain http is for loopback")


def _is_pointer(value: str) -> bool:
    """Does it say where a secret stands? Not `file://…`, which is an address."""
    return value.startswith(("env:", "file:")) and scheme_of(value) is None


def _secret(key: str, value: str, folder: Path) -> str:
    """The secret that a setting points at, or is."""
    secret = _pointed_at(key, value, folder)
    if not secret.isprintable():  # in a header, it would fail each request
        raise SettingsError(f"{key}: the text holds a line break or another control character")
    return secret


def _masked(name: str, text: str) -> str:
    """A credential, if it is none itself but the name of one."""
    return text if name == "scheme" or text.startswith(("env:", "file:")) else "***"


_POINTED = {"env": "an environment variable", "file": "a file"}


def _pointed_at(key: str, value: str, folder: Path) -> str:
    kind, _, name = value.partition(":")
    if kind in ("env", "file") and (not name or "\0" in name or (kind == "env" and "=" in name)):
        raise SettingsError(f"{key}: {kind}: must be followed by the name of {_POINTED[kind]}")
    if kind == "env":
        if not os.environ.get(name):
            raise SettingsError(
                f"{key}: the environment variable {name} is {'empty' if name in os.environ else 'not set'}"
                "; export it in the shell, or the service, that starts the loader"
            )
        return os.environ[name]
    if kind == "file":
        try:
            text = _from(folder, key, name).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{key}: can't read the file {name}: {getattr(error, 'strerror', 'not UTF-8')}"
            ) from error
        text = text.removesuffix("\n").removesuffix("\r")
        if not text:
            raise SettingsError(f"{key}: the file {name} is empty")
        return text
    return value


def _from(folder: Path, key: str, name: str) -> Path:
    """A path that may begin with `~` or at `folder`."""
    try:
        return folder / Path(name).expanduser()
    except RuntimeError as error:  # ~somebody who is nobody here
        raise SettingsError(f"{key}: {name}: nobody here has that home") from error


def _guess(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = get_close_matches(name, list(known), 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _first(
    error: ValidationError,
    model: type[BaseModel],
    prefix: str = "",
    hidden: Sequence[str] = (),
    secrets: Collection[str] = (),
) -> str:
    """The first thing wrong, in the user's words: the key and the way out."""
    first = error.errors()[0]
    names = [part for part in first["loc"] if isinstance(part, str) and not _MEMBER.fullmatch(part)]
    key = ".".join([prefix, *names] if prefix else names)
    if first["type"] == "missing":
        is_table = model is Settings and len(names) == 1
        return f"{key} is missing{f': the settings need a table [{key}]' if is_table else ''}"
    if first["type"] == "extra_forbidden":
        at: type[BaseModel] = model
        for name in names[:-1]:
            inner = at.model_fields[name].annotation
            if not isinstance(inner, type) or not issubclass(inner, BaseModel):
                break
            at = inner
        known = list(dict.fromkeys((*at.model_fields, *hidden)))
        return f"{key} is not a setting{_guess(names[-1], known) or '; known here: ' + ', '.join(known)}"
    # Whoever writes `target = "…"` may have pasted a secret.
    is_secret = key in ("target", "network.proxy", "export.database") or key.startswith("export.storage.headers")
    shown = "" if is_secret or names[-1] in secrets else _shown(first["input"])
    context = {"expected": "", **first.get("ctx", {})}
    context["expected"] = re.sub(r"<\w+\.\w+: ('\w+')>", r"\1", context["expected"])  # members of an enum
    words = first["msg"] if first["type"] == NOT_A else _WRONG.get(first["type"], "").format(**context)
    if words:
        return f"{key}: {shown or 'what stands there'} {words}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}" + (f", not {shown}" if shown else "")


#: How pydantic names which of several kinds of value it speaks of.
_MEMBER = re.compile(r"(list|constrained)[\[-].*")

#: What pydantic finds wrong with a value, as somebody who writes TOML would say it.
_WRONG = {
    **dict.fromkeys(("int_type", "int_from_float"), "is not a whole number"),
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "string_type": "is not a text in quotes",
    "bool_type": "is neither true nor false",
    **dict.fromkeys(("list_type", "frozen_set_type", "set_type", "tuple_type"), 'is not a list such as ["a", "b"]'),
    **dict.fromkeys(("dict_type", "model_type", "mapping_type"), "is not a table"),
    "greater_than": "is too little: it must be more than {gt:g}",
    "greater_than_equal": "is too little: the least is {ge:,g}",
    "less_than_equal": "is too much: the most is {le:,}",
    **dict.fromkeys(("literal_error", "enum"), "is not {expected}"),
    **dict.fromkeys(("too_short", "string_too_short"), "is empty: leave the key out, or give it a value"),
    "string_pattern_mismatch": "is not written as it must be: {pattern}",
}


def _shown(value: object) -> str:
    """A value as a message shows it; "": it is none that can be shown."""
    if isinstance(value, bool):
        return str(value).lower()
    is_plain = isinstance(value, str | int | float) or (isinstance(value, list | dict) and not any(value))
    text = repr(value) if is_plain or (isinstance(value, list) and all(map(_shown, value))) else ""
    return text if len(text) < 80 else ""

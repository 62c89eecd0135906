"""A comparison finds what a dictionary would find, over nights, in every format."""

import json
import os
import pickle
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loader.errors import CheckpointError, ExportError
from loader.export import columnar
from loader.export.files import Files
from loader.export.source import STDIN
from loader.refresh import scan, spill
from loader.refresh.compare import Comparison, Counts, Gone, match
from loader.refresh.scan import Turns, _Handed
from loader.refresh.state import ACKED, MARKS, TAKEN, State, held_of, names_of
from loader.refresh.worker import Worker
from tests.make import mapping
from tests.nights import text_of

SECRET = b"s" * 32
Row = tuple[str, Mapping[str, str]]
NAMES = ("dept", "site", "title")

ROWS = st.lists(
    st.tuples(
        st.sampled_from([f"u{number}" for number in range(12)]),
        st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["a", "b", "ü"]), max_size=3),
    ),
    max_size=25,
)


def write(folder: Path, rows: Sequence[Row], form: str) -> Files:
    path = folder / f"users.{form}"
    if form == "csv":
        path.write_text(text_of(rows, NAMES))
    elif form == "ndjson":
        path.write_text("".join(json.dumps({"email": user, **values}) + "\n" for user, values in rows) or "\n")
    else:
        columns: dict[str, list[str | None]] = {"email": [user for user, _ in rows]}
        columns |= {name: [values.get(name) for _, values in rows] for name in NAMES}
        pa.parquet.write_table(pa.table({name: pa.array(of, pa.string()) for name, of in columns.items()}), path)
    return Files.of([path])


def night(folder: Path, export: Files, *, marks: bool = True, **how: bool) -> tuple[Counts, list[bool], list[Gone]]:
    """Compare, keep the new state, and mark everybody in it if `marks`."""
    path = folder / "users.state"
    before = State.open(path)
    key_path = folder / f"users.keys{len(list(folder.glob('users.keys*')))}" if how.get("is_named") else None
    with Comparison(path, before, SECRET, key_path=key_path, **how) as comparison:
        found = comparison.run(export, mapping(), lambda _rows: None)
        gone = list(found.gone())
        comparison.draft.finish(
            comparison.sets.names,
            [sorted(each) for each in comparison.sets.sets],
            {
                "night": "n",
                "begun_at": 0.0,
                "full_at": 0.0,
                "identity": {},
                "secret": SECRET,
                "keys": key_path.name if key_path else None,
            },
        )
        comparison.draft.replace()
    if before is not None:
        before.__exit__()
    with State.open(path) or pytest.fail("it was written") as state:
        for number in range(spill.PARTITIONS if marks else 0):
            entries = state.partition(number)
            entries[:, MARKS] |= ACKED | TAKEN
            state.mark(number, entries)
    return found.counts, found.unchanged.tolist(), gone


def merged(rows: Sequence[Row], form: str) -> dict[str, dict[str, str | None]]:
    """What the target has of each user in the end; nobody of whom nothing is sent."""
    found: dict[str, dict[str, str | None]] = {}
    for user, values in rows:
        sent = {name: values.get(name) for name in NAMES} if form == "parquet" else dict(values)
        if sent:
            found.setdefault(user, {}).update(sent)
    return found


@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
@settings(max_examples=15)
@given(stories=st.lists(ROWS, min_size=2, max_size=4))
def test_nights_are_compared_as_dictionaries_would_be(
    tmp_path_factory: pytest.TempPathFactory, form: str, stories: list[list[Row]]
) -> None:
    folder = tmp_path_factory.mktemp("nights")
    acked: dict[str, dict[str, str | None]] = {}
    gone: set[str] = set()
    for rows in stories:
        now = merged(rows, form)
        there = {user for user, _ in rows}
        counts, unchanged, _ = night(folder, write(folder, rows, form))

        same = {user for user, values in now.items() if acked.get(user) == values}
        sends = {user for user, values in rows if form == "parquet" or values}
        assert unchanged == [user in same and (form == "parquet" or bool(values)) for user, values in rows]
        assert (counts.rows, counts.users, counts.unchanged) == (len(rows), len(sends), len(same))
        assert counts.new == len(sends - acked.keys())
        assert counts.changed == len(sends & acked.keys()) - len(same)
        assert counts.missing == len(acked.keys() - there - gone)
        assert counts.gone_before == len(gone - there)
        gone = (gone | acked.keys()) - there
        acked |= now


def test_replacing_rows_the_last_alone_counts(tmp_path: Path) -> None:
    rows: list[Row] = [("u", {"dept": "a"}), ("v", {"dept": "x"}), ("u", {"site": "b"})]
    night(tmp_path, write(tmp_path, rows, "csv"), is_replaced=True)

    counts, unchanged, _ = night(
        tmp_path, write(tmp_path, [("u", {"site": "b"}), ("v", {"site": "x"})], "csv"), is_replaced=True
    )

    assert unchanged == [True, False]
    assert counts.unchanged == 1


def test_who_was_not_acknowledged_is_sent_again_and_gone_forgotten(tmp_path: Path) -> None:
    rows: list[Row] = [("u", {"dept": "a"}), ("v", {"dept": "x"})]
    night(tmp_path, write(tmp_path, rows, "csv"), marks=False)

    counts, unchanged, _ = night(tmp_path, write(tmp_path, rows[:1], "csv"), marks=False)

    assert unchanged == [False]
    assert (counts.again, counts.missing, counts.known) == (1, 0, 0)
    assert night(tmp_path, write(tmp_path, rows, "csv"))[0].new == 1


@pytest.mark.parametrize("clears", [False, True])
def test_what_is_gone_is_told_with_its_names(tmp_path: Path, clears: bool) -> None:
    rows: list[Row] = [("u", {"dept": "a", "site": "b"}), ("v", {"dept": "x", "title": "y"}), ("w", {"dept": "x"})]
    night(tmp_path, write(tmp_path, rows, "csv"), is_named=True, clears=clears)

    _, _, gone = night(
        tmp_path, write(tmp_path, [("u", {"dept": "a"}), ("w", {})], "csv"), is_named=True, clears=clears
    )

    assert gone == [Gone(1, "u", ["site"]), Gone(2, "w", ["dept"]), Gone(0, "v", ["dept", "title"])]


def test_more_attributes_than_a_word_has_bits(tmp_path: Path) -> None:
    wide = {f"a{number}": "x" for number in range(200)}
    export = tmp_path / "users.ndjson"
    export.write_text(json.dumps({"email": "u", **wide}))
    night(tmp_path, Files.of([export]), is_named=True)
    del wide["a7"], wide["a150"]
    export.write_text(json.dumps({"email": "u", **wide}))

    _, _, gone = night(tmp_path, Files.of([export]), is_named=True)

    assert gone == [Gone(1, "u", ["a150", "a7"])]


def test_keys_that_begin_alike_are_told_apart() -> None:
    """Two digests in 2**64 share their first half: then the second decides."""
    known = np.array([[1, 5], [7, 3], [7, 1], [7, 2], [9, 9]], np.uint64)
    keys = np.array([[7, 1], [7, 4], [7, 2], [7, 3], [1, 4], [9, 9], [10, 1]], np.uint64)

    at, found = match(keys, known)

    assert found.tolist() == [True, False, True, True, False, True, False]
    assert at[found].tolist() == [2, 3, 1, 4]


def test_the_files_of_a_comparison_are_gone_with_it(tmp_path: Path) -> None:
    export = write(tmp_path, [("u", {"dept": "a"})], "csv")
    with Comparison(tmp_path / "s", None, SECRET, is_named=True, key_path=tmp_path / "s.keys") as comparison:
        comparison.run(export, mapping(), lambda _rows: None)
        assert (tmp_path / "s.part").exists()

    assert [path.name for path in tmp_path.iterdir()] == ["users.csv"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"refresh\.state can put it elsewhere"):
        Comparison(tmp_path / "nowhere" / "s", None, SECRET)


class Here:
    """A worker without a process."""

    def __init__(self, work: Callable[..., object], arguments: Sequence[object], _handles: Sequence[int]) -> None:
        work, arguments = pickle.loads(pickle.dumps((work, arguments)))
        self._answer = work(*arguments)

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: object) -> None: ...

    def answer(self) -> object:
        return self._answer


class Every(Turns):
    """Every other turn, where two who share a file come one after the other."""

    def __init__(self, file: BinaryIO, made: list[BinaryIO]) -> None:
        super().__init__(file)
        self._numbers = count(len(made) % 2, 2)
        made.append(file)

    def __next__(self) -> int:
        return next(self._numbers)


class Killed(Here):
    """One that was killed when it had done half of it."""

    def answer(self) -> None:
        return None


Entry = tuple[object, ...]


def known(folder: Path) -> list[Entry]:
    """What the state says of each user, but for the numbers of sets and the places of keys."""
    with State.open(folder / "users.state") or pytest.fail("it was written") as state:
        names = [sorted(state.about.names[place] for place in each) for each in state.about.sets]
        path = state.key_path
        keys = path.open("rb") if path is not None else None
        found = []
        for number in range(spill.PARTITIONS):
            for *digests, marks, place in np.pad(state.partition(number), ((0, 0), (0, 1)))[:, :6].tolist():
                word = np.uint64(marks)
                sets = names[int(names_of(word))], names[int(held_of(word))]
                key = spill.key_at(keys.fileno(), place) if keys is not None else None
                found.append((*digests, marks & 0xFFFFFFFF, *sets, key))
        if keys is not None:
            keys.close()
    return found


@pytest.mark.parametrize("worker", [Here, Killed])
@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
@settings(max_examples=5)
@given(stories=st.lists(ROWS, min_size=1, max_size=3), is_named=st.booleans(), clears=st.booleans())
def test_two_processes_find_what_one_finds(
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    worker: type[Here],
    stories: list[list[Row]],
    is_named: bool,
    clears: bool,
) -> None:
    alone, shared = (tmp_path_factory.mktemp(name) for name in ("alone", "shared"))
    with pytest.MonkeyPatch.context() as patch:
        made: list[BinaryIO] = []
        patch.setattr(columnar, "BLOCK_ROWS", 2)
        patch.setattr(scan, "Worker", worker)
        patch.setattr(scan, "Turns", lambda file: Every(file, made))
        for rows in stories:
            found = []
            for folder, is_shared in ((alone, False), (shared, True)):
                patch.setattr(scan, "_is_shared", lambda _export, is_shared=is_shared: is_shared)
                export = replace(write(folder, rows, form), chunk_bytes=40)
                found.append(night(folder, export, is_named=is_named, clears=clears and is_named))

            assert found[0] == found[1]
            assert known(alone) == known(shared)


def test_a_turn_is_one_process_s_alone(tmp_path: Path) -> None:
    with spill.nameless(tmp_path) as file, ExitStack() as ends:
        workers = [ends.enter_context(Worker(turns_until, (file.fileno(), 5_000), (file.fileno(),))) for _ in range(2)]
        found = [worker.answer() or [] for worker in workers]

    assert sorted(found[0] + found[1]) == list(range(5_002))


def turns_until(handle: int, most: int) -> list[int]:
    with open(handle, "r+b", buffering=0, closefd=False) as file:
        turns = Turns(file)
        own = [next(turns)]
        while own[-1] < most:
            own.append(next(turns))
        return own


@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
def test_two_processes_share_the_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    dice = random.Random(8)
    rows = [
        (f"u{dice.randrange(20_000)}", {name: dice.choice("ab") for name in NAMES if dice.random() < 0.7})
        for _ in range(20_000)
    ]
    stored = []

    class Seen(Worker[_Handed]):
        def __init__(self, work: Callable[..., _Handed], arguments: Sequence[object], handles: Sequence[int]) -> None:
            super().__init__(work, arguments, handles)
            until = time.monotonic() + 10
            while not os.pread(handles[0], 8, 0):  # it has not begun
                assert time.monotonic() < until
                time.sleep(0.001)

        def answer(self) -> _Handed | None:
            found = super().answer()
            stored.append(sum(each.rows for each in found.stored) if found is not None else 0)
            return found

    monkeypatch.setattr(scan, "Worker", Seen)
    monkeypatch.setattr(scan, "_is_shared", lambda _export: True)
    export = replace(write(tmp_path, rows, form), chunk_bytes=10_000)
    night(tmp_path, export, is_named=True)
    counts, unchanged, _ = night(tmp_path, export, is_named=True)

    assert (counts.rows, counts.new, counts.changed, counts.again) == (20_000, 0, 0, 0)
    assert unchanged == [form == "parquet" or bool(values) for _, values in rows]
    assert min(stored) > 0


def test_rows_that_come_while_it_is_read_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process reads for itself, and both must have seen the same."""
    export = write(tmp_path, [("u", {"dept": "a"}), ("v", {"dept": "b"})], "csv")

    class Late(Here):
        def __init__(self, work: Callable[..., object], arguments: Sequence[object], handles: Sequence[int]) -> None:
            super().__init__(work, arguments, handles)
            with open(str(export.paths[0]), "a") as file:
                file.write("w,c,,\n")

    monkeypatch.setattr(scan, "Worker", Late)
    monkeypatch.setattr(scan, "_is_shared", lambda _export: True)
    with pytest.raises(ExportError, match="changed while it was read; nothing was sent"):
        night(tmp_path, export)


def test_two_processes_that_cut_units_elsewhere_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or some rows would be nobody's."""
    export = write(tmp_path, [(f"u{number}", {"dept": "a"}) for number in range(50)], "csv")

    class Other(Here):
        def __init__(self, work: Callable[..., object], arguments: Sequence[object], handles: Sequence[int]) -> None:
            super().__init__(work, (replace(export, chunk_bytes=100), *arguments[1:]), handles)

    monkeypatch.setattr(scan, "Worker", Other)
    monkeypatch.setattr(scan, "_is_shared", lambda _export: True)
    with pytest.raises(ExportError, match="changed while it was read; nothing was sent"):
        night(tmp_path, export)


def test_small_exports_and_those_that_are_no_files_are_read_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = write(tmp_path, [("u", {"dept": "a"})], "csv")
    monkeypatch.setattr(scan, "_cores", lambda: 2)

    assert not scan._is_shared(export)
    monkeypatch.setattr(scan, "_SHARED_BYTES", 1)
    assert scan._is_shared(export)
    assert not scan._is_shared(Files.of([STDIN], "csv"))
    monkeypatch.setattr(scan, "_cores", lambda: 1)
    assert not scan._is_shared(export)

"""Pages as programs: their commands, run in order as a reader would, must end and say what the page has.

In a page that is run

- each block of `sh` is given to one bash, in a folder of its own;
- each command must end with 0, unless the block says otherwise: `loader check load.toml    # exit status 1: why`;
- a block of `text` behind it shows what was said: its lines, in their order, `…` for anything;
- a comment before a block says why it is not run, or not by each run of the tests:
  `<!-- not run: needs a cluster -->`, `<!-- takes long: 200,000 users -->`.
"""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PORT = "8080"  # the pages'; any free one takes its place
LONGEST_S = 120.0  # for a page

_FENCE = re.compile(
    r"(?:^<!-- (?P<mark>not run|takes long): [^\n]+? -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_STATUS = re.compile(r"# exit status (\d+)")


class Block(NamedTuple):
    """Commands of a page."""

    line: int
    text: str
    mark: str  # "", "not run" or "takes long"
    shown: str = ""  # what they say, by the page

    @property
    def statuses(self) -> list[int]:
        """Exit statuses other than 0, of its commands in order."""
        return [int(each) for each in _STATUS.findall(self.text)]


def blocks(page: str) -> list[Block]:
    """The commands of a page in order; a block of text shows what the commands before it say."""
    found: list[Block] = []
    for fence in _FENCE.finditer(page):
        if fence["kind"] == "sh":
            found.append(Block(page.count("\n", 0, fence.start("text")), fence["text"], fence["mark"] or ""))
        elif fence["kind"] == "text" and found and not found[-1].shown:
            found[-1] = found[-1]._replace(shown=fence["text"])
    return found


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _script(page: list[Block], port: int) -> Iterator[str]:
    """What bash is given: marks between the blocks, and a word of each command that fails."""
    yield "exec 2>&1; trap 'echo \"<failed $?>\"' ERR; trap 'kill $(jobs -p) 2>/dev/null' EXIT\n"
    for number, block in enumerate(page):
        yield f"printf '\\n<block {number}>\\n'\n" + block.text.replace(PORT, str(port))
        if re.search("^loader sandbox", block.text, re.MULTILINE):  # a reader is slower than its start
            yield f"for try in {{1..400}}; do (: < /dev/tcp/127.0.0.1/{port}) 2>/dev/null && break; sleep 0.05; done\n"
    yield "printf '\\n<end>\\n'; trap - ERR\n"


def run(page: list[Block], folder: Path) -> list[str]:
    """What each block said. Every process that it began has ended."""
    port = free_port()
    shim = folder / ".bin" / "loader"
    shim.parent.mkdir(parents=True)
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m loader "$@"\n')
    shim.chmod(0o755)
    plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    ours = {"PATH": f"{shim.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    out = folder / ".said"  # no pipe: what is left behind by a command would hold it open
    with out.open("w") as file:
        process = subprocess.Popen(
            ["bash", "-c", "".join(_script(page, port))],
            cwd=folder,
            env=plain | ours | {"LC_ALL": "C.UTF-8", "COLUMNS": "120"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            start_new_session=True,
        )
    try:
        process.wait(LONGEST_S)
    finally:
        with contextlib.suppress(ProcessLookupError):  # all have ended by themselves
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    text = out.read_text("utf-8")
    said = re.split(r"\n<(?:block \d+|end)>\n", text.replace(str(port), PORT))[1:]
    assert len(said) == len(page) + 1, text
    return said[:-1]


def complaint(block: Block, said: str) -> str:
    """What is not as the page has it, or nothing."""
    statuses = [int(each) for each in re.findall(r"^<failed (\d+)>$", said, re.MULTILINE)]
    if statuses != block.statuses:
        return f"line {block.line}: exit statuses {statuses}, the page says {block.statuses}:\n{block.text}\n{said}"
    lines = iter(said.splitlines())
    for wanted in block.shown.splitlines():
        form = ".*".join(re.escape(part) for part in re.split(r" *… *", wanted.strip()))
        if not any(re.fullmatch(rf"\s*{form}\s*", line) for line in lines):
            return f"line {block.line}: the page shows {wanted!r}, and what was said is:\n{said}"
    return ""

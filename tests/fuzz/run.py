"""Fuzzing with atheris: every target in turn, a slice of time each, until the time is over.

    scripts/fuzz 600           ten minutes, all targets
    scripts/fuzz 60 csv gzip   these two

What is learnt is kept in .fuzz/ and used the next time. An input that breaks a target is written into
tests/fuzz/corpus/<target>/, where the tests replay it: commit it with the fix.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
LEARNT = ROOT / ".fuzz"

_SLICE_S = 20
_STEPS = re.compile(r"stat::number_of_executed_units: (\d+)")


def main() -> int:
    """Fuzz in turn, and say what was done. 1: an input broke something."""
    if name := os.environ.get("LOADER_FUZZ_TARGET"):
        _fuzz(name, Path(os.environ["LOADER_FUZZ_FOLDER"]))
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="scripts/fuzz")
    parser.add_argument("seconds", type=float, nargs="?", default=60.0)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    arguments = parser.parse_args()
    turns = arguments.targets or list(TARGETS)
    if unknown := [name for name in turns if name not in TARGETS]:
        parser.error(f"no such target: {', '.join(unknown)}; known: {', '.join(TARGETS)}")
    end = time.monotonic() + arguments.seconds
    slice_s = max(1, min(_SLICE_S, round(arguments.seconds / len(turns))))
    runs, spent = dict.fromkeys(turns, 0), dict.fromkeys(turns, 0.0)
    broken: list[str] = []
    while time.monotonic() < end and len(broken) < len(turns):
        for name in turns:
            if name in broken or time.monotonic() >= end:
                continue
            started = time.monotonic()
            steps, complaint = _slice(name, slice_s)
            runs[name] += steps
            spent[name] += time.monotonic() - started
            if complaint:
                broken.append(name)
                _say(f"{name}: FOUND\n{complaint}")
    for name in turns:
        _say(f"{name}: {runs[name]:,} inputs in {spent[name]:.0f} s{', BROKEN' if name in broken else ''}")
    return 1 if broken else 0


def _slice(name: str, seconds: int) -> tuple[int, str]:
    """Fuzz one target in a process of its own: libFuzzer ends the process. Inputs tried, and what broke it."""
    learnt = LEARNT / name
    learnt.mkdir(parents=True, exist_ok=True)
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    options = {
        "max_total_time": seconds,
        "max_len": 600,  # the grammars are small: longer inputs are only slower
        "timeout": 20,
        "rss_limit_mb": 3000,
        "print_final_stats": 1,
        "dict": Path(__file__).parent / "words.dict",
        "artifact_prefix": f"{CORPUS / name}/",
    }
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.run"),
                *(f"-{option}={value}" for option, value in options.items()),
                *(str(learnt), str(CORPUS / name)),
            ],
            cwd=ROOT,
            env=os.environ | {"LOADER_FUZZ_TARGET": name, "LOADER_FUZZ_FOLDER": folder},
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
        )
    steps = _STEPS.search(done.stderr)
    return int(steps[1]) if steps else 0, "" if done.returncode == 0 else _told(done.stdout + done.stderr)


def _told(output: str) -> str:
    """The lines of a slice that tell what broke; all of its end, if none does (out of memory, too slow)."""
    error = output.find("=== Uncaught Python exception")
    end = output.find("INFO:", error)
    written = re.search(r"Test unit written to (.*)", output)
    return (output[error:end] if error >= 0 else output[-4000:]) + (f"the input: {written[1]}" if written else "")


def _fuzz(name: str, folder: Path) -> NoReturn:
    """Fuzz this target with libFuzzer's own arguments, in the process of a slice."""
    try:
        import atheris
    except ImportError:
        sys.exit('atheris is not installed; scripts/fuzz installs it, or: pip install -e ".[fuzz]"')
    with atheris.instrument_imports(include=["loader"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    atheris.Setup(sys.argv, lambda data: target(data, folder))
    atheris.Fuzz()
    raise SystemExit  # Fuzz() ends the process itself


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

"""Pictures for docs/speed.md, as SVG. Needs the extra `bench`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: The same figures give the same file.
_STEADY = {"Date": None}
_OURS, _CEILING, _OTHERS = "tab:red", "0.6", "tab:blue"


def of_peers(found: Mapping[str, Any], folder: Path) -> None:
    """users.svg: users a second by delay; cost.svg: CPU and memory."""
    mpl.rcParams |= {
        "svg.hashsalt": "loader",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    size = max(row["size"] for row in found["rows"])
    rows = [row for row in found["rows"] if row["size"] == size]
    delays = sorted({row["delay_ms"] for row in rows})
    names = list(dict.fromkeys(row["peer"] for row in rows))

    figure = Figure(figsize=(10, 2.2 + 0.2 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(delays), sharey=True, squeeze=False)[0]
    for axis, delay_ms in zip(axes, delays, strict=True):
        here = {row["peer"]: row["users_per_s"] for row in rows if row["delay_ms"] == delay_ms}
        _bars(axis, names, here, f"answers after {delay_ms} ms", ",.0f")
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.set_xlim(min(row["users_per_s"] for row in rows) / 2, max(row["users_per_s"] for row in rows) * 8)
    figure.suptitle(f"Users a second on one core, {size} users a request (logarithmic)")
    figure.savefig(folder / "users.svg", metadata=_STEADY)

    first = [row for row in rows if row["delay_ms"] == delays[0]]
    figure = Figure(figsize=(10, 1.2 + 0.2 * len(names)), layout="constrained")
    for axis, name, title, form in zip(
        figure.subplots(1, 2, sharey=True),
        ("cpu_s_per_million", "peak_mib"),
        ("CPU seconds per million users", "peak memory, MiB"),
        (".2f", ".0f"),
        strict=True,
    ):
        _bars(axis, names, {row["peer"]: row[name] for row in first}, title, form)
        axis.set_xlim(0, 1.15 * max(row[name] for row in first))
    figure.savefig(folder / "cost.svg", metadata=_STEADY)


def _bars(axis: Axes, names: list[str], values: Mapping[str, float], title: str, form: str) -> None:
    colours = [_OURS if name.startswith("loader") else _CEILING if name == "wrk" else _OTHERS for name in names]
    bars = axis.barh(names, [values.get(name, 0.0) for name in names], color=colours)
    axis.bar_label(bars, [format(values[name], form) if name in values else "" for name in names], padding=2, size=7)
    axis.set_title(title, size=9)
    axis.yaxis.set_inverted(True)
    axis.tick_params(axis="y", length=0)

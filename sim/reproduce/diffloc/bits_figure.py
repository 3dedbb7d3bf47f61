"""The picture of ``diffloc-bits``: error against payload bits of a fix, and against the delay of the links."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.files import write_picture
from sim.reproduce.diffloc.bits_page import payload_bits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Record = dict[str, Any]

_COLOURS = ("#0b6e99", "#c8553d", "#3a7d44", "#8f5fa8", "#b8860b", "#5a6472", "#1fa2a6", "#a83a6a", "#6b4f2a", "#222")
_MARKERS = {"(a)": "o", "(b)": "s", "(c)": "^", "ECC": "D"}


def draw(path: Path, study: Record) -> None:
    """Draw a study; a line's colour is the same on both sides."""
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    done = [one for one in study["points"] if one["result"] and one["result"]["error_2d_m"]]
    names = list(dict.fromkeys(one["line"] for one in study["points"]))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
    figure = Figure(figsize=(12.5, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _against_bits(left, [one for one in done if one["delay_ms"] is None], colours, study["raw_fingerprint_bits"])
    _against_delay(right, [one for one in done if one["delay_ms"] is not None], colours, study)
    means = [one["result"]["error_2d_m"]["mean"] for one in done]
    for axes in (left, right):
        if means and max(means) > 8 * min(means):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_ylabel("mean horizontal error [m], 95 % interval")
        axes.grid(True, which="major", color="#e4e4ea", linewidth=0.8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    handles = {label: handle for axes in (left, right) for handle, label in zip(*axes.get_legend_handles_labels(),
                                                                                strict=True)}  # fmt: skip
    ordered = sorted(handles, key=lambda label: names.index(label) if label in names else len(names))
    figure.legend([handles[label] for label in ordered], ordered, loc="outside lower center", ncols=4, frameon=False,
                  fontsize=8)  # fmt: skip
    write_picture(figure, path)


def _against_bits(axes: Axes, points: Sequence[Record], colours: dict[str, str], raw_bits: float) -> None:
    for name, line in _lines(points):
        line = sorted(line, key=payload_bits)
        _bars(axes, [payload_bits(one) for one in line], line, name, colours[name])
        for one in line[:: max(1, len(line) - 1)]:  # both ends of a line
            at = (payload_bits(one), one["result"]["error_2d_m"]["mean"])
            text = f"B={one['bits']}"
            axes.annotate(text, at, (5, 5), textcoords="offset points", fontsize=7.5, color=colours[name])
    axes.axvline(raw_bits, color="#888888", linestyle="--", linewidth=1.2, label="raw fingerprints, float32")
    axes.set_xscale("log")
    axes.set_xlabel("payload of a fix, all links, both directions [bit]")


def _against_delay(axes: Axes, points: Sequence[Record], colours: dict[str, str], study: Record) -> None:
    delays = list(dict.fromkeys(one["delay_ms"] for one in study["points"] if one["delay_ms"] is not None))
    for name, line in _lines(points):
        place = [float(delays.index(one["delay_ms"])) for one in line]
        _bars(axes, place, line, name, colours[name])
        cut = [(x, one) for x, one in zip(place, line, strict=True) if one["result"]["cut"]]
        axes.scatter([x for x, _ in cut], [one["result"]["error_2d_m"]["mean"] for _, one in cut], s=70, marker="x",
                     color=colours[name], zorder=3)  # fmt: skip
    axes.set_xticks(range(len(delays)), [str(delay) for delay in delays])
    axes.set_xlabel(f"delay of every link, each way [ms]; deadline {study['deadline_ms']:g} ms; ×: rounds were cut")


def _lines(points: Sequence[Record]) -> Iterable[tuple[str, list[Record]]]:
    found: dict[str, list[Record]] = {}
    for one in points:
        found.setdefault(one["line"], []).append(one)
    return found.items()


def _bars(axes: Axes, place: Sequence[float], line: Sequence[Record], name: str, colour: str) -> None:
    errors = [one["result"]["error_2d_m"] for one in line]
    mean = [error["mean"] for error in errors]
    spread = [
        [error["mean"] - error["ci95_of_mean"][0] for error in errors],
        [error["ci95_of_mean"][1] - error["mean"] for error in errors],
    ]
    marker = next((shape for start, shape in _MARKERS.items() if name.startswith(start)), "o")
    axes.errorbar(place, mean, spread, marker=marker, markersize=4, linewidth=1.5, capsize=3, label=name, color=colour)

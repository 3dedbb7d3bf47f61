"""Figure of a sweep: mean error with its interval, and below it the share of snapshots with a fix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.files import write_picture
from sim.plan.settings import SETTINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]

_COLOURS = ("#0b6e99", "#c8553d", "#3a7d44", "#8f5fa8", "#b8860b", "#5a6472")
_STYLES = ("-", "--", ":", "-.")
_MOST_LABELS = 18
_WIDE = 8.0


def draw(path: Path, rows: Sequence[Row], swept: Sequence[str]) -> None:
    """Draw a sweep.

    The abscissa is the total payload per fix [bit], logarithmic, if bits or base stations are swept; else it is the
    first swept option, with its values in the given order. Rows that differ only in that option share a line.
    """
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    budget = [name for name in ("bits", "bs") if name in swept]
    along = budget[0] if budget else next(iter(swept), "")
    ticks = list(dict.fromkeys(_text(row, along) for row in rows))
    lines: dict[str, list[tuple[float, Row]]] = {}
    for row in rows:
        x = float(row["payload_bits_per_fix"]) if budget else float(ticks.index(_text(row, along)))
        lines.setdefault(_label(row, [name for name in swept if name != along]), []).append((x, row))
    figure = Figure(figsize=(7.6, 6.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for number, (label, points) in enumerate(lines.items()):
        style = {
            "color": _COLOURS[number % len(_COLOURS)],
            "linestyle": _STYLES[number // len(_COLOURS) % len(_STYLES)],
            "linewidth": 1.6,
            "markersize": 4,
        }
        points.sort(key=lambda point: point[0])
        made = [(x, row["error_3d_m"]) for x, row in points if row["error_3d_m"]]
        mean = [error["mean"] for _, error in made]
        low = [error["mean"] - error["ci95_of_mean"][0] for _, error in made]
        high = [error["ci95_of_mean"][1] - error["mean"] for _, error in made]
        above.errorbar([x for x, _ in made], mean, [low, high], marker="o", capsize=3, label=label, **style)
        if budget:
            _name_points(above, points, along, style["color"])
        shares = [100 * row["fixes"] / row["snapshots"] for _, row in points]
        below.plot([x for x, _ in points], shares, marker="o", **style)
    above.set_ylabel("mean 3D error of the fixes [m],\n95 % interval")
    means = [row["error_3d_m"]["mean"] for row in rows if row["error_3d_m"]]
    if means and max(means) > _WIDE * min(means):
        above.set_yscale("log")
    else:
        above.set_ylim(bottom=0)
    below.set_ylabel("snapshots with\na fix [%]")
    below.set_ylim(0, 105)
    if budget:
        below.set_xscale("log")
        below.set_xlabel("payload of all base stations [bit per fix]")
    else:
        below.set_xticks(range(len(ticks)), ticks)
        unit = next((f" [{it.unit}]" for it in SETTINGS.values() if it.option == along and it.unit), "")
        below.set_xlabel(f"--{along}{unit}" if along else "")
    for axes in (above, below):
        axes.grid(True, which="major", color="#e4e4ea", linewidth=0.8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    if 1 < len(lines) <= _MOST_LABELS:
        figure.legend(*above.get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    write_picture(figure, path)


def _name_points(axes: Axes, points: Sequence[tuple[float, Row]], along: str, colour: Any) -> None:
    """Label each point with its value of the swept option, which its payload does not show."""
    for x, row in points:
        if row["error_3d_m"]:
            text = _text(row, along)
            name = f"B = {text}" if along == "bits" and text.isdigit() else text
            at = (x, row["error_3d_m"]["mean"])
            axes.annotate(name, at, (5, 7), textcoords="offset points", fontsize=7.5, color=colour)


def _text(row: Row, name: str) -> str:
    return str(row["settings"].get(name, ""))


def _label(row: Row, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {row['settings'][name]}" for name in names) or "all"

"""Figure of a sweep, or of several: mean error with its interval, and below it the share of snapshots with a fix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.drawing import COLOURS, GRID, interval_bars, legend_above, tidy
from sim.files import write_picture, write_vector_picture
from sim.plan.settings import SETTINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

Row = dict[str, Any]
Point = tuple[float, Row]

BUDGET = ("bits", "bits-per-report", "total-bits")
"""Options that choose a payload."""
_STYLES = ("-", "--", ":", "-.")
_MOST_LABELS = 18
_WIDE = 8.0
_PLACES = tuple(((x, y), side) for y in (7, -13) for x, side in ((5, "left"), (-5, "right"), (0, "center")))
"""Where a label may be beside its point: offset [pt], and its side that is there."""


def swept(rows: Sequence[Row]) -> list[str]:
    """Return the options that differ between rows."""
    names = dict.fromkeys(name for row in rows for name in row["settings"])
    return [name for name in names if len({row["settings"].get(name) for row in rows}) > 1]


def draw(path: Path, rows: Sequence[Row]) -> list[Path]:
    """Draw rows; write the picture as PNG, and beside it as PDF and SVG. Return the files.

    The abscissa is what all base stations send for a fix, payload and side information [bit], if schemes, payloads or
    base stations differ; else it is the first option that differs, with its values in the given order. Rows that differ
    only in that option share a line.
    """
    figure = sweep_figure(rows)
    others = [path.with_suffix(ending) for ending in (".pdf", ".svg")]
    write_picture(figure, path)
    for other in others:
        write_vector_picture(figure, other)
    return [path, *others]


def sweep_figure(rows: Sequence[Row]) -> Figure:
    """Return the figure; see `draw`."""
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    differ = swept(rows)
    named = [name for name in BUDGET if name in differ] or [name for name in ("bs",) if name in differ]
    budget = bool(named) or "scheme" in differ
    along = named if budget else differ[:1]
    ticks = list(dict.fromkeys(_value(row, along) for row in rows))
    lines: dict[str, list[Point]] = {}
    for row in rows:
        x = sent_bits(row) if budget else float(ticks.index(_value(row, along)))
        lines.setdefault(_label(row, [name for name in differ if name not in along]), []).append((x, row))
    figure = Figure(figsize=(7.6, 6.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    if budget:
        _draw_front(above, [point for points in lines.values() for point in points])
    notes: list[Annotation] = []
    for number, (label, points) in enumerate(lines.items()):
        points.sort(key=lambda point: point[0])
        colour, style = COLOURS[number % len(COLOURS)], _STYLES[number // len(COLOURS) % len(_STYLES)]
        made = [(x, row["error_3d_m"]) for x, row in points if row["error_3d_m"]]
        bars = [(x, error["mean"], *error["ci95_of_mean"]) for x, error in made]
        interval_bars(above, bars, label, colour, linestyle=style)
        if budget:
            notes += _names(above, points, along, colour)
        shares = [100 * row["fixes"] / row["snapshots"] for _, row in points]
        below.plot([x for x, _ in points], shares, style, marker="o", markersize=4, linewidth=1.6, color=colour)
    metres = [row["error_3d_m"]["mean"] for row in rows if row["error_3d_m"]]
    bounds = {row["bound_m"] for row in rows} - {None}
    if len(bounds) == 1:
        metres += bounds
        above.axhline(metres[-1], color=COLOURS[5], linestyle="--", linewidth=1.2, label="position error bound")
    tidy(above, logarithmic=bool(metres) and max(metres) > _WIDE * min(metres), from_zero=True)
    tidy(below, logarithmic=False, from_zero=True)
    above.set_ylabel("mean 3D error of the fixes [m],\n95 % interval")
    below.set_ylabel("snapshots with\na fix [%]")
    below.set_ylim(0, 105)
    if budget:
        below.set_xscale("log")
        below.set_xlabel("payload and side information of all base stations [bit per fix]")
    else:
        below.set_xticks(range(len(ticks)), ticks)
        unit = next((f" [{it.unit}]" for it in SETTINGS.values() if [it.option] == along and it.unit), "")
        below.set_xlabel(f"--{along[0]}{unit}" if along else "")
    above.set_title(_setting(rows), loc="left", fontsize=9)
    if len(above.get_legend_handles_labels()[1]) <= _MOST_LABELS:
        legend_above(figure)
    _keep_apart(figure, above, notes)
    return figure


def sent_bits(row: Row) -> float:
    """Return the payload and side information of all base stations [bit per fix]."""
    return float(row["payload_bits_per_fix"]) + float(row["side_bits_per_fix"])


def front(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Return the Pareto front of points (bits, row): bits and mean error [m] where fewer bits give larger errors."""
    best: list[tuple[float, float]] = []
    for x, mean in sorted((x, row["error_3d_m"]["mean"]) for x, row in points if row["error_3d_m"]):
        if not best or mean < best[-1][1]:
            best.append((x, mean))
    return best


def _draw_front(axes: Axes, points: Sequence[Point]) -> None:
    best = front(points)
    if len(best) > 1:
        x, mean = zip(*best, strict=True)
        axes.step(x, mean, where="post", color=GRID, linewidth=5, solid_capstyle="butt", label="Pareto front", zorder=0)


def _names(axes: Axes, points: Sequence[Point], along: Sequence[str], colour: str) -> list[Annotation]:
    """Label each point with its values of the swept options, which its payload does not show; return the labels."""
    found = []
    for x, row in points:
        if row["error_3d_m"]:
            at = (x, row["error_3d_m"]["mean"])
            text = _value(row, along)
            found.append(axes.annotate(text, at, (5, 7), textcoords="offset points", fontsize=7.5, color=colour))
    return found


def _keep_apart(figure: Figure, axes: Axes, notes: Sequence[Annotation]) -> None:
    """Place labels beside their points, off lines, intervals and other labels; those without a place are left out."""
    figure.draw_without_rendering()  # settles where the axes are
    lines = [line for line in axes.lines if line.get_linestyle() != "None" and line.get_zorder() > 0]
    drawn = [line.get_path().transformed(line.get_transform()) for line in lines]
    drawn += [path.transformed(axes.transData) for bars in axes.collections for path in bars.get_paths()]
    taken: list[Bbox] = []
    for note in notes:
        for offset, side in _PLACES:
            note.set(position=offset, horizontalalignment=side)
            box = note.get_window_extent()
            inside = axes.bbox.count_contains(box.corners()) == 4
            if inside and not box.count_overlaps(taken) and not any(path.intersects_bbox(box, False) for path in drawn):
                taken.append(box)
                break
        else:
            note.remove()


def _value(row: Row, along: Sequence[str]) -> str:
    """Return the values of a row's options as text, such as "B = 4"."""
    texts = {name: str(row["settings"][name]) for name in along if name in row["settings"]}
    if len(along) > 1 or along[:1] in (["bits"], ["bits-per-report"]):
        if texts.get("bits", "").isdigit():
            texts["bits"] = f"B = {texts['bits']}"
        if "bits-per-report" in texts:
            texts["bits-per-report"] += " bit"
    return ", ".join(texts.values())


def _label(row: Row, names: Sequence[str]) -> str:
    options = {name: row["settings"][name] for name in names if name in row["settings"]}
    return ", ".join(value if name == "scheme" else f"{name} {value}" for name, value in options.items()) or "all"


def _setting(rows: Sequence[Row]) -> str:
    """Return what holds for all rows: scenario, scheme, base stations, snapshots."""
    words = {"scenario": "{}", "scheme": "{}", "bs": "{} base stations", "snapshots": "{} snapshots", "seed": "seed {}"}
    parts = []
    for name, form in words.items():
        values = {row["settings"].get(name, row.get(name)) for row in rows}
        if len(values) == 1 and (value := values.pop()) is not None:
            parts.append(form.format(value))
    return ", ".join(parts)

"""Shared parts of the plots of measured tables and sweeps: axes without a display, colours, writing of the files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.files import write_picture

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0b6e99", "#c8553d", "#3a7d44", "#8f5fa8", "#b8860b", "#5a6472", "#1fa2a6", "#a83a6a", "#6b4f2a", "#222222",
           "#7fae3b", "#e08fb0")  # fmt: skip
GRID, INK = "#e4e4ea", "#1a1a2e"


def new_axes(columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Make a figure with axes side by side."""
    from matplotlib.figure import Figure as New  # no pyplot: no global state, no display

    figure = New(figsize=(7.6 if columns == 1 else 6.25 * columns, 5.0), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def draw_ground(axes: Axes, covered: Any, extent: tuple[float, float, float, float]) -> None:
    """Draw in grey what stands above the ground: `covered` (X, Y) bool, `extent` (west, east, south, north) [m]."""
    from matplotlib.colors import ListedColormap

    grey = ListedColormap(["#ffffff", "#d9d9e0"])
    axes.imshow(covered.T, origin="lower", extent=extent, cmap=grey, vmin=0, vmax=1, zorder=0)


def error_bars(
    axes: Axes, points: Iterable[tuple[float, dict[str, Any]]], label: str, colour: str, *,
    most_m: float = float("inf"), linestyle: str = "-", marker: str = "o",
) -> None:  # fmt: skip
    """Draw means with 95 % intervals against x, clipped at `most_m`; without points draw nothing."""
    found = sorted(points, key=lambda point: point[0])
    interval_bars(
        axes, [(x, one["mean"], *one["ci95_of_mean"]) for x, one in found], label, colour,
        most_m=most_m, linestyle=linestyle, marker=marker,
    )  # fmt: skip


def interval_bars(
    axes: Axes, points: Iterable[tuple[float, float, float, float]], label: str, colour: str, *,
    most_m: float = float("inf"), linestyle: str = "-", marker: str = "o",
) -> None:  # fmt: skip
    """Draw (x, middle, low, high) as a line with error bars, clipped at `most_m`."""
    found = [(x, *(min(value, most_m) for value in values)) for x, *values in points]
    if found:
        x, middle, low, high = zip(*found, strict=True)
        bars = [[max(m - a, 0.0) for m, a in zip(middle, low, strict=True)],
                [max(a - m, 0.0) for m, a in zip(middle, high, strict=True)]]  # fmt: skip
        axes.errorbar(x, middle, bars, color=colour, linestyle=linestyle, marker=marker, markersize=4, capsize=3,
                      linewidth=1.6, label=label)  # fmt: skip


def save_figure(figure: Figure, path: Path, *, logarithmic: bool = True, from_zero: bool = True) -> None:
    """Write the figure as PNG, with its legend above the axes.

    Args:
        figure: the figure.
        path: PNG file.
        logarithmic: whether the vertical axes are.
        from_zero: whether they begin at zero, if not.
    """
    for axes in figure.axes:
        tidy(axes, logarithmic=logarithmic, from_zero=from_zero)
    legend_above(figure)
    write_picture(figure, path)


def legend_above(figure: Figure) -> None:
    """Draw one legend for all axes above them, in as many columns as fit."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    for columns in range(2 * len(figure.axes), 0, -1):
        legend = figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=columns,
                               frameon=False, fontsize=8, handlelength=3.5)  # fmt: skip
        figure.draw_without_rendering()
        if legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()


def tidy(axes: Axes, *, logarithmic: bool, from_zero: bool) -> None:
    """Give axes their grid, and ticks that are read as metres; see `save_figure` for the arguments."""
    if logarithmic:
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))  # metres are read, powers of ten are not
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif from_zero:
        axes.set_ylim(bottom=0.0)
    axes.grid(True, which="major", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

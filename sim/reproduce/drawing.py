"""What pictures of measured tables share: axes without a display, colours, the file written whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sim.files import write_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0b6e99", "#c8553d", "#3a7d44", "#8f5fa8", "#b8860b", "#5a6472")
GRID, INK = "#e4e4ea", "#1a1a2e"


def new_axes() -> tuple[Figure, Axes]:
    """Make a figure with axes."""
    from matplotlib.figure import Figure as New  # no pyplot: no global state, no display

    figure = New(figsize=(7.6, 5.0), layout="constrained")
    return figure, figure.subplots()


def save_figure(figure: Figure, axes: Axes, path: Path, *, logarithmic: bool = True) -> None:
    """Write the figure with its legend above the axes."""
    if logarithmic:
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))  # metres are read, powers of ten are not
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0.0)
    axes.grid(True, which="major", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=8, handlelength=3.5)
    write_picture(figure, path)

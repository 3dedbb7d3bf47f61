"""Pictures of VIn-Loc's tables, from their records; no measurement here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sim.reproduce.drawing import COLOURS, INK, new_axes, save_figure
from sim.reproduce.markdown import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL = "mean 3D error [m], 95 % interval"


def bits_draw(path: Path, records: Sequence[Record]) -> None:
    """Error against payload bits of a base station; float as a line."""
    figure, axes = new_axes()
    coarse = [one for one in records if one["result"] and one["result"]["bits"]]
    _curve(axes, coarse, lambda one: float(one["result"]["payload_bits"]), 0, "quantised values")
    for one in records:
        if one["result"] and not one["result"]["bits"]:
            axes.axhline(one["result"]["errors"]["mae"], color=INK, linestyle=":", label=f"float, {_size(one)} bit")
    axes.set_xscale("log", base=2)
    ticks = sorted(one["result"]["payload_bits"] for one in coarse)
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("payload of a base station [bit]")
    axes.set_ylabel(LABEL)
    save_figure(figure, axes, path, logarithmic=False)


def size_draw(path: Path, records: Sequence[Record]) -> None:
    """Error against base stations."""
    _sections(path, records, "size", "base stations of 18")


def sync_draw(path: Path, records: Sequence[Record]) -> None:
    """Error against the deviation of clocks."""
    _sections(path, records, "sigma_ns", "standard deviation of base stations' clocks [ns]")


def lost_draw(path: Path, records: Sequence[Record]) -> None:
    """Error against base stations lost."""
    _sections(path, records, "lost", "base stations of 18 whose links are cut")


def _sections(path: Path, records: Sequence[Record], key: str, label: str) -> None:
    figure, axes = new_axes()
    for number, section in enumerate(dict.fromkeys(record["section"] for record in records)):
        some = [one for one in records if one["section"] == section and one["result"]]
        _curve(axes, some, lambda one: float(one["result"][key]), number, section)
    axes.set_xlabel(label)
    axes.set_ylabel(LABEL)
    save_figure(figure, axes, path)


def _curve(axes: Axes, records: Sequence[Record], at: Callable[[Record], float], number: int, label: str) -> None:
    if not records:
        return
    found = sorted(((at(one), one["result"]["errors"]) for one in records), key=lambda point: point[0])
    mean = [one["mae"] for _, one in found]
    low = [max(one["mae"] - one["ci95_of_mae"][0], 0.0) for _, one in found]
    high = [max(one["ci95_of_mae"][1] - one["mae"], 0.0) for _, one in found]
    axes.errorbar([x for x, _ in found], mean, [low, high], color=COLOURS[number % len(COLOURS)], marker="o",
                  markersize=4, capsize=3, linewidth=1.6, label=label)  # fmt: skip


def _size(record: Record) -> str:
    return str(record["result"]["payload_bits"])

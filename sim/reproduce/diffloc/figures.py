"""Pictures and pages of the paper's figures 7, 8, 9 and 11, from their records (`figurerows`); no measurement here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.reproduce.diffloc import paper
from sim.reproduce.diffloc.markdown import HEADS, details, means, printed
from sim.reproduce.drawing import COLOURS, INK, new_axes, save_figure
from sim.reproduce.markdown import NOT_TRAINED, Record, header, metres, not_trained, provenance, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {"sum": "--", "gauss": "-", "precision": ":"}
MOST_M = 1e3
"""Errors above are drawn at the upper edge: of samplers that run away."""
MARK: dict[str, Any] = {"color": INK, "marker": "x", "linewidth": 1.2}


def fig7_draw(path: Path, records: Sequence[Record]) -> None:
    """Median, least and most error over subsets against their size."""
    figure, axes = new_axes()
    for number, record in enumerate(records):
        if record["result"] is None:
            continue
        sizes = record["result"]["sizes"]
        at = [one["fused"] for one in sizes]
        middle = [min(one["median"], MOST_M) for one in sizes]
        least = [a - min(one["min"], MOST_M) for a, one in zip(middle, sizes, strict=True)]
        most = [min(one["max"], MOST_M) - a for a, one in zip(middle, sizes, strict=True)]
        axes.errorbar(at, middle, [least, most], color=COLOURS[number % len(COLOURS)], marker="o", markersize=4,
                      capsize=3, linewidth=1.6, label=record["label"])  # fmt: skip
    at = list(paper.SUBSETS)
    low, high = ([paper.SUBSETS[k][i] for k in at] for i in (0, 1))
    axes.plot(at, high, linestyle="-", label="paper: DiffLoc-UNet, most and least", **MARK)
    axes.plot(at, low, linestyle="-", **MARK)
    axes.set_xlabel("base stations fused")
    axes.set_ylabel("mean 2-D error over test samples [m],\nmedian, least and most over subsets")
    save_figure(figure, axes, path)


def fig7_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    lines = _top(name, "Mean error over test samples [m] against base stations fused: median (least–most) over subsets "
                 "of so many; in brackets, how many subsets. *Paper*: least and most.")  # fmt: skip
    sizes = sorted({one["fused"] for record in records for one in (record["result"] or {}).get("sizes", ())})
    cells = []
    for record in records:
        found = {one["fused"]: one for one in (record["result"] or {}).get("sizes", ())}
        each = [
            f"{metres(one['median'])} ({metres(one['min'])}–{metres(one['max'])}) [{len(one['subsets'])}]"
            for one in (found[k] for k in sizes if k in found)
        ]
        cells.append([record["label"], *(each or [NOT_TRAINED, *[""] * (len(sizes) - 1)])])
    ends = {k: f"{printed(low)}–{printed(high)}" for k, (low, high) in paper.SUBSETS.items()}
    known = [ends.get(k, "") for k in sizes]
    lines += table(["", *(str(k) for k in sizes)], [["*paper:* DiffLoc-UNet", *known], *cells])
    return _end(lines, records)


def fig8_draw(path: Path, records: Sequence[Record]) -> None:
    """Error against steps."""
    figure, axes = new_axes()
    _curves(axes, records, _steps)
    known = "paper: DiffLoc-UNet, where its text says"
    axes.plot(list(paper.STEPS), list(paper.STEPS.values()), linestyle="-", label=known, **MARK)
    axes.set_xscale("log")
    ticks = sorted({_steps(record) for record in records})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("steps")
    axes.set_ylabel(f"mean 2-D error [m], 95 % interval;\nabove {MOST_M:g} m drawn at the edge")
    save_figure(figure, axes, path)


def _steps(record: Record) -> float:
    return float(record["label"].split(" steps")[0].split()[-1])


def fig9_draw(path: Path, records: Sequence[Record]) -> None:
    """Each base station, and fused: a dot for each row, a cross of its colour for what the paper has."""
    figure, axes = new_axes()
    stations = sorted({k for record in records for k in (record["result"] or {}).get("stations", ())})
    groups = [f"BS {k}" for k in stations] + list(STYLES)
    for number, record in enumerate(records):
        found, known = record["result"], record["paper"]
        if found is None:
            continue
        colour = COLOURS[number % len(COLOURS)]
        own = dict(zip((f"BS {k}" for k in found["stations"]), found["alone"], strict=True)) | found["fused"]
        shift = 0.7 * ((number + 0.5) / len(records) - 0.5)
        heights = [min(one["mean"], MOST_M) for one in own.values()]
        at = [groups.index(group) + shift for group in own]
        axes.plot(at, heights, "o", color=colour, markersize=6, label=record["label"])
        if known:
            printed_m = dict(zip(groups[: len(stations)], known["alone"], strict=False)) | known["fused"]
            at = [groups.index(group) + shift for group in printed_m]
            axes.plot(at, list(printed_m.values()), "x", color=colour, markersize=6, label=f"paper: {record['label']}")
    axes.set_xticks(range(len(groups)), [HEADS.get(group, group).replace(" (", "\n(") for group in groups])
    axes.set_ylabel(f"mean 2-D error [m];\nabove {MOST_M:g} m drawn at the edge")
    save_figure(figure, axes, path)


def fig11_draw(path: Path, records: Sequence[Record]) -> None:
    """Error against the signal-to-noise ratio of test samples."""
    figure, axes = new_axes()
    _curves(axes, records, _snr_db)
    at = sorted(paper.NOISE)
    axes.plot(at, [paper.NOISE[snr] for snr in at], linestyle="-", label="paper: trained with the same", **MARK)
    axes.plot(at, [paper.MIXED_M] * len(at), linestyle=":", label="paper: trained with all, about", **MARK)
    axes.set_xlabel("signal-to-noise ratio of channel estimates [dB]")
    axes.set_ylabel("mean 2-D error [m], 95 % interval")
    save_figure(figure, axes, path)


def _snr_db(record: Record) -> float:
    return float(record["label"].split(", ")[1].removesuffix(" dB"))


def fig8_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    told = (
        "Fused errors against steps. Paper: DiffLoc-UNet retrained for each number of steps. Where a figure is missing "
        "the sum ran beyond what a number can hold."
    )
    return _fused(name, records, told)


def fig9_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = (
        "With dynamic soft labels and without. In the paper, hard labels leave the MLP with more than 8 m at several "
        "base stations, soft labels the UNet with nearly 3 m at single ones (Sec. VI-B1)."
    )
    return _fused(name, records, text, alone=True)


def fig11_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = "Fused errors of three base stations on noisy test samples; the paper fuses seven."
    return _fused(name, records, text)


def _fused(name: str, records: Sequence[Record], text: str, *, alone: bool = False) -> str:
    lines = _top(name, text)
    if alone:
        lines += means(records)
    return _end(lines + details(records) + not_trained(records), records)


def _top(name: str, text: str) -> list[str]:
    return [*header(name), f"![{name}]({name}.png)", "", text, ""]


def _end(lines: Sequence[str], records: Sequence[Record]) -> str:
    return "\n".join([*lines, *provenance(records)]).rstrip() + "\n"


def _curves(axes: Axes, records: Sequence[Record], where: Callable[[Record], float]) -> None:
    """Draw a curve for each section and rule, with 95 % intervals."""
    for number, section in enumerate(dict.fromkeys(record["section"] for record in records)):
        points = sorted(
            ((where(one), one["result"]["fused"]) for one in records if one["section"] == section and one["result"]),
            key=lambda point: point[0],
        )
        for rule in STYLES:
            of_rule = [(x, fused[rule]) for x, fused in points if rule in fused]
            if not of_rule:
                continue
            mean = [min(one["mean"], MOST_M) for _, one in of_rule]
            ends = [[min(value, MOST_M) for value in one["ci95_of_mean"]] for _, one in of_rule]
            low = [max(a - one[0], 0.0) for a, one in zip(mean, ends, strict=True)]
            high = [max(one[1] - a, 0.0) for a, one in zip(mean, ends, strict=True)]
            axes.errorbar([x for x, _ in of_rule], mean, [low, high], color=COLOURS[number % len(COLOURS)],
                          linestyle=STYLES[rule], marker="o", markersize=4, capsize=3, linewidth=1.6,
                          label=f"{section}: {HEADS[rule]}")  # fmt: skip

"""The paper's figures 7, 8, 9 and 11: base stations fused, steps, soft labels, noise; rows, pages and pictures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fronthaul.draws import generator
from sim.drawing import COLOURS, INK, error_bars, interval_bars, new_axes, save_figure
from sim.learn.diffloc.evaluate import Networks, errors_m, sample
from sim.learn.diffloc.jobs import SNRS_DB, STEPS
from sim.learn.diffloc.trained import CT_STEPS, Trained
from sim.records.statistics import sample_statistics
from sim.reproduce.diffloc import paper
from sim.reproduce.diffloc.bench import Bench
from sim.reproduce.diffloc.markdown import HEADS, details, means, printed
from sim.reproduce.diffloc.measures import noisy_inputs, sampled
from sim.reproduce.markdown import NOT_TRAINED, Record, metres, not_trained, page, picture, table
from sim.reproduce.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNET, CT = "paris-7-random-unet", "paris-7-random-ct"
SUBSETS = 6
"""Number of subsets of base stations of each size for the diffusion; the consistency model is measured on all."""
DIFFUSION_STEPS = (*STEPS, 200)
SHORT = 50
"""Steps of the diffusion in figures 7, 9 and 11."""
RULES = ("sum", "gauss")
STYLES = {"sum": "--", "gauss": "-", "precision": ":"}
MOST_M = 1e3
"""Larger errors, of samplers that diverge, are drawn at the upper edge [m]."""
MARK: dict[str, Any] = {"color": INK, "marker": "x", "linewidth": 1.2}


def fig7_rows(_: Bench) -> list[Row]:
    """Make the rows of error against the number of base stations fused."""
    known = {"sizes": [{"fused": k, "min": low, "max": high} for k, (low, high) in paper.SUBSETS.items()]}
    two = {"rule": "gauss", "steps": CT_STEPS, "most": 0}
    return [
        Row("DiffLoc-CT by gauss, 2 steps", over_subsets, (CT,), two),
        Row("DiffLoc-CT trained further by the fused error", over_subsets, (f"{CT}-fused",), two),
        *(
            Row(f"DiffLoc-UNet by {rule}, {steps} steps", over_subsets, (UNET,),
                {"rule": rule, "steps": steps, "most": SUBSETS}, paper=known if rule == "sum" else {})
            for rule, steps in (("sum", SHORT), ("gauss", SHORT))  # with 20 the sum of five or more diverges
        ),
    ]  # fmt: skip


def over_subsets(bench: Bench, jobs: Sequence[str], *, rule: str, steps: int, most: int) -> dict[str, Any]:
    """Measure subsets of base stations: at most `most` of each size, drawn with a fixed seed; all if it is 0."""
    trained = bench.trained(jobs[0])
    networks, truth = trained.networks("test"), trained.truth("test")
    known = trained.fit.job.setting.stations
    sizes = []
    for size in range(1, len(known) + 1):
        chosen = list(itertools.combinations(range(len(known)), size))
        if most and math.comb(len(known), size) > most:
            drawn = generator(0, "subsets", size).permutation(len(chosen))[:most]
            chosen = [chosen[i] for i in sorted(drawn)]
        means = [float(errors_m(sample(networks.of(some), rule, steps).position, truth).mean()) for some in chosen]
        found = {
            "fused": size,
            "min": min(means),
            "median": float(np.median(means)),
            "max": max(means),
            "subsets": [{"stations": [known[k] + 1 for k in some], "mean": mean}
                        for some, mean in zip(chosen, means, strict=True)],
        }  # fmt: skip
        sizes.append(found)
    return {"rule": rule, "steps": steps, "sizes": sizes}


def fig7_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw median, least and largest error over subsets against their size."""
    figure, (axes,) = new_axes()
    for number, record in enumerate(records):
        sizes = (record["result"] or {}).get("sizes", ())
        points = [(one["fused"], one["median"], one["min"], one["max"]) for one in sizes]
        interval_bars(axes, points, record["label"], COLOURS[number % len(COLOURS)], most_m=MOST_M)
    at = list(paper.SUBSETS)
    low, high = ([paper.SUBSETS[k][i] for k in at] for i in (0, 1))
    axes.plot(at, high, linestyle="-", label="paper: DiffLoc-UNet, most and least", **MARK)
    axes.plot(at, low, linestyle="-", **MARK)
    axes.set_xlabel("base stations fused")
    axes.set_ylabel("mean 2-D error over test samples [m],\nmedian, least and most over subsets")
    save_figure(figure, path)


def fig7_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    told = (
        "Mean error over test samples [m] against base stations fused: median (least–most) over subsets of so many; in "
        "brackets, how many subsets. *Paper*: least and most."
    )
    sizes = sorted({one["fused"] for record in records for one in (record["result"] or {}).get("sizes", ())})
    cells = []
    for record in records:
        found = {one["fused"]: one for one in (record["result"] or {}).get("sizes", ())}
        each = [
            f"{metres(one['median'])} ({metres(one['min'])}–{metres(one['max'])}) [{len(one['subsets'])}]"
            for one in (found[k] for k in sizes if k in found)
        ]
        cells.append([record["label"], *(each or [NOT_TRAINED])])
    ends = {k: f"{printed(low)}–{printed(high)}" for k, (low, high) in paper.SUBSETS.items()}
    known = [ends.get(k, "") for k in sizes]
    lines = table(["", *(str(k) for k in sizes)], [["*paper:* DiffLoc-UNet", *known], *cells])
    return page(name, [*picture(name), told, "", *lines], records)


def fig8_rows(_: Bench) -> list[Row]:
    """Make the rows of error against steps."""
    rows = []
    for steps in DIFFUSION_STEPS:
        figures = paper.figures("sum", 100 * paper.STEPS[steps]) if steps in paper.STEPS else {}
        usual = {"steps": steps, "rules": RULES, "alone": False}
        about = {"steps": steps}
        rows += [
            Row(f"UNet trained for T = 200, {steps} steps", sampled, (UNET,), usual, section="UNet, T = 200",
                paper={} if steps in STEPS else figures, about=about),
            Row(f"CT, {steps} steps", sampled, (CT,), usual, section="CT", about=about),
        ]  # fmt: skip
        if steps in STEPS:
            rows.append(Row(f"UNet trained for T = {steps}", sampled, (f"paris-7-unet-t{steps}",), usual,
                            section="UNet, T = steps", paper=figures, about=about))  # fmt: skip
    return _by_section(rows)


def fig8_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw error against steps."""
    figure, (axes,) = new_axes()
    _curves(axes, records, "steps")
    known = "paper: DiffLoc-UNet, where its text says"
    axes.plot(list(paper.STEPS), list(paper.STEPS.values()), linestyle="-", label=known, **MARK)
    axes.set_xscale("log")
    ticks = sorted({record["about"]["steps"] for record in records})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("steps")
    axes.set_ylabel(f"mean 2-D error [m], 95 % interval;\nabove {MOST_M:g} m drawn at the edge")
    save_figure(figure, path)


def fig8_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    told = (
        "Fused errors against steps. Paper: DiffLoc-UNet retrained for each number of steps. Where a figure is missing "
        "the sum ran beyond what a number can hold."
    )
    return _fused(name, records, told)


def fig9_rows(bench: Bench) -> list[Row]:
    """Make the rows with and without dynamic soft labels."""
    few = bench.stations("paris-7-random-ct-soft")
    usual = {"steps": SHORT, "rules": RULES}
    three = {"steps": CT_STEPS, "rules": (*RULES, "precision"), "stations": few}
    return [
        Row("MLP, soft labels", sampled, ("paris-7-random-mlp-soft",), usual,
            paper=paper.figures("sum", 113.2, paper.MLP)),
        Row("MLP, hard labels", sampled, ("paris-7-random-mlp",), usual),
        Row("UNet, soft labels", sampled, ("paris-7-random-unet-soft",), usual),
        Row("UNet, hard labels", sampled, (UNET,), usual, paper=paper.figures("sum", 11.4, paper.UNET)),
        Row("CT, soft labels, three BSs", sampled, ("paris-7-random-ct-soft",), three),
        Row("CT, hard labels, three BSs", sampled, (CT,), three),
    ]  # fmt: skip


def fig9_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw errors by base station and fusion rule: dots for each row, crosses of the same colour for the paper."""
    figure, (axes,) = new_axes()
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
    save_figure(figure, path)


def fig9_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = (
        "With dynamic soft labels and without. In the paper, hard labels leave the MLP with more than 8 m at several "
        "base stations, soft labels the UNet with nearly 3 m at single ones (Sec. VI-B1)."
    )
    return _fused(name, records, text, alone=True)


def fig11_rows(_: Bench) -> list[Row]:
    """Make the rows on noisy test samples, for networks trained without noise, at all levels, and at the same level."""
    rows = []
    for snr_db in SNRS_DB:
        options = {"snr_db": snr_db, "steps": SHORT}
        own = paper.figures("sum", 100 * paper.NOISE[snr_db]) if snr_db in paper.NOISE else {}
        mixed = paper.figures("sum", 100 * paper.MIXED_M)
        for section, job, known in (
            ("trained without noise", UNET, {}),
            ("trained with all", "paris-7-unet-snrmixed-all", mixed),
            ("trained with the same", f"paris-7-unet-snr{snr_db:g}-all", own),
        ):
            label = f"{section}, {snr_db:g} dB, seven BSs"
            rows.append(
                Row(label, under_noise, (job,), options, section=section, paper=known, about={"snr_db": snr_db})
            )
    return _by_section(rows)


def under_noise(bench: Bench, jobs: Sequence[str], *, snr_db: float, steps: int) -> dict[str, Any]:
    """Measure a diffusion model of all base stations on test samples with channels estimated at `snr_db`."""
    trained = bench.trained(jobs[0])
    networks, index = _noisy_networks(bench, jobs[0], trained, snr_db)
    truth, walk = trained.truth("test")[index], trained.walks("test")[index]
    fused = {rule: sample_statistics(errors_m(sample(networks, rule, steps).position, truth), walk) for rule in RULES}
    return {"stations": [k + 1 for k in bench.stations(jobs[0])], "snr_db": snr_db, "fused": fused}


def _noisy_networks(bench: Bench, name: str, trained: Trained, snr_db: float) -> tuple[Networks, slice]:
    """Return networks on test samples at a noise level, and the slice of these among the job's test samples."""
    levels = trained.fit.job.setting.snr_db
    if snr_db not in levels:
        return trained.networks("test", z=noisy_inputs(bench, name, snr_db)), slice(None)
    count = len(trained.features.split.test) // len(levels)  # copies of all samples follow each other
    first = levels.index(snr_db) * count
    part = slice(first, first + count)
    return trained.networks("test", z=trained.features.z[:, trained.features.index("test")[part]]), part


def fig11_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw error against the signal-to-noise ratio of test samples."""
    figure, (axes,) = new_axes()
    _curves(axes, records, "snr_db")
    at = sorted(paper.NOISE)
    axes.plot(at, [paper.NOISE[snr] for snr in at], linestyle="-", label="paper: trained with the same", **MARK)
    axes.plot(at, [paper.MIXED_M] * len(at), linestyle=":", label="paper: trained with all, about", **MARK)
    axes.set_xlabel("signal-to-noise ratio of channel estimates [dB]")
    axes.set_ylabel("mean 2-D error [m], 95 % interval")
    save_figure(figure, path)


def fig11_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    return _fused(name, records, "Fused errors of seven base stations on noisy test samples.")


def _by_section(rows: list[Row]) -> list[Row]:
    """Sort rows by section, in the order in which sections first appear."""
    sections = list(dict.fromkeys(row.section for row in rows))
    return sorted(rows, key=lambda row: sections.index(row.section))


def _fused(name: str, records: Sequence[Record], text: str, *, alone: bool = False) -> str:
    lines = [*(means(records) if alone else ()), *details(records), *not_trained(records)]
    return page(name, [*picture(name), text, "", *lines], records)


def _curves(axes: Axes, records: Sequence[Record], where: str) -> None:
    """Draw a curve for each section and rule, with 95 % intervals."""
    for number, section in enumerate(dict.fromkeys(record["section"] for record in records)):
        some = [one for one in records if one["section"] == section and one["result"]]
        for rule, style in STYLES.items():
            points = [
                (one["about"][where], one["result"]["fused"][rule]) for one in some if rule in one["result"]["fused"]
            ]
            colour = COLOURS[number % len(COLOURS)]
            error_bars(axes, points, f"{section}: {HEADS[rule]}", colour, most_m=MOST_M, linestyle=style)

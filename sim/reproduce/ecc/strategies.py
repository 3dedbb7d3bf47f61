"""``ecc-strategies``: the paper's four training strategies (Sec. IV-D, Fig. 10) on one schedule, with their curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sim.drawing import COLOURS, new_axes, save_figure, tidy
from sim.plan.weights import load_weights
from sim.reproduce import markdown
from sim.reproduce.ecc.runs import (
    HEAD,
    ComparisonBench,
    cells,
    compared,
    comparison,
    difference,
    draw_cdf,
    millimetres,
    paper_of,
)
from sim.reproduce.markdown import Record
from sim.reproduce.rows import Result, Row

JOINT = "local, then joint (the paper's proposal)"
RUNS = {
    "joint from scratch": comparison(4, "short-scratch-b4"),
    "local, then split: encoders frozen": comparison(4, "short-split-b4"),
    JOINT: comparison(4, "short-joint-b4"),
    "raw CSI, no encoders": comparison(None, "short-raw"),
}


def strategy_bench() -> ComparisonBench:
    """Return the bench."""
    return ComparisonBench(RUNS)


def strategy_rows(_: ComparisonBench) -> list[Row]:
    """Make a row for each strategy."""
    known = {JOINT: paper_of("B = 4"), "raw CSI, no encoders": paper_of("lossless")}
    return [
        Row(label, with_curves, (label,) if label == JOINT else (label, JOINT), paper=known.get(label, {}))
        for label in RUNS
    ]


def with_curves(bench: ComparisonBench, names: Sequence[str]) -> Result:
    """Measure as `compared`, and take the curves from the weights' record."""
    weights = bench.settings[names[0]].weights
    assert weights is not None
    return compared(bench, names) | {"curves": load_weights(weights).config["record"]["curves"]}


def strategy_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw Stage I's loss, the validation error of Stage II, and the distribution of the test error."""
    figure, (first, second, third) = new_axes(3)
    for number, record in enumerate(one for one in records if one["result"]):
        curves, colour = record["result"]["curves"], COLOURS[number]
        for axes, name in ((first, "stage_one_loss"), (second, "validation_m")):
            if curves[name]:
                step, value = zip(*curves[name], strict=True)
                if axes is first:
                    value = tuple(1 + one for one in value)
                axes.plot(step, value, color=colour, linewidth=1.6, marker="o", markersize=3)
    draw_cdf(third, records)
    first.set_ylabel("Stage I: 1 + loss of Eq. 22, mean of six base stations")
    second.set_ylabel("Stage II: mean 3D error on validation positions [m]")
    for axes in (first, second):
        axes.set_xlabel("steps of 128 snapshots")
        tidy(axes, logarithmic=True, from_zero=False)
    save_figure(figure, path, logarithmic=False, from_zero=False)


def strategy_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = [
        *markdown.picture(name),
        "B = 4, 0.75 epoch (562 steps) of Stage II on the same snapshots after a quarter epoch (188 steps) of Stage",
        "I, which scratch and raw CSI leave out; the paper trains for some hundred epochs. *Against local, then",
        "joint*: mean difference of the errors position by position, with its 95 % interval.",
        "",
    ]
    lines = [[*cells(record), difference(record)] for record in records]
    head = [*HEAD, "against local, then joint [m]"]
    return markdown.page(name, [*text, *markdown.table(head, lines), *order(records), *ends(records)], records)


def order(records: Sequence[Record]) -> list[str]:
    """Return whether the paper's order holds: raw CSI, joint, split, scratch."""
    means = {one["label"]: one["result"]["error_3d_m"]["mean"] for one in records if one["result"]}
    if len(means) < len(RUNS):
        return []
    claimed = ["raw CSI, no encoders", JOINT, "local, then split: encoders frozen", "joint from scratch"]
    found = sorted(means, key=lambda label: means[label])
    return [f"Order, best first: {'; '.join(found)}. The paper's: {'; '.join(claimed)}: "
            f"{'confirmed' if found == claimed else 'not confirmed'}.", ""]  # fmt: skip


def ends(records: Sequence[Record]) -> list[str]:
    """Return the last points of the curves."""
    said = []
    for record in (one for one in records if one["result"]):
        curves = record["result"]["curves"]
        first = f"Stage I ends at {curves['stage_one_loss'][-1][1]:.4f}, " if curves["stage_one_loss"] else ""
        second = ", ".join(f"{millimetres(value)} m after {step}" for step, value in curves["validation_m"][::4])
        said.append(f"{record['label']}: {first}validation {second}, {curves['validation_m'][-1][1]:.3f} m at the end")
    return markdown.listed("Curves (steps):", said)

"""``ecc-baselines``: the methods that ECC's paper compares (Sec. IV-E, CDF), each a scheme with its true payload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sim.drawing import new_axes, save_figure
from sim.reproduce import markdown
from sim.reproduce.ecc.runs import (
    HEAD,
    MUSIC,
    ComparisonBench,
    cells,
    compared,
    comparison,
    draw_cdf,
    paper_of,
)
from sim.reproduce.markdown import Record
from sim.reproduce.rows import Row

RUNS = {
    "ECC, B = 5, shipped weights": comparison(5),
    "ECC, B = 4": comparison(4, "short-slot-b4"),
    "Transformer: ECC without gain mask, B = 4": comparison(4, "short-unmasked-b4"),
    "ADCPM, SegNet and perceptron": comparison(None, "short-adcpm", scheme="adcpm"),
    "MFCNet": comparison(None, "short-mfcnet", scheme="mfcnet"),
    "MUSIC, triangulation": comparison(None, MUSIC, scheme="music"),
}
LEARNT = "trained on one short schedule"


def baseline_bench() -> ComparisonBench:
    """Return the bench."""
    return ComparisonBench(RUNS)


def baseline_rows(_: ComparisonBench) -> list[Row]:
    """Make a row for each method."""
    rows = []
    for number, label in enumerate(RUNS):
        section = LEARNT if 0 < number < len(RUNS) - 1 else "without training" if number else ""
        rows.append(Row(label, compared, (label,), section=section, paper={} if number else paper_of("B = 5")))
    return rows


def baseline_draw(path: Path, records: Sequence[Record]) -> None:
    """Draw the distributions of the errors."""
    figure, (axes,) = new_axes()
    draw_cdf(axes, records)
    save_figure(figure, path, logarithmic=False)


def baseline_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = [
        *markdown.picture(name),
        "The paper draws the distributions and prints no figures of the baselines. The rows of the short schedule",
        "learnt from the same 72 000 snapshots (0.75 epoch). Payloads are each method's own (docs/schemes.md). The",
        "Transformer is ECC with attention alone, as ECC's with one head.",
        "",
    ]
    lines = markdown.sectioned(records, lambda record: [cells(record)])
    return markdown.page(name, [*text, *markdown.table(HEAD, lines), *orders(records)], records)


def orders(records: Sequence[Record]) -> list[str]:
    """Return the order of the methods of one schedule, by mean and by median."""
    found = {one["label"]: one["result"]["error_3d_m"] for one in records[1:] if one["result"]}
    if len(found) < len(RUNS) - 1:
        return []
    said = []
    for kind in ("mean", "median", "p90"):
        ranked = sorted(found, key=lambda label: found[label][kind])
        ends = ranked[0] == list(RUNS)[1], ranked[-1] == list(RUNS)[-1]
        holds = [f"{what} {'holds' if true else 'does not hold'}"
                 for what, true in zip(("ECC best", "MUSIC worst"), ends, strict=True)]  # fmt: skip
        said.append(f"by {kind}: {' < '.join(ranked)}: {', '.join(holds)}")
    return markdown.listed(
        "The paper says that ECC is best and MUSIC poor; order here, without the shipped weights:", said
    )

"""``ecc-ablations``: each choice of docs/ecc.md undone by itself, the paper's among them, on one short schedule."""

from __future__ import annotations

from collections.abc import Sequence

from sim.plan.settings import EmulateSettings
from sim.reproduce import markdown
from sim.reproduce.ecc.runs import HEAD, ComparisonBench, cells, compared, comparison, difference, paper_of
from sim.reproduce.markdown import Record
from sim.reproduce.rows import Row
from sim.world.store import DATA_FOLDER

AS_BUILT, AS_BUILT_LOSSLESS, LETTER = "as built, B = 4", "as built, lossless", "to the letter of the paper, B = 4"
BLOCK, BIAS = "block split (20 m blocks held out, 3 m guard)", "50 ns clock bias, random slot phase"
SECTIONS: dict[str, dict[str, EmulateSettings]] = {
    "": {AS_BUILT: comparison(4, "short-slot-b4"), LETTER: comparison(4, "short-letter-b4")},
    "one change from as built, B = 4": {
        "phase by slot and tone (the paper's)": comparison(4, "short-tone-b4"),
        "no phase stabilisation": comparison(4, "short-none-b4"),
        "no tone mixing in the encoder (the paper's)": comparison(4, "short-unmixed-b4"),
        "squared distance as loss (the paper's)": comparison(4, "short-squared-b4"),
        "AdamW for everything": comparison(4, "short-adamw-b4"),
        "last position, no averaged weights (the paper's)": comparison(4, "short-last-b4"),
        "no gain mask": comparison(4, "short-unmasked-b4"),
        "temperature of the gain mask 0.25": comparison(4, "short-cold-b4"),
        "temperature of the gain mask 4": comparison(4, "short-hot-b4"),
        "no moved positions": comparison(4, "short-still-b4"),
    },
    "lossless": {
        AS_BUILT_LOSSLESS: comparison(None, "short-slot-lossless"),
        "lossless, phase by slot and tone (the paper's)": comparison(None, "short-tone-lossless"),
    },
    "another task, trained and tested on it, B = 4": {
        BIAS: comparison(4, "short-bias-b4", scenario="paris-6-bias"),
        BLOCK: comparison(4, "short-block-b4", test=DATA_FOLDER / "paris-6" / "test-block.npz"),
    },
}


def ablation_bench() -> ComparisonBench:
    """Return the bench."""
    return ComparisonBench({label: own for section in SECTIONS.values() for label, own in section.items()})


def ablation_rows(_: ComparisonBench) -> list[Row]:
    """Make a row for each run, compared with the one as built where the test positions and channels are the same."""
    known = {LETTER: paper_of("B = 4"), "lossless, phase by slot and tone (the paper's)": paper_of("lossless")}
    rows = []
    for section, settings in SECTIONS.items():
        for label in settings:
            base = AS_BUILT_LOSSLESS if section == "lossless" else AS_BUILT
            alone = label == base or section.startswith("another")
            names = (label,) if alone else (label, base)
            rows.append(Row(label, compared, names, section=section, paper=known.get(label, {})))
    return rows


def ablation_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = [
        "Networks trained from scratch on the same 72 000 snapshots (0.75 epoch), tested on the same 2000 positions;",
        "they compare with each other, not with the long training of ecc-table2, nor with the paper's some hundred",
        "epochs, whose figures stand beside the two rows that are built as it says. *Against as built*: mean",
        "difference of the errors position by position, with its 95 % interval over positions; one seed each, and",
        "seeds of one network differ by some 0.05 m.",
        "",
    ]
    lines = markdown.sectioned(records, lambda record: [[*cells(record), difference(record)]])
    told = "Mean 3D error [m] by distance to the nearest training position (fixes):"
    apart = markdown.errors_by_distance([one for one in records if one["label"] in (AS_BUILT, BLOCK)], told)
    return markdown.page(name, [*text, *markdown.table([*HEAD, "against as built [m]"], lines), *apart], records)

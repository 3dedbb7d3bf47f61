"""``twin-mismatch``: what errors of the map and of clocks cost `twin`, unknown and allowed for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sim.learn.twin.wrong import wrong_map
from sim.plan.settings import EmulateSettings
from sim.plan.weights import find_weights, load_weights, save_weights
from sim.reproduce import markdown
from sim.reproduce.ecc.runs import variant
from sim.reproduce.emulations import Emulations
from sim.reproduce.markdown import Record
from sim.reproduce.rows import Row
from sim.reproduce.twin_bits import HEAD, cells, emulated, twin_settings
from sim.world.store import DATA_FOLDER

SITES_CM, WALLS_CM, CLOCKS_PS = (5, 10, 20), (10, 20, 30), (300, 1000, 3000)
EXACT = "exact map"
_SNAPSHOTS, _SEED = 300, 1
_AWARE = {"sites": ("site_mm", 10), "walls": ("wall_mm", 10), "clocks": ("bs_ps", 1)}
"""Option that allows for an error, and its value for one unit of the row's level."""


def runs() -> dict[str, EmulateSettings]:
    """Return settings by label."""
    found = {EXACT: twin_settings(128, _SNAPSHOTS)}
    for kind, levels, words in (
        ("sites", SITES_CM, "sites off by {} cm on each axis"),
        ("walls", WALLS_CM, "images of reflected paths off by {} cm on each axis"),
        ("clocks", CLOCKS_PS, "clocks of base stations off by {} ps"),
    ):
        for level in levels:
            option, unit = _AWARE[kind]
            for said, options in (("unknown", ()), ("allowed for", ((option, unit * level),))):
                if kind == "clocks":
                    scenario = variant(f"bs-{level}ps", {"clock": {"bs_sigma_ns": level / 1000}})
                    settings = twin_settings(128, _SNAPSHOTS, options, scenario=scenario)
                else:
                    settings = twin_settings(128, _SNAPSHOTS, options, weights=_file(kind, level))
                found[f"{words.format(level)}, {said}"] = settings
    return found


def _file(kind: str, level: int) -> Path:
    return DATA_FOLDER / "paris-6" / "twins" / f"{kind}-{level}cm-seed{_SEED}.safetensors"


class MismatchBench(Emulations):
    """The runs, and the wrong maps, which are made where they are missing."""

    def __init__(self) -> None:
        super().__init__(runs())

    def is_trained(self, name: str) -> bool:
        """Return whether the map of a row exists."""
        weights = self.settings[name].weights
        return weights is None or weights.is_file()

    def train(self, name: str) -> None:
        """Make the map of a row from the shipped one."""
        path = self.settings[name].weights
        assert path is not None
        kind, level = path.stem.split("-")[:2]
        off = {f"{kind.removesuffix('s')}_m": int(level.removesuffix("cm")) / 100}
        save_weights(path, wrong_map(load_weights(find_weights("paris-6", "twin", None)), _SEED, **off))


def mismatch_rows(bench: MismatchBench) -> list[Row]:
    """Make a row for each run."""
    return [Row(label, emulated, (label,)) for label in bench.settings]


def mismatch_page(name: str, records: Sequence[Record]) -> str:
    """Return the page."""
    text = [
        f"Scheme `twin` at 128 bit a report on `paris-6`, in process, {_SNAPSHOTS} held-out positions. The world that",
        "makes the channels is right; the map at the cloud, or the clocks, are wrong, by draws of one seed. Unknown:",
        "the cloud trusts its map. Allowed for: it is told the deviation (`--option site_mm`, `wall_mm`, `bs_ps`).",
        "",
    ]
    return markdown.page(name, [*text, *markdown.table(HEAD, [cells(record) for record in records])], records)

"""``twin-mismatch``: what a world other than the map costs `twin`, unknown and allowed for, and ECC beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pyarrow import concat_tables
from pyarrow.parquet import read_table

from sim.plan.settings import EmulateSettings
from sim.records.coverage import coverage_90
from sim.records.fix_table import true_positions
from sim.records.statistics import error_statistics
from sim.reproduce import markdown
from sim.reproduce.ecc.runs import variant
from sim.reproduce.emulations import Emulations
from sim.reproduce.markdown import Record, with_interval
from sim.reproduce.rows import Result, Row
from sim.reproduce.twin_bits import twin_settings
from sim.world.mismatch import Mismatch
from sim.world.store import load_test_paths, world_file
from sim.world.tracer import trace_world

EXACT = "exact map and clocks"
UNKNOWN, ALLOWED, ECC = "unknown", "allowed for", "ECC"
BITS, ECC_BITS = 128, 5
SEEDS, SNAPSHOTS = (1, 2, 3), 50
MORE_SEEDS = tuple(range(1, 10))
"""Of worlds in which a few numbers, shared by all positions, decide over the error: of sites and their clocks."""
HEAD = ["error", "unknown: mean [m] (95 %)", "p90 [m]", "in the 90 % region", "undetermined",
        "allowed for: mean [m] (95 %)", "p90 [m]", "in the 90 % region", "undetermined",
        "ECC: mean [m] (95 %)"]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One kind of error at several levels.

    Attributes:
        words: name of the error, with {} for the level.
        levels: each with its keys of the scenario's tables, by table.
        option: option of `twin` that allows for the error, and its value at each level.
        felt: whether schemes without a map are in another world too.
        seeds: of the worlds in which `twin` runs.
    """

    words: str
    levels: Mapping[str, Mapping[str, Mapping[str, Any]]]
    option: tuple[str, tuple[int, ...]] | None = None
    felt: bool = True
    seeds: tuple[int, ...] = SEEDS


def _kind(words: str, table: str, keys: Mapping[str, Mapping[str, Any]], *more: Any, **others: Any) -> Kind:
    return Kind(words, {level: {table: values} for level, values in keys.items()}, *more, **others)


KINDS = (
    _kind("sites {} off on each axis", "mismatch", {f"{cm} cm": {"site_m": cm / 100} for cm in (5, 10, 20)},
          ("site_mm", (50, 100, 200)), seeds=MORE_SEEDS),
    _kind("clocks of base stations off by {}", "clock", {f"{ns:g} ns": {"bs_sigma_ns": ns} for ns in (0.3, 1.0, 3.0)},
          ("bs_ps", (300, 1000, 3000)), seeds=MORE_SEEDS),
    _kind("the user's clock off by {}", "clock", {f"{ns:g} ns": {"ue_bias_ns": ns} for ns in (1.0, 5.0, 50.0)},
          ("clock_ns", (1, 5, 50))),
    _kind("antennas {} off", "mismatch", {f"{deg:g}° and {db:g} dB": {"antenna_deg": deg, "antenna_db": db}
                                          for deg, db in ((1.0, 0.1), (2.0, 0.2), (5.0, 0.5))}),
    _kind("unmapped scattering at {}", "mismatch", {f"−{db} dB": {"scattering_db": -float(db)} for db in (40, 30, 20)}),
    _kind("mesh parts of the scene {} off on each axis", "mismatch",
          {f"{cm} cm": {"wall_m": cm / 100} for cm in (5, 20, 50)}, ("wall_mm", (50, 200, 500))),
    _kind("materials up to {} off", "mismatch", {f"{per} %": {"materials": per / 100} for per in (10, 20, 50)}),
    _kind("diffuse reflection, scattering coefficient {}", "mismatch",
          {f"{share}": {"diffuse": share} for share in (0.1, 0.2, 0.4)}),
    _kind("diffraction{}", "mismatch", {" at edges": {"diffraction": True}}),
    _kind("{} of the reflections missing in the world", "mismatch",
          {f"{per} %": {"left_out": per / 100} for per in (5, 10, 20)}),
    _kind("{} of the reflections missing in the map", "mismatch",
          {f"{per} %": {"map_left_out": per / 100} for per in (5, 10, 20)}, felt=False),
    _kind("images of reflected paths in the map {} off on each axis", "mismatch",
          {f"{cm} cm": {"map_image_m": cm / 100} for cm in (10, 20, 30)}, ("wall_mm", (100, 200, 300)), felt=False),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One scheme in the worlds of one level of an error."""

    words: str
    kind: str
    scheme: EmulateSettings
    tables: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...] = SEEDS

    @property
    def label(self) -> str:
        """Label of the row."""
        return _label(self.words, self.kind)

    def runs(self) -> dict[str, EmulateSettings]:
        """Return the settings of its runs by name: one for each seed, of the world and of the run's own draws."""
        found = {}
        for seed in self.seeds:
            settings = replace(self.scheme, seed=seed)
            if self.tables:
                tables = {name: dict(keys) for name, keys in self.tables.items()}
                if "mismatch" in tables:
                    tables["mismatch"]["seed"] = seed
                name = "-".join(f"{key}{value:g}" for table in tables.values() for key, value in table.items())
                settings = replace(settings, scenario=variant(name, tables))
            found[f"{self.label}, seed {seed}"] = settings
        return found


def cells() -> list[Cell]:
    """Return the cells of the table, those without any error first."""
    twin = twin_settings(BITS, SNAPSHOTS)
    ecc = replace(twin, scheme="ecc", options=(), bits=ECC_BITS)
    found = [Cell(EXACT, UNKNOWN, twin, {}), Cell(EXACT, ECC, ecc, {})]
    for kind in KINDS:
        for number, (level, tables) in enumerate(kind.levels.items()):
            words = kind.words.format(level)
            found.append(Cell(words, UNKNOWN, twin, tables, kind.seeds))
            if kind.option is not None:
                name, values = kind.option
                aware = twin_settings(BITS, SNAPSHOTS, ((name, values[number]),))
                found.append(Cell(words, ALLOWED, aware, tables, kind.seeds))
            if kind.felt:
                found.append(Cell(words, ECC, ecc, tables))
    # With a nuisance for each path a fix takes many times as long: last, so that the rest of the table comes first.
    return sorted(found, key=lambda cell: "wall_mm" in dict(cell.scheme.options))


def _label(words: str, kind: str) -> str:
    return f"{words}: {kind}"


class WorldBench(Emulations):
    """Runs whose worlds are traced where they are missing, if they need another trace."""

    def is_trained(self, name: str) -> bool:
        """Return whether the world of a row exists."""
        scenario = self._inputs.scenario(self.settings[name])
        return not scenario.mismatch.traced() or world_file(scenario).is_file()

    def train(self, name: str) -> None:
        """Trace the world of a row."""
        scenario = self._inputs.scenario(self.settings[name])
        test = load_test_paths(replace(scenario, mismatch=Mismatch())).select(np.arange(SNAPSHOTS))
        trace_world(scenario, test).save(world_file(scenario))


class MismatchBench(WorldBench):
    """The runs of the table."""

    def __init__(self) -> None:
        super().__init__({name: settings for cell in cells() for name, settings in cell.runs().items()})


def mismatch_rows(bench: MismatchBench) -> list[Row]:
    """Make a row for each cell."""
    return [Row(cell.label, pooled, tuple(cell.runs())) for cell in cells()]


def pooled(bench: MismatchBench, names: Sequence[str]) -> Result:
    """Run emulations; return what their fixes have together. Intervals resample positions."""
    columns = ["error_3d_m", *(f"{true}{axis}_m" for true in ("", "true_") for axis in "xyz"), "covariance_m2"]
    results = [bench.run(name) for name in names]
    fixes = concat_tables([read_table(one.folder / "fixes.parquet", columns=columns) for one in results])
    return {
        "error_3d_m": error_statistics(fixes["error_3d_m"].to_numpy(), 0, true_positions(fixes)),
        "coverage_90": coverage_90(fixes),
        "fixes": len(fixes),
        "undetermined": sum(one.summary["undetermined"] for one in results),
    }


def mismatch_page(name: str, records: Sequence[Record]) -> str:
    """Return the page: a line for each level of each error."""
    text = [
        f"Scheme `twin` at {BITS} bit a report on `paris-6`, in process, in worlds or with maps that have one error",
        "each (`[mismatch]` and `[clock]` of a scenario), drawn with seeds of their own:",
        f"the same {SNAPSHOTS} held-out positions in {len(SEEDS)} worlds each, and `twin` in {len(MORE_SEEDS)} where",
        "sites or their clocks are off, since a few numbers decide over such a world. Intervals resample positions.",
        "Unknown: the cloud trusts its map and clocks. Allowed for: it is told the size of the error, where it has an",
        "option for that (`site_mm`, `bs_ps`, `clock_ns`, `wall_mm`). ECC: shipped weights, trained without any error,",
        f"B = {ECC_BITS}, in the same world; errors of the map do not concern it. Fixes that are undetermined have no",
        "part in means and regions.",
        "",
    ]
    found = {record["label"]: record["result"] for record in records}
    words = list(dict.fromkeys(label.rpartition(": ")[0] for label in found))
    lines = [[one, *_cells(found, one)] for one in words]
    missing = markdown.listed("Not measured:", [label for label, result in found.items() if result is None])
    return markdown.page(name, [*text, *markdown.table(HEAD, lines), *missing], records)


def _cells(found: Mapping[str, Any], words: str) -> list[str]:
    cells = []
    for kind in (UNKNOWN, ALLOWED):
        result = found.get(_label(words, kind))
        cells += ["", "", "", ""] if not result else _twin_cells(result)
    ecc = found.get(_label(words, ECC))
    return [*cells, with_interval(ecc["error_3d_m"]) if ecc else ""]


def _twin_cells(result: Mapping[str, Any]) -> list[str]:
    error, inside = result["error_3d_m"], result["coverage_90"]
    undetermined = f"{100 * result['undetermined'] / (result['fixes'] + result['undetermined']):.1f} %"
    if not error:
        return ["", "", "", undetermined]
    region = "" if inside is None else f"{100 * inside:.0f} %"
    return [with_interval(error, show="{:.3f}".format), f"{error['p90']:.3f}", region, undetermined]

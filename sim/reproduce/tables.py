"""Published tables and figures, measured again: ``python cli.py reproduce NAME``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sim.errors import UserError, nearest_hint
from sim.files import write_text
from sim.records.folder import commit
from sim.reproduce.bench import Bench
from sim.reproduce.diffloc import bits, figures, fusion_rows, leaky_table, maps, methods
from sim.reproduce.diffloc.bench import Bench as DiffLocBench
from sim.reproduce.ecc import ablations, baselines, stage1, strategies, subcarriers, table2, tracking
from sim.reproduce.ecc.runs import variants_in
from sim.reproduce.front import FrontBench, front_draw, front_page, front_rows
from sim.reproduce.markdown import Record
from sim.reproduce.rows import OnRow, Planned, Row, measure_rows, planned, require_data
from sim.reproduce.track import TrackBench, track_draw, track_page, track_rows
from sim.reproduce.twin_bits import TwinBench, twin_draw, twin_page, twin_rows
from sim.reproduce.twin_ecc import FallbackBench, fallback_page, fallback_rows
from sim.reproduce.twin_mismatch import MismatchBench, mismatch_page, mismatch_rows
from sim.reproduce.vinloc import angles, lost, method_rows, pages
from sim.reproduce.vinloc.bench import Bench as VinLocBench


@dataclass(frozen=True)
class Table:
    """How a table is measured and shown.

    Attributes:
        bench: makes the bench.
        rows: makes the rows from the bench.
        page: makes the Markdown page from name and records.
        draw: makes the picture; None without one.
    """

    bench: Callable[[], Bench]
    rows: Callable[[Any], Sequence[Row]]
    page: Callable[[str, Sequence[Record]], str]
    draw: Callable[[Path, Sequence[Record]], None] | None = None


TABLES = {
    "front": Table(FrontBench, front_rows, front_page, front_draw),
    "ecc-table2": Table(table2.EccBench, table2.table2_rows, table2.table2_page),
    "ecc-ablations": Table(ablations.ablation_bench, ablations.ablation_rows, ablations.ablation_page),
    "ecc-strategies": Table(
        strategies.strategy_bench, strategies.strategy_rows, strategies.strategy_page, strategies.strategy_draw
    ),
    "ecc-baselines": Table(
        baselines.baseline_bench, baselines.baseline_rows, baselines.baseline_page, baselines.baseline_draw
    ),
    "ecc-subcarriers": Table(
        subcarriers.subcarrier_bench,
        subcarriers.subcarrier_rows,
        subcarriers.subcarrier_page,
        subcarriers.subcarrier_draw,
    ),
    "ecc-tracking": Table(
        tracking.spiral_bench, tracking.tracking_rows, tracking.tracking_page, tracking.tracking_draw
    ),
    "ecc-stage1": Table(stage1.AutoencoderBench, stage1.stage1_rows, stage1.stage1_page, stage1.stage1_draw),
    "track": Table(TrackBench, track_rows, track_page, track_draw),
    "twin-bits": Table(TwinBench, twin_rows, twin_page, twin_draw),
    "twin-mismatch": Table(MismatchBench, mismatch_rows, mismatch_page),
    "twin-ecc": Table(FallbackBench, fallback_rows, fallback_page),
    "diffloc-table4": Table(DiffLocBench, methods.table4, methods.method_page),
    "diffloc-table5": Table(DiffLocBench, methods.table5, methods.method_page),
    "diffloc-table6": Table(DiffLocBench, methods.table6, methods.method_page),
    "diffloc-fig5": Table(DiffLocBench, maps.fig5_rows, maps.fig5_page, maps.places_draw),
    "diffloc-fig6": Table(DiffLocBench, maps.fig6_rows, maps.fig6_page, maps.fig6_draw),
    "diffloc-fig10": Table(DiffLocBench, maps.fig10_rows, maps.fig10_page, maps.places_draw),
    "diffloc-fig7": Table(DiffLocBench, figures.fig7_rows, figures.fig7_page, figures.fig7_draw),
    "diffloc-fig8": Table(DiffLocBench, figures.fig8_rows, figures.fig8_page, figures.fig8_draw),
    "diffloc-fig9": Table(DiffLocBench, figures.fig9_rows, figures.fig9_page, figures.fig9_draw),
    "diffloc-fig11": Table(DiffLocBench, figures.fig11_rows, figures.fig11_page, figures.fig11_draw),
    "diffloc-fusion": Table(DiffLocBench, fusion_rows.fusion_rows, fusion_rows.fusion_page),
    "diffloc-leaky": Table(DiffLocBench, leaky_table.leaky_rows, leaky_table.leaky_page),
    bits.NAME: Table(bits.BitsBench, bits.bits_rows, bits.bits_page, bits.bits_draw),
    "vinloc-table2": Table(VinLocBench, method_rows.table2, pages.table2_page),
    "vinloc-table4": Table(VinLocBench, method_rows.table4, pages.table4_page),
    angles.NAME: Table(VinLocBench, angles.fig7_rows, angles.fig7_page, angles.fig7_draw),
    "vinloc-bits": Table(VinLocBench, method_rows.bits_rows, pages.bits_page, pages.bits_draw),
    "vinloc-trps": Table(VinLocBench, method_rows.size_rows, pages.size_page, pages.size_draw),
    "vinloc-sync": Table(VinLocBench, method_rows.sync_rows, pages.sync_page, pages.sync_draw),
    "vinloc-noise": Table(VinLocBench, method_rows.noise_rows, pages.noise_page),
    "vinloc-phase": Table(VinLocBench, method_rows.phase_rows, pages.phase_page),
    lost.NAME: Table(VinLocBench, lost.lost_rows, pages.lost_page, pages.lost_draw),
}


def reproduce(
    name: str,
    output: Path,
    on_row: OnRow = lambda *_: None,
    *,
    train: bool = True,
    bench: Bench | None = None,
) -> Path:
    """Measure a table's rows; write ``NAME.json``, ``NAME.md`` and, if any, ``NAME.png`` to `output`; return the page.

    Args:
        name: one of `TABLES`.
        output: folder.
        on_row: called with label, number of rows done, number of all rows.
        train: run missing trainings; the shipped networks of ecc-table2 are `sim.reproduce.ecc.campaign`'s alone.
        bench: bench to use; the table's own by default.

    Raises:
        UserError: there is no such table, path data are missing, or a row's run fails; earlier rows are kept.
    """
    table = _table(name)
    desk = table.bench() if bench is None else bench
    store = output / f"{name}.json"
    records = measure_rows(desk, table.rows(desk), store, train=train, commit=commit(), on_row=on_row)
    if table.draw is not None:
        table.draw(output / f"{name}.png", records)
    page = output / f"{name}.md"
    write_text(page, table.page(name, records))
    return page


def plan(name: str, output: Path) -> tuple[list[Planned], str]:
    """Return what `reproduce` would do for each row, and a sentence on missing path data, without which it would not.

    Nothing is trained, measured or written.

    Raises:
        UserError: there is no such table, or what is stored of it is damaged.
    """
    table = _table(name)
    with TemporaryDirectory(prefix="cofix-dry-run-") as folder, variants_in(Path(folder)):
        bench = table.bench()
        rows = table.rows(bench)
        found = planned(bench, rows, output / f"{name}.json")
        try:
            require_data(bench, rows)
        except UserError as error:
            return found, str(error)
        return found, ""


def _table(name: str) -> Table:
    if name not in TABLES:
        raise UserError(f"There is no table {name!r}{nearest_hint(name, TABLES)}.")
    return TABLES[name]

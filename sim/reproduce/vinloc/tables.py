"""Tables and figures of VIn-Loc: ``python cli.py reproduce vinloc-…``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sim.reproduce.published import Published, publish
from sim.reproduce.rows import OnRow, Row
from sim.reproduce.vinloc.bench import Bench
from sim.reproduce.vinloc.figures import bits_draw, size_draw, sync_draw
from sim.reproduce.vinloc.method_rows import bits_rows, phase_rows, size_rows, sync_rows, table2, table4
from sim.reproduce.vinloc.pages import bits_page, phase_page, size_page, sync_page, table2_page, table4_page

TABLES: dict[str, tuple[Callable[[], list[Row]], Published]] = {
    "vinloc-table2": (table2, Published(table2_page)),
    "vinloc-table4": (table4, Published(table4_page)),
    "vinloc-bits": (bits_rows, Published(bits_page, bits_draw)),
    "vinloc-trps": (size_rows, Published(size_page, size_draw)),
    "vinloc-sync": (sync_rows, Published(sync_page, sync_draw)),
    "vinloc-phase": (phase_rows, Published(phase_page)),
}


def reproduce(
    name: str,
    output: Path,
    *,
    bench: Bench | None = None,
    train: bool = True,
    commit: str | None = None,
    on_row: OnRow = lambda *_: None,
) -> Path:
    """Measure a table's rows and write it into `output`; see `published.publish`.

    Raises:
        KeyError: there is no such table.
        UserError: path data are missing.
    """
    rows, published = TABLES[name]
    desk = Bench() if bench is None else bench
    return publish(name, published, rows(), desk, output, train=train, commit=commit, on_row=on_row)

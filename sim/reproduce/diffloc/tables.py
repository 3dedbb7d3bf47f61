"""Published tables of DiffLoc, measured again: ``python cli.py reproduce diffloc-…``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sim.reproduce.diffloc.bench import Bench
from sim.reproduce.diffloc.figure_rows import fig7_rows, fig8_rows, fig9_rows, fig11_rows
from sim.reproduce.diffloc.figures import (
    fig7_draw,
    fig7_page,
    fig8_draw,
    fig8_page,
    fig9_draw,
    fig9_page,
    fig11_draw,
    fig11_page,
)
from sim.reproduce.diffloc.fusion_rows import fusion_page, fusion_rows
from sim.reproduce.diffloc.leaky_table import leaky_page, leaky_rows
from sim.reproduce.diffloc.method_page import method_page
from sim.reproduce.diffloc.method_rows import table4, table5, table6
from sim.reproduce.published import Published, publish
from sim.reproduce.rows import OnRow, Row

TABLES: dict[str, tuple[Callable[[Bench], list[Row]], Published]] = {
    "diffloc-table4": (table4, Published(method_page)),
    "diffloc-table5": (table5, Published(method_page)),
    "diffloc-table6": (table6, Published(method_page)),
    "diffloc-fig7": (fig7_rows, Published(fig7_page, fig7_draw)),
    "diffloc-fig8": (fig8_rows, Published(fig8_page, fig8_draw)),
    "diffloc-fig9": (fig9_rows, Published(fig9_page, fig9_draw)),
    "diffloc-fig11": (fig11_rows, Published(fig11_page, fig11_draw)),
    "diffloc-fusion": (fusion_rows, Published(fusion_page)),
    "diffloc-leaky": (leaky_rows, Published(leaky_page)),
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
    return publish(name, published, rows(desk), desk, output, train=train, commit=commit, on_row=on_row)

"""Published tables of DiffLoc, measured again: ``python cli.py reproduce diffloc-…``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.learn.diffloc.bench import Bench
from sim.learn.diffloc.figurerows import fig7_rows, fig8_rows, fig9_rows, fig11_rows
from sim.learn.diffloc.figures import (
    fig7_draw,
    fig7_page,
    fig8_draw,
    fig8_page,
    fig9_draw,
    fig9_page,
    fig11_draw,
    fig11_page,
)
from sim.learn.diffloc.fusionrows import fusion_page, fusion_rows
from sim.learn.diffloc.leaky_table import leaky_page, leaky_rows
from sim.learn.diffloc.methodpage import method_page
from sim.learn.diffloc.methodrows import table4, table5, table6
from sim.learn.diffloc.rows import OnRow, Row, measure_rows, write_text

Records = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Published:
    """A table or figure of the paper.

    Attributes:
        rows: what is measured.
        page: makes the Markdown page from name and records.
        draw: makes the picture, of figures.
    """

    rows: Callable[[Bench], list[Row]]
    page: Callable[[str, Records], str]
    draw: Callable[[Path, Records], None] | None = None


TABLES = {
    "diffloc-table4": Published(table4, method_page),
    "diffloc-table5": Published(table5, method_page),
    "diffloc-table6": Published(table6, method_page),
    "diffloc-fig7": Published(fig7_rows, fig7_page, fig7_draw),
    "diffloc-fig8": Published(fig8_rows, fig8_page, fig8_draw),
    "diffloc-fig9": Published(fig9_rows, fig9_page, fig9_draw),
    "diffloc-fig11": Published(fig11_rows, fig11_page, fig11_draw),
    "diffloc-fusion": Published(fusion_rows, fusion_page),
    "diffloc-leaky": Published(leaky_rows, leaky_page),
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
    """Measure a table's rows and write ``<name>.json`` and ``<name>.md`` into `output`; returns the latter.

    Figures write ``<name>.png`` as well. See `rows.measure_rows` for what is measured again.

    Raises:
        KeyError: there is no such table.
        UserError: path data are missing.
    """
    published = TABLES[name]
    desk = Bench() if bench is None else bench
    output.mkdir(parents=True, exist_ok=True)
    rows = published.rows(desk)
    records = measure_rows(desk, rows, output / f"{name}.json", train=train, commit=commit, on_row=on_row)
    if published.draw is not None:
        published.draw(output / f"{name}.png", records)
    page = output / f"{name}.md"
    write_text(page, published.page(name, records))
    return page

"""A paper's table or figure, measured again: what is measured, and the page and picture made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim.files import write_text
from sim.reproduce.rows import Bench, OnRow, Row, measure_rows

Records = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Published:
    """How it is shown.

    Attributes:
        page: makes the Markdown page from name and records.
        draw: makes the picture, where there is one.
    """

    page: Callable[[str, Records], str]
    draw: Callable[[Path, Records], None] | None = None


def publish(
    name: str,
    published: Published,
    rows: Sequence[Row],
    bench: Bench,
    output: Path,
    *,
    train: bool = True,
    commit: str | None = None,
    on_row: OnRow = lambda *_: None,
) -> Path:
    """Measure rows and write ``<name>.json``, ``<name>.md`` and maybe ``<name>.png`` into `output`; return the page.

    See `rows.measure_rows` for what is measured again, and for errors.
    """
    output.mkdir(parents=True, exist_ok=True)
    records = measure_rows(bench, rows, output / f"{name}.json", train=train, commit=commit, on_row=on_row)
    if published.draw is not None:
        published.draw(output / f"{name}.png", records)
    page = output / f"{name}.md"
    write_text(page, published.page(name, records))
    return page

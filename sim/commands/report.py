"""`report`: one HTML file on finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(help="HTML file to write; default: RUN.html or report.html, here.", show_default=False),
    ] = None,
) -> None:
    """Write one HTML file on a finished run, or on several beside each other; it opens without a network."""
    from sim.report.page import write_report

    path = output or Path(f"{runs[0].resolve().name}.html" if len(runs) == 1 else "report.html")
    write_report(runs, path)
    print(path)

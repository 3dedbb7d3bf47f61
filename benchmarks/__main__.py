"""``python -m benchmarks [PART]... [--quick] [--json FILE]``."""

from __future__ import annotations

import tempfile
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import report, world
from benchmarks.machine import this_machine
from benchmarks.timing import FULL, QUICK, Bench, Row
from fronthaul.errors import FronthaulError
from sim.arithmetic import THREADS, fixed_arithmetic
from sim.errors import UserError


class Part(StrEnum):
    """The benchmarks: each is a module of this package with a function `run`."""

    PACKING = "packing"
    WIRE = "wire"
    ENCODE = "encode"
    TRANSPORT = "transport"
    FRONTHAUL = "fronthaul"
    CLOSING = "closing"
    FUSION = "fusion"
    DIFFLOC = "diffloc"
    TWIN = "twin"
    WHOLE = "whole"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    parts: Annotated[
        list[Part] | None, typer.Argument(metavar="[PART]...", help=f"{', '.join(Part)}; default: all.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only show that everything runs, in seconds.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the same to this file.")] = None,
) -> None:
    """Time the parts and the whole; docs/benchmarks.md says how to read the table."""
    console = Console(stderr=True)
    rows: dict[str, list[Row]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="cofix-benchmarks-") as folder, fixed_arithmetic(THREADS):
            machine = this_machine()
            path, weights = world.weights(Path(folder))
            bench = Bench(QUICK if quick else FULL, Path(folder), path)
            for part in dict.fromkeys(parts or Part):
                with console.status(f"Timing {part}"):
                    rows[part] = import_module(f"benchmarks.{part}").run(bench)
            report.show(rows, machine, weights, quick)
            if json_file is not None:
                report.save(json_file, rows, machine, weights, quick)
    except (UserError, FronthaulError, OSError) as error:
        console.print(str(error), highlight=False)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    app()

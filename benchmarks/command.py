"""The command `bench`: ratios of this machine in one run, alone or against those of an earlier one."""

from __future__ import annotations

import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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
    PROCESS = "process"
    GROWTH = "growth"
    START = "start"
    WHOLE = "whole"


def bench(
    parts: Annotated[
        list[Part] | None, typer.Argument(metavar="[PART]...", help=f"{', '.join(Part)}; default: all.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Only show that everything runs, in seconds; default: measure.", show_default=False
        ),
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write the same to this file; default: print alone.", show_default=False),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="A file that --json wrote: compare ratios with it; status 1 if one is clearly worse; default: none.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Time the parts and the whole, as ratios to yardsticks of the same run; docs/benchmarks.md explains the table."""
    from importlib import import_module

    from rich.console import Console

    from benchmarks import compare, report, world
    from benchmarks.machine import this_machine
    from benchmarks.timing import FULL, QUICK, Bench, Row
    from sim.arithmetic import THREADS, fixed_arithmetic

    before = compare.read(against) if against is not None else None
    rows: dict[str, list[Row]] = {}
    took_s: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="cofix-benchmarks-") as folder, fixed_arithmetic(THREADS):
        machine = this_machine()
        path, weights = world.weights(Path(folder))
        settings = Bench(QUICK if quick else FULL, Path(folder), path)
        for part in dict.fromkeys(parts or Part):
            with Console(stderr=True).status(f"Timing {part}"):
                begin_s = time.perf_counter()
                rows[part] = import_module(f"benchmarks.{part}").run(settings)
                took_s[part] = time.perf_counter() - begin_s
        report.show(rows, machine, weights, quick)
        if json_file is not None:
            report.save(json_file, rows, machine, weights, quick, took_s)
    if before is not None and compare.show(rows, before) and not quick:
        raise typer.Exit(1)

"""`sweep` and `compare`: many emulations, over lists of option values."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.commands.common import DryRun, Quiet, console, stoppable
from sim.commands.options import FromRun, given_options, takes
from sim.plan.setting import OUTPUT, PLACEMENT, WHAT
from sim.sweep.cases import DEFAULTS, OPTIONS, cases_of

if TYPE_CHECKING:
    from rich.console import Console

    from sim.sweep.sweep import Sweep


@takes(OPTIONS, defaults=DEFAULTS, lists=True)
def sweep(
    context: typer.Context,
    output: Annotated[
        Path, typer.Option(help="Folder of the sweep: table, picture, and each row's run.", rich_help_panel=OUTPUT)
    ] = Path("sweep"),
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Processes that run rows side by side.", rich_help_panel=PLACEMENT)
    ] = 1,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="auto, or HOST:PORT of a running Ray cluster, on whose nodes rows run.",
            rich_help_panel=PLACEMENT,
            show_default="this machine",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SCHEME=]FILE",
            help="Trained weights (safetensors), of one scheme if there are several; may be repeated; default: the "
            "shipped ones, else those of `train`.",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    from_run: FromRun = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    **words: Any,
) -> None:
    """Emulate every combination of lists in process; table and plot of error against budget; can be resumed."""
    from sim.sweep.sweep import finished, run_sweep
    from sim.terminal import ProgressBar

    cases = cases_of(words | {"weights": weights}, output, given_options(context))
    if dry_run:
        rows = finished(cases, output)
        for case, row in zip(cases, rows, strict=True):
            print(f"{'finished' if row else 'to run  '}  {case.name}")
        left = [case.settings.snapshots for case, row in zip(cases, rows, strict=True) if row is None]
        print(f"{len(left)} of {len(cases)} rows to run, {sum(left)} fixes. Nothing was done.")
        return
    told = f"Stopped; finished rows are in {output}, and the same command resumes."
    with stoppable(lambda: told), ProgressBar(quiet=quiet) as bar:

        def advance(name: str, done: int, total: int, begins: bool) -> None:
            bar.update("sweep", done, total, note=name, restart=begins)

        made = run_sweep(cases, output, shlex.join(["cofix", *(context.obj or ())]), advance, workers, ray_address)
    show_sweep(made)


def compare(
    context: typer.Context,
    sweeps: Annotated[list[Path], typer.Argument(metavar="SWEEP", help="Folders of sweeps.", show_default=False)],
    output: Annotated[Path, typer.Option(help="Folder of the table and the pictures.")] = Path("compare"),
) -> None:
    """Show finished sweeps in one table and picture, with the Pareto front of all."""
    from sim.sweep.joined import compare as joined

    show_sweep(joined(sweeps, output, shlex.join(["cofix", *(context.obj or ())])))


def show_sweep(made: Sweep) -> None:
    """Print the table of a sweep, and its files."""
    show_rows(console(), made.rows)
    for path in (made.table, made.text, *made.pictures):
        print(path)


def show_rows(out: Console, rows: list[dict[str, Any]]) -> None:
    """Print the table of a sweep."""
    from sim.sweep.sweep import EXPLAINED, PER_REPORT, body, heading
    from sim.terminal import new_table, show_table

    words = heading(rows)
    shown = [index for index, word in enumerate(words) if word != PER_REPORT]  # as wide as a terminal
    table = new_table(*(re.sub(r" (?=\[|\(|of all)", "\n", words[index]) for index in shown))
    for cells in body(rows):
        table.add_row(*(cells[index] for index in shown))
    show_table(out, table)
    out.print(EXPLAINED, soft_wrap=True)

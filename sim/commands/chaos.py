"""`chaos`: fault injection on a schedule, followed by an audit of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sim.commands.common import Quiet, console, stoppable
from sim.commands.emulate import stopped_run
from sim.commands.options import takes
from sim.errors import UserError
from sim.plan import options
from sim.plan.setting import WHAT

HARD = {
    "interval": 200.0,
    "loss": "1%",
    "duplicate": "1%",
    "corrupt": "0.5%",
    "delay": "2ms",
    "jitter": "1ms",
    "curve": True,
    "cpus_per_bs": 0.15,
    "cloud_cpus": 0.25,
}
"""Defaults that differ from those of `emulate`: impaired links, and CPU shares that leave room for restarts."""


@takes(("bs", "bits", "scheme", "deadline", "round", *HARD, "output"), defaults=HARD)
def chaos(
    minutes: Annotated[float, typer.Option(help="Duration of the run in minutes.", rich_help_panel=WHAT)] = 5.0,
    seed: Annotated[int, typer.Option(help="Seed of the faults and of all other draws.", rich_help_panel=WHAT)] = 7,
    quiet: Quiet = False,
    **words: Any,
) -> None:
    """Kill, cut and freeze base stations and the cloud on a schedule; audit what is left.

    Exit status 1 if fixes did not resume in time after a fault, or the audit fails. Links are encrypted by default:
    then frames of an old process that still runs beside its successor arrive and must be rejected.
    """
    from sim.commands.look import show_audit
    from sim.emulate.chaos import markdown, run_chaos
    from sim.inspect.audit import audit
    from sim.plan.outcome import Progress
    from sim.terminal import ProgressBar

    if minutes <= 0:
        raise UserError(f"--minutes must be above 0, it is {minutes:g}.")
    settings = options.settings_of(words | {"seed": seed, "bs_per_actor": 1})
    made: list[Path] = []
    with stoppable(lambda: stopped_run(made)), ProgressBar(quiet=quiet) as bar:

        def advance(progress: Progress) -> None:
            made.extend([progress.folder] if progress.folder else [])
            bar.update({"run": "positioning"}.get(progress.stage, progress.stage), progress.done, progress.total)

        result = run_chaos(settings, 60 * minutes, advance)
    out = console()
    print(markdown(result))
    found = audit(result.folder)
    show_audit(out, found)
    print(f"run folder: {result.folder}")
    if not result.ok:
        print("Fixes did not resume in time after every fault.")
    if not (result.ok and found.ok):
        raise typer.Exit(1)

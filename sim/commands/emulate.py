"""`emulate`: run one emulation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sim.commands.common import console, print_json, stoppable
from sim.commands.options import FromRun, effective, given_options, takes
from sim.plan import options
from sim.plan.setting import OUTPUT

LiveView = Annotated[
    Literal["page", "terminal"] | None,
    typer.Option(
        "--live",
        help="Show the run while it goes on: on a page at an address of this machine, or in the terminal; default: a "
        "progress bar.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", help="Print nothing but errors and, with --json, the JSON; default: results and a progress bar.",
        rich_help_panel=OUTPUT, show_default=False,
    ),
]  # fmt: skip


@takes(options.OPTIONS)
def emulate(
    context: typer.Context, from_run: FromRun = None, live: LiveView = None, quiet: Quiet = False, **words: Any
) -> None:
    """Run base stations, fronthaul and cloud; report position error, bits and latency."""
    words = effective(context, words)
    options.require_effect(given_options(context), words["driver"])
    settings = options.settings_of(words)
    options.require_own_links(settings)
    from sim.commands.live import VIEWS, silence
    from sim.commands.summary import show_summary
    from sim.emulate.emulator import Progress, run_plan
    from sim.errors import UserError
    from sim.plan.plan import load_plan

    if live and quiet:
        raise UserError("--live shows the run and --quiet hides it: leave one of them out.")
    made: list[Path] = []
    with stoppable(lambda: stopped_run(made)):
        plan = load_plan(settings)
        with (silence if quiet else VIEWS[live])(plan) as show:

            def advance(progress: Progress) -> None:
                made.extend([progress.folder] if progress.folder else [])
                show(progress)

            result = run_plan(plan, advance)
    if words["json"]:
        print_json({"folder": str(result.folder), **result.summary})
    elif not quiet:
        show_summary(console(), result.summary, result.folder)
    if not result.summary["fixes"]:  # a note of the summary says why
        raise typer.Exit(1)


def stopped_run(folders: Iterable[Path]) -> str:
    """Return a sentence on what a stopped run has left in those of its folders that are still there."""
    parts = [folder for folder in folders if folder.exists()]
    if not parts:
        return "Stopped before anything was sent; nothing is on disk."
    return f"Stopped; every frame sent until then is journaled in {', '.join(sorted(map(str, parts)))}."

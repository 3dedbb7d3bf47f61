"""`emulate`: run one emulation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from sim.commands import options
from sim.commands.common import console, stoppable


@options.takes(options.OPTIONS)
def emulate(context: typer.Context, **words: Any) -> None:
    """Run base stations, fronthaul and cloud; report position error, bits and latency."""
    options.require_effect(context, words["driver"])
    settings = options.settings_of(words)
    options.require_own_links(settings)
    from sim.commands.summary import show_summary
    from sim.emulate.emulator import Progress as RunProgress
    from sim.emulate.emulator import emulate as run
    from sim.terminal import ProgressBar

    stages = {"start": "starting", "run": "positioning", "write": "writing"}
    before = parts_of_runs(settings.output)
    with stoppable(lambda: stopped_run(parts_of_runs(settings.output) - before)), ProgressBar() as bar:

        def advance(progress: RunProgress) -> None:
            bar.update(stages[progress.stage], progress.done, progress.total)

        result = run(settings, advance)
    if words["json"]:
        print(json.dumps(result.summary, indent=2))
    else:
        show_summary(console(), result.summary, result.folder)
    if not result.summary["fixes"]:  # a note of the summary says why
        raise typer.Exit(1)


def parts_of_runs(output: Path) -> set[Path]:
    """Return the folders of runs that are in progress or were cut."""
    return set(output.glob("*.part"))


def stopped_run(parts: set[Path]) -> str:
    """Return a sentence on what a stopped run has left in `parts`."""
    if not parts:
        return "Stopped before anything was sent; nothing is on disk."
    return f"Stopped; every frame sent until then is journaled in {', '.join(sorted(map(str, parts)))}."

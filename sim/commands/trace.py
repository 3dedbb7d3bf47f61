"""`trace`: ray tracing, or drawing, of a scenario's path data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.commands.common import DryRun, Quiet


def trace(
    context: typer.Context,
    scenario: Annotated[
        str, typer.Argument(help="Name of a shipped scenario, or path of a TOML file.", show_default=False)
    ],
    positions: Annotated[
        int | None,
        typer.Option(
            help="Number of user positions; default: the scenario's. With a \\[mismatch] that needs a trace: of "
            "test positions; default: all.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the data set; default: data/SCENARIO.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Ray-trace a scenario into a path data set; can be resumed. Test positions are traced again for a mismatch."""
    from dataclasses import replace as changed

    from sim.commands import tracing, tracing_plan
    from sim.errors import UserError
    from sim.terminal import ProgressBar
    from sim.world.scenario import load_scenario
    from sim.world.store import data_folder

    wanted = load_scenario(scenario)
    if positions is not None:
        if positions < 1:
            raise UserError(f"--positions must be at least 1, it is {positions}.")
        if wanted.layouts is not None:
            raise UserError("--positions is not for a scenario with layouts: its [layouts] table says how many users.")
        wanted = changed(wanted, tracing=changed(wanted.tracing, positions=positions))
    folder = output or Path("data") / wanted.data_name
    again = bool(wanted.mismatch.traced())
    known = again and (data_folder(wanted) / "test.npz").is_file()
    if again and output is not None:
        raise UserError("--output is not for a scenario whose [mismatch] needs a trace: `emulate` would not find it.")
    if wanted.is_own:
        raise UserError(f"Scenario {wanted.name!r} was imported: it has no scene that could be traced.")
    if dry_run:
        if known:
            tracing_plan.plan_world(wanted, positions)
        elif wanted.layouts is not None:
            tracing_plan.plan_layouts(wanted, folder)
        elif wanted.factory is not None:
            tracing_plan.plan_factory(wanted, folder)
        else:
            tracing_plan.plan_scene(wanted, folder)
        if again and not known:
            print("Test positions are then traced once more, for the [mismatch], which is not counted.")
        return
    bar = context.with_resource(ProgressBar(quiet=quiet))
    if wanted.layouts is not None:
        tracing.trace_layout_data(wanted, folder, bar)
    elif wanted.factory is not None:
        tracing.draw_factory_data(wanted, folder, bar)
    elif not known:
        tracing.trace_scene_data(wanted, folder, bar)
    if again:
        tracing.trace_world_data(wanted, positions if known else None, bar)

"""`twin`: make the map that scheme `twin` uses from a scenario's path data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.commands.common import Quiet, require_choice, stoppable
from sim.plan.setting import OUTPUT, WHAT


def twin(
    scenario: Annotated[
        str, typer.Argument(help="Name of a shipped scenario, or path of a TOML file.", show_default=False)
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Path data set; default: data/SCENARIO/paths.npz.", show_default=False, rich_help_panel=WHAT),
    ] = None,
    positions: Annotated[
        int | None,
        typer.Option(help="Stored positions at most; default: 5000.", show_default=False, rich_help_panel=WHAT),
    ] = None,
    split: Annotated[
        str,
        typer.Option(metavar="random|block", help="How test positions are held out.", rich_help_panel=WHAT),
    ] = "random",
    learned: Annotated[
        Path | None,
        typer.Option(help="Make no twin: add weights of ecc-klt or ecc-rd to that in their folder, for twin-ecc.",
                     show_default=False, rich_help_panel=WHAT),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write; default: data/SCENARIO/twin.safetensors.", show_default=False,
                     rich_help_panel=OUTPUT),
    ] = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Make a twin of a traced scenario: the anchors of its paths, and how many bits each part of a report gets."""
    from sim.errors import UserError
    from sim.learn.twin.make import POSITIONS, make_twin, require_mapped, with_learned
    from sim.terminal import ProgressBar
    from sim.world.scenario import load_scenario
    from sim.world.store import load_traced

    if learned is not None:
        target = output or learned.with_name("twin-ecc.safetensors")
        with_learned(learned.with_name("twin.safetensors"), learned, target)
        print(f"python cli.py emulate --scheme twin-ecc --scenario {scenario} --weights {target}")
        return
    require_choice("split", split, ("random", "block"))
    wanted = load_scenario(scenario)
    require_mapped(wanted)
    if positions is not None and positions < 1:
        raise UserError(f"--positions must be at least 1, it is {positions}.")
    paths = load_traced(wanted, data)
    target = output or Path("data") / wanted.data_name / "twin.safetensors"
    with stoppable(lambda: "Stopped; nothing is written."), ProgressBar(quiet=quiet) as bar:
        anchors = make_twin(
            wanted,
            paths,
            target,
            positions=positions or POSITIONS,
            split=split,  # type: ignore[arg-type]  # checked above
            on_progress=lambda done, total: bar.update("allocating bits", done, total),
        )
    print(f"{len(anchors.site)} anchors, seen from {len(anchors.position)} positions: {target}")
    print(f"python cli.py emulate --scheme twin --scenario {scenario} --weights {target}")

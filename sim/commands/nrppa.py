"""`train nrppa`: the learned fusion of NRPPa's reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sim.commands.common import emulate_command, stoppable

if TYPE_CHECKING:
    from sim.learn.nrppa import NrppaTraining
    from sim.terminal import ProgressBar
    from sim.world.paths import PathSet
    from sim.world.scenario import Scenario


def train_reports(scenario: Scenario, paths: PathSet, training: NrppaTraining, output: Path, bar: ProgressBar) -> None:
    """Train, and say how well."""
    from sim.files import require_writable
    from sim.learn.nrppa import train_nrppa

    require_writable(output)
    checkpoint = output.with_suffix(".pt")
    told = f"Stopped; reports and the last finished epoch are in {checkpoint.parent}, and the same command resumes."
    with stoppable(lambda: told):

        def advance(stage: str, done: int, total: int, note: str) -> None:
            bar.update(stage, done, total, note=note)

        errors = train_nrppa(scenario, paths, training, output, advance, checkpoint)
    for name, error in errors.items():
        print(f"mean 3D error on validation positions from reports of nrppa-{name} {error:.3f} m")
    print(output)
    print(emulate_command(scenario.name, scenario.station_count, "nrppa-path-learned", output))

"""`train ecc-klt`, `train ecc-total` and `train ecc-rd`: ECC at any number of bits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sim.commands.common import emulate_command, stoppable

if TYPE_CHECKING:
    import torch

    from sim.learn.ecc.rate import RateTraining
    from sim.learn.trainer import TrainProgress
    from sim.terminal import ProgressBar
    from sim.world.paths import PathSet
    from sim.world.scenario import Scenario


def train_rate(
    scheme: str, scenario: Scenario, paths: PathSet, training: RateTraining, device: torch.device, output: Path,
    bar: ProgressBar,
) -> None:  # fmt: skip
    """Fit or train, and say how well."""
    from sim.files import require_writable
    from sim.learn.ecc.rate import fit_klt, fit_total, train_rd

    require_writable(output)
    if scheme == "ecc-klt":
        fit_klt(scenario, paths, training, output, partial(bar.update, "observing"))
        print(f"transforms of {training.start_from}: {output}")
    elif scheme == "ecc-total":
        fit_total(scenario, paths, training, output, partial(bar.update, "observing"))
        print(f"allocation for {training.start_from}: {output}")
    else:
        checkpoint = output.with_suffix(".pt")
        told = f"Stopped; the last finished epoch is in {checkpoint}, and the same command resumes."
        with stoppable(lambda: told):

            def advance(progress: TrainProgress) -> None:
                bar.update(f"training {scheme}", progress.step, progress.steps, note=f"loss {progress.loss:.4g}")
                if progress.validation_m is not None:
                    bar.say(f"step {progress.step}: mean 3D error at 64 bit, validation, {progress.validation_m:.3f} m")

            errors = train_rd(scenario, paths, training, output, advance, checkpoint=checkpoint, device=device)
        for bits, error in errors.items():
            print(f"mean 3D error on validation positions at {bits} bit {error:.3f} m")
        print(output)
    print(emulate_command(scenario.name, scenario.station_count, scheme, output))

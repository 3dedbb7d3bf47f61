"""``train diffloc``: trains a network for each base station of a scenario, and writes the emulator's weights file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sim.errors import UserError
from sim.learn.diffloc.evaluate import errors_m, sample
from sim.learn.diffloc.export import export_weights
from sim.learn.diffloc.features import SCALE_M, FeatureSetting, make_features
from sim.learn.diffloc.fit import FitProgress, Schedule
from sim.learn.diffloc.job import Fit, Job
from sim.learn.diffloc.jobs import further, train_networks
from sim.learn.diffloc.trained import CT_STEPS, DDIM_STEPS, measured
from sim.world.scenario import Scenario
from sim.world.store import load_traced

FUSED_SHARE = 0.25
"""Share of a budget of time that the joint further training takes."""


@dataclass(frozen=True)
class DiffLocTraining:
    """Settings of a training: `model` ct, unet or mlp; `split`; `soft` labels; then the schedule (`fit.Schedule`).

    With `fused`, consistency networks are then trained further, jointly (`jobs.further`).
    """

    model: str = "ct"
    split: str = "random"
    soft: bool = False
    fused: bool = False
    epochs: int = 60
    batch: int = 32
    rate: float = 1e-3
    average: float = 0.0
    budget_s: float | None = None
    seed: int = 0


def train_diffloc(
    scenario: Scenario,
    data: Path | None,
    training: DiffLocTraining,
    output: Path,
    on_progress: Callable[[int, int, str], None] = lambda *_: None,
    device: torch.device | None = None,
) -> tuple[list[Path], str]:
    """Train on `device` and write the weights; return their files and a sentence on validation errors.

    Raises:
        UserError: data are missing, of another scenario or without walks, or the scenario has no delay taps.
    """
    if not scenario.numerology.taps:
        raise UserError(f"DiffLoc learns from delay taps (numerology.taps), and scenario {scenario.name!r} has none.")
    paths = load_traced(scenario, data)
    if training.split == "user" and not len(paths.user):
        raise UserError("--split user holds out whole walks, and these path data have none.")
    setting = FeatureSetting(
        split=training.split,  # type: ignore[arg-type]  # checked by the caller
        stations=tuple(range(len(scenario.sites))),
    )
    budget_s, share = training.budget_s, FUSED_SHARE * training.fused
    schedule = Schedule(
        epochs=training.epochs, batch=training.batch, rate=training.rate, average=training.average,
        budget_s=None if budget_s is None else (1 - share) * budget_s, seed=training.seed,
    )  # fmt: skip
    job = Job(output.stem, scenario.name, training.model, setting, soft=training.soft, schedule=schedule)
    features = make_features(scenario, paths, setting, device=device)

    def advance(progress: FitProgress) -> None:
        on_progress(progress.epoch, progress.epochs, f"loss {progress.training:.3g}, {progress.validation:.3g}")

    network, losses = train_networks(job, features, output.with_suffix(".pt"), advance, device)
    trained = measured(Fit(job, network, None, None, {"validation_loss": losses}), features)
    if training.fused:
        job = further(job)
        if budget_s is not None:
            job = replace(job, schedule=replace(job.schedule, average=training.average, budget_s=share * budget_s))
        network, losses = train_networks(job, features, output.with_suffix(".fused.pt"), advance, device, trained)
        trained = measured(Fit(job, network, None, None, {"validation_loss": losses}, trained.posterior), features)
    files = export_weights(trained, scenario, output)
    truth = trained.truth("validation")
    steps = CT_STEPS if job.model == "ct" else DDIM_STEPS
    fused = errors_m(sample(trained.networks("validation"), "gauss", steps).position, truth)
    report = f"validation, {steps} steps: mean error of all base stations fused by gauss {fused.mean():.2f} m"
    if not training.fused:  # an answer that is trained for the fused position is no position of its own
        alone = np.sqrt(np.trace(trained.posterior, axis1=1, axis2=2)) * SCALE_M
        report += f"; root mean square of each alone {', '.join(f'{error:.1f}' for error in alone)} m"
    return files, report

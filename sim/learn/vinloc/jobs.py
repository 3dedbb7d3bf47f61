"""Named trainings of VIn-Loc, for the tables and for the shipped weights, and how to run one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from sim.errors import UserError, nearest_hint
from sim.learn.vinloc.data import Users, drawn_users, load_users
from sim.learn.vinloc.evaluate import network_of
from sim.learn.vinloc.model import VinLocModel
from sim.learn.vinloc.train import OnProgress, Schedule, VinLocTrainer
from sim.plan.weights import load_weights
from sim.world.scenario import Scenario, load_scenario
from sim.world.store import ASSET_FOLDER, DATA_FOLDER

ANY_SUBSET = (3, 4, 5, 6, 8, 10, 12, 15, 15, 15, 15, 18, 18)
"""Subset sizes for weights that work with any number of base stations; half are at or near the paper's 15 of 18."""
_MORE_SUBSET = (4, 6, 9, 12, 15, 15, 15, 15, 18, 18)
_FEW_SIZES = (3, 5, 8, 12, 15, 15, 15, 18, 18)
"""As ANY_SUBSET; a GPU prepares for each size of its inputs, which takes seconds."""
SEEDS = (1, 2)
"""Seeds of further trainings of VIn-Loc on equal terms, beside 0."""
EQUAL_EPOCHS = 2
"""Epochs of trainings that are compared with each other: VIn-Loc with and without positions, and ResNet."""
_SHORT = Schedule(epochs=2, rate=5e-4, subset=(15,))
"""Schedule of variants that start from the weights of job ``any``."""

_TUNE = Schedule(epochs=0.5, rate=2e-4, warmup_steps=20, subset=(15,), average=0.1)
"""Schedule of variants that start from the shipped weights of the hall."""


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        name: base name of its files.
        scenario: scenario whose users it is trained on.
        positions: whether the cloud's network is given the positions of the base stations.
        width: width of the cloud's encoder; the paper's is 512.
        schedule: training schedule.
        start: job whose weights it starts from, "" for random initialisation. Without a checkpoint of that job, the
            scenario's shipped weights are taken if they are its result; else it is trained first.
        further: number of users that are drawn beyond the scenario's, to train on, together with the scenario's own, on
            the device; None loads the scenario's from its data set. For an indoor factory.
        rank: rank to which the first layer of the base stations' MLP is reduced on export; 0 keeps it whole.
    """

    name: str
    scenario: str
    positions: bool = True
    width: int = 256
    schedule: Schedule = field(default_factory=Schedule)
    start: str = ""
    further: int | None = None
    rank: int = 0


JOBS = {
    job.name: job
    for job in (
        Job("any", "inf-dh-18", schedule=Schedule(epochs=14, subset=ANY_SUBSET)),
        Job("more", "inf-dh-18", schedule=Schedule(epochs=5, rate=6e-4, subset=_MORE_SUBSET), start="any"),
        Job(
            "hall",
            "inf-dh-18",
            width=384,
            schedule=Schedule(epochs=80, batch=512, subset=_FEW_SIZES, turn=True, average=0.1),
            further=60_000,
        ),
        Job("blind", "inf-dh-18", positions=False, schedule=_SHORT, start="any"),
        *(
            Job(
                f"short{part}{'-blind' * blind}",
                "inf-dh-18",
                positions=not blind,
                schedule=Schedule(epochs=EQUAL_EPOCHS, subset=(size,), resolutions=(0,)),
            )
            for part, size in (("-fixed", 18), ("", 15))
            for blind in (False, True)
        ),
        *(
            Job(
                f"short{part}-seed{seed}",
                "inf-dh-18",
                schedule=Schedule(epochs=EQUAL_EPOCHS, subset=(size,), resolutions=(0,), seed=seed),
            )
            for part, size in (("-fixed", 18), ("", 15))
            for seed in SEEDS
        ),
        Job("initial", "inf-dh-18-initial", width=384, schedule=_TUNE, start="hall"),
        Job("sync", "inf-dh-18", width=384, schedule=replace(_TUNE, sync_ns=50.0), start="hall"),
        Job("street", "paris-street-12", schedule=Schedule(epochs=24, subset=(12,))),
        Job(
            "street-more",
            "paris-street-12",
            schedule=Schedule(epochs=5.37, rate=2.5e-4, warmup_steps=30, subset=(12,), turn=True, average=0.1),
            start="street",
        ),
        Job(
            "street-long",
            "paris-street-12",
            schedule=Schedule(epochs=38, rate=4e-4, warmup_steps=30, subset=(12,), turn=True, average=0.1),
            start="street-more",
        ),
        Job(
            "street-longer",
            "paris-street-12",
            schedule=Schedule(epochs=51, rate=4e-4, warmup_steps=30, subset=(12,), turn=True, average=0.1),
            start="street-long",
        ),
        Job(
            "block",
            "paris-block-64",
            schedule=Schedule(
                epochs=3300 / 187, batch=32, warmup_steps=50, subset=(16,), turn=True, alone=0.3, average=0.1
            ),
            rank=64,
        ),
    )
}


def find_job(name: str) -> Job:
    """Return the job of this name.

    Raises:
        UserError: there is no such job.
    """
    if name not in JOBS:
        raise UserError(f"There is no VIn-Loc training {name!r}{nearest_hint(name, JOBS)}.")
    return JOBS[name]


def make_model(scenario: Scenario, job: Job, users: Users) -> VinLocModel:
    """Make the job's untrained model; positions are normalised by the box of the scenario's users."""
    torch.manual_seed(job.schedule.seed)
    array, taps = scenario.user_array, scenario.numerology.taps
    channels = [8, 16, 32, 48, 64] if array.antennas == 1 else [8, 16, 24, 32, 32]
    embedding: dict[str, Any] = {"antennas": array.antennas, "taps": taps, "rows": array.rows, "channels": channels}
    network = {"positions": job.positions, "width": job.width, "feedforward": 2 * job.width}
    low, high = (torch.tensor(corner, dtype=torch.float32) for corner in (scenario.users.low, scenario.users.high))
    return VinLocModel(embedding, network, low, high, tap_s(scenario), alone=job.schedule.alone > 0)


def tap_s(scenario: Scenario) -> float:
    """Return the spacing of the taps [s]."""
    return 1 / (scenario.numerology.ifft * scenario.numerology.tone_spacing_hz)


OnWeights = Callable[[VinLocModel, float], None]
"""Called with a model and the unit of amplitude gain of the responses that it takes (`CirSet.scale`)."""


def run_job(
    job: Job,
    folder: Path,
    on_progress: OnProgress = lambda _: None,
    on_weights: OnWeights = lambda *_: None,
    device: torch.device | None = None,
) -> VinLocModel:
    """Train a job, or resume it from its checkpoint in ``folder``; a finished job is only loaded.

    Args:
        job: the training.
        folder: folder of its checkpoint.
        on_progress: see `UserTrainer.run`.
        on_weights: called with the weights to keep after each checkpoint.
        device: where to train; the CPU by default.
    """
    scenario = load_scenario(job.scenario)
    device = device or torch.device("cpu")
    users = load_users(scenario, device=device) if job.further is None else drawn_users(scenario, device, job.further)
    model = make_model(scenario, job, users)
    checkpoint = folder / f"{job.name}.pt"
    if job.start and not checkpoint.is_file():
        model.load_state_dict(_started(find_job(job.start), users.train.scale, on_progress, device).state_dict())
    model = model.to(device)
    trainer = VinLocTrainer(
        model, users.train, users.validation, job.schedule,
        checkpoint=checkpoint,
        identity={
            "job": job.name, "scenario": scenario.tracing_digest(), "positions": job.positions, "width": job.width,
            "further": job.further,
        } | ({"start": job.start} if job.start else {}),
    )  # fmt: skip
    trainer.run(on_progress, lambda: on_weights(model, users.train.scale))
    return model


def _started(job: Job, unit: float, on_progress: OnProgress, device: torch.device) -> VinLocModel:
    """Return the model that another job starts from, for responses in `unit` (`CirSet.scale`)."""
    scenario, folder = load_scenario(job.scenario), _folder(job.name)
    shipped = ASSET_FOLDER / scenario.data_name / "vinloc.safetensors"
    if not (folder / f"{job.name}.pt").is_file() and shipped.is_file():
        weights = load_weights(shipped)
        if weights.config["record"]["job"] == job.name:
            model = network_of(weights, tap_s(scenario)).model
            model.embedding.scale.div_(unit)
            return model
    return run_job(job, folder, on_progress, device=device)


def _folder(name: str) -> Path:
    """Return the folder of a job's checkpoints."""
    return DATA_FOLDER / load_scenario(find_job(name).scenario).data_name / "vinloc"

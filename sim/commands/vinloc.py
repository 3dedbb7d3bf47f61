"""`train vinloc`: run one of the named trainings, or a variant of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sim.commands.common import emulate_command, stoppable
from sim.errors import UserError, nearest_hint
from sim.files import require_writable

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from sim.learn.vinloc.jobs import Job
    from sim.learn.vinloc.resnet_train import ResNetJob
    from sim.learn.vinloc.train import TrainProgress
    from sim.terminal import ProgressBar


def train_vinloc(
    name: str,
    scenario: str | None,
    bar: ProgressBar,
    *,
    dry_run: bool,
    epochs: float | None,
    batch: int | None,
    rate: float | None,
    seed: int,
    output: Path | None,
    budget_s: float | None = None,
    device: str | None = None,
    width: int | None = None,
    further: int | None = None,
) -> None:
    """Run the training job `name`; None stands for the job's own value.

    An unchanged job keeps its checkpoint where `reproduce` looks for it, a variant beside its weights.

    Raises:
        UserError: there is no such job, data are missing, or the checkpoint is another training's.
    """
    from sim.learn.device import training_device
    from sim.learn.vinloc.data import is_cached
    from sim.learn.vinloc.resnet_train import ResNetJob
    from sim.world.scenario import load_scenario
    from sim.world.store import CHECKPOINT_FOLDER, DATA_FOLDER

    known = _find(name)
    own = known.schedule
    schedule = replace(
        own,
        epochs=own.epochs if epochs is None else epochs,
        batch=own.batch if batch is None else batch,
        rate=own.rate if rate is None else rate,
        budget_s=budget_s,
        seed=seed or own.seed,
    )
    job = replace(known, scenario=scenario or known.scenario, schedule=schedule)
    if isinstance(job, ResNetJob) and (width is not None or further is not None):
        raise UserError("--width and --further are for jobs that train VIn-Loc's network.")
    if not isinstance(job, ResNetJob):
        job = replace(job, width=width or job.width, further=job.further if further is None else further)
    wanted = load_scenario(job.scenario)
    suffix = f"-seed{schedule.seed}" * (schedule.seed != own.seed)
    target = output or CHECKPOINT_FOLDER / wanted.name / f"vinloc-{name}{suffix}.safetensors"
    folder = DATA_FOLDER / wanted.data_name / "vinloc"
    drawn = not isinstance(job, ResNetJob) and job.further is not None
    if dry_run and not drawn and not is_cached(wanted):
        raise UserError(
            f"The responses of {wanted.name} that this job learns from are not in {folder}: its first start prepares "
            "them, and the pace cannot be known before."
        )
    if job != known or dry_run:
        job, folder = replace(job, name=target.stem), target.parent
    require_writable(target)
    told = f"Stopped; a checkpoint of the last minutes is in {folder}, and the same command resumes."
    last: list[float] = []
    with stoppable(lambda: told):

        def advance(progress: TrainProgress) -> None:
            bar.update(f"training {name}", progress.step, progress.steps, note=f"loss {progress.loss_m:.3g} m")
            if progress.validation_m is not None:
                error = f"mean 3D error on validation users {progress.validation_m:.3f} m"
                bar.say(f"step {progress.step} at {progress.seconds:.0f} s: {error}, loss {progress.loss_m:.3g} m")
                last[:] = [progress.validation_m]

        place = training_device(device)
        files = _run(job, folder, target, advance, place)
    print(f"mean 3D error on validation users {last[0]:.3f} m" if last else "trained before")
    print("\n".join(map(str, files)))
    if not isinstance(job, ResNetJob):
        print(emulate_command(job.scenario, wanted.station_count, "vinloc", files[0]))


def _find(name: str) -> Job | ResNetJob:
    from sim.learn.vinloc.jobs import JOBS
    from sim.learn.vinloc.resnet_train import RESNET_JOBS

    jobs: dict[str, Job | ResNetJob] = {**JOBS, **RESNET_JOBS}
    if name not in jobs:
        raise UserError(f"There is no VIn-Loc training {name!r}{nearest_hint(name, jobs)}.")
    return jobs[name]


def _run(
    job: Job | ResNetJob, folder: Path, target: Path, on_progress: Callable[[TrainProgress], None], device: torch.device
) -> list[Path]:
    """Train, write the weights if there is a scheme that runs them, and return the files."""
    from sim.learn.vinloc.export import export_weights
    from sim.learn.vinloc.jobs import run_job
    from sim.learn.vinloc.model import VinLocModel
    from sim.learn.vinloc.resnet_train import ResNetJob, run_resnet
    from sim.world.scenario import load_scenario

    if isinstance(job, ResNetJob):  # a control: nothing that could be emulated
        run_resnet(job, folder, on_progress, device)
        return [folder / f"{job.name}.pt"]
    scenario = load_scenario(job.scenario)
    files: list[Path] = []

    def write(model: VinLocModel, scale: float) -> None:
        files[:] = export_weights(model, scale, scenario, job, target)

    run_job(job, folder, on_progress, write, device)
    return files

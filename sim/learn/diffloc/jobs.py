"""All trainings behind the tables of docs/diffloc.md: ``python -m sim.learn.diffloc.jobs [--only TEXT …]``.

A job's network is kept in ``data/paris-7/diffloc/NAME.safetensors``, on compressed fingerprints; finished jobs are
skipped and a stopped one resumes, so that the command can be given again at any time. Several may run side by side.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cloud.fusion.scores.rule import build_rule
from edge.score_network import NetworkShape, ScoreNetwork
from fronthaul.documents import parse_json
from fronthaul.errors import LocalError
from fronthaul.files import whole_file
from fronthaul.payload.noise_levels import BETA, noise_schedule
from sim.errors import UserError
from sim.learn.device import training_device
from sim.learn.diffloc.cnn import fit_cnn, make_images
from sim.learn.diffloc.features import Features, FeatureSetting, make_features
from sim.learn.diffloc.fit import FitProgress, OnEpoch, Schedule, fit
from sim.learn.diffloc.job import Fit, Job
from sim.learn.diffloc.objectives import Consistency, Diffusion, Fused, Grid, Objective, Regression, grid_over
from sim.learn.diffloc.trained import CT_STEPS, Trained, box_around, measured, sampler_table
from sim.learn.diverged import require_finite
from sim.learn.splits import Split, split_positions
from sim.world.paths import PathSet, load_paths
from sim.world.scenario import Scenario, load_scenario
from sim.world.store import DATA_FOLDER

FITS = DATA_FOLDER / "paris-7" / "diffloc"
FEATURES = DATA_FOLDER / "paris-7" / "features"
ALL = (0, 1, 2, 3, 4, 5, 6)
THREE = (0, 3, 6)
"""Base stations of some studies: more positions, soft labels of CT."""
SNRS_DB = (50.0, 40.0, 30.0, 20.0, 10.0)
SPACINGS_M = (2.0, 4.0, 8.0, 16.0)
"""Spacings of grids tried on the random split."""
SPACING_M = 4.0
"""The one that is best on its validation samples; other data sets use it as it is."""
STEPS = (2, 20, 50)
SEEDS = (1, 2)
"""Seeds beside 0 of the headline rows."""
FUSED_RULE = "gauss"
"""Rule by which networks are fused in joint training."""
FUSED_NOISE: dict[str, float] = {"taps": 1.0, "beams": 0.1}
"""Its noise on embeddings, by input: the best on validation samples of 0, 0.25, 0.5, 1, 2 and 0, 0.1, 0.25, 0.5, 1."""
FUSED_SCHEDULE = Schedule(epochs=20)
DENSE = "paris-7-dense"


def jobs() -> list[Job]:
    """Return all trainings, those that most tables need first."""
    quick = Schedule(epochs=50, patience=15)
    found = []
    for data, split in (("paris-7", "random"), ("paris-7", "user"), ("paris-7-fast", "random")):
        setting = FeatureSetting(split=split)  # type: ignore[arg-type]
        prefix = f"{data}-{split}"
        found += [
            Job(f"{prefix}-regression", data, "regression", setting, schedule=quick),
            Job(f"{prefix}-ct", data, "ct", setting),
            Job(f"{prefix}-unet", data, "unet", setting),
            *(
                Job(f"{prefix}-grid{s:g}", data, "grid", setting, spacing_m=s, schedule=quick)
                for s in (SPACINGS_M if prefix == "paris-7-random" else (SPACING_M,))
            ),
            Job(f"{prefix}-joint-unet", data, "joint-unet", setting, schedule=quick),
            Job(f"{prefix}-joint-mlp", data, "joint-mlp", setting, schedule=quick),
        ]
        if split == "random":
            found.append(Job(f"{prefix}-cnn", data, "cnn", setting, schedule=Schedule(epochs=25, patience=8)))
    usual = FeatureSetting()
    few = replace(usual, stations=THREE)
    found += [
        Job("paris-7-random-mlp-soft", "paris-7", "mlp", usual, soft=True),
        Job("paris-7-random-mlp", "paris-7", "mlp", usual),
        Job("paris-7-random-unet-soft", "paris-7", "unet", usual, soft=True),
        Job("paris-7-random-ct-soft", "paris-7", "ct", few, soft=True),
        Job("paris-7-beams-ct", "paris-7", "ct", replace(usual, input="beams")),
        Job("paris-7-beams-regression", "paris-7", "regression", replace(usual, input="beams"), schedule=quick),
        Job("paris-7-block-ct", "paris-7", "ct", replace(usual, split="block")),
        Job("paris-7-block-regression", "paris-7", "regression", replace(usual, split="block"), schedule=quick),
    ]
    found += [Job(f"paris-7-unet-t{steps}", "paris-7", "unet", usual, timesteps=steps) for steps in STEPS]
    for snr_db in SNRS_DB:
        setting = replace(usual, snr_db=(snr_db,))
        found.append(Job(f"paris-7-unet-snr{snr_db:g}-all", "paris-7", "unet", setting, schedule=Schedule(epochs=30)))
    mixed = replace(usual, snr_db=(None, *SNRS_DB))
    found.append(Job("paris-7-unet-snrmixed-all", "paris-7", "unet", mixed, schedule=Schedule(epochs=8)))
    for seed in SEEDS:
        for model in ("regression", "ct", "unet"):
            schedule = replace(quick if model == "regression" else Schedule(), seed=seed)
            found.append(Job(f"paris-7-random-{model}-seed{seed}", "paris-7", model, usual, schedule=schedule))
    dense = replace(few, components=200)
    for model, epochs in (("regression", 12), ("ct", 16), ("unet", 16)):
        found.append(Job(f"dense-{model}", DENSE, model, dense, schedule=Schedule(epochs=epochs, patience=epochs)))
    seeds = [f"paris-7-random-ct-seed{seed}" for seed in SEEDS]
    names = ("paris-7-random-ct", *seeds, "paris-7-beams-ct", "paris-7-user-ct", "paris-7-fast-random-ct")
    known = {job.name: job for job in found}
    return [*found, *(further(known[name]) for name in names), further(known["paris-7-random-ct"], apart=True)]


def further(start: Job, *, apart: bool = False) -> Job:
    """Return the further training of consistency networks: jointly by their fused error, or each by its own."""
    schedule = replace(FUSED_SCHEDULE, seed=start.schedule.seed)
    name = f"{start.name}-{'apart' if apart else 'fused'}"
    return replace(start, name=name, schedule=schedule, start=start, apart=apart)


def load_data(data: str) -> tuple[Scenario, PathSet]:
    """Load scenario and paths of a folder under ``data/``."""
    scenario = load_scenario("paris-7" if data == DENSE else data)
    return scenario, load_paths(DATA_FOLDER / data / "paths.npz")


def job_split(scenario: Scenario, paths: PathSet, job: Job) -> Split | None:
    """Return the split of a job on the dense data, with validation and test samples of ``paris-7``; else None."""
    if job.data != DENSE:
        return None
    base = scenario.tracing.positions
    few = split_positions(scenario, paths.position[:base], "random", paths.user[:base])
    return Split(np.concatenate([few.train, np.arange(base, len(paths))]), few.validation, few.test)


def job_features(job: Job, device: torch.device | None = None) -> Features:
    """Return the features of a job, from the cache if present, else computed on `device`."""
    scenario, paths = load_data(job.data)
    split = job_split(scenario, paths, job)
    return make_features(scenario, paths, job.setting, split=split, cache=FEATURES, device=device)


def joined(features: Features) -> Features:
    """Concatenate the features of all base stations, for one network."""
    stations, samples, width = features.z.shape
    z = features.z.permute(1, 0, 2).reshape(1, samples, stations * width)
    return replace(features, z=z)


def run(job: Job, folder: Path = FITS, device: torch.device | None = None) -> None:
    """Train a job on `device` unless its file exists."""
    path = folder / f"{job.name}.safetensors"
    if path.is_file():
        return
    begin = time.monotonic()
    features = job_features(job, device)
    record: dict[str, Any] = {"job": asdict(job)}
    tensors: dict[str, torch.Tensor] = {}
    if job.model == "cnn":
        scenario, paths = load_data(job.data)
        images = make_images(scenario, paths, job.setting, features.split.train)
        estimates, loss = fit_cnn(images, features, job.schedule)
        tensors["estimates"] = torch.from_numpy(estimates)
        losses = [loss]
    else:
        if job.model.startswith("joint"):
            features = joined(features)
        start = None
        if job.start is not None:
            run(job.start, folder, device)
            known = load_fit(job.start, folder)
            assert known is not None
            start = measured(known, features)
            if not job.apart:
                tensors["posterior"] = torch.from_numpy(start.posterior)
        objective = _objective(job, features, start)
        network, losses = train_networks(
            job,
            features,
            folder / "checkpoints" / f"{job.name}.pt",
            lambda progress: _print(job.name, progress),
            device,
            start,
        )
        record["shape"] = asdict(network.shape)
        if isinstance(objective, Grid):
            record["grid"] = asdict(objective)
        # Unused statistics are not stored: the networks take z, not fingerprints.
        tensors |= {n: v.contiguous() for n, v in network.state_dict().items() if n not in ("mean", "deviation")}
    require_finite(sum(losses), f"the end of {job.name}")
    record |= {"validation_loss": losses, "minutes": (time.monotonic() - begin) / 60}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata={"record": json.dumps(record)})
    print(job.name, f"{record['minutes']:.1f} min", [round(loss, 4) for loss in losses], flush=True)


def train_networks(
    job: Job,
    features: Features,
    checkpoint: Path,
    on_epoch: OnEpoch,
    device: torch.device | None = None,
    start: Trained | None = None,
) -> tuple[ScoreNetwork, list[float]]:
    """Train a job's networks, jointly if there are networks to `start` with; see `fit.fit`."""
    objective = _objective(job, features, start)
    outputs = objective.cells if isinstance(objective, Grid) else 0  # 0: as long as a position
    shape = NetworkShape(job.body, features.z.shape[-1], features.position.shape[1], outputs=outputs)
    begin = None if start is None else start.fit.network
    return fit(
        features, shape, objective, job.schedule,
        checkpoint=checkpoint, on_epoch=on_epoch, device=device, start=begin,
    )  # fmt: skip


def _objective(job: Job, features: Features, start: Trained | None) -> Objective:
    if start is not None:
        table = sampler_table(job)
        rule, levels = build_rule(FUSED_RULE, box_around(start.truth("train"))), noise_schedule(table, CT_STEPS)
        return Fused(rule, start.posterior, levels[0], table["sigma"][0], FUSED_NOISE[job.setting.input], job.apart)
    if job.model == "ct":
        return Consistency(soft=job.soft)
    if job.model in ("unet", "mlp"):
        return Diffusion(job.timesteps, BETA, job.soft)
    if job.model == "grid":
        return grid_over(features.position[features.index("train")], job.spacing_m)
    return Regression()


def load_fit(job: Job, folder: Path = FITS) -> Fit | None:
    """Read the result of a job; None if it has not been run.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / f"{job.name}.safetensors"
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            record = parse_json(file.metadata()["record"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if "estimates" in tensors:
            return Fit(job, None, tensors["estimates"], None, record)
        stations = 1 if job.model.startswith("joint") else len(job.setting.stations)
        network = ScoreNetwork(NetworkShape(**record["shape"]), stations)
        posterior = tensors.pop("posterior", None)
        blank = {name: value for name, value in network.state_dict().items() if name in ("mean", "deviation")}
        network.load_state_dict(tensors | blank)
        stored = record.get("grid")
        grid = None if stored is None else Grid(tuple(stored["low"]), stored["spacing"], tuple(stored["counts"]))
        return Fit(job, network.eval(), None, grid, record, None if posterior is None else posterior.numpy())
    except (
        SafetensorError,
        LocalError,
        ArithmeticError,
        AttributeError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(
            f"The network {path} is damaged ({type(error).__name__}); remove it, and train it again."
        ) from error


def chosen(found: Sequence[Job], only: Sequence[str]) -> Iterator[Job]:
    """Yield jobs whose names contain one of the given texts; without texts, all jobs."""
    for job in found:
        if not only or any(text in job.name for text in only):
            yield job


def _print(name: str, progress: FitProgress) -> None:
    if progress.epoch % 10 == 0:
        print(name, json.dumps(asdict(progress)), file=sys.stderr, flush=True)


def main() -> None:
    """Run jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="jobs whose names hold one of these texts [all]")
    parser.add_argument("--backwards", action="store_true", help="begin with the last, beside a process that does not")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N [cpu]")
    parser.add_argument("--folder", type=Path, default=FITS, help=f"where networks are kept [{FITS}]")
    wanted = parser.parse_args()
    device = training_device(wanted.device)
    torch.set_num_threads(wanted.threads)
    found = list(chosen(jobs(), wanted.only))
    for job in reversed(found) if wanted.backwards else found:
        run(job, wanted.folder, device)


if __name__ == "__main__":
    main()

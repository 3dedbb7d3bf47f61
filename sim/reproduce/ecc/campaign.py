"""All trainings behind the tables of docs/ecc.md: ``python -m sim.reproduce.ecc.campaign [--jobs …]``.

Finished jobs are skipped and a stopped one resumes from its checkpoint, so the script can be started again at any time.
The weights of job ``headline`` are shipped, packed by `sim.learn.compact`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fronthaul.documents import read_json
from sim.errors import UserError
from sim.files import write_json
from sim.learn.device import training_device
from sim.learn.direct_regression import train_direct
from sim.learn.ecc.baselines import Baseline, train_baselines
from sim.learn.ecc.model import EccShape
from sim.learn.ecc.train import EccTraining, make_sources, train_ecc
from sim.learn.fingerprints import FingerprintTable
from sim.learn.rss import train_rss
from sim.learn.splits import write_test_set
from sim.learn.trainer import OnProgress, Schedule, TrainProgress
from sim.world.paths import PathSet, concatenate, load_paths
from sim.world.scenario import ClockErrors, Scenario, load_scenario
from sim.world.store import ASSET_FOLDER, DATA_FOLDER

TONES, SLOTS = (1, 2, 4, 8, 12), (1, 2, 5)
"""Numbers of tones next to each other around the carrier, and of slots, that networks are trained for; 24 and 10 are
the scenario's."""
WARMTH = {"cold": 0.25, "hot": 4.0}
"""Temperatures of the gain mask's softmax other than 1."""
WATCHED_STEPS = 40
"""Steps between the points of a validation curve."""


@dataclass(frozen=True)
class Job:
    """Trainings on the same snapshots, by the base names of their weights files.

    `clock` and `grid`, keys of the numerology, replace those of the scenario.
    """

    trainings: Mapping[str, EccTraining]
    clock: ClockErrors | None = None
    grid: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Base names of the weights files."""
        return tuple(self.trainings)

    def run(
        self, scenario: Scenario, paths: PathSet, folder: Path, on_progress: OnProgress, **where: Any
    ) -> dict[Path, float]:
        """Train into `folder`; return mean 3D validation errors [m]. `where`: checkpoint and device."""
        numerology = replace(scenario.numerology, **self.grid)
        setting = replace(scenario, clock=self.clock or scenario.clock, numerology=numerology)
        trainings = {weights_file(folder, name): training for name, training in self.trainings.items()}
        return train_ecc(setting, paths, trainings, on_progress, **where)


@dataclass(frozen=True)
class BaselineJob:
    """The baselines that learn, on the same snapshots, by the base names of their weights files."""

    baselines: Mapping[str, Baseline]
    schedule: Schedule

    @property
    def names(self) -> tuple[str, ...]:
        """Base names of the weights files."""
        return tuple(self.baselines)

    def run(
        self, scenario: Scenario, paths: PathSet, folder: Path, on_progress: OnProgress, **where: Any
    ) -> dict[Path, float]:
        """Train into `folder`; return mean 3D validation errors [m]. `where`: checkpoint and device."""
        outputs = {weights_file(folder, name): baseline for name, baseline in self.baselines.items()}
        return train_baselines(scenario, paths, outputs, self.schedule, on_progress, **where)


@dataclass(frozen=True)
class Lengths:
    """Lengths of the trainings.

    `headline`: of job ``headline``, by default ten minutes on a GPU. `short`: of the comparisons, each from scratch.
    """

    headline: Schedule = field(
        default_factory=lambda: Schedule(batch=1024, rate=3e-3, warmup_steps=200, half="none", budget_s=440.0)
    )
    short: Schedule = field(default_factory=lambda: Schedule(epochs=0.75))


def jobs(lengths: Lengths) -> dict[str, Job | BaselineJob]:
    """Return the headline trainings, with two further seeds at B = 4, and the comparisons."""
    long, short = EccTraining(stage_one_epochs=0.5, schedule=lengths.headline), EccTraining(schedule=lengths.short)
    payloads = {"ecc-lossless": None, "ecc-b5": 5, "ecc-b4": 4, "ecc-b3": 3, "ecc-b2": 2}
    seeds = {f"ecc-b4-seed{n}": replace(long, schedule=replace(long.schedule, seed=n)) for n in (1, 2)}
    letter = replace(
        short,
        phase="tone",
        shape=EccShape(readout=1, tone_mixing=False),
        schedule=replace(short.schedule, loss="squared", matrices=False, mean_loss=0.0, average=0.0),
    )
    variants = {
        "short-slot-b4": short,
        "short-tone-b4": replace(short, phase="tone"),
        "short-none-b4": replace(short, phase="none"),
        "short-slot-lossless": replace(short, bits=None),
        "short-tone-lossless": replace(short, bits=None, phase="tone"),
        "short-last-b4": replace(
            short, shape=EccShape(readout=1), schedule=replace(short.schedule, mean_loss=0.0, average=0.0)
        ),
        "short-squared-b4": replace(short, schedule=replace(short.schedule, loss="squared")),
        "short-adamw-b4": replace(short, schedule=replace(short.schedule, matrices=False)),
        "short-unmixed-b4": replace(short, shape=EccShape(tone_mixing=False)),
        "short-unmasked-b4": replace(short, shape=EccShape(gain_mask=False)),
        "short-letter-b4": letter,
    }
    watched = replace(short, schedule=replace(short.schedule, validate_every=WATCHED_STEPS))
    strategies = {
        "short-scratch-b4": replace(watched, stage_one_epochs=0.0),
        "short-split-b4": replace(watched, frozen=True),
        "short-joint-b4": watched,
        "short-raw": replace(watched, bits=None),
    }
    temperatures = {f"short-{word}-b4": replace(short, shape=EccShape(temperature=tau)) for word, tau in WARMTH.items()}
    biased = ClockErrors(ue_bias_ns=50.0, per_slot_phase=True)
    return {
        "headline": Job({name: replace(long, bits=bits) for name, bits in payloads.items()} | seeds),
        "variants": Job(variants),
        "block": Job({"short-block-b4": replace(short, split="block")}),
        "bias": Job({"short-bias-b4": short}, biased),
        "still": Job({"short-still-b4": replace(short, jitter_m=0.0)}),
        "strategies": Job(strategies),
        "baselines": BaselineJob({"short-mfcnet": "mfcnet", "short-adcpm": "adcpm"}, lengths.short),
        "temperatures": Job(temperatures),
        **{f"tones-{n}": Job({f"short-tones{n}-b4": short}, grid={"tones": n}) for n in TONES},
        **{f"slots-{n}": Job({f"short-slots{n}-b4": short}, grid={"slots": n}) for n in SLOTS},
    }


def write_assets(scenario: Scenario, paths: PathSet, folder: Path) -> None:
    """Write the shipped assets: test paths, training positions, fingerprints and RSS weights; no training paths."""
    write_test_set(scenario, paths, folder)
    sources = make_sources(scenario, paths, "random", 0.0, 0, torch.device("cpu"))
    FingerprintTable.build(sources.training).save(folder / "fingerprints.npz")
    train_rss(scenario, paths, "random", folder / "rss.safetensors")


def main() -> None:
    """Run the jobs."""
    lengths = Lengths()
    known = jobs(lengths)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", default="paris-6")
    parser.add_argument("--paths", type=Path, nargs="+", help="path data, joined [data/<scenario>/paths.npz]")
    parser.add_argument("--jobs", nargs="*", help=f"of assets, {', '.join(known)} and direct, in this order [all]")
    parser.add_argument("--output", type=Path, help="folder of the weights [data/<scenario>/weights]")
    parser.add_argument("--device", help="where to train [a CUDA device if there is one]")
    parser.add_argument("--threads", type=int, help="threads; two campaigns of one thread beat one of two")
    parser.add_argument("--budget", type=float, help="minutes of job headline, on a GPU [7.3]")
    parser.add_argument("--epochs", type=float, help="epochs of job headline instead of a budget, on CPUs")
    parser.add_argument("--short", type=float, default=lengths.short.epochs, help="epochs of the comparisons [0.75]")
    chosen = parser.parse_args()
    headline = lengths.headline
    if chosen.budget is not None:
        headline = replace(headline, budget_s=60 * chosen.budget)
    if chosen.epochs is not None:
        headline = Schedule(epochs=chosen.epochs)
    known = jobs(Lengths(headline, replace(lengths.short, epochs=chosen.short)))
    if unknown := set(chosen.jobs or ()) - {"assets", *known, "direct"}:
        raise UserError(f"There is no job {', '.join(sorted(unknown))}.")
    scenario, device = load_scenario(chosen.scenario), training_device(chosen.device)
    trained = chosen.output or DATA_FOLDER / scenario.name / "weights"
    assets = ASSET_FOLDER / scenario.name
    files = chosen.paths or [DATA_FOLDER / scenario.name / "paths.npz"]
    paths = concatenate([load_paths(file) for file in files])
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    for name in chosen.jobs or ["assets", *known, "direct"]:
        if name == "assets":
            if not (assets / "rss.safetensors").is_file():
                write_assets(scenario, paths, assets)
        elif name == "direct":
            _direct(scenario, paths, assets, trained, chosen.short)
        else:
            run_job(name, known[name], scenario, paths, trained, device, _print)


def weights_file(folder: Path, name: str) -> Path:
    """Return the weights file of a training."""
    return folder / f"{name}.safetensors"


def run_job(
    name: str,
    job: Job | BaselineJob,
    scenario: Scenario,
    paths: PathSet,
    folder: Path,
    device: torch.device,
    on_progress: OnProgress,
) -> None:
    """Run a job, unless its weights files exist; resume it if it was stopped."""
    if all(weights_file(folder, output).is_file() for output in job.names):
        return
    started = time.monotonic()
    checkpoint = folder / "checkpoints" / f"{name}.pt"
    for output, error in job.run(scenario, paths, folder, on_progress, checkpoint=checkpoint, device=device).items():
        _record(folder, output.stem, {"validation_mean_3d_m": error, "job_minutes": (time.monotonic() - started) / 60})


def _direct(scenario: Scenario, paths: PathSet, assets: Path, trained: Path, epochs: float) -> None:
    """Train the direct regression and store its test errors beside the weights."""
    output = trained / "direct.npz"
    if output.is_file():
        return
    result = train_direct(
        scenario,
        paths,
        phase="slot",
        split="random",
        jitter_m=0.75,
        schedule=Schedule(epochs=epochs, half="none"),
        test=load_paths(assets / "test.npz"),
        on_progress=_print,
        checkpoint=trained / "checkpoints" / "direct.pt",
    )
    errors = result["errors_3d_m"]
    np.savez_compressed(output, errors_3d_m=errors)
    found = {"test_mean_3d_m": float(errors.mean()), "test_p90_3d_m": float(np.quantile(errors, 0.9))}
    _record(trained, "direct", found)


def _record(folder: Path, name: str, values: dict[str, float]) -> None:
    path = folder / "campaign.json"
    table = read_json(path) if path.is_file() else {}
    table[name] = {key: round(value, 4) for key, value in values.items()}
    write_json(path, table)
    print(name, table[name], flush=True)


def _print(progress: TrainProgress) -> None:
    if progress.validation_m is not None or progress.step % 200 == 0 or progress.step == progress.steps:
        print(json.dumps(dataclasses.asdict(progress)), file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from error

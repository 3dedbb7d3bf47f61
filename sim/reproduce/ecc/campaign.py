"""All trainings behind the tables of docs/ecc.md: ``python -m sim.reproduce.ecc.campaign [--jobs …]``.

Finished jobs are skipped and a stopped one resumes from its checkpoint, so the script can be started again at any time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sim.files import write_json
from sim.learn.direct_regression import train_direct
from sim.learn.ecc.train import EccTraining, make_sources, train_ecc
from sim.learn.fingerprints import FingerprintTable
from sim.learn.rss import train_rss
from sim.learn.splits import write_test_set
from sim.learn.trainer import Half, Schedule, TrainProgress
from sim.world.paths import PathSet, load_paths
from sim.world.scenario import ClockErrors, Scenario, load_scenario
from sim.world.store import ASSET_FOLDER

TRAINED = Path("data")


@dataclass(frozen=True)
class Job:
    """One training: `name` is the base name of its weights file; `shipped` weights go into the assets."""

    name: str
    training: EccTraining
    shipped: bool = False
    clock: ClockErrors | None = None


def jobs(
    long: float, refine: float, single: float, tune: float, short: float, assets: Path, trained: Path
) -> list[Job]:
    """Return the headline trainings and the comparisons.

    Headline: `long` epochs at B = 5 from scratch, `refine` more after a restart of the learning rate, `single` more
    with the cloud's network in float32; from there `tune` epochs at each smaller B. (At B = 5 such fine-tuning did not
    lower the validation error.) Lossless, which has no encoders and learns faster: `long` / 2, then `single` + `tune`.
    Comparisons: `short` epochs each, from scratch, all in bfloat16.
    """

    def scratch(epochs: float, seed: int = 0, **kwargs: object) -> EccTraining:
        return replace(EccTraining(schedule=Schedule(epochs=epochs, seed=seed)), **kwargs)  # type: ignore[arg-type]

    def continued(bits: int | None, start: Path, epochs: float, rate: float, half: Half = "edge") -> EccTraining:
        schedule = Schedule(epochs=epochs, rate=rate, warmup_steps=50, half=half)
        return EccTraining(bits=bits, start_from=start, schedule=schedule)

    refined = trained / "ecc-refined.safetensors"
    lossless = trained / "ecc-lossless-base.safetensors"
    five = assets / "ecc-b5.safetensors"
    biased = ClockErrors(ue_bias_ns=50.0, per_slot_phase=True)
    return [
        Job("ecc-base", scratch(long, bits=5)),
        Job("ecc-refined", continued(5, trained / "ecc-base.safetensors", refine, 1.2e-3, "all")),
        Job("ecc-b5", continued(5, refined, single, 6e-4), shipped=True),
        *(Job(f"ecc-b{bits}", continued(bits, five, tune, 4e-4), shipped=True) for bits in (4, 3, 2)),
        Job("ecc-lossless-base", scratch(long / 2, bits=None)),
        Job("ecc-lossless", continued(None, lossless, single + tune, 6e-4), shipped=True),
        Job("short-slot-b4", scratch(short, bits=4)),
        Job("short-tone-b4", scratch(short, bits=4, phase="tone")),
        Job("short-block-b4", scratch(short, bits=4, split="block")),
        Job("short-bias-b4", scratch(short, bits=4), clock=biased),
        Job("short-slot-b4-seed1", scratch(short, 1, bits=4)),
        Job("short-slot-b4-seed2", scratch(short, 2, bits=4)),
        Job("short-slot-lossless", scratch(short, bits=None)),
        Job("short-tone-lossless", scratch(short, bits=None, phase="tone")),
        Job("short-none-b4", scratch(short, bits=4, phase="none")),
        Job("short-still-b4", scratch(short, bits=4, jitter_m=0.0)),
    ]


def write_assets(scenario: Scenario, paths: PathSet, folder: Path) -> None:
    """Write the shipped assets: test paths, training positions, fingerprints and RSS weights; no training paths."""
    write_test_set(scenario, paths, folder)
    sources = make_sources(scenario, paths, "random", 0.0, 0, torch.device("cpu"))
    FingerprintTable.build(sources.training).save(folder / "fingerprints.npz")
    train_rss(scenario, paths, "random", folder / "rss.safetensors")


def main() -> None:
    """Run the jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", default="paris-6")
    parser.add_argument("--paths", type=Path, help="path data [data/<scenario>/paths.npz]")
    parser.add_argument("--jobs", nargs="*", help="names of the jobs to run, in this order [all]")
    parser.add_argument("--threads", type=int, help="threads; two campaigns of one thread beat one of two")
    parser.add_argument("--long", type=float, default=6.0, help="epochs of the headline trainings")
    parser.add_argument("--refine", type=float, default=2.5, help="epochs of their second part")
    parser.add_argument("--single", type=float, default=1.3, help="epochs with the cloud's network in float32")
    parser.add_argument("--short", type=float, default=1.0, help="epochs of the comparisons")
    parser.add_argument("--tune", type=float, default=0.45, help="epochs of fine-tuning to another payload")
    chosen = parser.parse_args()
    scenario = load_scenario(chosen.scenario)
    trained = TRAINED / scenario.name / "weights"
    assets = ASSET_FOLDER / scenario.name
    paths = load_paths(chosen.paths or TRAINED / scenario.name / "paths.npz")
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    lengths = (chosen.long, chosen.refine, chosen.single, chosen.tune, chosen.short)
    known = {job.name: job for job in jobs(*lengths, assets, trained)}
    for name in chosen.jobs or ["assets", *known, "direct"]:
        if name == "assets":
            if not (assets / "rss.safetensors").is_file():
                write_assets(scenario, paths, assets)
        elif name == "direct":
            _direct(scenario, paths, assets, trained, chosen.short)
        else:
            _run(known[name], scenario, paths, (assets if known[name].shipped else trained), trained)


def _run(job: Job, scenario: Scenario, paths: PathSet, folder: Path, trained: Path) -> None:
    """Train one job, unless its weights file exists."""
    output = folder / f"{job.name}.safetensors"
    if output.is_file():
        return
    started = time.monotonic()
    setting = replace(scenario, clock=job.clock) if job.clock else scenario
    error = train_ecc(setting, paths, job.training, output, _print, checkpoints=trained / "checkpoints")
    _record(trained, job.name, {"validation_mean_3d_m": error, "minutes": (time.monotonic() - started) / 60})


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
    table = json.loads(path.read_text()) if path.is_file() else {}
    table[name] = {key: round(value, 4) for key, value in values.items()}
    write_json(path, table)
    print(name, table[name], flush=True)


def _print(progress: TrainProgress) -> None:
    if progress.validation_m is not None or progress.step % 200 == 0:
        print(json.dumps(dataclasses.asdict(progress)), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""Is a network short of positions or short of training? ``python -m sim.reproduce.ecc.gap WEIGHTS …``.

Prints each network's mean 3D error on positions it was trained on, on the same positions moved by up to 0.75 m, and on
validation positions. Equal figures mean that more positions would not help; training would.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from sim.learn.data import SnapshotSource
from sim.learn.ecc.train import model_of
from sim.learn.splits import split_positions
from sim.learn.trainer import Schedule, Trainer
from sim.plan.weights import load_weights
from sim.world.channel import pad_paths
from sim.world.paths import PathSet, load_paths
from sim.world.scenario import Scenario, load_scenario
from sim.world.store import DATA_FOLDER

_POSITIONS = 2000


def gap(scenario: Scenario, paths: PathSet, file: Path) -> dict[str, float]:
    """Return mean 3D errors [m] on training, moved training and validation positions."""
    weights = load_weights(file)
    config = weights.config
    model = model_of(scenario, weights)
    split = split_positions(scenario, paths.position, config["record"]["split"])
    stacked = [torch.view_as_complex(weights.edge(k)["covariance"].float()) for k in range(len(scenario.sites))]

    def source(index: np.ndarray[tuple[int, ...], np.dtype[np.int64]], jitter_m: float) -> SnapshotSource:
        chosen = paths.select(index[:_POSITIONS])
        padded = pad_paths(chosen, scenario.numerology.carrier_hz, mirrors=jitter_m > 0)
        return SnapshotSource(scenario, padded, chosen.position, torch.stack(stacked), jitter_m=jitter_m)

    trainer = Trainer({"": model}, source(split.train, 0.0), source(split.validation, 0.0), Schedule())
    moved = source(split.train, config["record"]["jitter_m"] or 0.75)
    return {
        "training": float(trainer.validate("", source=source(split.train, 0.0)).mean()),
        "training, moved": float(trainer.validate("", source=moved).mean()),
        "validation": float(trainer.validate("").mean()),
    }


def main() -> None:
    """Print one line for each weights file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--scenario", default="paris-6")
    chosen = parser.parse_args()
    scenario = load_scenario(chosen.scenario)
    paths = load_paths(DATA_FOLDER / scenario.data_name / "paths.npz")
    for file in chosen.weights:
        errors = gap(scenario, paths, file)
        print(file.stem, "  ".join(f"{name} {value:.3f} m" for name, value in errors.items()))


if __name__ == "__main__":
    main()

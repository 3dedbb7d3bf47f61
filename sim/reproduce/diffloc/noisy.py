"""Test fingerprints of noisier channel estimates than a network was trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from sim.learn.diffloc.features import raw_features
from sim.learn.diffloc.jobs import load_data
from sim.reproduce.diffloc.bench import Bench


def noisy_inputs(bench: Bench, name: str, snr_db: float) -> Tensor:
    """Return compressed fingerprints (K, N, d) of a job's test positions, channels estimated at `snr_db`.

    They are compressed as the job's own are: mean, deviation and basis stay those of its training.
    """
    job, features = bench.job(name), bench.features(name)
    scenario, paths = load_data(job.data)
    test = paths.select(features.sample[features.split.test])
    return torch.stack(
        [
            features.project(k, torch.cat(list(raw_features(scenario, test, station, job.setting, snr_db))))
            for k, station in enumerate(job.setting.stations)
        ]
    )

"""Fitting of the `rss` scheme: a log-distance path-loss line for each base station, by least squares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from edge.preprocessing import channel_gain
from sim.errors import UserError
from sim.learn.data import SnapshotSource, measure_covariance
from sim.learn.splits import SplitName, split_positions
from sim.plan.weights import Weights, save_weights
from sim.world.channel import pad_paths
from sim.world.made_for import made_for
from sim.world.paths import PathSet
from sim.world.scenario import Scenario


def train_rss(
    scenario: Scenario, paths: PathSet, split: SplitName, output: Path, positions: int = 20_000,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> float:  # fmt: skip
    """Fit a_k, n_k, σ_k of g_k [dB] = a_k − 10 n_k log10(distance [m]) + e on training positions; write the weights.

    Returns the mean σ [dB] over the base stations. `on_progress` is called with positions done, of how many.

    Raises:
        UserError: a base station hears fewer than three training positions.
    """
    parts = split_positions(scenario, paths.position, split)
    index = parts.train[:positions]
    chosen = paths.select(index)
    heard = chosen.heard  # a link that carries nothing measures noise, which no line fits
    padded = pad_paths(chosen, scenario.numerology.carrier_hz)
    covariance = measure_covariance(scenario, padded)
    source = SnapshotSource(scenario, padded, paths.position[index], covariance)
    source.reseed(0, 0)
    levels = []
    for chunk in torch.arange(len(index)).split(500):
        gain = channel_gain(source.batch(chunk).channel)
        levels.append((20 * torch.log10(gain.clamp_min(1e-12))).numpy())
        on_progress(int(chunk[-1]) + 1, len(index))
    level = np.concatenate(levels)  # (N, K)
    model = np.zeros((len(scenario.sites), 3))
    for k, site in enumerate(scenario.sites):
        if heard[:, k].sum() < 3:
            raise UserError(
                f"Site {k} hears fewer than 3 of the {len(index)} training positions, to which no line can be fitted."
            )
        distance = np.linalg.norm(paths.position[index] - np.array(site.position), axis=1)
        design = np.stack([np.ones_like(distance), -10 * np.log10(distance)], 1)[heard[:, k]]
        line, *_ = np.linalg.lstsq(design, level[heard[:, k], k], rcond=None)
        model[k] = *line, np.std(level[heard[:, k], k] - design @ line)
    low, high = np.percentile(level[heard], [0.5, 99.5])
    config = {
        "scheme": "rss",
        "scenario": scenario.name,
        "made_for": made_for(scenario),
        "gain_db": [round(float(low), 2), round(float(high), 2)],
        "low": list(scenario.users.low),
        "high": list(scenario.users.high),
        "record": {"positions": len(index), "split": split},
    }
    tensors = {"cloud.path_loss": torch.from_numpy(model).float()}
    for k in range(len(scenario.sites)):
        tensors[f"edge.{k}.covariance"] = torch.view_as_real(covariance[k]).clone()
    save_weights(output, Weights(config, tensors))
    return float(model[:, 2].mean())

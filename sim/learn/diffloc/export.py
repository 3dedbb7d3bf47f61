"""Export of a finished job to a weights file for base stations and cloud.

The compression of the features (`sim.learn.diffloc.features`) is multiplied into each network's first layer, so that
a base station's network takes the whole fingerprint: W_h = P V, with P (F, d) the basis and V (d, E) the trained layer.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge.score_network import ScoreNetwork
from fronthaul.payload.score_rules import RULES
from sim.learn.diffloc.evaluate import calibration, sample
from sim.learn.diffloc.features import SCALE_M
from sim.learn.diffloc.trained import CT_STEPS, DDIM_STEPS, Trained, box_around, sampler_table
from sim.plan.weights import Weights, save_weights
from sim.world.made_for import made_for
from sim.world.scenario import Scenario


def export_weights(trained: Trained, scenario: Scenario, output: Path, default_rule: str = "gauss") -> list[Path]:
    """Write the weights file of a consistency or diffusion job; return its shards.

    Σ_k and the factor on each rule's covariance are calibrated on validation samples; the centre and scale by which
    embeddings are quantised are those of training samples.

    Args:
        trained: the job's networks.
        scenario: scenario that they were trained for.
        output: path of the weights file.
        default_rule: default fusion rule of the emulator.
    """
    job, features, network = trained.fit.job, trained.features, trained.fit.network
    assert network is not None
    steps = CT_STEPS if job.model == "ct" else job.timesteps
    shape = replace(network.shape, features=features.basis.shape[1])
    box = box_around(trained.truth("train"))
    config: dict[str, Any] = {
        "scheme": "diffloc",
        "scenario": scenario.name,
        "made_for": made_for(scenario),
        "model": job.model,
        "network": asdict(shape),
        "sampler": sampler_table(job),
        "input": job.setting.input,
        "centre": features.centre.tolist(),
        "scale": SCALE_M,
        "height_m": features.height_m,
        "low": box.low.tolist(),
        "high": box.high.tolist(),
        "ifft": scenario.numerology.ifft,
        "taps": scenario.numerology.taps,
        "estimator": "ls",
        "fusion": default_rule,
        "steps": steps,
        "calibration": _calibrations(trained),
        "one_shot_inflation": 1.0 if job.model == "ct" else 0.0,
        "record": {
            "split": job.setting.split,
            "positions": len(features.split.train),
            "clock": asdict(scenario.clock),
            "seed": job.schedule.seed,
            "soft": job.soft,
        },
    }
    tensors: dict[str, Tensor] = {}
    for k, station in enumerate(job.setting.stations):
        share = _share(network, k) | {
            "network.embed_channel.weight": features.basis[k] @ network.embed_channel.weight[k],
            "network.mean": features.mean[k],
            "network.deviation": features.deviation[k],
        }
        embedding = _embedding(trained, k)
        share |= {
            "posterior": torch.from_numpy(trained.posterior[k]).float(),
            "embedding.centre": embedding.mean(0),
            "embedding.scale": embedding.std(0).clamp_min(1e-6),
        }
        for name, value in share.items():
            held = value[None, None] if name in ("network.mean", "network.deviation") else value
            held = held[None] if name == "network.embed_channel.weight" else held
            tensors[f"edge.{station}.{name}"] = held
    return save_weights(output, Weights(config, tensors))


def _share(network: ScoreNetwork, k: int) -> dict[str, Tensor]:
    """Return the tensors of the k-th of the stacked networks, as a single network."""
    total = len(network.embed_channel.weight)
    share = {}
    for name, value in network.state_dict().items():
        if name == "embed_channel.weight" or name in ("mean", "deviation"):
            continue
        if value.ndim == 0:
            share[f"network.{name}"] = value
        elif value.ndim == 1:  # batch norm: K widths in a row
            share[f"network.{name}"] = value.view(total, -1)[k].clone()
        else:
            share[f"network.{name}"] = value[k : k + 1].clone()
    return share


@torch.no_grad()
def _embedding(trained: Trained, k: int) -> Tensor:
    assert trained.fit.network is not None
    embedding: Tensor = trained.fit.network.embed_channel(trained.features.z[:, trained.features.index("train")])[k]
    return embedding


def _calibrations(trained: Trained) -> dict[str, float]:
    """Return the factor on each rule's covariance that makes its 90 % region cover 90 % of the validation samples."""
    networks, truth = trained.networks("validation"), trained.truth("validation")
    steps = CT_STEPS if trained.fit.job.model == "ct" else DDIM_STEPS
    return {rule: round(calibration(sample(networks, rule, steps), truth), 4) for rule in RULES}

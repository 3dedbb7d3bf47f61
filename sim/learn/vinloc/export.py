"""Export of trained VIn-Loc models to weights files: one network shared by all base stations, one for the cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sim.learn.vinloc.jobs import Job
from sim.learn.vinloc.model import VinLocModel
from sim.plan.weights import Weights, save_weights
from sim.world.made_for import made_for
from sim.world.scenario import Scenario, scenario_table


def export_weights(model: VinLocModel, scale: float, scenario: Scenario, job: Job, path: Path) -> list[Path]:
    """Write a model as a weights file for the emulator; return the files written.

    Args:
        model: model trained on responses in units of `scale`.
        scale: amplitude gain; it is multiplied into the network, which then takes channels without scaling.
        scenario: scenario that it was trained on.
        job: its training; kept in the record.
        path: path of the weights file.
    """
    tensors: dict[str, Tensor] = {}
    shapes = model.shapes
    embedding = model.embedding.state_dict()
    if job.rank:
        embedding = factored(embedding, job.rank)
        shapes = {**shapes, "embedding": {**shapes["embedding"], "bottleneck": job.rank}}
    for name, value in embedding.items():
        if not name.endswith("num_batches_tracked"):
            tensors[f"edge.all.embedding.{name}"] = value * scale if name == "scale" else value
    tensors |= {f"cloud.network.{name}": value for name, value in model.network.state_dict().items()}
    tensors |= {"cloud.centre": model.centre, "cloud.extent": model.extent}
    tensors = {name: value.cpu() for name, value in tensors.items()}
    config: dict[str, Any] = {
        "scheme": "vinloc",
        "scenario": scenario.name,
        "made_for": made_for(scenario),
        "estimator": "ls",
        **shapes,
        "record": {
            "job": job.name,
            "further_users": job.further or 0,
            "schedule": job.schedule.table(),
            "scenario_digest": scenario.tracing_digest(),
            "clock": scenario_table(scenario)["clock"],
        },
    }
    return save_weights(path, Weights(config, tensors))


def factored(embedding: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """Return the state of a `CirEmbedding` with the MLP's first layer W replaced by its best approximation of `rank`.

    W ≈ U S Vᵀ is kept as two layers. With angles, that layer has eight times the inputs, and most of the weights.
    """
    state = dict(embedding)
    weight, bias = state.pop("head.0.weight"), state.pop("head.0.bias")
    left, strength, right = torch.linalg.svd(weight, full_matrices=False)
    root = strength[:rank].sqrt()
    state["head.0.0.weight"] = root[:, None] * right[:rank]
    state["head.0.1.weight"], state["head.0.1.bias"] = left[:, :rank] * root, bias
    return state

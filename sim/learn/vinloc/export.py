"""Trained VIn-Loc models as weights files: one network for every base station, one for the cloud."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from sim.learn.vinloc.jobs import Job
from sim.learn.vinloc.model import VinLocModel
from sim.learn.weights import Weights, save_weights
from sim.world.scenario import Scenario, scenario_table


def export_weights(model: VinLocModel, scale: float, scenario: Scenario, job: Job, path: Path) -> list[Path]:
    """Write a model as the emulator's weights; return their files.

    Args:
        model: trained on responses in units of `scale` [amplitude gain], which goes into the network: a base station
            hands it plain channels.
        scale: see there.
        scenario: what it was trained on.
        job: how; goes into the record.
        path: of the weights file.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in model.embedding.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            tensors[f"edge.all.embedding.{name}"] = value * scale if name == "scale" else value
    tensors |= {f"cloud.network.{name}": value for name, value in model.network.state_dict().items()}
    tensors |= {"cloud.centre": model.centre, "cloud.extent": model.extent}
    config: dict[str, Any] = {
        "scheme": "vinloc",
        "scenario": scenario.name,
        "estimator": "ls",
        **model.shapes,
        "record": {
            "job": job.name,
            "schedule": asdict(job.schedule),
            "scenario_digest": scenario.tracing_digest(),
            "clock": scenario_table(scenario)["clock"],
        },
    }
    return save_weights(path, Weights(config, tensors))

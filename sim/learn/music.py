"""Weights of schemes that learn no network: the arrays' shape and orientations, and the service area.

That is all that `music` knows of a scenario.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from sim.plan.weights import Weights, save_weights
from sim.world.made_for import made_for
from sim.world.scenario import Scenario


def array_weights(scenario: Scenario, scheme: str) -> Weights:
    """Return what both halves of `scheme` know of a scenario; its channels are estimated by least squares."""
    turns = [[math.radians(site.yaw_deg), math.radians(site.pitch_deg)] for site in scenario.sites]
    orientation = torch.tensor(turns, dtype=torch.float32)
    config = {
        "scheme": scheme, "scenario": scenario.name, "made_for": made_for(scenario), "estimator": "ls",
        "rows": scenario.array.rows, "columns": scenario.array.columns,
        "spacing": scenario.array.spacing_wavelengths,
        "low": list(scenario.users.low), "high": list(scenario.users.high),
    }  # fmt: skip
    tensors = {f"edge.{k}.orientation": own.clone() for k, own in enumerate(orientation)}
    return Weights(config, tensors | {"cloud.orientation": orientation})


def write_music(scenario: Scenario, output: Path) -> None:
    """Write the weights file of `music`."""
    save_weights(output, array_weights(scenario, "music"))

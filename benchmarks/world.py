"""Base stations and cloud exactly as an emulation assembles them, and their weights."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.samples import BITS, STATIONS
from benchmarks.timing import Bench
from fronthaul.codec.codebook import gaussian_step
from fronthaul.message.messages import Report
from sim.errors import UserError
from sim.learn.ecc.model import EccModel, EccShape
from sim.plan.plan import Plan, load_plan
from sim.plan.settings import EmulateSettings
from sim.plan.weights import find_weights, save_weights
from sim.world.scenario import load_scenario

SCENARIO = "paris-6"
SCHEME = "ecc"
BATCHES = (1, 16)


def weights(folder: Path) -> tuple[Path, str]:
    """Return a weights file and its description: the shipped one, else random weights written to `folder`."""
    try:
        path = find_weights(SCENARIO, SCHEME, BITS)
    except UserError:
        return random_weights(folder), "random (none are shipped): same cost, meaningless positions"
    return path, path.name


def random_weights(folder: Path) -> Path:
    """Write untrained networks of the default shape."""
    scenario = load_scenario(SCENARIO)
    _, antennas, tones = scenario.csi_shape
    torch.manual_seed(1)
    shape = EccShape()
    covariance = 1e-10 * torch.eye(antennas, dtype=torch.complex64).expand(STATIONS, tones, -1, -1)
    steps = {BITS: torch.full((STATIONS, shape.coefficients), gaussian_step(BITS))}
    path = folder / "random.safetensors"
    save_weights(path, EccModel(scenario, "slot", BITS, shape).weights(covariance, steps, {"record": "random"}))
    return path


def settings(bench: Bench) -> EmulateSettings:
    """Return the settings of the main job, in process."""
    return EmulateSettings(
        scenario=SCENARIO,
        scheme=SCHEME,
        bs=STATIONS,
        bits=BITS,
        snapshots=max(BATCHES),
        driver="process",
        interval_ms=0.0,
        weights=bench.weights,
        output=bench.folder / "runs",
    )


def plan(bench: Bench) -> Plan:
    """Return the plan of an emulation: the parts at each site and at the cloud."""
    return load_plan(settings(bench))


def groups(made: Plan, snapshots: int) -> list[list[Report]]:
    """Return the reports of all base stations, one group for each of the first `snapshots`."""
    by_station = []
    for site in made.sites:
        received = torch.stack([site.radio.observe(snapshot) for snapshot in range(snapshots)])
        by_station.append(site.station.assemble().reports(range(snapshots), received))
    return [list(group) for group in zip(*by_station, strict=True)]

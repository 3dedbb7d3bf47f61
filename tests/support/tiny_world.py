"""A world small enough to emulate in a second: three sites or more, few tones, straight paths, untrained weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sim.learn.ecc.model import EccModel, EccShape
from sim.plan.settings import EmulateSettings
from sim.plan.weights import Weights, save_weights
from sim.toml.write import toml_text
from sim.world.paths import PathSet
from sim.world.scenario import SPEED_OF_LIGHT, Scenario, load_scenario, scenario_table

USERS = 16


def scenario(sites: int = 3) -> Scenario:
    """paris-6 with three sites, 4 slots and 8 tones; more sites stand on a spiral of their own."""
    paris = load_scenario("paris-6")
    numerology = dataclasses.replace(paris.numerology, tones=8, tone_stride=36, slots=4)
    users = dataclasses.replace(paris.users, min_links=1)
    base = dataclasses.replace(paris, name="tiny", sites=paris.sites[:3], numerology=numerology, users=users)
    if sites == 3:
        return base
    angle, radius = 2.4 * np.arange(sites), 40.0 + np.arange(sites)
    spiral = np.column_stack([radius * np.cos(angle), radius * np.sin(angle), np.full(sites, 25.0)])
    return base.at_layout(spiral)


def paths(world: Scenario, seed: int = 5) -> PathSet:
    """One straight path a link, attenuated as in free space."""
    draw = np.random.default_rng(seed)
    position = draw.uniform(world.users.low, world.users.high, (USERS, 3))
    sites = np.array([site.position for site in world.sites])
    step = position[:, None] - sites
    distance = np.linalg.norm(step, axis=2).ravel()
    direction = step.reshape(-1, 3) / distance[:, None]

    def angles(unit: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        both = [np.arccos(unit[:, 2]), np.arctan2(unit[:, 1], unit[:, 0])]
        return np.stack(both, -1).astype(np.float32)

    matrix = np.zeros((len(distance), 2, 2), np.complex64)
    matrix[:, 0, 0] = world.numerology.wavelength_m / (4 * np.pi * distance)
    return PathSet(
        position=position,
        offset=np.arange(len(distance) + 1, dtype=np.int64),
        matrix=matrix,
        delay=(distance / SPEED_OF_LIGHT).astype(np.float32),
        site_angle=angles(direction),
        user_angle=angles(-direction),
        bounces=np.zeros(len(distance), np.uint8),
        mirror=np.zeros((0, 4), np.float32),
        digest=world.tracing_digest(),
    )


def weights(world: Scenario) -> Weights:
    """Untrained networks of the ECC scheme, and a path-loss model for rss: bits matter here, not metres."""
    torch.manual_seed(3)
    model = EccModel(world, "tone", 4, EccShape(coefficients=4, encoder_width=8, fusion_width=16, hidden=16))
    model.eval()
    antennas, tones = world.array.antennas, world.numerology.tones
    covariance = 1e-9 * torch.eye(antennas, dtype=torch.complex64).expand(len(world.sites), tones, -1, -1)
    steps = {bits: torch.full((len(world.sites), 4), 2.0 ** (1 - bits)) for bits in (2, 4)}
    packed = model.weights(covariance, steps, {})
    config = packed.config | {"gain_db": [-120.0, -20.0], "low": world.users.low, "high": world.users.high}
    path_loss = torch.tensor([[-43.0, 2.0, 3.0]]).expand(len(world.sites), 3)
    return Weights(config, packed.tensors | {"cloud.path_loss": path_loss})


def rss_weights(world: Scenario) -> Weights:
    """A path-loss model for rss, on least-squares estimates: small, however many sites there are."""
    config = {"gain_db": [-120.0, -20.0], "low": world.users.low, "high": world.users.high, "estimator": "ls"}
    path_loss = torch.tensor([[-43.0, 2.0, 3.0]]).expand(world.station_count, 3)
    return Weights(config, {"cloud.path_loss": path_loss})


def write(folder: Path, sites: int = 3) -> EmulateSettings:
    """Write scenario, assets and weights into `folder`; return settings for a short run in process there.

    More than three sites have weights for rss alone.

    `sim.world.store.ASSET_FOLDER` must point to ``folder / "assets"``.
    """
    world = scenario(sites)
    (folder / "tiny.toml").write_text(toml_text(scenario_table(world)))
    traced = paths(world)
    traced.save(folder / "assets" / "tiny" / "test.npz")
    training = traced.position[::2].astype(np.float32) + 1.0
    np.savez(folder / "assets" / "tiny" / "train-positions.npz", position=training)
    made = weights(world) if sites == 3 else rss_weights(world)
    save_weights(folder / "tiny.safetensors", Weights(json.loads(json.dumps(made.config)), made.tensors))
    return EmulateSettings(
        scenario=str(folder / "tiny.toml"),
        bs=sites,
        snapshots=20,
        driver="process",
        weights=folder / "tiny.safetensors",
        output=folder / "runs",
        warmup=4,
        controls=False,
        report=False,
    )

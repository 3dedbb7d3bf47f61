"""Hand-made path data: lines of sight and single mirrors, whose geometry is known in closed form."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge.preprocessing import preprocess
from sim.learn.ecc.model import EccModel, EccShape
from sim.plan.weights import Weights, load_weights, save_weights
from sim.world.paths import PathSet
from sim.world.scenario import SPEED_OF_LIGHT, Scenario, load_scenario

Array = npt.NDArray[np.float64]
Wall = tuple[Sequence[float], float]
"""Unit normal n and offset c of the plane n·x = c [m]."""

SMALL = EccShape(coefficients=6, encoder_width=8, encoder_depth=1, fusion_width=16, hidden=16)


def scenario(sites: int = 3, **changes: Any) -> Scenario:
    """paris-6 with few sites, 4 slots and 8 tones over the same band."""
    paris = load_scenario("paris-6")
    numerology = dataclasses.replace(paris.numerology, tones=8, tone_stride=36, slots=4)
    users = dataclasses.replace(paris.users, min_links=1)
    base = dataclasses.replace(paris, name="straight", sites=paris.sites[:sites], numerology=numerology, users=users)
    return dataclasses.replace(base, **changes)


def positions(world: Scenario, count: int, seed: int = 5) -> Array:
    """Uniform users (N, 3) [m]."""
    return np.random.default_rng(seed).uniform(world.users.low, world.users.high, (count, 3))


def householder(normal: Sequence[float]) -> Array:
    """Reflection matrix I − 2 n nᵀ."""
    return np.eye(3) - 2 * np.outer(normal, normal)


def trace(world: Scenario, position: Array, walls: Sequence[Wall] = ()) -> PathSet:
    """Line of sight, and one reflection off each wall (of amplitude 0.4), to every site."""
    matrix, delay, site_angle, user_angle, bounces, mirror = [], [], [], [], [], []
    for user in position:
        for site in world.sites:
            for normal, offset in [(None, 0.0), *walls]:
                reflect = np.eye(3) if normal is None else householder(normal)
                image = user if normal is None else user - 2 * (np.dot(normal, user) - offset) * np.array(normal)
                line = image - np.array(site.position)
                distance = np.linalg.norm(line)
                amplitude = world.numerology.wavelength_m / (4 * np.pi * distance) * (1.0 if normal is None else 0.4)
                matrix.append(amplitude * np.eye(2))
                delay.append(distance / SPEED_OF_LIGHT)
                site_angle.append(angles(line / distance))
                user_angle.append(angles(-reflect @ line / distance))
                bounces.append(0 if normal is None else 1)
                # −(I − 2nnᵀ) is the turn by π around n: quaternion (0, n).
                mirror.append([1.0, 0.0, 0.0, 0.0] if normal is None else [0.0, *normal])
    links, width = len(position) * len(world.sites), 1 + len(walls)
    return PathSet(
        position=position,
        offset=np.arange(links + 1, dtype=np.int64) * width,
        matrix=np.array(matrix, np.complex64),
        delay=np.array(delay, np.float32),
        site_angle=np.array(site_angle, np.float32),
        user_angle=np.array(user_angle, np.float32),
        bounces=np.array(bounces, np.uint8),
        mirror=np.array(mirror, np.float32),
        digest=world.tracing_digest(),
    )


def assert_same(one: PathSet, other: PathSet) -> None:
    """Fail unless two path sets hold the same."""
    for field in dataclasses.fields(PathSet):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def polarized(paths: PathSet, seed: int = 6) -> PathSet:
    """The same paths with random matrices between polarisations, of the same order of magnitude."""
    draw = np.random.default_rng(seed)
    turn = draw.standard_normal((2, len(paths.delay), 2, 2))
    matrix = np.abs(paths.matrix[:, :1, :1]) * (turn[0] + 1j * turn[1])
    return dataclasses.replace(paths, matrix=matrix.astype(np.complex64))


def walking(paths: PathSet, snapshots: int, seed: int = 7) -> PathSet:
    """The same positions, said to be walks of so many snapshots, with random velocities."""
    draw = np.random.default_rng(seed)
    velocity = np.column_stack([draw.normal(0, 5, (len(paths), 2)), np.zeros(len(paths))])
    user = np.arange(len(paths)) // snapshots
    return dataclasses.replace(paths, user=user.astype(np.int32), velocity=velocity.astype(np.float32))


def angles(unit: Array) -> Array:
    """Zenith and azimuth [rad] (…, 2) of unit vectors."""
    return np.stack([np.arccos(np.clip(unit[..., 2], -1, 1)), np.arctan2(unit[..., 1], unit[..., 0])], -1)


def channels(world: Scenario, count: int, seed: int = 1) -> Tensor:
    """Random channels (B, K, slot, antenna, tone) complex64 of the size that links have."""
    draw = torch.Generator().manual_seed(seed)
    return 1e-5 * torch.randn(count, len(world.sites), *world.csi_shape, dtype=torch.complex64, generator=draw)


def ecc(
    world: Scenario, bits: int | None, folder: Path, phase: Any = "slot", shape: EccShape = SMALL
) -> tuple[EccModel, Weights]:
    """A random ECC network in evaluation mode, and what its weights file gives back."""
    torch.manual_seed(3)
    model = EccModel(world, phase, bits, shape)
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()  # as the file keeps them
    model.train()
    with torch.no_grad():
        for _ in range(60):  # settles the running statistics that give the latent its unit variance
            model.latent(preprocess(channels(world, 16, seed=9), model.phase)[0])
        model.fusion.gain_mean.fill_(-80.0)
        model.fusion.gain_deviation.fill_(5.0)
    model.eval()
    antennas, tones = world.array.antennas, world.numerology.tones
    covariance = 1e-9 * torch.eye(antennas, dtype=torch.complex64).expand(len(world.sites), tones, -1, -1)
    steps = {} if bits is None else {bits: model.step * torch.linspace(0.8, 1.3, SMALL.coefficients)}
    if bits is not None:
        model.step.copy_(steps[bits])
    path = folder / "weights.safetensors"
    save_weights(path, model.weights(covariance, steps, {}))
    return model, load_weights(path)

"""The position error bound against a Fisher information by finite differences."""

import dataclasses
import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import straight_world
import torch
from straight_world import Array, Wall

from sim.errors import UserError
from sim.world.bound import position_error_bound
from sim.world.channel import Motion, Synthesizer, antenna_positions, pad_paths
from sim.world.paths import PathSet
from sim.world.scenario import SPEED_OF_LIGHT, ClockErrors, Scenario

WORLD = straight_world.scenario()
USERS = straight_world.positions(WORLD, 6)


def signal(world: Scenario, site: int, walls: list[Wall], theta: Array) -> npt.NDArray[np.complex128]:
    """What one site receives.

    theta: position, velocity, user clock [ns], each path's gain (real, imaginary), each slot's phase [rad].
    """
    n = world.numerology
    wavenumber = 2 * np.pi / n.wavelength_m
    tone = (np.arange(n.tones) - (n.tones - 1) / 2) * n.tone_spacing_hz
    slot = (np.arange(n.slots) - (n.slots - 1) / 2) * n.slot_spacing_s
    antenna = antenna_positions(world.array, world.sites[site], n)
    made = np.zeros((n.slots, len(antenna), n.tones), complex)
    for path, wall in enumerate([None, *walls]):
        normal, offset = (np.zeros(3), 0.0) if wall is None else (np.array(wall[0]), wall[1])
        image = theta[:3] - 2 * (normal @ theta[:3] - offset) * normal
        line = image - np.array(world.sites[site].position)
        distance = np.linalg.norm(line)
        u = line / distance
        image_velocity = theta[3:6] - 2 * (normal @ theta[3:6]) * normal
        in_time = np.exp(-1j * wavenumber * (u @ image_velocity) * slot)
        in_space = np.exp(1j * wavenumber * antenna @ u)
        in_frequency = np.exp(-2j * np.pi * tone * (distance / SPEED_OF_LIGHT + theta[6] * 1e-9))
        gain = complex(*theta[7 + 2 * path : 9 + 2 * path])
        made += gain * in_time[:, None, None] * in_space[:, None] * in_frequency
    phase = theta[9 + 2 * len(walls) :]
    made *= np.exp(1j * phase)[:, None, None]
    return made.ravel()


def channel_gains(world: Scenario, paths: PathSet, rows: slice) -> npt.NDArray[np.complex128]:
    """What multiplies the steering vectors: coefficients, turned by the carrier on the way."""
    turn = np.exp(-2j * np.pi * world.numerology.carrier_hz * paths.delay[rows].astype(float))
    return np.asarray(paths.matrix[rows, 0, 0] * turn)


def by_finite_differences(world: Scenario, paths: PathSet, walls: list[Wall], user: int) -> float:
    """Invert the whole information matrix: nothing is projected out beforehand.

    With `per_slot_phase` each site's slots have random phases, unknown but for the first slot's: a phase that all of
    them share is the gains' own.
    """
    sites, slots, amplitudes = len(world.sites), world.numerology.slots, 2 * (1 + len(walls))
    draw = np.random.default_rng(user)
    own = amplitudes + (slots - 1 if world.clock.per_slot_phase else 0)
    information = np.zeros((7 + own * sites, 7 + own * sites))
    for k in range(sites):
        first = int(paths.offset[user * sites + k])
        gains = channel_gains(world, paths, slice(first, first + amplitudes // 2))
        phase = draw.uniform(0, 2 * np.pi, slots) if world.clock.per_slot_phase else np.zeros(slots)
        theta = np.array([*paths.position[user], 0, 0, 0, 0, *gains.view(float), *phase])
        steps = [1e-3] * 3 + [1e-2] * 4 + [1e-9] * amplitudes + [1e-4] * (own - amplitudes)
        places = [*range(7 + amplitudes), *range(8 + amplitudes, 8 + own)]
        columns = []
        for i, h in zip(places, steps, strict=True):
            step = np.zeros(len(theta))
            step[i] = h
            above, below = (signal(world, k, walls, theta + side * step) for side in (1, -1))
            columns.append((above - below) / (2 * h))
        jacobian = np.stack(columns, 1)
        noise = world.tone_noise_w / world.tone_power_w
        index = [*range(7), *range(7 + own * k, 7 + own * (k + 1))]
        information[np.ix_(index, index)] += 2 / noise * (jacobian.conj().T @ jacobian).real
    bias_ns = world.clock.ue_bias_ns
    if bias_ns:
        information[6, 6] += 1 / bias_ns**2
    else:
        information = np.delete(np.delete(information, 6, 0), 6, 1)
    unit = 1 / np.sqrt(np.diag(information))  # equilibrated, or velocities and gains spoil the inverse
    # One path per site cannot tell velocity from phases: values of 1e-15 there, and above 1e-5 elsewhere.
    inverse = unit[:, None] * np.linalg.pinv(unit[:, None] * information * unit, 1e-10, hermitian=True) * unit
    return float(np.sqrt(np.trace(inverse[:3, :3])))


@pytest.mark.parametrize("user", range(len(USERS)))
def test_the_model_is_the_channel_that_is_synthesised(user: int) -> None:
    paths = straight_world.trace(WORLD, USERS, WALLS)
    still = Motion(torch.zeros(1, 3), torch.zeros(1, 1), torch.zeros(1, 1, WORLD.numerology.slots))
    for site in range(len(WORLD.sites)):
        padded = pad_paths(paths.select(np.array([user]), [site]), WORLD.numerology.carrier_hz)
        made = Synthesizer(WORLD, [site]).response(padded, still)[0, 0].numpy().ravel()
        first = int(paths.offset[user * len(WORLD.sites) + site])
        gains = channel_gains(WORLD, paths, slice(first, first + 1 + len(WALLS)))
        theta = np.array([*paths.position[user], 0, 0, 0, 0, *gains.view(float), *np.zeros(WORLD.numerology.slots)])
        np.testing.assert_allclose(signal(WORLD, site, WALLS, theta), made, atol=2e-3 * abs(made).max())


WALLS: list[Wall] = [((1.0, 0.0, 0.0), 170.0), ((0.48, 0.6, 0.64), 190.0)]


@pytest.mark.parametrize("walls", [[], WALLS[:1], WALLS], ids=len)
@pytest.mark.parametrize("bias_ns", [0.0, 0.03, 0.3, 100.0])
def test_the_bound_against_finite_differences(bias_ns: float, walls: list[Wall]) -> None:
    world = dataclasses.replace(WORLD, clock=ClockErrors(ue_bias_ns=bias_ns))
    paths = straight_world.trace(world, USERS, walls)
    expected = [by_finite_differences(world, paths, walls, user) for user in range(len(USERS))]
    np.testing.assert_allclose(position_error_bound(world, paths), expected, rtol=1e-2)


def bounds(clock: ClockErrors, sites: int | None = None) -> Array:
    world = dataclasses.replace(WORLD, clock=clock)
    return position_error_bound(world, straight_world.trace(world, USERS), sites)


@pytest.mark.parametrize("key", ["ue_bias_ns", "bs_sigma_ns"])
def test_the_bound_grows_with_clock_errors(key: str) -> None:
    grown = [bounds(ClockErrors(**{key: value})) for value in (0.0, 1.0, 10.0, 100.0)]  # type: ignore[arg-type]
    for less, more in itertools.pairwise(grown):
        assert (more >= less * (1 - 1e-9)).all()
    assert (grown[-1] > 1.02 * grown[0]).all()


@pytest.mark.parametrize("walls", [[], WALLS[:1], WALLS], ids=len)
@pytest.mark.parametrize("bias_ns", [0.0, 0.3])
@pytest.mark.parametrize("slots", [2, 4])
def test_the_bound_where_every_slot_has_an_unknown_phase(slots: int, bias_ns: float, walls: list[Wall]) -> None:
    """Velocity and phases are estimated along with the position: what a slot's phase takes, gains had taken already."""
    numerology = dataclasses.replace(WORLD.numerology, slots=slots)
    clock = ClockErrors(ue_bias_ns=bias_ns, per_slot_phase=True)
    world = dataclasses.replace(WORLD, clock=clock, numerology=numerology)
    paths = straight_world.trace(world, USERS, walls)
    expected = [by_finite_differences(world, paths, walls, user) for user in range(len(USERS))]
    np.testing.assert_allclose(position_error_bound(world, paths), expected, rtol=1e-5)


def test_another_site_never_hurts() -> None:
    world = straight_world.scenario(sites=6)
    paths = straight_world.trace(world, USERS)
    by_sites = [position_error_bound(world, paths, k) for k in range(1, 7)]
    for fewer, more in itertools.pairwise(by_sites):
        assert (more <= fewer * (1 + 1e-6)).all()


def test_more_power_means_a_smaller_bound_in_proportion() -> None:
    louder = dataclasses.replace(WORLD, link_budget=dataclasses.replace(WORLD.link_budget, tx_power_dbm=43.0))
    paths = straight_world.trace(WORLD, USERS)
    np.testing.assert_allclose(position_error_bound(louder, paths), position_error_bound(WORLD, paths) / 10, rtol=1e-4)


def test_one_site_with_one_antenna_and_one_path_leaves_the_position_open() -> None:
    single = dataclasses.replace(WORLD, array=dataclasses.replace(WORLD.array, rows=1, columns=1))
    paths = straight_world.trace(single, USERS)
    assert (position_error_bound(single, paths, 1) == math.inf).all()
    assert (position_error_bound(single, paths, 2) == math.inf).all()
    assert np.isfinite(position_error_bound(single, paths, 3)).all()


def test_no_path_leaves_the_position_open() -> None:
    paths = straight_world.trace(WORLD, USERS[:2])
    names = ("matrix", "delay", "site_angle", "user_angle", "bounces", "mirror")
    none = {name: getattr(paths, name)[:0] for name in names}
    empty = dataclasses.replace(paths, offset=np.zeros(7, np.int64), **none)
    assert position_error_bound(WORLD, empty).tolist() == [math.inf, math.inf]


def test_a_reflection_adds_information_to_one_antennas_range() -> None:
    single = dataclasses.replace(WORLD, array=dataclasses.replace(WORLD.array, rows=1, columns=1))
    walls: list[Wall] = [((1.0, 0.0, 0.0), 170.0), ((0.0, 1.0, 0.0), -150.0), ((0.0, 0.0, 1.0), 0.0)]
    numerology = dataclasses.replace(single.numerology, bandwidth_hz=400e6, subcarrier_spacing_hz=1.2e6)
    wide = dataclasses.replace(single, numerology=numerology)
    assert np.isfinite(position_error_bound(wide, straight_world.trace(wide, USERS, walls), 1)).all()


def test_mirrors_are_needed() -> None:
    paths = straight_world.trace(WORLD, USERS)
    with pytest.raises(UserError, match="mirrors"):
        position_error_bound(WORLD, dataclasses.replace(paths, mirror=np.zeros((0, 4), np.float32)))

"""Dual-polarised arrays at sites and users, against sums over paths and antennas written out in NumPy."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest
import straight_world
import torch
from straight_world import Wall

from sim.world.bound import position_error_bound
from sim.world.channel import Motion, Synthesizer, move_users, pad_paths
from sim.world.paths import PathSet, unit_vector
from sim.world.radio import Radio
from sim.world.scenario import Array, Scenario, Site

WALLS: list[Wall] = [((1.0, 0.0, 0.0), 170.0), ((0.48, 0.6, 0.64), 150.0)]
DUAL = Array(rows=2, columns=3, polarizations=2)
PAIR = Array(rows=1, columns=2, polarizations=2)
SINGLE = Array(rows=1, columns=1)


def world(array: Array, user_array: Array) -> Scenario:
    return straight_world.scenario(array=array, user_array=user_array)


def traced(here: Scenario, users: int = 4) -> PathSet:
    paths = straight_world.polarized(straight_world.trace(here, straight_world.positions(here, users), WALLS))
    return straight_world.walking(paths, 2)


def ports(array: Array, bearer: Site, here: Scenario) -> list[tuple[int, npt.NDArray[np.float64]]]:
    """Polarisation and place [m] of each antenna, in order: polarisations, columns, rows from the top."""
    spacing = array.spacing_wavelengths * here.numerology.wavelength_m
    yaw, pitch = math.radians(bearer.yaw_deg), math.radians(bearer.pitch_deg)
    right = np.array([-math.sin(yaw), math.cos(yaw), 0.0])
    up = np.array([math.sin(pitch) * math.cos(yaw), math.sin(pitch) * math.sin(yaw), math.cos(pitch)])
    found = []
    for polarization in range(array.polarizations):
        for column in range(array.columns):
            for row in range(array.rows):
                y, z = column - (array.columns - 1) / 2, (array.rows - 1) / 2 - row
                found.append((polarization, spacing * (y * right + z * up)))
    return found


def by_hand(here: Scenario, paths: PathSet, user: int, site: int, heading: float) -> npt.NDArray[np.complex128]:
    """H (slot, pair, tone) of one link in float64: a loop over paths and antennas."""
    n = here.numerology
    tone = (np.arange(n.tones) - (n.tones - 1) / 2) * n.tone_spacing_hz
    slot = (np.arange(n.slots) - (n.slots - 1) / 2) * n.slot_spacing_s
    wavenumber = 2 * np.pi / n.wavelength_m
    at_site = ports(here.array, here.sites[site], here)
    at_user = ports(here.user_array, Site((0.0, 0.0, 0.0), yaw_deg=math.degrees(heading)), here)
    made = np.zeros((n.slots, len(at_site), len(at_user), n.tones), complex)
    link = user * paths.sites + site
    for p in range(paths.offset[link], paths.offset[link + 1]):
        delay = float(paths.delay[p])
        u, q = unit_vector(paths.site_angle[p]), unit_vector(paths.user_angle[p])
        common = np.exp(-2j * np.pi * np.mod(n.carrier_hz * delay, 1.0) - 2j * np.pi * tone * delay)
        doppler = np.exp(1j * wavenumber * (q @ paths.velocity[user]) * slot)
        for i, (a, r) in enumerate(at_site):
            for j, (b, o) in enumerate(at_user):
                gain = paths.matrix[p, a, b] * np.exp(1j * wavenumber * (u @ r + q @ o))
                made[:, i, j] += gain * doppler[:, None] * common
    return made.reshape(n.slots, -1, n.tones)


@pytest.mark.parametrize(
    ("array", "user_array"),
    [(DUAL, PAIR), (DUAL, SINGLE), (Array(2, 2), PAIR), (Array(2, 2), Array(2, 3)), (DUAL, Array(1, 2))],
)
def test_synthesis_against_a_loop_over_paths_and_antennas(array: Array, user_array: Array) -> None:
    here = world(array, user_array)
    paths = traced(here)
    padded = pad_paths(paths, here.numerology.carrier_hz, matrices=here.polarized)
    assert padded.velocity is not None
    still = Motion(padded.velocity, torch.zeros(4, 3), torch.zeros(4, 3, here.numerology.slots))
    made = Synthesizer(here).response(padded, still).numpy()
    assert made.shape == (4, 3, *here.csi_shape)
    for user in range(4):
        heading = math.atan2(paths.velocity[user, 1], paths.velocity[user, 0])
        for site in range(3):
            expected = by_hand(here, paths, user, site, heading)
            assert np.abs(made[user, site] - expected).max() < 2e-3 * np.abs(expected).max()


def test_without_a_velocity_the_users_array_faces_the_x_axis() -> None:
    here = world(DUAL, PAIR)
    paths = traced(here)
    unknown = pad_paths(dataclasses.replace(paths, velocity=paths.velocity[:0]), 3.5e9, matrices=True)
    still = Motion(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(4, 3, 4))
    assert unknown.heading is None
    standing = dataclasses.replace(paths, velocity=0 * paths.velocity)
    expected = by_hand(here, standing, 1, 2, 0.0)
    made = Synthesizer(here).response(unknown, still).numpy()[1, 2]
    assert np.abs(made - expected).max() < 2e-3 * np.abs(expected).max()


def test_pairs_are_ordered_by_site_antenna_and_polarisations_stand_outside() -> None:
    """One path straight ahead, of which each entry of the matrix is told apart."""
    here = world(Array(1, 2, polarizations=2), PAIR)
    paths = straight_world.trace(here, straight_world.positions(here, 1))
    paths = dataclasses.replace(paths, matrix=np.broadcast_to([[1, 2], [3, 4]], (3, 2, 2)).astype(np.complex64))
    motion = Motion(torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1, 3, 4))
    made = Synthesizer(here).response(pad_paths(paths, 3.5e9, matrices=True), motion)[0, 0, 0, :, 0].abs()
    expected = [1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]
    torch.testing.assert_close(made, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=0)


def test_dual_polarisation_needs_matrices() -> None:
    here = world(DUAL, SINGLE)
    with pytest.raises(ValueError, match="matrices=True"):
        Radio(here, pad_paths(traced(here), 3.5e9).site(0), 0, 1).observe(0)


def test_padding_keeps_the_strongest_matrices_and_single_polarisation_as_it_was() -> None:
    here = world(DUAL, PAIR)
    paths = traced(here)
    plain, full = pad_paths(paths, 3.5e9), pad_paths(paths, 3.5e9, matrices=True)
    assert plain.matrix is None and full.matrix is not None and full.matrix.shape == (4, 3, 3, 2, 2)
    strength = full.matrix.abs().square().sum((-2, -1))
    assert torch.equal(strength, strength.sort(-1, descending=True).values)
    two = pad_paths(paths, 3.5e9, limit=2, matrices=True)
    assert two.matrix is not None and torch.equal(two.matrix, full.matrix[:, :, :2])
    assert torch.equal(full.coefficient, full.matrix[..., 0, 0])
    order = plain.distance.argsort(-1), full.distance.argsort(-1)
    assert torch.equal(plain.coefficient.gather(-1, order[0]), full.coefficient.gather(-1, order[1]))


def test_parts_of_padded_paths_take_matrices_and_velocities_along() -> None:
    here = world(DUAL, PAIR)
    padded = pad_paths(traced(here), 3.5e9, mirrors=True, matrices=True)
    part = padded[[2, 0]].site(1).clone()
    assert part.matrix is not None and padded.matrix is not None
    assert torch.equal(part.matrix, padded.matrix[[2, 0], 1:2])
    assert part.velocity is not None and padded.velocity is not None
    assert torch.equal(part.velocity, padded.velocity[[2, 0]])
    assert part.mirror is not None and part.mirror.shape[:2] == (2, 1)


def test_moved_users_take_their_matrices_along() -> None:
    here = world(DUAL, PAIR)
    padded = pad_paths(traced(here), 3.5e9, mirrors=True, matrices=True)
    moved = move_users(padded, torch.full((4, 3), 0.3), 3.5e9)
    assert moved.matrix is not None and padded.matrix is not None
    ratio = (moved.coefficient / padded.coefficient)[..., None, None].expand_as(moved.matrix)
    torch.testing.assert_close(moved.matrix / padded.matrix, ratio, rtol=1e-4, atol=1e-4)


def test_the_users_antennas_share_the_power() -> None:
    one, four = world(DUAL, SINGLE), world(DUAL, PAIR)
    assert four.tone_power_w == pytest.approx(one.tone_power_w / 4)
    quiet = dataclasses.replace(four.link_budget, noise="none")
    here = dataclasses.replace(four, link_budget=quiet)
    paths = traced(here)
    radio = Radio(here, pad_paths(paths, 3.5e9, matrices=True).site(1), 1, 1)
    heading = math.atan2(paths.velocity[2, 1], paths.velocity[2, 0])
    expected = by_hand(here, paths, 2, 1, heading) * math.sqrt(10**-0.7 / 288 / 4)
    heard = (radio.observe(2) / radio.pilots).numpy()
    assert np.abs(heard - expected).max() < 2e-3 * np.abs(expected).max()


def test_a_bound_is_given_only_where_its_model_holds() -> None:
    paths = straight_world.trace(straight_world.scenario(), straight_world.positions(straight_world.scenario(), 2))
    for here in (world(DUAL, SINGLE), world(Array(), Array(1, 2))):
        assert position_error_bound(here, paths) is None
    plain = straight_world.scenario()
    for noise in ("none", "snr"):
        budget = dataclasses.replace(plain.link_budget, noise=noise)
        assert position_error_bound(dataclasses.replace(plain, link_budget=budget), paths) is None
    assert position_error_bound(plain, paths) is not None

"""Channel synthesis, moved users and radios, on hand-made paths."""

import dataclasses
import math

import numpy as np
import pytest
import straight_world
import torch
from straight_world import Array, Wall

from sim.errors import UserError
from sim.world.channel import (
    Motion,
    PaddedPaths,
    Synthesizer,
    antenna_positions,
    move_users,
    pad_paths,
    pilot_sequence,
)
from sim.world.paths import PathSet, mirror_matrix, unit_vector
from sim.world.radio import Radio
from sim.world.scenario import SPEED_OF_LIGHT, ClockErrors, Scenario

WORLD = straight_world.scenario()
CARRIER = WORLD.numerology.carrier_hz
TILTED: Wall = ((0.48, 0.6, 0.64), 150.0)
WALLS: list[Wall] = [((1.0, 0.0, 0.0), 170.0), TILTED]
QUIET = dataclasses.replace(WORLD.link_budget, temperature_k=1e-12)


def still(users: int, world: Scenario = WORLD) -> Motion:
    sites = len(world.sites)
    return Motion(torch.zeros(users, 3), torch.zeros(users, sites), torch.zeros(users, sites, world.numerology.slots))


def analytic(world: Scenario, position: Array, velocity: Array, clock_s: Array, phase: Array) -> Array:
    """H (N, K, T, M, F) of the lines of sight from positions alone, in float64."""
    n = world.numerology
    tone = (np.arange(n.tones) - (n.tones - 1) / 2) * n.subcarrier_spacing_hz * n.tone_stride
    slot = (np.arange(n.slots) - (n.slots - 1) / 2) * n.slot_spacing_s
    wavenumber = 2 * np.pi * n.carrier_hz / SPEED_OF_LIGHT
    out = np.empty((len(position), len(world.sites), n.slots, world.array.antennas, n.tones), complex)
    for i, k in np.ndindex(out.shape[:2]):
        line = position[i] - np.array(world.sites[k].position)
        distance = np.linalg.norm(line)
        u = line / distance
        gain = n.wavelength_m / (4 * np.pi * distance) * np.exp(-1j * wavenumber * distance)
        in_time = np.exp(1j * (wavenumber * (-u @ velocity[i]) * slot + phase[i, k]))
        in_space = np.exp(1j * wavenumber * antenna_positions(world.array, world.sites[k], n) @ u)
        in_frequency = np.exp(-2j * np.pi * tone * (distance / SPEED_OF_LIGHT + clock_s[i, k]))
        out[i, k] = gain * in_time[:, None, None] * in_space[:, None] * in_frequency
    return out


def test_a_line_of_sight_has_its_analytic_phase_over_slots_antennas_and_tones() -> None:
    position = straight_world.positions(WORLD, 6)
    draw = np.random.default_rng(0)
    velocity, clock = draw.normal(0, 3, (6, 3)), draw.normal(0, 5e-8, (6, 3))
    phase = draw.uniform(0, 2 * np.pi, (6, 3, WORLD.numerology.slots))
    motion = Motion(*(torch.from_numpy(part).float() for part in (velocity, clock, phase)))
    padded = pad_paths(straight_world.trace(WORLD, position), CARRIER)
    made = Synthesizer(WORLD).response(padded, motion).numpy()
    expected = analytic(WORLD, position, velocity, clock, phase)
    assert np.abs(made - expected).max() < 3e-3 * np.abs(expected).max()  # delays are stored in single precision


def test_paths_add() -> None:
    position = straight_world.positions(WORLD, 4)
    whole = straight_world.trace(WORLD, position, WALLS)
    together = Synthesizer(WORLD).response(pad_paths(whole, CARRIER), still(4))
    alone = []
    for path in range(3):
        rows = np.arange(path, len(whole.delay), 3)
        fields = ("matrix", "delay", "site_angle", "user_angle", "bounces", "mirror")
        part = {name: getattr(whole, name)[rows] for name in fields}
        one = PathSet(position=position, offset=np.arange(len(rows) + 1), **part)
        alone.append(Synthesizer(WORLD).response(pad_paths(one, CARRIER), still(4)))
    torch.testing.assert_close(torch.stack(alone).sum(0), together, rtol=1e-4, atol=1e-9)


def test_antennas_stand_half_a_wavelength_apart_facing_the_boresight() -> None:
    half = WORLD.numerology.wavelength_m / 2
    for site in WORLD.sites:
        antenna = antenna_positions(WORLD.array, site, WORLD.numerology)
        yaw, pitch = math.radians(site.yaw_deg), math.radians(site.pitch_deg)
        down = -math.sin(pitch)  # positive pitch looks down
        boresight = np.array([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), down])
        np.testing.assert_allclose(antenna.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(antenna @ boresight, 0, atol=1e-12)
        # Column by column, each from top to bottom.
        np.testing.assert_allclose(antenna[0] - antenna[1], antenna[2] - antenna[3], atol=1e-12)
        assert antenna[0, 2] > antenna[1, 2] and antenna[2, 2] == pytest.approx(antenna[0, 2])
        for other in (1, 2):
            assert np.linalg.norm(antenna[other] - antenna[0]) == pytest.approx(half)


def test_a_limit_keeps_the_strongest_paths_of_each_link() -> None:
    paths = straight_world.trace(WORLD, straight_world.positions(WORLD, 5), WALLS)
    all_of_them, two = pad_paths(paths, CARRIER), pad_paths(paths, CARRIER, limit=2)
    assert all_of_them.coefficient.shape == (5, 3, 3) and two.coefficient.shape == (5, 3, 2)
    strongest = all_of_them.coefficient.abs().sort(-1, descending=True).values
    assert torch.equal(all_of_them.coefficient.abs(), strongest)
    assert torch.equal(two.coefficient, all_of_them.coefficient[..., :2])


def test_links_without_paths_are_silent() -> None:
    paths = straight_world.trace(WORLD, straight_world.positions(WORLD, 2))
    empty = dataclasses.replace(
        paths,
        offset=np.array([0, 1, 1, 2, 2, 2, 3]),
        **{
            name: getattr(paths, name)[:3]
            for name in ("matrix", "delay", "site_angle", "user_angle", "bounces", "mirror")
        },
    )
    response = Synthesizer(WORLD).response(pad_paths(empty, CARRIER), still(2))
    heard = response.abs().amax((2, 3, 4)) > 0
    assert heard.tolist() == [[True, False, True], [False, False, True]]


@pytest.mark.parametrize("walls", [[], [TILTED], WALLS])
def test_moved_users_have_the_paths_of_their_new_position(walls: list[Wall]) -> None:
    """Against paths built anew from the image of the moved user."""
    draw = np.random.default_rng(2)
    position = straight_world.positions(WORLD, 8)
    step = draw.uniform(-0.75, 0.75, (8, 3))
    before = pad_paths(straight_world.trace(WORLD, position, walls), CARRIER, mirrors=True)
    moved = move_users(before, torch.from_numpy(step).float(), CARRIER)
    after = pad_paths(straight_world.trace(WORLD, position + step, walls), CARRIER, mirrors=True)
    np.testing.assert_allclose(moved.distance.numpy(), after.distance.numpy(), atol=1e-4)
    np.testing.assert_allclose(moved.site_direction.numpy(), after.site_direction.numpy(), atol=1e-5)
    np.testing.assert_allclose(moved.coefficient.abs().numpy(), after.coefficient.abs().numpy(), rtol=1e-4)
    turned = (moved.coefficient * after.coefficient.conj()).angle()
    assert turned.abs().max() < 2 * math.pi / WORLD.numerology.wavelength_m * 1e-4  # 0.1 mm of path


def test_not_to_move_changes_nothing() -> None:
    before = pad_paths(straight_world.trace(WORLD, straight_world.positions(WORLD, 3), WALLS), CARRIER, mirrors=True)
    after = move_users(before, torch.zeros(3, 3), CARRIER)
    torch.testing.assert_close(after.coefficient, before.coefficient, rtol=1e-6, atol=0)
    torch.testing.assert_close(after.distance, before.distance)


def test_moving_needs_mirrors() -> None:
    paths = straight_world.trace(WORLD, straight_world.positions(WORLD, 3))
    padded = pad_paths(paths, CARRIER)
    with pytest.raises(ValueError, match="mirrors"):
        move_users(padded, torch.zeros(3, 3), CARRIER)
    without = dataclasses.replace(paths, mirror=np.zeros((0, 4), np.float32))
    with pytest.raises(UserError, match=r"^The path data hold no mirrors, without which users cannot be moved: trace"):
        pad_paths(without, CARRIER, mirrors=True)


def test_a_mirror_matrix_is_its_householder_reflection() -> None:
    normal = TILTED[0]
    stored = np.array([[1.0, 0, 0, 0], [0.0, *normal]])
    made = mirror_matrix(stored, np.array([0, 1], np.uint8))
    np.testing.assert_allclose(made, [np.eye(3), straight_world.householder(normal)], atol=1e-12)


def test_angles_and_unit_vectors_are_inverse() -> None:
    unit = np.random.default_rng(0).standard_normal((50, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(unit_vector(straight_world.angles(unit)), unit, atol=1e-12)


# Radios


def radios(world: Scenario, users: int = 4, seed: int = 11) -> list[Radio]:
    padded = pad_paths(straight_world.trace(world, straight_world.positions(world, users)), CARRIER)
    return [Radio(world, padded.site(k), k, seed) for k in range(len(world.sites))]


NOISY_CLOCKS = dataclasses.replace(WORLD, clock=ClockErrors(ue_bias_ns=50, bs_sigma_ns=3, per_slot_phase=True))


def test_what_a_radio_hears_depends_on_the_snapshot_alone() -> None:
    one, other = radios(NOISY_CLOCKS)[1], radios(NOISY_CLOCKS)[1]
    straight = [one.observe(n) for n in range(9)]
    for n in (5, 0, 8, 5, 3):
        assert torch.equal(other.observe(n), straight[n])


def test_seeds_sites_and_snapshots_draw_afresh() -> None:
    first, second, _ = radios(WORLD)
    assert not torch.equal(first.observe(0), first.observe(4))  # the same user again
    assert not torch.equal(radios(WORLD, seed=12)[0].observe(0), first.observe(0))
    assert first.observe(0).shape == second.observe(0).shape == WORLD.csi_shape


def silent(world: Scenario) -> Radio:
    one = torch.ones(1, 1, 1)
    paths = PaddedPaths(0j * one, 100 * one, torch.zeros(1, 1, 1, 3), torch.zeros(1, 1, 1, 3))
    return Radio(world, paths, 0, 1)


def test_a_walkers_velocity_is_heard() -> None:
    """Slots turn by the velocity that the paths carry, the same for radios and for training."""
    world = dataclasses.replace(WORLD, link_budget=dataclasses.replace(WORLD.link_budget, noise="none"))
    position = straight_world.positions(world, 4)
    paths = straight_world.walking(straight_world.trace(world, position), 2)
    padded = pad_paths(paths, CARRIER)
    assert padded.heading is not None and padded.velocity is not None
    velocity = paths.velocity.astype(float)
    np.testing.assert_allclose(padded.heading, np.arctan2(velocity[:, 1], velocity[:, 0]), atol=1e-6)
    expected = analytic(world, position, velocity, np.zeros((4, 3)), np.zeros((4, 3, 4)))
    for k in range(3):
        radio = Radio(world, padded.site(k).clone(), k, 1)
        for n in (2, 6):
            heard = (radio.observe(n) / radio.pilots / math.sqrt(world.tone_power_w)).numpy()
            assert np.abs(heard - expected[2, k]).max() < 3e-3 * np.abs(expected[2, k]).max()
    motion = Motion.draw(world, 2, torch.Generator().manual_seed(0), padded[:2].velocity)
    assert torch.equal(motion.velocity, padded.velocity[:2])


def test_noise_has_the_power_of_the_link_budget() -> None:
    radio = silent(WORLD)
    noise = torch.stack([radio.observe(n) for n in range(100)])
    boltzmann_w = 1.380649e-23 * 290 * 60e3 * 10 ** (5 / 10)
    unit = noise / boltzmann_w**0.5
    assert float(unit.abs().square().mean()) == pytest.approx(1, rel=0.05)
    assert float(unit.real.square().mean()) == pytest.approx(0.5, rel=0.05)
    assert abs(float((unit.real * unit.imag).mean())) < 0.03
    assert abs(complex(unit.mean())) < 0.05


def test_pilots_arrive_with_the_transmit_power() -> None:
    world = dataclasses.replace(WORLD, link_budget=QUIET, users=dataclasses.replace(WORLD.users, speed_mps=0.0))
    position = straight_world.positions(world, 4)
    expected = analytic(world, position, np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((4, 3, 4)))
    for k, radio in enumerate(radios(world)):
        amplitude = math.sqrt(10 ** ((23 - 30) / 10) / 288)
        matched = radio.observe(2) / (amplitude * pilot_sequence(world.numerology.tones))
        assert np.abs(matched.numpy() - expected[2, k]).max() < 3e-3 * np.abs(expected[2, k]).max()


def test_pilots_have_unit_modulus() -> None:
    torch.testing.assert_close(pilot_sequence(24).abs(), torch.ones(24))


def delay_errors_ns(world: Scenario, snapshots: int) -> Array:
    """Delay seen at each site less the true one (snapshot, site) [ns], from the phase ramp over the tones."""
    position = straight_world.positions(world, 4)
    errors = np.empty((snapshots, len(world.sites)))
    for k, radio in enumerate(radios(world)):
        distance = np.linalg.norm(position - np.array(world.sites[k].position), axis=1)
        for n in range(snapshots):
            h = (radio.observe(n) * radio.pilots.conj()).numpy()
            true = distance[n % 4] / SPEED_OF_LIGHT
            tone_spacing = world.numerology.tone_spacing_hz
            ramp = (h[..., 1:] * h[..., :-1].conj()).sum() * np.exp(2j * np.pi * true * tone_spacing)
            errors[n, k] = -np.angle(ramp) / (2 * np.pi * tone_spacing) * 1e9
    return errors


def test_the_users_clock_bias_is_the_same_at_all_sites() -> None:
    errors = delay_errors_ns(dataclasses.replace(WORLD, clock=ClockErrors(ue_bias_ns=40), link_budget=QUIET), 150)
    np.testing.assert_allclose(errors, errors[:, :1].repeat(3, 1), atol=0.05)
    assert errors[:, 0].std() == pytest.approx(40, rel=0.2) and abs(errors[:, 0].mean()) < 12


def test_a_sites_clock_error_is_its_own() -> None:
    errors = delay_errors_ns(dataclasses.replace(WORLD, clock=ClockErrors(bs_sigma_ns=20), link_budget=QUIET), 150)
    np.testing.assert_allclose(errors.std(0), 20, rtol=0.2)
    assert np.abs(np.corrcoef(errors.T) - np.eye(3)).max() < 0.3


def test_synchronised_clocks_err_by_nothing() -> None:
    assert np.abs(delay_errors_ns(dataclasses.replace(WORLD, link_budget=QUIET), 8)).max() < 0.05


def test_a_phase_of_each_slot_is_common_to_antennas_and_tones() -> None:
    world = dataclasses.replace(WORLD, link_budget=QUIET)
    turned = dataclasses.replace(world, clock=ClockErrors(per_slot_phase=True))
    seen = []
    for plain, rotated in zip(radios(world), radios(turned), strict=True):
        turn = rotated.observe(3) / plain.observe(3)
        torch.testing.assert_close(turn, turn[:, :1, :1].expand_as(turn), rtol=1e-3, atol=1e-3)
        seen.append(turn[:, 0, 0].angle())
    assert torch.cat(seen).unique().numel() == 3 * world.numerology.slots  # of each site and slot


def test_motion_drawn_for_training_follows_the_same_model() -> None:
    world = dataclasses.replace(WORLD, clock=ClockErrors(ue_bias_ns=50, bs_sigma_ns=5, per_slot_phase=True))
    motion = Motion.draw(world, 4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(motion.velocity.norm(dim=1), torch.full((4000,), world.users.speed_mps))
    assert not motion.velocity[:, 2].any()
    clock_ns = motion.clock_s * 1e9
    assert float(clock_ns.mean(1).std()) == pytest.approx(math.hypot(50, 5 / math.sqrt(3)), rel=0.05)
    assert float((clock_ns[:, 0] - clock_ns[:, 1]).std()) == pytest.approx(5 * math.sqrt(2), rel=0.05)
    assert motion.slot_phase.shape == (4000, 3, 4) and float(motion.slot_phase.max()) <= 2 * math.pi + 1e-6

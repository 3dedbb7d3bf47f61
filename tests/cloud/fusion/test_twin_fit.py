"""Costs of positions against dense matrices, their slope against differences, and fits of the map's own channels."""

import numpy as np
import pytest
import torch

from cloud.fusion.twin_fit import Fitting, Observed, Tolerances, observed
from cloud.fusion.twin_map import TwinMap
from edge.atom_fit import fit_atoms
from fronthaul.payload.atoms import PER_ATOM
from fronthaul.payload.twin import TwinPayload

SITES = np.array([[0.0, 0.0, 20.0], [60.0, 5.0, 25.0], [20.0, 70.0, 22.0]])
WALL = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -1]])  # the ground: z becomes −z
CONFIG = {"columns": 2, "rows": 2, "tones": 24, "tone_spacing_hz": 720e3, "spacing_wavelengths": 0.5}
NOISE, FLOOR = 1e-15, 1e-3
WIDTHS = ((6, 0, 14, 11, 12), (4, 4, 12, 8, 9))
RANGE_DB = (-110.0, -60.0)
DRAW = np.random.default_rng(4)
USERS = DRAW.uniform([10, 10, 1], [50, 50, 8], (6, 3))


def world() -> TwinMap:
    """Three sites with a line of sight and a reflection on the ground, seen from a grid of stored positions."""
    axis = np.arange(0.0, 64.0, 4.0)
    grid = np.stack(np.meshgrid(axis, axis, [2.0, 6.0], indexing="ij"), -1).reshape(-1, 3)
    identity, half_turn = [1.0, 0, 0, 0], [0.0, 0, 0, 1.0]  # −1 times half a turn about z mirrors z
    tensors = {
        "axes": np.stack([[[0.0, 1, 0], [0, 0, 1]]] * 3),
        "mirror": np.array([identity, half_turn] * 3, np.float32),
        "bounces": np.array([0, 1] * 3, np.uint8),
        "offset": np.repeat(-SITES, 2, 0).astype(np.float32),
        "position": grid.astype(np.float32),
        "count": np.full((len(grid), 3), 2, np.uint8),
        "path": np.tile(np.arange(6, dtype=np.int16), len(grid)),
        "level": np.tile(np.array([140, 120] * 3, np.uint8), len(grid)),  # −30 and −40 dB at 1 m
    }
    named = {f"anchor.{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}
    return TwinMap(CONFIG, named)


WORLD = world()
FIX, SITE = np.repeat(np.arange(len(USERS)), 3), np.tile(np.arange(3), len(USERS))
NEAR = np.argsort(((WORLD.position - USERS[:, None]) ** 2).sum(-1), 1)[:, :8]
IMAGES = WORLD.images(NEAR[FIX], SITE, USERS[FIX], 4)


def channels(clock_m: float = 0.0) -> np.ndarray:
    places = WORLD.places(IMAGES, SITE, USERS[FIX])
    place = places.place + np.array([clock_m / WORLD.period_m, 0, 0])
    turn = np.exp(1j * DRAW.uniform(-3, 3, places.amplitude.shape))
    made = (WORLD.grid.atoms(place) @ (places.amplitude * turn)[..., None])[..., 0]
    noise = DRAW.normal(size=(*made.shape, 2)) @ [1, 1j] * (NOISE / 2) ** 0.5
    return np.asarray(made + noise)


def seen(clock_m: float = 0.0) -> Observed:
    payload = TwinPayload(WIDTHS, RANGE_DB)
    sent = payload.encode(*fit_atoms(WORLD.grid, channels(clock_m), 2))
    return observed(WORLD.grid, payload.decode(sent), NOISE)


EXACT = Tolerances()


def fitting(reports: Observed, tolerances: Tolerances = EXACT) -> Fitting:
    return Fitting(WORLD, reports, IMAGES, SITE, FIX, len(USERS), FLOOR, tolerances)


def test_the_cost_is_that_of_dense_matrices() -> None:
    reports = seen()
    position = USERS + DRAW.normal(0, 0.2, USERS.shape)
    found = fitting(reports).state(position).misfit
    places = WORLD.places(IMAGES, SITE, position[FIX])
    inner = reports.inner(FLOOR)
    for link in range(len(FIX)):
        atoms = WORLD.grid.atoms(places.place)[link] * places.amplitude[link]
        real = np.block([[atoms.real, -atoms.imag], [atoms.imag, atoms.real]])
        basis = np.concatenate([reports.basis[link].real, reports.basis[link].imag])
        channel = np.concatenate([reports.channel[link].real, reports.channel[link].imag])
        outer = reports.outer[link] + FLOOR * reports.power[link]
        covariance = outer * (np.eye(len(basis)) - basis @ basis.T) + basis @ inner[link] @ basis.T
        total = covariance + real @ real.T  # the gains' prior is one of unit variance
        assert found[link] == pytest.approx(channel @ np.linalg.solve(total, channel), rel=1e-6)


@pytest.mark.parametrize("tolerances", [Tolerances(), Tolerances(clock_ns=20.0)])
def test_the_slope_is_that_of_differences(tolerances: Tolerances) -> None:
    problem = fitting(seen(), tolerances)
    unknown = np.concatenate([USERS + 0.1, np.full((len(USERS), tolerances.unknowns - 3), 0.4)], 1)
    slope = problem.state(unknown).slope
    for column in range(unknown.shape[1]):
        change = np.zeros(unknown.shape[1])
        change[column] = 1e-5
        ahead, behind = problem.state(unknown + change).cost, problem.state(unknown - change).cost
        np.testing.assert_allclose(
            slope[:, column], -(ahead - behind) / 4e-5, rtol=1e-2, atol=1e-2 * np.abs(slope).max()
        )


def test_a_fit_ends_at_the_user_and_knows_how_far_off_it_is() -> None:
    problem = fitting(seen())
    state = problem.descend(problem.state(USERS + DRAW.normal(0, 0.3, USERS.shape)), 20)
    error = np.linalg.norm(state.unknown - USERS, axis=1)
    spread = np.sqrt(np.trace(np.linalg.inv(state.information), axis1=1, axis2=2))
    assert error.max() < 0.3
    assert (error < 3.5 * spread).all()


def test_a_users_clock_error_is_estimated() -> None:
    reports, start = seen(clock_m=6.0), USERS + 0.2
    aware = fitting(reports, Tolerances(clock_ns=20.0))
    state = aware.descend(aware.state(np.concatenate([start, np.full((len(USERS), 1), 5.0)], 1)), 20)
    assert np.linalg.norm(state.unknown[:, :3] - USERS, axis=1).max() < 0.4
    assert state.unknown[:, 3] == pytest.approx(6.0, abs=0.4)
    unaware = fitting(reports)
    wrong = unaware.descend(unaware.state(start), 20)
    assert np.median(np.linalg.norm(wrong.unknown - USERS, axis=1)) > 1


@pytest.mark.parametrize(
    "tolerances", [Tolerances(site_m=0.2), Tolerances(bs_ns=1.0), Tolerances(wall_m=0.2)], ids=["site", "bs", "wall"]
)
def test_errors_that_are_allowed_for_widen_the_covariance(tolerances: Tolerances) -> None:
    reports = seen()
    known, allowed = (fitting(reports, one).state(USERS).information for one in (Tolerances(), tolerances))
    loss = np.linalg.eigvalsh(known - allowed)
    assert (loss > -1e-6 * np.linalg.eigvalsh(known)[:, -1:]).all()
    assert np.linalg.det(allowed).mean() < 0.9 * np.linalg.det(known).mean()


def test_what_images_make_follows_the_position() -> None:
    places, step = WORLD.places(IMAGES, SITE, USERS[FIX]), 1e-5
    for axis in range(3):
        change = np.zeros(3)
        change[axis] = step
        ahead = WORLD.places(IMAGES, SITE, USERS[FIX] + change).place
        behind = WORLD.places(IMAGES, SITE, USERS[FIX] - change).place
        present = IMAGES.level > 0
        slope = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(places.by_position[..., axis][present], slope[present], atol=1e-6)


def test_a_link_has_the_paths_of_the_stored_positions_around() -> None:
    assert (IMAGES.level > 0).sum(1).tolist() == [2] * len(FIX)
    length = np.sort((WORLD.places(IMAGES, SITE, USERS[FIX]).place[..., 0] * WORLD.period_m)[:, :2], 1)
    for link in range(len(FIX)):
        user, site = USERS[FIX[link]], SITES[SITE[link]]
        mirrored = user * [1, 1, -1]
        ways = sorted([np.linalg.norm(user - site), np.linalg.norm(mirrored - site)])
        np.testing.assert_allclose(length[link], ways, rtol=1e-6)


def test_the_coarse_search_finds_the_neighbourhood() -> None:
    payload = TwinPayload(WIDTHS, RANGE_DB)
    reported = payload.decode(payload.encode(*fit_atoms(WORLD.grid, channels(), 2)))
    for user in range(len(USERS)):
        links = np.flatnonzero(user == FIX)
        level = 20 * np.log10(np.abs(reported.gain[links, 0]))
        stored, _ = WORLD.candidates(SITE[links], reported.place[links, 0], level, np.zeros((3, PER_ATOM - 1)), 6)
        assert np.linalg.norm(WORLD.position[stored] - USERS[user], axis=1).min() < 5
        assert len(set(stored.tolist())) == 6

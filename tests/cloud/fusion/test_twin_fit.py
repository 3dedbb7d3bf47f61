"""Costs of positions against dense matrices, their slope against differences, and fits of the map's own channels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cloud.fusion.twin import likely_floors
from cloud.fusion.twin_fit import LEFT_DIMENSIONS, Fitting, Observed, Tolerances, observed
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


def fitting(reports: Observed, tolerances: Tolerances = EXACT, floor: float = FLOOR) -> Fitting:
    return Fitting(WORLD, reports, IMAGES, SITE, FIX, len(USERS), floor, tolerances)


def stacked(array: np.ndarray) -> np.ndarray:
    """Real form of complex columns."""
    return np.concatenate([array.real, array.imag])


def test_cost_evidence_and_information_are_those_of_dense_matrices() -> None:
    reports = seen()
    position = USERS + DRAW.normal(0, 0.2, USERS.shape)
    state = fitting(reports).state(position)

    def columns(at: np.ndarray, link: int) -> np.ndarray:
        places = WORLD.places(IMAGES, SITE, at[FIX])
        atoms = WORLD.grid.atoms(places.place)[link] * places.amplitude[link]
        return np.concatenate([stacked(atoms), stacked(1j * atoms)], -1)

    inner, information = reports.inner(FLOOR), np.zeros((len(USERS), 3, 3))
    for link in range(len(FIX)):
        basis, channel = stacked(reports.basis[link]), stacked(reports.channel[link])
        outer = reports.outer[link] + FLOOR / 2 * reports.power[link]
        covariance = outer * (np.eye(len(basis)) - basis @ basis.T) + basis @ inner[link] @ basis.T
        map_columns = columns(position, link)
        total = covariance + map_columns @ map_columns.T  # the gains' prior is one of unit variance
        cost = channel @ np.linalg.solve(total, channel)
        assert state.misfit[link] == pytest.approx(cost, rel=1e-6)
        own = np.flatnonzero(np.abs(basis).max(0) > 0)
        spread = np.linalg.slogdet(total)[1] - np.linalg.slogdet(covariance)[1] + LEFT_DIMENSIONS * np.log(outer)
        spread += np.linalg.slogdet(inner[link][np.ix_(own, own)])[1]
        assert state.evidence[link] == pytest.approx(-(cost + spread) / 2, rel=1e-6)
        gain = map_columns.T @ np.linalg.solve(total, channel)
        steps = 1e-5 * np.eye(3)
        slope = [(columns(position + d, link) - columns(position - d, link)) @ gain / 2e-5 for d in steps]
        moved = np.stack(slope, -1)
        weight = 1 / (1 + cost / (4 * WORLD.grid.size))
        information[FIX[link]] += weight * moved.T @ np.linalg.solve(total, moved)
    np.testing.assert_allclose(state.information, information, rtol=1e-3, atol=1e-3 * information.max())


def test_covariances_are_those_of_the_errors() -> None:
    """Channels are drawn from the model itself: gains from the map, errors in span U and in few directions outside."""
    reports, square = seen(), []
    inner, outer = reports.inner(0.0), reports.outer
    places = WORLD.places(IMAGES, SITE, USERS[FIX])
    for _ in range(80):
        gain = places.amplitude * (DRAW.normal(size=(*places.amplitude.shape, 2)) @ [1, 1j])
        channel = (WORLD.grid.atoms(places.place) @ gain[..., None])[..., 0]
        for link in range(len(FIX)):
            basis = stacked(reports.basis[link])
            left = DRAW.normal(size=len(basis)) * np.isin(np.arange(len(basis)), DRAW.permutation(len(basis))[:2])
            error = basis @ DRAW.multivariate_normal(np.zeros(basis.shape[1]), inner[link])
            error += outer[link] ** 0.5 * (left - basis @ (basis.T @ left))
            channel[link] += error[: len(error) // 2] + 1j * error[len(error) // 2 :]
        power = (np.abs(channel) ** 2).mean(-1)
        problem = fitting(replace(reports, channel=channel, power=power), floor=0.0)
        state = problem.descend(problem.state(USERS), 20)
        apart = state.unknown - USERS
        square.append(np.einsum("ni,nij,nj->n", apart, state.information, apart))
    assert 0.85 < np.mean(np.array(square) < 6.25) < 0.95  # 90 % of a Gaussian in 3D
    assert 0.85 < np.median(square) / 2.37 < 1.2


def test_a_link_has_the_floor_of_the_others_unless_its_evidence_is_strong() -> None:
    evidence = np.array([[0.0, 0, 0, 0, 0, 50], [8, 8, 8, 7, 9, 0], [6, 6, 6, 8, 8, 0], [0, 0, 0, 0, 0, 0]])
    assert likely_floors(evidence, np.zeros(6, np.int64), 1).tolist() == [1, 1, 1, 1, 1, 0]
    assert likely_floors(evidence[:, 3:], np.array([0, 1, 2]), 3).tolist() == [2, 1, 0]


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


def test_fits_that_have_ended_do_not_change_the_others() -> None:
    """Far and near beginnings end after different steps; each as if it were alone."""
    reports = seen()
    start = USERS + np.linspace(0, 1.5, len(USERS))[:, None] ** 2
    problem = fitting(reports)
    together = problem.descend(problem.state(start), 12)
    for user in range(len(USERS)):
        only = np.arange(len(USERS)) == user
        part = problem.of_fixes(only)
        alone = part.descend(part.state(start[only]), 12)
        np.testing.assert_allclose(alone.unknown[0], together.unknown[user], atol=1e-9)
        np.testing.assert_allclose(alone.misfit, together.misfit[user == FIX], rtol=1e-6)
        assert alone.cost[0] <= fitting(reports).state(USERS).cost[user] + 1e-6

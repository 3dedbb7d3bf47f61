"""The rate-limited bound against dense matrices made of differences, and how widths of short reports are found."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from cloud.fusion.twin_fit import LEFT_DIMENSIONS
from edge.atom_fit import fit_atoms
from fronthaul.payload.atoms import AtomGrid
from fronthaul.payload.twin import LEVEL_BITS, RELATIVE_DB, TwinPayload, report_widths
from sim.learn.twin.allocation import LINEAR_BITS, SHORTEST_BITS, short_reports
from sim.learn.twin.prediction import KnownUsers, Prediction
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings

FLOOR = 1e-6
WIDTHS = ((6, 0, 14, 11, 12), (4, 4, 12, 8, 9))
STEP = 1e-6


def real(columns: np.ndarray) -> np.ndarray:
    return np.concatenate([columns.real, columns.imag])


def atom_sum(grid: AtomGrid, number: np.ndarray) -> np.ndarray:
    """Channel of atoms whose amplitude, phase, τ, α and β are in `number` (L·5,), written out."""
    found = np.zeros(grid.size, complex)
    for amplitude, phase, tau, alpha, beta in number.reshape(-1, 5):
        place = [
            (c - (grid.columns - 1) / 2) * alpha
            - (r - (grid.rows - 1) / 2) * beta
            - 2 * np.pi * tau * (t - (grid.tones - 1) / 2)
            for c, r, t in itertools.product(range(grid.columns), range(grid.rows), range(grid.tones))
        ]
        found += amplitude * np.exp(1j * (np.array(place) + phase))
    return found


@pytest.fixture(scope="module")
def users() -> KnownUsers:
    plan = load_plan(EmulateSettings(scheme="twin", snapshots=2))
    return KnownUsers(plan.scenario, plan.weights, plan.paths)


def test_the_bound_is_the_information_of_dense_matrices(users: KnownUsers) -> None:
    """Σ = J V Jᵀ + noise within span J, what is left outside; gains are integrated out; positions by differences."""
    prediction = Prediction(users, 2, FLOOR)
    grid, size = users.world.grid, users.world.grid.size
    information = np.tile(np.eye(3) / 30.0**2, (len(users.position), 1, 1))
    place, gain, share = fit_atoms(grid, users.channel, 2)
    for link, (fix, site) in enumerate(zip(users.fix, users.site, strict=True)):
        number = np.column_stack([np.abs(gain[link]), np.angle(gain[link]), place[link]]).ravel()
        scale = np.tile([1.0, 1.0, 1e-2, 1e-1, 1e-1], 2) * STEP * np.where(np.arange(10) % 5, 1, np.abs(gain[link, 0]))
        steps = np.diag(scale)
        moved = [atom_sum(grid, number + s) - atom_sum(grid, number - s) for s in steps]
        jacobian = real(np.stack(moved, -1)) / (2 * scale)
        low, high = users.ranges[site]
        cell = np.array(
            [
                [high - low, 0, 1, 2 * np.pi, 2 * np.pi],
                [RELATIVE_DB[1] - RELATIVE_DB[0], 2 * np.pi, 1, 2 * np.pi, 2 * np.pi],
            ]
        )
        cell = (cell / 2.0 ** np.array(WIDTHS)).ravel()
        cell[::5] *= np.log(10) / 20 * np.abs(gain[link])
        reported = atom_sum(grid, number)
        power = float((np.abs(reported) ** 2).mean())
        outer = max(size * power * share[link] / LEFT_DIMENSIONS, users.noise / 2) + FLOOR / 2 * power
        inner = users.noise / 2 + FLOOR / 2 * power
        basis, strength, _ = np.linalg.svd(jacobian / np.linalg.norm(jacobian, axis=0), full_matrices=False)
        basis = basis[:, strength**2 > 1e-3]  # weaker directions are left over: no atom determines them
        within = basis @ basis.T
        jacobian = within @ jacobian
        error = (jacobian * cell**2 / 12) @ jacobian.T + inner * within + outer * (np.eye(2 * size) - within)

        def columns(at: np.ndarray, link: int = link, site: int = site) -> np.ndarray:
            one = replace(users.images, **{n: getattr(users.images, n)[link : link + 1] for n in vars(users.images)})
            made = users.world.places(one, np.array([site]), at[None])
            atoms = grid.atoms(made.place)[0] * made.amplitude[0]
            return np.concatenate([real(atoms), real(1j * atoms)], -1)

        at = users.position[fix]
        paths = columns(at)
        known = inner * within + outer * (np.eye(2 * size) - within)
        likely = paths.T @ np.linalg.solve(known + paths @ paths.T, real(reported))
        slope = [(columns(at + s) - columns(at - s)) @ likely / 2e-4 for s in 1e-4 * np.eye(3)]
        total, moving = error + paths @ paths.T, np.stack(slope, -1)
        information[fix] += moving.T @ np.linalg.solve(total, moving)
    expected = np.sqrt(np.trace(np.linalg.inv(information), axis1=1, axis2=2))
    np.testing.assert_allclose(prediction(WIDTHS), expected, rtol=0.02)


def test_more_bits_are_never_worse(users: KnownUsers) -> None:
    prediction = Prediction(users, 2, FLOOR)
    for atom, parameter in itertools.product(range(2), range(5)):
        more = [list(row) for row in WIDTHS]
        more[atom][parameter] += 2
        if (atom, parameter) != (0, 1):
            assert (prediction(tuple(map(tuple, more))) <= prediction(WIDTHS) * (1 + 1e-9)).all()


def test_short_reports_are_the_best_of_those_that_were_tried() -> None:
    """The error of a report is a made-up function, with a valley in which one parameter is worth nothing."""
    orders = {"1": {"least": [3, 0, 5, 1, 1], "then": [2, 2, 2, 4, 4, 4, 4, 4]}}
    config = {"allocation": {"lengths": [SHORTEST_BITS, 512], "atoms": [1, 1], "orders": orders}}
    tried: dict[int, dict[tuple[int, ...], float]] = {}

    def error(widths: tuple[int, ...]) -> float:
        level, _, tau, alpha, beta = widths
        return 4.0**-level + 2.0 ** (6 - tau) + (1.0 if beta < 4 else 2.0**-beta) + 0.1 * 2.0**-alpha

    def error_m(bits: int) -> float:
        [widths] = report_widths(config, bits)
        return tried.setdefault(bits, {}).setdefault(widths, error(widths))

    found = short_reports(config, error_m)
    assert [*map(int, found)] == [*range(LINEAR_BITS - 1, SHORTEST_BITS - 1, -1)]
    for length, widths in found.items():
        assert sum(widths) + LEVEL_BITS == int(length)
        assert error(tuple(widths)) == min(tried[int(length)].values())
    assert found["12"][4] == 0, "a parameter that is worth nothing in few bits is left out"
    config["allocation"]["short"] = found
    assert TwinPayload(report_widths(config, 13), (-100.0, -50.0)).format.max_bits == 13
    assert report_widths(config, LINEAR_BITS) == ((3, 0, 8, 1, 6),)

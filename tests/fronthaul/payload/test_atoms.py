"""Atoms against a loop over antennas and tones, and their derivatives against differences."""

import cmath
import math

import numpy as np
import pytest

from fronthaul.payload.atoms import PER_ATOM, AtomGrid

GRIDS = [AtomGrid(2, 2, 24), AtomGrid(3, 1, 5), AtomGrid(1, 4, 6)]
DRAW = np.random.default_rng(5)


def one_by_one(grid: AtomGrid, tau: float, alpha: float, beta: float) -> list[complex]:
    made = []
    for column in range(grid.columns):
        for row in range(grid.rows):  # from top to bottom
            for tone in range(grid.tones):
                across = alpha * (column - (grid.columns - 1) / 2)
                up = beta * ((grid.rows - 1) / 2 - row)
                made.append(cmath.exp(1j * (across + up - 2 * math.pi * tau * (tone - (grid.tones - 1) / 2))))
    return made


@pytest.mark.parametrize("grid", GRIDS)
def test_atoms_are_plane_waves_with_a_delay(grid: AtomGrid) -> None:
    place = DRAW.uniform(-2, 2, (2, 3, 3))
    atoms = grid.atoms(place)
    assert atoms.shape == (2, grid.size, 3)
    for b in range(2):
        for atom in range(3):
            np.testing.assert_allclose(atoms[b, :, atom], one_by_one(grid, *place[b, atom]), atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_jacobian_is_that_of_differences(grid: AtomGrid) -> None:
    place, step = DRAW.uniform(-0.5, 0.5, (1, 2, 3)), 1e-6
    amplitude, phase = np.array([[0.7, 2.0]]), np.array([[0.3, -2.1]])

    def channel(parameter: np.ndarray) -> np.ndarray:
        size, angle, rest = parameter[..., 0], parameter[..., 1], parameter[..., 2:]
        return np.asarray((grid.atoms(rest) * (size * np.exp(1j * angle))[:, None, :]).sum(-1)[0])

    parameter = np.concatenate([amplitude[..., None], phase[..., None], place], -1)
    jacobian = grid.jacobian(grid.atoms(place), amplitude * np.exp(1j * phase))[0]
    for column in range(2 * PER_ATOM):
        change = np.zeros(parameter.shape)
        change.reshape(-1)[column] = step
        slope = (channel(parameter + change) - channel(parameter - change)) / (2 * step)
        if column % PER_ATOM == 1:  # by phase times amplitude
            slope = slope / amplitude[0, column // PER_ATOM]
        np.testing.assert_allclose(jacobian[:, column], slope, atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_wrapped_place_makes_the_same_channel(grid: AtomGrid) -> None:
    place = DRAW.uniform(-9, 9, (20, 2, 3))
    gain = DRAW.normal(size=(20, 2)) + 1j * DRAW.normal(size=(20, 2))
    near, turned = grid.wrapped(place, gain)
    assert (near[..., 0] >= 0).all() and (near[..., 0] < 1).all()
    assert (np.abs(near[..., 1:]) <= math.pi).all()
    before = (grid.atoms(place) @ gain[..., None])[..., 0]
    np.testing.assert_allclose((grid.atoms(near) @ turned[..., None])[..., 0], before, atol=1e-10)

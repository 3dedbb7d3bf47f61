"""Fit of atoms: known ones are found, and what is left does not move them."""

import math

import numpy as np
import pytest

from edge.atom_fit import fit_atoms, slot_reduced
from fronthaul.payload.atoms import AtomGrid

GRID = AtomGrid(2, 2, 24)
DRAW = np.random.default_rng(8)


def channels(count: int, atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Channels of atoms whose delays are at least two cells apart, with those atoms, strongest first."""
    tau = (np.arange(atoms) * 0.13 + DRAW.uniform(0, 0.03, (count, atoms))) % 1
    place = np.stack([tau, *DRAW.uniform(-2.5, 2.5, (2, count, atoms))], -1)
    gain = 1e-5 * 0.5 ** np.arange(atoms) * np.exp(1j * DRAW.uniform(-math.pi, math.pi, (count, atoms)))
    return (GRID.atoms(place) @ gain[..., None])[..., 0], place, gain


@pytest.mark.parametrize("atoms", [1, 2, 3])
def test_atoms_that_made_a_channel_are_found(atoms: int) -> None:
    made, place, gain = channels(40, atoms)
    found, size, share = fit_atoms(GRID, made, atoms)
    np.testing.assert_allclose(found, place, atol=2e-3)
    np.testing.assert_allclose(size, gain, atol=2e-8)
    assert (share < 1e-6).all()


def test_what_one_atom_leaves_is_orthogonal_to_its_derivatives() -> None:
    made, _, _ = channels(40, 4)
    place, gain, share = fit_atoms(GRID, made, 1)
    atoms = GRID.atoms(place)
    rest = made - (atoms @ gain[..., None])[..., 0]
    jacobian = GRID.jacobian(atoms, gain)
    slope = (jacobian.conj().swapaxes(-1, -2) @ rest[..., None]).real[..., 0]
    cosine = np.abs(slope) / np.sqrt((np.abs(jacobian) ** 2).sum(1)) / np.linalg.norm(rest, axis=1)[:, None]
    assert cosine.max() < 1e-2 < share.min() ** 0.5


def test_several_atoms_end_stationary_however_weak_the_channel_is() -> None:
    made, _, _ = channels(40, 7)
    for weak in (1.0, 1e-3, 1e5):
        channel = weak * made
        place, gain, share = fit_atoms(GRID, channel, 4)
        atoms = GRID.atoms(place)
        rest = channel - (atoms @ gain[..., None])[..., 0]
        jacobian = GRID.jacobian(atoms, gain)
        slope = (jacobian.conj().swapaxes(-1, -2) @ rest[..., None]).real[..., 0]
        cosine = np.abs(slope) / np.sqrt((np.abs(jacobian) ** 2).sum(1)) / np.linalg.norm(rest, axis=1)[:, None]
        assert np.quantile(cosine.max(1), 0.9) < 2e-2
        assert share == pytest.approx((np.abs(rest) ** 2).sum(1) / (np.abs(channel) ** 2).sum(1), rel=1e-6)


def test_the_reduction_drops_a_phase_of_each_slot_and_keeps_the_energy() -> None:
    made, _, _ = channels(6, 2)
    phase = np.exp(1j * DRAW.uniform(-math.pi, math.pi, (6, 10, 1)))
    reduced = slot_reduced(made[:, None] * phase)
    alike = np.abs((reduced.conj() * made).sum(-1)) / (np.linalg.norm(made, axis=1) ** 2)
    assert alike == pytest.approx(1, abs=1e-9)
    assert np.linalg.norm(reduced, axis=1) == pytest.approx(np.linalg.norm(made, axis=1))

"""Fit of a few atoms to a channel: matching pursuit on a grid, each new atom refined jointly with the others.

The fit ends at a stationary point of Σ |y − Σ g a|². That is what makes a report's error structured: whatever the atoms
leave of the channel is orthogonal to all derivatives of the model, so that it does not move the parameters.
"""

from __future__ import annotations

import math

import numpy as np

from fronthaul.payload.atoms import PER_ATOM, AtomGrid, Complex, Real

_OVERSAMPLING = 4
_BETWEEN, _FINAL = 4, 12  # Levenberg-Marquardt iterations after each new atom, and at the end
_STATIONARY = 1e-7  # relative decrease of the cost that ends the fit


def fit_atoms(grid: AtomGrid, channel: Complex, count: int) -> tuple[Real, Complex, Real]:
    """Fit atoms to channels.

    Args:
        grid: antennas and tones.
        channel: y (B, M·F).
        count: number of atoms L.

    Returns:
        Places (B, L, 3), gains (B, L), strongest atom first, and the share of the energy that they leave (B,).
    """
    energy = _energy(channel)
    place = np.zeros((len(channel), 0, 3))
    gain = np.zeros((len(channel), 0), np.complex128)
    rest = channel
    for number in range(count):
        new = _peak(grid, rest)
        place = np.concatenate([place, new[:, None]], 1)
        atoms = grid.atoms(place)
        first = (atoms[..., -1].conj() * rest).sum(-1) / grid.size
        gain = np.concatenate([gain, first[:, None]], 1)
        steps = _FINAL if number == count - 1 else _BETWEEN
        place, gain, rest = _refined(grid, channel, place, gain, steps)
    order = np.argsort(-np.abs(gain), axis=1, kind="stable")
    place = np.take_along_axis(place, order[..., None], 1)
    gain = np.take_along_axis(gain, order, 1)
    place, gain = grid.wrapped(place, gain)
    return place, gain, _energy(rest) / np.maximum(energy, 1e-300)


def _energy(channel: Complex) -> Real:
    found: Real = (channel.real**2 + channel.imag**2).sum(-1)
    return found


def _peak(grid: AtomGrid, rest: Complex) -> Real:
    """Return the places (B, 3) of the atoms most alike `rest` (B, M·F), on a grid."""
    shape = (grid.columns, grid.rows, grid.tones)
    sizes = [_OVERSAMPLING * n for n in shape]
    cube = rest.reshape(len(rest), *shape)
    # Σ y e^{−jαc} over columns, Σ y e^{+jβ·row} over rows (counted downwards), Σ y e^{+j2πτt} over tones.
    spectrum = np.fft.ifft(np.fft.ifft(np.fft.fft(cube, sizes[0], 1), sizes[1], 2), sizes[2], 3)
    best = (spectrum.real**2 + spectrum.imag**2).reshape(len(rest), -1).argmax(1)
    column, row, tone = np.unravel_index(best, sizes)
    return np.stack([tone / sizes[2], 2 * np.pi * column / sizes[0], 2 * np.pi * row / sizes[1]], -1)


def _refined(grid: AtomGrid, channel: Complex, place: Real, gain: Complex, steps: int) -> tuple[Real, Complex, Complex]:
    """Run Levenberg-Marquardt on all parameters at once; return places, gains and what is left of the channel."""
    count = gain.shape[1]
    most = np.array([0.5 / grid.tones, 0.8, 0.8])  # largest step of (τ, α, β)
    damping = np.full(len(channel), 1e-3)
    atoms = grid.atoms(place)
    rest = channel - (atoms @ gain[..., None])[..., 0]
    cost = _energy(rest)
    going = np.ones(len(channel), bool)
    diagonal = np.arange(PER_ATOM * count)
    for _ in range(steps):
        jacobian = grid.jacobian(atoms, gain)
        normal = (jacobian.conj().swapaxes(-1, -2) @ jacobian).real
        slope = (jacobian.conj().swapaxes(-1, -2) @ rest[..., None]).real
        scale = normal[:, diagonal, diagonal]
        normal[:, diagonal, diagonal] += damping[:, None] * scale + 1e-12 * scale.max(1, keepdims=True) + 1e-300
        step = np.linalg.solve(normal, slope)[..., 0].reshape(len(channel), count, PER_ATOM)
        ratio = np.abs(step[..., 2:]) / most
        step /= np.maximum(ratio.max((1, 2)), 1.0)[:, None, None]
        new_place = place + step[..., 2:]
        size = np.abs(gain)
        turn = np.where(size > 0, gain / np.where(size > 0, size, 1), 1)
        new_gain = gain + turn * (step[..., 0] + 1j * step[..., 1])
        new_atoms = grid.atoms(new_place)
        new_rest = channel - (new_atoms @ new_gain[..., None])[..., 0]
        new_cost = _energy(new_rest)
        better = going & (new_cost < cost)
        going &= ~(better & (cost - new_cost <= _STATIONARY * new_cost))
        place = np.where(better[:, None, None], new_place, place)
        gain = np.where(better[:, None], new_gain, gain)
        atoms = np.where(better[:, None, None], new_atoms, atoms)
        rest = np.where(better[:, None], new_rest, rest)
        cost = np.where(better, new_cost, cost)
        damping = np.where(better, damping * 0.3, damping * 8)
        if not going.any():
            break
    return place, gain, rest


def slot_reduced(channel: Complex) -> Complex:
    """Return y (B, M·F): the principal direction of Ĥ (B, slot, M·F) over the slots, with their mean energy.

    It is free of any phase that a slot has of its own.
    """
    slots = channel.shape[1]
    gram = channel @ channel.conj().swapaxes(-1, -2)
    direction = np.linalg.eigh(gram).eigenvectors
    made: Complex = (direction[:, None, :, -1].conj() @ channel)[:, 0] / math.sqrt(slots)
    return made

"""Fit of a few atoms to a channel: matching pursuit on a grid, each new atom refined jointly with the others.

The fit ends at a stationary point of Σ |y − Σ g a|². That is what makes a report's error structured: whatever the atoms
leave of the channel is orthogonal to all derivatives of the model, so that it does not move the parameters.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from fronthaul.payload.atoms import PER_ATOM, AtomGrid, Complex, Real

_OVERSAMPLING = 4
_BETWEEN, _FINAL = 6, 40  # Levenberg-Marquardt iterations after each new atom, and at the end
_STATIONARY = 1e-7  # relative decrease of the cost that ends the fit
_STUCK = 1e9  # damping at which no step helps


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
    level = np.sqrt(np.maximum(energy, 1e-300) / grid.size)
    channel = channel / level[:, None]
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
    return place, gain * level[:, None], _energy(rest) / grid.size


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
    """Run Levenberg-Marquardt on all parameters at once; return places, gains and what is left of the channel.

    Channels have a power of about one: the least damping, which keeps the equations regular, is relative to it.
    """
    count = gain.shape[1]
    most = np.array([0.5 / grid.tones, 0.8, 0.8])  # largest step of (τ, α, β)
    moments, by_pair = _moments(grid)
    diagonal = np.arange(PER_ATOM * count)
    ended = place.copy(), gain.copy(), channel.copy()
    going = np.arange(len(channel))
    damping = np.full(len(channel), 1e-3)
    atoms = grid.atoms(place).swapaxes(-1, -2)  # (B, L, M·F)
    rest = channel - (gain[:, None] @ atoms)[:, 0]
    cost = _energy(rest)
    for _ in range(steps):
        size = np.abs(gain)
        turn = np.where(size > 0, gain / np.where(size > 0, size, 1), 1)
        factor = np.stack([turn, 1j * turn, *[1j * gain] * 3], -1)  # columns of the Jacobian: factor ∘ atom ∘ moment
        dual = atoms.conj()
        shared = (dual[:, :, None] * atoms[:, None]) @ moments
        square = factor.conj()[:, :, None, :, None] * factor[:, None, :, None, :] * shared[..., by_pair]
        normal = square.real.swapaxes(2, 3).reshape(len(going), len(diagonal), -1)
        heard = (dual * rest[:, None]) @ moments[:, by_pair[0]]
        slope = (factor.conj() * heard).real.reshape(len(going), -1, 1)
        scale = normal[:, diagonal, diagonal]
        normal[:, diagonal, diagonal] += damping[:, None] * scale + 1e-12 * scale.max(1, keepdims=True) + 1e-300
        step = np.linalg.solve(normal, slope)[..., 0].reshape(len(going), count, PER_ATOM)
        step /= np.maximum((np.abs(step[..., 2:]) / most).max((1, 2)), 1.0)[:, None, None]
        new_place = place + step[..., 2:]
        new_gain = gain + turn * (step[..., 0] + 1j * step[..., 1])
        new_atoms = grid.atoms(new_place).swapaxes(-1, -2)
        new_rest = channel - (new_gain[:, None] @ new_atoms)[:, 0]
        new_cost = _energy(new_rest)
        better = new_cost < cost
        finished = better & (cost - new_cost <= _STATIONARY * new_cost)
        damping = np.where(better, damping * 0.3, damping * 8)
        place = np.where(better[:, None, None], new_place, place)
        gain = np.where(better[:, None], new_gain, gain)
        atoms = np.where(better[:, None, None], new_atoms, atoms)
        rest = np.where(better[:, None], new_rest, rest)
        cost = np.where(better, new_cost, cost)
        finished |= damping > _STUCK
        if finished.any():
            for whole, own in zip(ended, (place, gain, rest), strict=True):
                whole[going[finished]] = own[finished]
            keep = ~finished
            going, channel, damping, cost = going[keep], channel[keep], damping[keep], cost[keep]
            place, gain, atoms, rest = place[keep], gain[keep], atoms[keep], rest[keep]
            if not len(going):
                break
    for whole, own in zip(ended, (place, gain, rest), strict=True):
        whole[going] = own
    return ended


@cache
def _moments(grid: AtomGrid) -> tuple[Real, npt.NDArray[np.intp]]:
    """Return the products (M·F, 10) of two of 1, −2π t, c and r, and which one belongs to two columns (5, 5)."""
    one = np.concatenate([np.ones((1, grid.size)), grid.number])
    number = np.zeros((4, 4), np.intp)
    first, second = np.triu_indices(4)
    number[first, second] = number[second, first] = np.arange(len(first))
    kind = np.array([0, 0, 1, 2, 3])  # of amplitude, phase, τ, α, β
    return (one[first] * one[second]).T, number[np.ix_(kind, kind)]


def slot_reduced(channel: Complex) -> Complex:
    """Return y (B, M·F): the principal direction of Ĥ (B, slot, M·F) over the slots, with their mean energy.

    It is free of any phase that a slot has of its own.
    """
    slots = channel.shape[1]
    gram = channel @ channel.conj().swapaxes(-1, -2)
    direction = np.linalg.eigh(gram).eigenvectors
    made: Complex = (direction[:, None, :, -1].conj() @ channel)[:, 0] / math.sqrt(slots)
    return made

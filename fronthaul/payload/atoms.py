"""Atoms: a channel as a few plane waves with delays, the parameters of a `twin` report.

An atom of delay τ (cycles per tone) and spatial frequencies α, β (radians per element) is, at antenna m and tone f,

    a[m, f] = exp(j (α c_m + β r_m) − j 2π τ t_f),

with c_m, r_m and t_f the element's column, its row (upwards) and the tone's number, each counted from the middle of the
grid. τ has period 1, α and β have period 2π; where a count is even, its numbers are half-integers, and the atom changes
sign from one period to the next (`wrapped`).

A grid has M antennas and F tones. All functions take any leading dimensions, and flatten (M, F) in C order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Complex = npt.NDArray[np.complex128]
Real = npt.NDArray[np.float64]

PER_ATOM = 5
"""Real parameters of an atom, in this order everywhere: amplitude, phase, τ, α, β."""


@dataclass(frozen=True)
class AtomGrid:
    """A planar array of `columns` × `rows` elements, column by column, each from top to bottom, and `tones`."""

    columns: int
    rows: int
    tones: int

    @property
    def size(self) -> int:
        """Number of complex values M·F."""
        return self.columns * self.rows * self.tones

    @cached_property
    def number(self) -> Real:
        """Numbers (3, M·F) that multiply (τ, α, β) in an atom's phase: −2π t_f, c_m and r_m."""
        column, row, tone = (np.arange(count) - (count - 1) / 2 for count in (self.columns, self.rows, self.tones))
        grid = np.meshgrid(column, -row, tone, indexing="ij")
        return np.stack([-2 * math.pi * grid[2].ravel(), grid[0].ravel(), grid[1].ravel()])

    def atoms(self, place: Real) -> Complex:
        """Return atoms (…, M·F, L) of places (…, L, 3): τ, α, β."""
        column, row, tone = (np.arange(count) - (count - 1) / 2 for count in (self.columns, self.rows, self.tones))
        over_tones = _turned(-2 * math.pi * tone[:, None] * place[..., None, :, 0])
        over_columns = _turned(column[:, None] * place[..., None, :, 1])
        over_rows = _turned(-row[:, None] * place[..., None, :, 2])
        space = over_columns[..., :, None, :] * over_rows[..., None, :, :]
        made = space[..., None, :] * over_tones[..., None, None, :, :]
        whole: Complex = made.reshape(*place.shape[:-2], self.size, place.shape[-2])
        return whole

    def jacobian(self, atoms: Complex, gain: Complex) -> Complex:
        """Return the derivatives (…, M·F, L·5) of Σ g a by amplitude and phase·amplitude of g, and by τ, α, β.

        Args:
            atoms: (…, M·F, L).
            gain: g (…, L).
        """
        size = np.abs(gain)
        turn = np.where(size > 0, gain / np.where(size > 0, size, 1), 1)
        unit = atoms * turn[..., None, :]
        by_place = 1j * self.number.T[:, None, :] * (unit * size[..., None, :])[..., None]  # (…, M·F, L, 3)
        both = np.concatenate([np.stack([unit, 1j * unit], -1), by_place], -1)
        return both.reshape(*both.shape[:-2], -1)

    def wrapped(self, place: Real, gain: Complex) -> tuple[Real, Complex]:
        """Return the same atoms with τ in [0, 1) and α, β in [−π, π): places (…, L, 3) and gains (…, L)."""
        period = np.array([1.0, 2 * math.pi, 2 * math.pi])
        turns = np.floor((place + np.array([0.0, math.pi, math.pi])) / period)
        odd = np.array([self.tones - 1, self.columns - 1, self.rows - 1])
        flips = (turns * odd).sum(-1) % 2
        return place - turns * period, gain * (1 - 2 * flips)


def _turned(angle: Real) -> Complex:
    """Return exp(j angle); of real parts, NumPy makes many at once."""
    made = np.empty(angle.shape, np.complex128)
    np.cos(angle, out=made.real)
    np.sin(angle, out=made.imag)
    return made

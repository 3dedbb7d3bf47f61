"""First path of a sampled delay profile: the delay at which a lone path fits the powers around the first peak.

Notation: samples n at times t_n with powers P_n [dB]; F tones, ν apart. A lone path at delay τ has the profile

    D(t − τ) = 20 log |sin(πFν(t − τ)) / (F sin(πν(t − τ)))|

A peak is a sample that no reported neighbour exceeds, at most `GUARD_DB` below the strongest. Around the earliest one,
from `_BEFORE` samples before it to `_AFTER` behind it, since other paths follow rather than precede the first, τ
minimises the variance of P_n − D(t_n − τ) on a grid. Its standard deviation is what rounding powers to whole decibels
causes: 1/√12 dB over the norm of D's slopes, their mean taken out.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fronthaul.payload.measurements import POWER_DBM

Real = npt.NDArray[np.float64]

GUARD_DB = 9.0
_BEFORE, _AFTER = 2, 1
_STEPS = 64  # of the grid in a sample
_FLOOR = 1e-4


class ProfileReader:
    """Finds first paths in reported samples of one numerology and spacing of samples."""

    def __init__(self, tones: int, spacing_hz: float, step_s: float) -> None:
        """Take F, ν [Hz] and the time between two samples of a window [s]."""
        self._step_s = step_s
        self._shift = np.linspace(-1, 1, 2 * _STEPS + 1)
        around = np.arange(-_BEFORE, _AFTER + 1)
        self._lone = _lone_db((around - self._shift[:, None]) * step_s, tones, spacing_hz)
        self._slope = np.gradient(self._lone, self._shift, axis=0)

    def first(self, start_s: float, index: tuple[int, ...], power_dbm: tuple[float, ...]) -> tuple[float, float]:
        """Return the delay of the first path and its standard deviation [s], from samples of a window."""
        found = dict(zip(index, power_dbm, strict=True))
        least = max(power_dbm) - GUARD_DB
        peak = next(
            n for n, own in found.items()
            if own >= least and own >= found.get(n - 1, -math.inf) and own >= found.get(n + 1, -math.inf)
        )  # fmt: skip
        column = np.array([n - peak + _BEFORE for n in range(peak - _BEFORE, peak + _AFTER + 1) if n in found])
        power = np.array([found[peak + n - _BEFORE] for n in column])
        best = int((power - self._lone[:, column]).var(1).argmin())
        steepness = float(np.linalg.norm(self._slope[best, column] - self._slope[best, column].mean()))
        deviation = min(POWER_DBM.step / math.sqrt(12) / max(steepness, 1e-9), 1.0)
        return start_s + (peak + float(self._shift[best])) * self._step_s, deviation * self._step_s


def _lone_db(time_s: Real, tones: int, spacing_hz: float) -> Real:
    """Return the profile of a lone path [dB] at times after it."""
    number = np.arange(tones) - (tones - 1) / 2
    level = np.cos(2 * np.pi * spacing_hz * time_s[..., None] * number).mean(-1)
    found: Real = 20 * np.log10(np.maximum(np.abs(level), _FLOOR))
    return found

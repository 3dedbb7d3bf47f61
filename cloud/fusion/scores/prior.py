"""Prior of the position, before any channel is observed: uniform on a box; score of the noised prior in closed form.

On each axis p ~ U(l, h) and x = a p + s ε. Given x, the noise ε = (x − a p) / s is standard normal truncated to (v, u),

    u = (x − a l) / s,   v = (x − a h) / s,        ε_0(x) = −s ∇log p_t(x) = E[ε | x] = (φ(v) − φ(u)) / (Φ(u) − Φ(v))

which is 0 well inside the box at low noise and grows with the distance, in units of s, outside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import erfcx, ndtr

from cloud.fusion.scores.answers import FloatArray
from fronthaul.payload.noise_levels import Level

MARGIN = 0.125
"""Fraction of its width by which a box is widened on each side when clean estimates are clipped to it."""
_NARROW = 1e-3
"""Interval times (1 + midpoint) below which the truncated mean is taken from its series: the rest is below 1e-13."""


class Prior(Protocol):
    """Interface of a prior for fusion rules."""

    @property
    def mean(self) -> FloatArray:
        """Mean (D,)."""

    @property
    def covariance(self) -> FloatArray:
        """Covariance (D, D)."""

    def score(self, x: FloatArray) -> FloatArray:
        """Return ∇log p (N, D) of the clean prior at x (N, D)."""

    def eps(self, x: FloatArray, level: Level) -> FloatArray:
        """Return −s ∇log p_t (N, D) of the noised prior at x (N, D)."""

    def held(self, position: FloatArray) -> FloatArray:
        """Return positions (N, D), those outside the allowed range moved to its nearest point."""


@dataclass(frozen=True, slots=True)
class BoxPrior:
    """Uniform between `low` (D,) and `high` (D,), normalised.

    Raises:
        ValueError: low < high does not hold on each axis, or a number is not finite.
    """

    low: FloatArray
    high: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", np.asarray(self.low, np.float64))
        object.__setattr__(self, "high", np.asarray(self.high, np.float64))
        if self.low.ndim != 1 or self.low.shape != self.high.shape:
            raise ValueError(f"a box needs two corners of equal length, not {self.low.shape} and {self.high.shape}")
        if not (np.isfinite([self.low, self.high]).all() and (self.low < self.high).all()):
            raise ValueError(f"a box must have low < high, not {self.low.tolist()} and {self.high.tolist()}")

    @property
    def mean(self) -> FloatArray:
        """Centre of the box (D,)."""
        return np.asarray((self.low + self.high) / 2, np.float64)

    @property
    def covariance(self) -> FloatArray:
        """diag((h − l)² / 12) (D, D)."""
        return np.diag((self.high - self.low) ** 2 / 12)

    def score(self, x: FloatArray) -> FloatArray:
        """Return ∇log p of the clean box (N, D): 0, also on and outside its faces, where the score does not exist."""
        return np.zeros_like(x, np.float64)

    def held(self, position: FloatArray) -> FloatArray:
        """Return positions (N, D), clipped to the box widened by `MARGIN`."""
        margin = MARGIN * (self.high - self.low)
        return np.asarray(np.clip(position, self.low - margin, self.high + margin), np.float64)

    def eps(self, x: FloatArray, level: Level) -> FloatArray:
        """Return ε_0 (N, D) of the noised box at x (N, D); finite for all finite x and any noise above 0."""
        width = level.signal * (self.high - self.low) / level.noise
        middle = (x - level.signal * self.mean) / level.noise
        return truncated_normal_mean(middle, np.broadcast_to(width, middle.shape))


def truncated_normal_mean(middle: FloatArray, width: FloatArray) -> FloatArray:
    """Return the mean of a standard normal truncated to middle ± width / 2, elementwise, without under- or overflow."""
    m = np.abs(middle)  # an odd function of the midpoint, so the interval (v, u) has u ≥ |v|
    u, v = m + width / 2, m - width / 2
    falls = -np.expm1(-m * width)  # 1 − φ(u) / φ(v), as (u² − v²) / 2 = m · width
    with np.errstate(divide="ignore", invalid="ignore"):  # each branch is taken where it holds
        tail = np.sqrt(2 / np.pi) * falls / (erfcx(_held(v) / np.sqrt(2)) - (1 - falls) * erfcx(u / np.sqrt(2)))
        centre = np.exp(-(np.minimum(np.abs(v), 40.0) ** 2) / 2) / np.sqrt(2 * np.pi) * falls / (ndtr(u) - ndtr(v))
    mean = np.where(v > 0, tail, centre)
    mean = np.where(width * (1 + m) < _NARROW, m - m * width**2 / 12, mean)
    return np.asarray(np.copysign(np.clip(mean, np.maximum(v, 0.0), u), middle), np.float64)


def _held(v: FloatArray) -> FloatArray:
    """Clip `v` to at least 0: erfcx overflows far below 0, where its branch is not used."""
    return np.maximum(v, 0.0)

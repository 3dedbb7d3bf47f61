"""Noise levels of a sampler whose state is exchanged in rounds; cloud and base stations map rounds to levels alike.

A position p [normalised, see below] is noised to x = a p + s ε with ε ~ N(0, I):

    diffusion     a = √ᾱ_t, s = √(1 − ᾱ_t), ᾱ_t = Π_{u ≤ t} (1 − β_u), β linear in t = 1 … T    DiffLoc Eq. 8, 9
    consistency   a = 1, s = σ with σ_min ≤ σ ≤ σ_max                                          DiffLoc Eq. 20, 21

A *noise schedule* is the levels of one sampling run, from most noise to least; round r of an exchange (from 1) is its
level r − 1. Coordinates are normalised: p = (position − centre) / scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fronthaul.errors import LocalError

TIMESTEPS = 200
BETA = (5e-4, 0.1)
"""β_1 and β_T [R]: the paper's values are lost. They give ᾱ_T = 3e-5, so that x_T contains almost nothing of p."""


@dataclass(frozen=True, slots=True)
class Level:
    """One noise level: `signal` a, `noise` s, and `time`, the network's time input (0 … 1)."""

    signal: float
    noise: float
    time: float

    @property
    def ratio(self) -> float:
        """Noise over signal, s / a: the deviation of the noise in units of the position."""
        return self.noise / self.signal


def alpha_bars(timesteps: int = TIMESTEPS, beta: tuple[float, float] = BETA) -> npt.NDArray[np.float64]:
    """Return ᾱ_t (T,) for t = 1 … T. DiffLoc Eq. 9."""
    bars: npt.NDArray[np.float64] = np.cumprod(1 - np.linspace(*beta, timesteps)).astype(np.float64)
    return bars


def diffusion_schedule(steps: int, timesteps: int = TIMESTEPS, beta: tuple[float, float] = BETA) -> tuple[Level, ...]:
    """Return `steps` levels from t = T down to t = 1, equally spaced in t.

    Raises:
        LocalError: fewer than one step, or more than T.
    """
    if not 1 <= steps <= timesteps:
        raise LocalError(f"a diffusion of {timesteps} timesteps is sampled in 1 to {timesteps} steps, not {steps!r}")
    bars = alpha_bars(timesteps, beta)
    times = np.round(np.linspace(timesteps, 1, steps)).astype(int) if steps > 1 else np.array([timesteps])
    return tuple(
        Level(float(np.sqrt(bars[t - 1])), float(np.sqrt(1 - bars[t - 1])), float(t / timesteps)) for t in times
    )


def consistency_time(sigma: float | npt.NDArray[np.float64], low: float, high: float) -> Any:
    """Return the normalised time of a noise level, 1 at σ_max and 0 at σ_min. DiffLoc Eq. 20."""
    return np.log(sigma / low) / np.log(high / low)


def consistency_schedule(steps: int, low: float, high: float) -> tuple[Level, ...]:
    """Return `steps` levels from σ_max = `high` to σ_min = `low`, equally spaced in log σ; the paper uses two.

    Raises:
        LocalError: fewer than one step or more than 200, or levels that are not 0 < σ_min < σ_max.
    """
    if not 1 <= steps <= TIMESTEPS:
        raise LocalError(f"consistency sampling takes 1 to {TIMESTEPS} steps, not {steps!r}")
    if not 0 < low < high:
        raise LocalError(f"noise levels must be 0 < sigma_min < sigma_max, got {low} and {high}")
    sigmas = np.geomspace(high, low, steps) if steps > 1 else np.array([high])
    return tuple(Level(1.0, float(s), float(consistency_time(s, low, high))) for s in sigmas)


def noise_schedule(config: Mapping[str, Any], steps: int) -> tuple[Level, ...]:
    """Return the noise schedule that a weights file's ``sampler`` table describes.

    ``{"kind": "diffusion", "timesteps": T, "beta": [β_1, β_T]}``, or
    ``{"kind": "consistency", "sigma": [σ_min, σ_max]}``.

    Raises:
        LocalError: an unknown kind, or an invalid number of steps.
        KeyError: a key is missing.
    """
    if config["kind"] == "diffusion":
        first, last = config["beta"]
        return diffusion_schedule(steps, int(config["timesteps"]), (float(first), float(last)))
    if config["kind"] == "consistency":
        low, high = config["sigma"]
        return consistency_schedule(steps, float(low), float(high))
    raise LocalError(f"there is no sampler {config['kind']!r}: diffusion or consistency")

"""Tracks of users who move: a constant-velocity Kalman filter over fixes, and the smoother that looks back.

Notation, for W users at N equally spaced times, in three dimensions:

    x_n = (p_n, v_n)                       position [m] and velocity [m/s]
    x_n = F x_{n-1} + w_n,  w_n ~ N(0, Q)  white acceleration of power spectral density q in each axis
    z_n = p_n + e_n,        e_n ~ N(0, R_n)

    F = | 1  T |    Q = q | T³/3  T²/2 |    for each axis
        | 0  1 |          | T²/2  T    |

A missing fix is bridged: the prediction stands in. A fix far from its prediction counts like any other, since nothing
tells a bad fix from a turn but its covariance.

Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001, sections 5.2 (filter), 6.2
(model) and 8.6 (smoother of Rauch, Tung and Striebel). The equations are here since no maintained package has both: the
last release of filterpy is of 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """How users move.

    Attributes:
        interval_s: time T between two fixes [s].
        acceleration: power spectral density q of the acceleration in each axis [m²/s³].
        speed_mps: standard deviation of each component of the velocity when a track begins [m/s].
    """

    interval_s: float
    acceleration: float
    speed_mps: float


@dataclass(frozen=True)
class States:
    """States of W users at N times: `mean` (W, N, 6), `covariance` (W, N, 6, 6); NaN before a user's first fix."""

    mean: Floats
    covariance: Floats

    @property
    def position(self) -> Floats:
        """Positions (W, N, 3) [m]."""
        return self.mean[..., :3]


@dataclass(frozen=True)
class Filtered:
    """States after each fix, and those predicted before it, which are of no use up to a user's first fix."""

    states: States
    predicted: States


def kalman(fix: Floats, covariance: Floats, motion: Motion) -> Filtered:
    """Return the states given the fixes up to each time.

    Args:
        fix: fixes z (W, N, 3) [m]; NaN where there is none.
        covariance: their covariances R (W, N, 3, 3) [m²].
        motion: the model.
    """
    users, times = fix.shape[:2]
    transition, noise = transition_of(motion)
    found: npt.NDArray[np.bool_] = np.all(np.isfinite(fix), axis=-1)
    mean, spread = np.zeros((users, 6)), np.tile(np.eye(6), (users, 1, 1))
    begun = np.zeros(users, bool)
    means, spreads = np.full((2, users, times, 6), np.nan), np.full((2, users, times, 6, 6), np.nan)
    for n in range(times):
        if n:
            mean = mean @ transition.T
            spread = transition @ spread @ transition.T + noise
        means[0, :, n], spreads[0, :, n] = mean, spread
        first, later = found[:, n] & ~begun, found[:, n] & begun
        mean[first, :3], mean[first, 3:] = fix[first, n], 0.0
        spread[first] = 0.0
        spread[first, :3, :3] = covariance[first, n]
        spread[first, 3:, 3:] = motion.speed_mps**2 * np.eye(3)
        innovation = fix[later, n] - mean[later, :3]
        gain = spread[later, :, :3] @ np.linalg.inv(spread[later, :3, :3] + covariance[later, n])
        mean[later] += np.einsum("wij,wj->wi", gain, innovation)
        spread[later] = _symmetric(spread[later] - gain @ spread[later, :3])
        begun |= first
        means[1, begun, n], spreads[1, begun, n] = mean[begun], spread[begun]
    return Filtered(States(means[1], spreads[1]), States(means[0], spreads[0]))


def smooth(filtered: Filtered, motion: Motion) -> States:
    """Return the states given all fixes, also later ones: the smoother of Rauch, Tung and Striebel."""
    transition, _ = transition_of(motion)
    mean, spread = filtered.states.mean.copy(), filtered.states.covariance.copy()
    for n in reversed(range(mean.shape[1] - 1)):
        begun = np.isfinite(mean[:, n, 0])
        ahead = filtered.predicted.covariance[begun, n + 1]
        gain = spread[begun, n] @ transition.T @ np.linalg.inv(ahead)
        surplus = mean[begun, n + 1] - filtered.predicted.mean[begun, n + 1]
        mean[begun, n] += np.einsum("wij,wj->wi", gain, surplus)
        change = gain @ (spread[begun, n + 1] - ahead) @ gain.swapaxes(-1, -2)
        spread[begun, n] = _symmetric(spread[begun, n] + change)
    return States(mean, spread)


def transition_of(motion: Motion) -> tuple[Floats, Floats]:
    """Return F and Q (6, 6)."""
    step, q = motion.interval_s, motion.acceleration
    moving = np.array([[1.0, step], [0.0, 1.0]])
    noise = np.array([[q * step**3 / 3, q * step**2 / 2], [q * step**2 / 2, q * step]])
    every: Floats = np.kron(moving, np.eye(3))
    added: Floats = np.kron(noise, np.eye(3))
    return every, added


def deviation_of(fix: Floats) -> float:
    """Return the standard deviation [m] of a component of fixes (W, N, 3), from their second differences alone.

    Those of a user on a straight line are e_{n+1} − 2 e_n + e_{n-1}, of variance 6 σ² if errors are independent. Their
    median is little moved by turns and bad fixes. NaN if no three fixes follow each other.
    """
    bend = fix[:, 2:] - 2 * fix[:, 1:-1] + fix[:, :-2]
    bend = bend[np.isfinite(bend)]
    return float(1.4826 * np.median(np.abs(bend)) / np.sqrt(6)) if len(bend) else float("nan")


def _symmetric(matrix: Floats) -> Floats:
    return (matrix + matrix.swapaxes(-1, -2)) / 2

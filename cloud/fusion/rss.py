"""Multilateration from received signal strength, by a log-distance path-loss model.

Each base station's gain g_k [dB] is modelled as a_k − 10 n_k log10 ‖p − p_k‖ + e, e ~ N(0, σ_k²), with a_k, n_k, σ_k
fitted on training data. The fix is the posterior mean on a grid of the service area under a uniform prior, with
the posterior's covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from cloud.fusion.scheme import CloudSetup, Fix, OneRoundFusion, unheard_fix
from fronthaul.message.messages import Report
from fronthaul.payload.rss import RssPayload

_GRID = (33, 33, 5)
_MISFITS = 1024  # kept, 43 kB each: six base stations send few different levels


def build(setup: CloudSetup) -> OneRoundFusion:
    """Build the rule from the registered positions and the fitted path-loss model."""
    return RssFusion(setup)


class RssFusion:
    """Posterior mean of the position on a grid, uniform prior over the service area."""

    def __init__(self, setup: CloudSetup) -> None:
        low, high = setup.config["gain_db"]
        self._payload = RssPayload(low, high, setup.payload.bits)
        area = zip(setup.config["low"], setup.config["high"], _GRID, strict=True)
        axes = [np.linspace(a, b, n) for a, b, n in area]
        self._grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        model = setup.tensors["path_loss"].double().numpy()  # (K, 3): a_k, n_k, σ_k
        self._expected: dict[int, npt.NDArray[np.float64]] = {}
        self._deviation: dict[int, float] = {}
        for k, position in setup.stations.items():
            distance = np.linalg.norm(self._grid - np.array(position), axis=1)
            self._expected[k] = model[k, 0] - 10 * model[k, 1] * np.log10(np.maximum(distance, 1.0))
            self._deviation[k] = float(model[k, 2])
        # Many base stations would evict each other's before any comes again.
        many = 64 * len(setup.stations) > _MISFITS
        self._known_misfit = self._misfit if many else lru_cache(_MISFITS)(self._misfit)

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group of reports."""
        gains = iter(self._payload.decode([report.payload for group in groups for report in group]))
        levels = [[(report.key.bs, gain_db) for report, gain_db in zip(group, gains)] for group in groups]  # noqa: B905
        return [unheard_fix(group) or self._fuse_one(own) for group, own in zip(groups, levels, strict=True)]

    def _misfit(self, k: int, gain_db: float) -> npt.NDArray[np.float64]:
        """Return (g_k − expected)² / 2σ_k² at each point of the grid."""
        misfit = gain_db - self._expected[k]
        misfit /= self._deviation[k]
        misfit *= misfit
        misfit *= 0.5
        return misfit

    def _fuse_one(self, levels: Sequence[tuple[int, float]]) -> Fix:
        weight = np.zeros(len(self._grid))  # at first its logarithm
        for k, gain_db in sorted(levels):  # fixed order of summation, whatever the order of arrival
            weight -= self._known_misfit(k, gain_db)
        weight -= weight.max()
        np.exp(weight, out=weight)
        weight /= weight.sum()
        mean = weight @ self._grid
        spread, weighted = np.empty_like(self._grid), np.empty_like(self._grid)
        for axis in range(3):  # by columns: over rows of three numbers NumPy takes several times as long
            np.subtract(self._grid[:, axis], mean[axis], out=spread[:, axis])
            np.multiply(spread[:, axis], weight, out=weighted[:, axis])
        covariance = weighted.T @ spread
        return Fix((float(mean[0]), float(mean[1]), float(mean[2])), covariance)

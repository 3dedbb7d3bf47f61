"""Multilateration from received signal strength, by a log-distance path-loss model.

Each base station's gain g_k [dB] is modelled as a_k − 10 n_k log10 ‖p − p_k‖ + e, e ~ N(0, σ_k²), with a_k, n_k, σ_k
fitted on training data. The fix is the posterior mean on a grid of the service area under a uniform prior, with
the posterior's covariance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cloud.fusion.scheme import CloudSetup, Fix, OneRoundFusion, unheard_fix
from fronthaul.message.messages import Report
from fronthaul.payload.rss import RssPayload

_GRID = (33, 33, 5)


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

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group of reports."""
        return [unheard_fix(group) or self._fuse_one(group) for group in groups]

    def _fuse_one(self, group: Sequence[Report]) -> Fix:
        ordered = sorted(group, key=lambda report: report.key.bs)  # of summation, whatever the order of arrival
        log_likelihood, term = np.zeros(len(self._grid)), np.empty(len(self._grid))
        for report, gain_db in zip(ordered, self._payload.decode([each.payload for each in ordered]), strict=True):
            k = report.key.bs
            np.subtract(gain_db, self._expected[k], out=term)
            term /= self._deviation[k]
            term *= term
            term *= 0.5
            log_likelihood -= term
        weight = np.exp(log_likelihood - log_likelihood.max())
        weight /= weight.sum()
        mean = weight @ self._grid
        line = _GRID[1] * _GRID[2]  # NumPy subtracts rows of three numbers at a sixth of the speed of long ones
        spread = (self._grid.reshape(_GRID[0], -1) - np.tile(mean, line)).reshape(-1, 3)
        covariance = (spread * weight[:, None]).T @ spread
        return Fix((float(mean[0]), float(mean[1]), float(mean[2])), covariance)

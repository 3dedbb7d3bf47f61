"""Triangulation in three dimensions from azimuths and elevations. A baseline of ECC (Sec. IV-E).

Base station k at p_k, whose array's axes in space are the columns of O_k, would measure a user at p under the cosines

    (v, w)_k(p) = ((p − p_k)ᵀ O_k / ‖p − p_k‖) along y and z

Its residuals, in units of the standard deviations that it sent, are r_k. The fix minimises Σ_k c²/2 log(1 + r_k² / c²)
for each of the two cosines (Cauchy's estimate): angles of reflections, which point elsewhere, then count little. With
c = 2.385 its variance on Gaussian errors is 5 % above the least possible. A grid over the service area finds the start
of reweighted least squares.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cloud.fusion.scheme import CloudSetup, Fix, OneRoundFusion
from fronthaul.message.messages import Report
from fronthaul.payload.floats import FloatPayload
from fronthaul.payload.orientation import axes_of

Array = npt.NDArray[np.float64]

CAUCHY = 2.385
_GRID, _STEPS = (33, 33, 5), 30


def build(setup: CloudSetup) -> OneRoundFusion:
    """Build the rule from the registered positions, and the arrays' orientations and shape in the weights."""
    return MusicFusion(setup)


class MusicFusion:
    """Triangulates from the angles of any subset of the base stations that the weights cover."""

    def __init__(self, setup: CloudSetup) -> None:
        config = setup.config
        self._payload = FloatPayload(3)
        orientation = setup.tensors["orientation"].double().numpy()
        self._station = {k: (np.array(place), axes_of(*orientation[k])[:, 1:]) for k, place in setup.stations.items()}
        spans = [int(config["columns"]), int(config["rows"])]
        own = [float(config["spacing"]) * (np.arange(n) - (n - 1) / 2) for n in spans]
        self._spread = np.sqrt([spans[1] * np.square(own[0]).sum(), spans[0] * np.square(own[1]).sum()])  # √Σy², √Σz²
        area = zip(config["low"], config["high"], _GRID, strict=True)
        axes = [np.linspace(a, b, n) for a, b, n in area]
        self._grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        self._low, self._high = np.array(config["low"]), np.array(config["high"])

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group of reports; none lies outside the service area."""
        return [self._fuse_one(sorted(group, key=lambda report: report.key.bs)) for group in groups]

    def _fuse_one(self, group: Sequence[Report]) -> Fix:
        numbers = np.array([self._payload.decode(report.payload) for report in group], np.float64).reshape(-1, 3)
        place = np.array([self._station[report.key.bs][0] for report in group]).reshape(-1, 3)
        axes = np.array([self._station[report.key.bs][1] for report in group]).reshape(-1, 3, 2)
        azimuth, elevation, deviation = numbers.T
        seen = np.stack([np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], 1)  # (K, 2)
        weight = self._spread / np.maximum(deviation, 1e-12)[:, None]
        x, y, z = self._triangulated(place, axes, seen, weight)
        return Fix((float(x), float(y), float(z)))

    def _triangulated(self, place: Array, axes: Array, seen: Array, weight: Array) -> Array:
        """Return the position (3,) [m] from positions (K, 3), axes (K, 3, 2), cosines and 1 / deviations (K, 2)."""
        line = self._grid[:, None] - place
        cosine = np.einsum("gki,kij->gkj", line, axes) / np.linalg.norm(line, axis=2, keepdims=True)
        cost = np.log1p(np.square((cosine - seen) * weight / CAUCHY)).sum((1, 2))
        found = self._grid[cost.argmin()]
        for _ in range(_STEPS):
            line = found - place
            distance = np.linalg.norm(line, axis=1)[:, None]
            cosine = np.einsum("ki,kij->kj", line, axes) / distance
            residual = (cosine - seen) * weight
            slope = (axes - line[:, :, None] / distance[:, :, None] * cosine[:, None]) / distance[:, :, None]
            share = 1 / (1 + np.square(residual / CAUCHY))  # Cauchy's weights
            design = (slope * weight[:, None] * np.sqrt(share)[:, None]).transpose(0, 2, 1).reshape(-1, 3)
            step, *_ = np.linalg.lstsq(design, (residual * np.sqrt(share)).ravel(), rcond=None)
            found = (found - step).clip(self._low, self._high)
        position: Array = found
        return position

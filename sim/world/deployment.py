"""Scenario keys of random deployments: layouts of sites on roofs, and the indoor factory of TR 38.901."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FACTORY_SCENE = "tr38901-inf"
"""Scene name of a scenario with a factory: its statistical channel has no map."""

FACTORY_KINDS = ("SL", "DL", "SH", "DH")
"""TR 38.901 Sec. 7.2: sparse (S) or dense (D) clutter, BSs below (L) or above (H) it."""


@dataclass(frozen=True, slots=True)
class Strip:
    """A rectangle of any orientation: `width_m` wide, its centre line from `start` to `end` ([x, y] in m)."""

    start: tuple[float, float]
    end: tuple[float, float]
    width_m: float

    def at(self, share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return points (N, 2) [m] at the fractions `share` (N, 2) of length and width, each from 0 to 1."""
        along = np.subtract(self.end, self.start)
        across = np.array([-along[1], along[0]]) * (self.width_m / np.linalg.norm(along))
        points: npt.NDArray[np.float64] = self.start + share[:, :1] * along + (share[:, 1:] - 0.5) * across
        return points

    def corners(self) -> npt.NDArray[np.float64]:
        """Return the corners (4, 2) [m], in order around the rectangle."""
        return self.at(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]))

    def holds(self, point: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return whether points (N, 2 or 3) [m] lie in the rectangle, seen from above."""
        along = np.subtract(self.end, self.start)
        length = np.linalg.norm(along)
        forth = (point[:, :2] - self.start) @ along / length
        aside = (point[:, :2] - self.start) @ np.array([-along[1], along[0]]) / length
        inside: npt.NDArray[np.bool_] = (forth >= 0) & (forth <= length) & (np.abs(aside) <= self.width_m / 2)
        return inside


@dataclass(frozen=True, slots=True)
class Layouts:
    """Layouts of sites drawn on roofs instead of listed; training, validation and test have layouts of their own.

    Candidate positions are uniform in `region`. A candidate is kept if the surface below it is a roof, at least
    `least_roof_m` high; the site stands `above_roof_m` above it. Each layout has `users` users of its own.

    `sites`: number K of sites per layout. `places`: number of site positions traced per training layout; if it exceeds
    K, each training sample uses K of them at random. `training`, `validation`, `test`: numbers of layouts.
    """

    region: Strip
    sites: int
    places: int
    training: int
    validation: int
    test: int
    users: int = 100
    least_roof_m: float = 10.0
    above_roof_m: float = 5.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Factory:
    """An indoor factory hall of TR 38.901 (InF), whose channels are drawn instead of traced.

    The hall spans 0 … `length_m` in x, 0 … `width_m` in y and 0 … `height_m` in z. `clutter_*`: density (share of the
    floor that clutter covers), height and size, TR 38.901 Table 7.2-4. `excess_*`: mean and deviation of log10 of the
    excess delay [s] of paths without line of sight, and its correlation distance, TR 38.901 Table 7.6.9-1.
    """

    kind: str = "DH"
    length_m: float = 120.0
    width_m: float = 60.0
    height_m: float = 10.0
    clutter_density: float = 0.6
    clutter_height_m: float = 6.0
    clutter_size_m: float = 2.0
    excess_mean_log10_s: float = -7.5
    excess_sigma_log10: float = 0.4
    excess_distance_m: float = 11.0

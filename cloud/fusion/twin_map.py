"""The cloud's map for `twin`: which paths each stored position has, and what atoms they make at each base station."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation
from torch import Tensor

from fronthaul.payload.atoms import AtomGrid, Real

SPEED_OF_LIGHT = 299_792_458.0
LEVEL_OFFSET_DB = 100.0
"""Levels are stored in half decibels from −100 dB on."""
STRONGEST = 4
"""Paths of a link that the coarse search compares with a report's strongest atom."""

_WINDOW_M = 12.0  # how near a stored path's length must be to one of the two strongest reports'
_DELAY_M, _ANGLE, _LEVEL_DB = 3.0, 0.25, 6.0  # deviations of a path between two stored positions
_NO_PATH, _MOST_COST = 60.0, 30.0
_APART_M, _LOOKED_AT = 4.0, 300
_TURN = np.float32(2 * math.pi)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """Up to P anchors of each of B links, padded with level zero.

    Attributes:
        turn: R (B, P, 3, 3).
        offset: b (B, P, 3) [m].
        level: prior variance of the path's gain at 1 m (B, P); zero where there is no path.
        reflected: 1 where the path has reflections, else 0 (B, P).
    """

    turn: Real
    offset: Real
    level: Real
    reflected: Real


@dataclass(frozen=True)
class Places:
    """Atoms that images make.

    Attributes:
        place: τ, α, β (B, P, 3).
        by_image: derivatives by the image, as seen from the site (B, P, 3, 3) [1/m].
        by_position: derivatives by the user's position (B, P, 3, 3) [1/m].
        amplitude: deviation of the real and of the imaginary part of the path's gain (B, P).
    """

    place: Real
    by_image: Real
    by_position: Real
    amplitude: Real


class TwinMap:
    """Anchors, stored positions and the geometry of the arrays.

    Attributes:
        grid: antennas and tones.
        position: stored positions (S, 3) [m].
        period_m: distance after which a delay repeats, c over the tone spacing [m].
        per_element: phase between neighbouring elements for a path along the array's axis [rad].
    """

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take the map of a twin file."""
        self.grid = AtomGrid(*(int(config[name]) for name in ("columns", "rows", "tones")))
        self.period_m = SPEED_OF_LIGHT / float(config["tone_spacing_hz"])
        self.per_element = 2 * math.pi * float(config["spacing_wavelengths"])
        own = {name: tensor.numpy() for name, tensor in tensors.items()}
        self.axes = own["anchor.axes"].astype(np.float64)  # (K, 2, 3): along columns, along rows upwards
        self._bounces = own["anchor.bounces"]
        self._turn = _turns(own["anchor.mirror"].astype(np.float64), self._bounces)
        self._offset = own["anchor.offset"].astype(np.float64)
        self.position = own["anchor.position"].astype(np.float64)
        self._path_anchor = own["anchor.path"].view(np.uint16).astype(np.int64)
        self._path_level = 10 ** ((own["anchor.level"] / 2.0 - LEVEL_OFFSET_DB) / 10)
        count = own["anchor.count"].astype(np.int64)
        self.sites = count.shape[1]
        self._start = np.concatenate([[0], np.cumsum(count.ravel())])
        self._coarse = self._strongest(count)

    def places(self, images: Images, site: Ints, position: Real) -> Places:
        """Return what atoms the images of links to sites `site` (B,) make for users at `position` (B, 3)."""
        image = (images.turn @ position[:, None, :, None])[..., 0] + images.offset
        length = np.maximum(np.sqrt((image**2).sum(-1)), 1e-3)
        direction = image / length[..., None]
        axes = self.per_element * self.axes[site]  # (B, 2, 3)
        angle = direction @ axes.swapaxes(-1, -2)
        place = np.concatenate([length[..., None] / self.period_m, angle], -1)
        # ∂d/∂e = uᵀ, and ∂(axis·u)/∂e = (axis − (axis·u) u)ᵀ / d
        by_angle = (axes[:, None] - angle[..., None] * direction[..., None, :]) / length[..., None, None]
        by_image = np.concatenate([direction[..., None, :] / self.period_m, by_angle], -2)
        return Places(place, by_image, by_image @ images.turn, np.sqrt(images.level / 2) / length)

    def images(self, near: Ints, site: Ints, position: Real, most: int) -> Images:
        """Return the anchors that the stored positions `near` (B, Q) see, for links to sites `site` (B,).

        Of each link the `most` strongest at `position` (B, 3) are kept; levels are means over the stored positions.
        """
        links, stored = near.shape
        row = near * self.sites + site[:, None]
        begin, end = self._start[row].ravel(), self._start[row + 1].ravel()
        size = end - begin
        total = int(size.sum())
        owner = np.repeat(np.repeat(np.arange(links), stored), size)
        path = np.repeat(begin - np.concatenate([[0], np.cumsum(size)[:-1]]), size) + np.arange(total)
        key = owner * len(self._turn) + self._path_anchor[path]
        found, inverse = np.unique(key, return_inverse=True)
        level = np.bincount(inverse, self._path_level[path], len(found)) / stored
        link, anchor = np.divmod(found, len(self._turn))
        image = (self._turn[anchor] @ position[link][..., None])[..., 0] + self._offset[anchor]
        power = level / np.maximum((image**2).sum(-1), 1e-6)
        order = np.lexsort((-power, link))
        link, anchor, level = link[order], anchor[order], level[order]
        rank = np.arange(len(link)) - np.searchsorted(link, np.arange(links))[link]
        keep = rank < most
        made = Images(
            np.zeros((links, most, 3, 3)), np.zeros((links, most, 3)), np.zeros((links, most)), np.zeros((links, most))
        )
        made.offset[..., 2] = 1.0  # padding must have a direction
        where = (link[keep], rank[keep])
        made.turn[where], made.offset[where] = self._turn[anchor[keep]], self._offset[anchor[keep]]
        made.level[where] = level[keep]
        made.reflected[where] = self._bounces[anchor[keep]] > 0
        return made

    def candidates(
        self, site: Ints, place: Real, level_db: Real, variance: Real, count: int, clock_m: float = 0.0
    ) -> tuple[Ints, npt.NDArray[np.float32]]:
        """Return the `count` stored positions, apart from each other, whose strongest paths are most alike reports.

        Args:
            site: sites of the reports (B,), strongest report first.
            place: strongest atom of each report (B, 3).
            level_db: its power (B,) [dB].
            variance: of level [dB²], τ, α and β from quantisation (B, 4).
            count: number of positions.
            clock_m: deviation of the user's clock error [m]; the first report then fixes the error.

        Returns:
            Numbers of the positions, the best first, and the clock error at each [m].
        """
        delay = (place[:, 0] * self.period_m).astype(np.float32)
        scale = np.array([_LEVEL_DB, _DELAY_M / self.period_m, _ANGLE, _ANGLE])
        weight = (1 / (scale**2 + variance)).astype(np.float32)
        near = np.zeros(len(self.position), bool)
        for number, k in enumerate(site[:2]):
            window = _WINDOW_M + 4 * clock_m + 2 * self.period_m * float(variance[number, 1]) ** 0.5
            near |= (np.abs(self._apart(self._coarse[k, 0], delay[number])) < window).any(-1)
        stored = np.flatnonzero(near) if near.any() else np.arange(len(self.position))
        cost = np.zeros(len(stored), np.float32)
        error = np.zeros(len(stored), np.float32)
        for number, k in enumerate(site):
            table = self._coarse[k][:, stored]
            apart = self._apart(table[0], delay[number] - error[:, None])
            alike = weight[number, 0] * (table[3] - np.float32(level_db[number])) ** 2
            for row in (1, 2):
                angle = table[row] - np.float32(place[number, row])
                angle -= _TURN * np.round(angle / _TURN)
                alike += weight[number, 1 + row] * angle**2
            if clock_m and not number:  # the path of the first report that is most alike in direction tells the error
                best = np.where(np.isnan(alike), np.inf, alike).argmin(-1)
                error = -apart[np.arange(len(stored)), best]
                error = np.where(np.isnan(error), 0, error)
                cost += (error / np.float32(clock_m)) ** 2
                apart = apart + error[:, None]
            alike += weight[number, 1] * (apart / np.float32(self.period_m)) ** 2
            cost += np.minimum(np.where(np.isnan(alike), _NO_PATH, alike).min(-1), _MOST_COST)
        order = np.argsort(cost, kind="stable")[:_LOOKED_AT]
        chosen: list[int] = []
        for number in order:
            here = self.position[stored[number]]
            if all(((here - self.position[stored[other]]) ** 2).sum() > _APART_M**2 for other in chosen):
                chosen.append(int(number))
                if len(chosen) == count:
                    break
        while len(chosen) < count:
            chosen.append(chosen[0])
        return stored[chosen], error[chosen]

    def _apart(self, length: npt.NDArray[np.float32], other: Any) -> npt.NDArray[np.float32]:
        """Return stored lengths less reported ones [m], to the nearest of all periods."""
        apart = length - other
        found: npt.NDArray[np.float32] = apart - np.float32(self.period_m) * np.round(apart / np.float32(self.period_m))
        return found

    def _strongest(self, count: Ints) -> npt.NDArray[np.float32]:
        """Return length [m], α, β and level [dB] of the strongest paths of links (K, 4, S, STRONGEST); NaN: none."""
        stored, sites = count.shape
        link = np.repeat(np.arange(count.size), count.ravel())
        position = self.position[link // sites]
        turn = self._turn[self._path_anchor]
        image = (turn @ position[..., None])[..., 0] + self._offset[self._path_anchor]
        length = np.sqrt((image**2).sum(-1))
        angle = self.per_element * np.einsum("pij,pj->pi", self.axes[link % sites], image / length[:, None])
        level = 10 * np.log10(self._path_level / length**2)
        order = np.lexsort((-level, link))
        rank = np.arange(len(link)) - self._start[:-1][link[order]]
        order, rank = order[rank < STRONGEST], rank[rank < STRONGEST]
        table = np.full((sites, 4, stored, STRONGEST), np.nan, np.float32)
        s, k = np.divmod(link[order], sites)
        table[k, :, s, rank] = np.stack([length, angle[:, 0], angle[:, 1], level], -1)[order]
        return table


def _turns(mirror: Real, bounces: npt.NDArray[np.uint8]) -> Real:
    """Return R (A, 3, 3) of rotation quaternions (A, 4), times −1 for an odd number of reflections."""
    turn = Rotation.from_quat(mirror, scalar_first=True).as_matrix()
    found: Real = np.where(bounces % 2, -1.0, 1.0)[:, None, None] * turn
    return found

"""Anchors: what a map of the surroundings says about a path, for every position that keeps its surfaces.

A specular path is a straight line from the site to the user's mirror image. For a fixed sequence of surfaces the image,
seen from the site, is ``R p + b`` for every user position p: R is the product of the reflections (`mirror_matrix`), b
a constant. Delay and direction at the site follow exactly. So the paths of thousands of traced positions reduce to
some hundred anchors (R, b) per site, and to lists of which anchors each position sees, with what power.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.errors import UserError
from sim.world.paths import PathSet, mirror_matrix, unit_vector
from sim.world.scenario import SPEED_OF_LIGHT

SAME_M = 0.02
"""Anchors of one site closer than this [m], in b and in R times `_LEVER_M`, are one."""
_LEVER_M = 10.0


@dataclass(frozen=True)
class Anchors:
    """Anchors of K sites, and the paths of S stored positions by anchor.

    Attributes:
        site: site of each anchor (A,) uint8.
        mirror: reflections as rotation quaternions (A, 4) float32, and their number, `bounces` (A,) uint8.
        bounces: number of reflections.
        offset: b (A, 3) float32 [m].
        position: stored positions (S, 3) float32 [m].
        count: paths of each link (S, K) uint8.
        anchor: anchor of each path (P,) uint16, by position, then by site.
        level_db: power of each path at a distance of 1 m, |g|² d² (P,) float32 [dB].
    """

    site: npt.NDArray[np.uint8]
    mirror: npt.NDArray[np.float32]
    bounces: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.float32]
    position: npt.NDArray[np.float32]
    count: npt.NDArray[np.uint8]
    anchor: npt.NDArray[np.uint16]
    level_db: npt.NDArray[np.float32]


def find_anchors(paths: PathSet) -> Anchors:
    """Reduce a path data set to anchors.

    Raises:
        UserError: the paths have no mirrors, or more anchors than a file can number.
    """
    if not len(paths.mirror) and len(paths.delay):
        raise UserError("A twin needs path data with mirrors; trace the scenario again.")
    counts = paths.paths_per_link()
    user = np.repeat(np.arange(len(paths)), counts.sum(1))
    site = np.repeat(np.tile(np.arange(paths.sites), len(paths)), counts.ravel())
    length = paths.delay.astype(np.float64) * SPEED_OF_LIGHT
    turn = mirror_matrix(paths.mirror, paths.bounces)
    offset = unit_vector(paths.site_angle) * length[:, None] - np.einsum("pij,pj->pi", turn, paths.position[user])
    power = np.abs(paths.matrix[:, 0, 0].astype(np.complex128)) ** 2 * length**2
    label = _clusters(np.column_stack([offset, _LEVER_M * turn.reshape(-1, 9)]), site)
    if len(label) and label.max() >= 1 << 16:
        raise UserError(f"The paths have {label.max() + 1} different sequences of surfaces, a twin numbers 65536.")
    first = np.unique(label, return_index=True)[1]
    return Anchors(
        site[first].astype(np.uint8),
        paths.mirror[first],
        paths.bounces[first],
        _mean(offset, label).astype(np.float32),
        paths.position.astype(np.float32),
        counts.astype(np.uint8),
        label.astype(np.uint16),
        (10 * np.log10(np.maximum(power, 1e-30))).astype(np.float32),
    )


def _clusters(feature: npt.NDArray[np.float64], site: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return a number for each row, the same for rows of a site that lie in or beside the same cell of a fine grid."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    cell = np.column_stack([site, np.round(feature / SAME_M).astype(np.int64)])
    cells, inverse = np.unique(cell, axis=0, return_inverse=True)
    # Rounding cuts a group of equal anchors where it straddles the borders of cells: join neighbours.
    spaced = cells.astype(np.float64)
    spaced[:, 0] *= 1e6
    pairs = cKDTree(spaced).query_pairs(1.01, p=np.inf, output_type="ndarray")
    joined = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(cells), len(cells)))
    _, group = connected_components(joined, directed=False)
    found: npt.NDArray[np.intp] = group[inverse.ravel()]
    return found


def _mean(values: npt.NDArray[np.float64], label: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    count = np.bincount(label)
    return np.stack([np.bincount(label, column) / count for column in values.T], -1)

"""The world of a run where it differs from what was traced: stored paths changed by the scenario's mismatch.

No new trace is needed for any of this. The positions of users and the sites of the scenario stay what they are: the
sites of the scenario are where the survey has them, those of the paths are where they stand.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fronthaul.draws import generator
from sim.world.anchors import find_anchors
from sim.world.mismatch import Mismatch
from sim.world.paths import PathSet, angles_of, join_links, mirror_matrix, unit_vector
from sim.world.scenario import SPEED_OF_LIGHT, Scenario

SCATTERERS = 400
"""Number of single scatterers in the box around sites and users."""
PER_LINK = 20
"""Number of strongest scatterers of a link that are kept; they stand for the power of all."""
_NEAREST_M = 3.0  # a scatterer next to an antenna does not outshine all others together

Floats = npt.NDArray[np.float64]


def perturbed(scenario: Scenario, paths: PathSet) -> PathSet:
    """Return the paths of the scenario's world from those that were traced: reflections, sites, scattering."""
    mismatch = scenario.mismatch
    if mismatch.left_out:
        paths = paths.keep(~_missing(paths, mismatch))
    moved = np.zeros((paths.sites, 3))
    if mismatch.site_m:
        moved = site_steps(mismatch, paths.sites)
        paths = _with_moved_sites(paths, moved)
    if mismatch.scattering_db is not None:
        stand = np.array([site.position for site in scenario.sites])[: paths.sites] + moved
        paths = _with_scattering(scenario, paths, stand, mismatch.scattering_db)
    return paths


def site_steps(mismatch: Mismatch, sites: int) -> Floats:
    """Return how far sites stand from where the survey has them (K, 3) [m]."""
    drawn = [generator(mismatch.seed, "mismatch site", k).standard_normal(3) for k in range(sites)]
    return mismatch.site_m * np.stack(drawn)


def antenna_errors(scenario: Scenario, site: int) -> npt.NDArray[np.complex64]:
    """Return the gain error of each antenna of a site (M,), one where the array is calibrated."""
    mismatch = scenario.mismatch
    draw = generator(mismatch.seed, "mismatch antennas", site).standard_normal((2, scenario.array.antennas))
    error = np.exp(1j * math.radians(mismatch.antenna_deg) * draw[0]) * 10 ** (mismatch.antenna_db * draw[1] / 20)
    found: npt.NDArray[np.complex64] = error.astype(np.complex64)
    return found


def _missing(paths: PathSet, mismatch: Mismatch) -> npt.NDArray[np.bool_]:
    """Return which paths (P,) are of reflections that the world does not have, the same for all positions."""
    anchors = find_anchors(paths)
    lot = generator(mismatch.seed, "mismatch left out").random(len(anchors.site))
    missing: npt.NDArray[np.bool_] = ((lot < mismatch.left_out) & (anchors.bounces > 0))[anchors.anchor]
    return missing


def _with_moved_sites(paths: PathSet, step: Floats) -> PathSet:
    """Return the paths to sites that stand `step` (K, 3) [m] elsewhere.

    The user's image does not depend on the site: from a site that moves by d, the image at w is seen at w − d. The
    image of the site, seen from the user, is at −Rᵀ(w − d). Exact for specular paths that keep their surfaces;
    reflection coefficients are kept.
    """
    counts = paths.paths_per_link()
    own = np.repeat(np.tile(step, (len(paths), 1)), counts.ravel(), axis=0)
    before = paths.delay.astype(np.float64) * SPEED_OF_LIGHT
    image = unit_vector(paths.site_angle) * before[:, None] - own
    length = np.linalg.norm(image, axis=1)
    user_angle = paths.user_angle
    if len(paths.mirror):
        turn = mirror_matrix(paths.mirror, paths.bounces)
        user_angle = angles_of(-np.einsum("pji,pj->pi", turn, image))
    matrix = paths.matrix * (before / length)[:, None, None]
    return replace(
        paths,
        delay=(length / SPEED_OF_LIGHT).astype(np.float32),
        site_angle=angles_of(image),
        user_angle=user_angle,
        matrix=matrix.astype(np.complex64),
    )


def _with_scattering(scenario: Scenario, paths: PathSet, site: Floats, level_db: float) -> PathSet:
    """Return the paths with those of single scatterers added, `level_db` in power beside the specular ones of a link.

    Scatterers stand at fixed random places in the box around sites and users, so that their paths follow from a user's
    position as in a real world. A path's amplitude falls with the product of its two distances, its gain is complex
    Gaussian; the sum over a link's paths is scaled to its power. Links without a path have no scattering.
    """
    mismatch, users = scenario.mismatch, scenario.users
    corner = np.concatenate([site, [users.low, users.high]])
    low, high = corner.min(0), corner.max(0)
    low[2] = 0.0
    place = generator(mismatch.seed, "mismatch scatterers").uniform(low, high, (SCATTERERS, 3))
    to_user = place[None] - paths.position[:, None]  # (N, S, 3)
    from_user = np.maximum(np.linalg.norm(to_user, axis=2), _NEAREST_M)
    made = []
    for k, here in enumerate(site):
        draw = generator(mismatch.seed, "mismatch scatterer gains", k).standard_normal((SCATTERERS, 2, 2, 2))
        gain = (draw[..., 0] + 1j * draw[..., 1]) / math.sqrt(2)  # (S, 2, 2)
        to_site = place - here
        from_site = np.maximum(np.linalg.norm(to_site, axis=1), _NEAREST_M)
        amplitude = 1 / (from_site * from_user)  # (N, S)
        rank = np.argsort(-amplitude, axis=1, kind="stable")[:, :PER_LINK]
        matrix = np.take_along_axis(amplitude, rank, 1)[..., None, None] * gain[rank]  # (N, Q, 2, 2)
        vectors = np.take_along_axis(to_user, rank[..., None], 1)
        length = np.linalg.norm(to_site, axis=1)[rank] + np.linalg.norm(vectors, axis=2)
        made.append((matrix, length, angles_of(to_site)[rank], angles_of(vectors)))
    matrix, length, site_angle, user_angle = (np.stack(parts, 1) for parts in zip(*made, strict=True))  # (N, K, Q, …)
    counts = paths.paths_per_link()
    link = np.repeat(np.arange(counts.size), counts.ravel())
    specular = np.bincount(link, np.abs(paths.matrix[:, 0, 0]) ** 2, counts.size).reshape(counts.shape)
    drawn = (np.abs(matrix[..., 0, 0]) ** 2).sum(-1)
    matrix *= np.sqrt(specular * 10 ** (level_db / 10) / drawn)[..., None, None, None]
    heard = (counts > 0).ravel()
    size = heard.sum() * PER_LINK

    def of_heard(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        chosen: npt.NDArray[Any] = values.reshape(len(heard), PER_LINK, *values.shape[3:])[heard]
        return chosen.reshape(size, *values.shape[3:])

    scattered = replace(
        paths,
        offset=np.concatenate([[0], np.cumsum(heard * PER_LINK)]),
        matrix=of_heard(matrix).astype(np.complex64),
        delay=(of_heard(length) / SPEED_OF_LIGHT).astype(np.float32),
        site_angle=of_heard(site_angle),
        user_angle=of_heard(user_angle),
        bounces=np.ones(size, np.uint8),
        mirror=np.zeros((0, 4), np.float32),
    )
    return join_links([paths, scattered])

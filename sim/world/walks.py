"""Area of a scenario in which users are drawn, and walks through it.

A walk consists of `snapshots` positions of one user at equal intervals and constant speed. The user keeps the heading
as long as the next position is valid and nothing stands in between, else takes a new heading. DiffLoc Sec. VI-A.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.world.scenario import Scenario, Walk

TRIES = 30
"""Maximum number of new headings drawn for a step; if none fits, the walk is discarded."""

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Walks:
    """W walks of S snapshots: `position` (W, S, 3) [m] and `velocity` (W, S, 3) [m/s].

    A velocity is that of the step to the next position; the last position has the velocity of the last step.
    """

    position: Points
    velocity: Points


def area_test(scenario: Scenario) -> Callable[[Points], Mask]:
    """Return a function that tests whether points (N, 3) [m] lie in the area of `scenario.users`."""
    # In single precision, as positions are kept: rounding must not move a point across a face.
    low, high = np.array(scenario.users.low, np.float32), np.array(scenario.users.high, np.float32)
    strip = scenario.users.strip
    half_planes = np.zeros((0, 3))
    if scenario.users.area == "hull":
        from scipy.spatial import ConvexHull

        half_planes = ConvexHull(np.array([site.position[:2] for site in scenario.sites])).equations

    def inside(point: Points) -> Mask:
        rounded = point.astype(np.float32)
        box: Mask = np.all((rounded >= low) & (rounded <= high), axis=1)
        hull: Mask = np.all(point[:, :2] @ half_planes[:, :2].T + half_planes[:, 2] <= 1e-9, axis=1)
        return box & hull if strip is None else box & hull & strip.holds(rounded.astype(np.float64))

    return inside


def draw_walks(
    walk: Walk,
    start: Points,
    admits: Callable[[Points], Mask],
    clear: Callable[[Points, Points], Mask],
    draw: np.random.Generator,
) -> Walks:
    """Draw a walk from each `start` (N, 3) [m]; discarded walks are left out.

    Args:
        walk: snapshots, interval and range of speeds.
        start: valid positions.
        admits: returns whether users may be at points (N, 3).
        clear: returns whether the straight lines between two sets of points (N, 3) are unobstructed.
        draw: random generator for speeds and headings.
    """
    count = len(start)
    speed = draw.uniform(*walk.speed_mps, count)
    heading = draw.uniform(0, 2 * math.pi, count)
    alive = np.ones(count, bool)
    # Single precision, as the tracer keeps coordinates.
    position = [start.astype(np.float32).astype(np.float64)]
    velocity = []
    for _ in range(walk.snapshots - 1):
        here, there = position[-1], position[-1].copy()
        pending = alive.copy()
        for attempt in range(1 + TRIES):
            if attempt:
                heading = np.where(pending, draw.uniform(0, 2 * math.pi, count), heading)
            rows = np.flatnonzero(pending)
            step = _velocity(speed, heading)[rows] * walk.interval_s
            ahead = (here[rows] + step).astype(np.float32).astype(np.float64)
            fits = admits(ahead)
            fits[fits] = clear(here[rows[fits]], ahead[fits])
            there[rows[fits]] = ahead[fits]
            pending[rows[fits]] = False
            if not pending.any():
                break
        alive &= ~pending
        position.append(there)
        velocity.append(_velocity(speed, heading))
    velocity.append(velocity[-1] if velocity else _velocity(speed, heading))
    return Walks(np.stack(position, 1)[alive], np.stack(velocity, 1)[alive])


def _velocity(speed: npt.NDArray[np.float64], heading: npt.NDArray[np.float64]) -> Points:
    """Return horizontal velocities (N, 3) [m/s]."""
    return np.stack([speed * np.cos(heading), speed * np.sin(heading), np.zeros(len(speed))], -1)

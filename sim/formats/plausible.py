"""Whether measured channels go with the positions beside them.

A file may have the right axes and still mean something else: phases of the other sign, tones or antennas in another
order, positions in centimetres. Then delays, or directions, have nothing to do with positions. For each link

    Δ = arg Σ conj(h[f]) h[f + 1]  over slots, antennas and tones: the mean delay, as the phase from tone to tone
    Δ = arg Σ conj(h[m]) h[m + 1]  over slots, tones and rows: the direction, as the phase from column to column

are compared with the phases of the straight line, −2πν d/c and 2πs u·e (ν the distance of tones, d the length and u
the direction of the line, s the distance of antennas in wavelengths, e the array's axis from column to column). What
all links of a position have in common (the user's clock) and all links of a site (its clock, its cables) is taken out
of delays, the latter out of directions. The rest is measured by its median, and so is that of positions in another
order. Where positions or yaws in another unit leave far less of it, they were meant in that unit. Tones in FFT order
are told from the phases alone: Δ jumps in the middle, and holds from the last to the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from sim.world.paths import PathSet
from sim.world.scenario import SPEED_OF_LIGHT, Scenario

Real = npt.NDArray[np.float64]

_UNRELATED = 0.85
"""Share of the median of exchanged positions from which on measurements count as unrelated to positions."""
_FAR_LESS = 0.6
"""Share of the median of what is written down from which on another reading of it is the likelier one."""
_ENOUGH = 2000
"""Positions that are looked at, at most."""


def doubts(scenario: Scenario, paths: PathSet) -> list[str]:
    """Return a sentence for tones in another order, and for delays and directions unrelated to the positions.

    Args:
        scenario: of measured channels.
        paths: its data set, with `csi`.
    """
    rows = slice(None, None, -(-len(paths) // _ENOUGH))
    csi, heard, user = paths.csi[rows], paths.heard[rows], paths.position[rows]
    place = np.array([site.position for site in scenario.sites])
    found = []
    delay = _steps(csi[..., :-1], csi[..., 1:])
    radians_per_m = -2 * np.pi * scenario.numerology.tone_spacing_hz / SPEED_OF_LIGHT

    def delays(user: Real, place: Real) -> Real:
        length: Real = np.linalg.norm(user[:, None] - place, axis=2)
        return radians_per_m * length

    if csi.shape[1] > 1:
        straight = delays(user, place)
        likelier = _likelier(
            delay, straight, heard, both=True,
            others={
                "users' positions read as centimetres": lambda: delays(user / 100, place),
                "users' positions read as millimetres": lambda: delays(user / 1000, place),
                "all positions read as centimetres": lambda: delays(user / 100, place / 100),
                "all positions read as millimetres": lambda: delays(user / 1000, place / 1000),
                "x and y of users exchanged": lambda: delays(user[:, [1, 0, 2]], place),
                "tones in descending order, or phases of the other sign": lambda: -straight,
            },
        )  # fmt: skip
        if likelier:
            found.append(f"delays follow the distances far better with {likelier}.")
        elif _unrelated(delay, straight, heard, both=True):
            found.append(
                "delays do not follow the distances: are positions in metres, tones in ascending order, and the phase "
                "of a delay negative (−2πντ)?"
            )
    if _swapped(csi, heard):
        found.append(
            "tones jump in phase in the middle, and go on from the last to the first: are they in FFT order, and not "
            "ascending?"
        )
    array = scenario.array
    if array.columns > 1:
        shape = *csi.shape[:3], array.polarizations, array.columns, array.rows, -1
        columns = csi.reshape(shape)
        step = _steps(columns[:, :, :, :, :-1], columns[:, :, :, :, 1:])
        line = user[:, None] - place
        unit = line / np.maximum(np.linalg.norm(line, axis=2, keepdims=True), 1e-9)
        yaw = np.array([site.yaw_deg for site in scenario.sites])

        def directions(yaw: Real) -> Real:
            along: Real = -np.sin(yaw) * unit[..., 0] + np.cos(yaw) * unit[..., 1]
            return 2 * np.pi * array.spacing_wavelengths * along

        straight = directions(np.radians(yaw))
        if _likelier(step, straight, heard, both=False, others={"": lambda: directions(yaw)}) is not None:
            found.append("directions follow the positions far better with site_yaw_deg read as radians.")
        elif _unrelated(step, straight, heard, both=False):
            found.append(
                "directions do not follow the positions: are site_yaw_deg (in degrees), the array's shape and the "
                "order of its antennas right?"
            )
    return found


def _likelier(
    measured: Real,
    straight: Real,
    heard: npt.NDArray[np.bool_],
    *,
    both: bool,
    others: Mapping[str, Callable[[], Real]],
) -> str | None:
    """Return the name of the other reading that fits best, if it fits, and far better than what is written down."""
    lines = {name: other() for name, other in others.items()}
    rests = {name: _rest(measured - line, heard, both=both) for name, line in lines.items()}
    best = min(rests, key=rests.__getitem__)
    if rests[best] > _FAR_LESS * _rest(measured - straight, heard, both=both):
        return None
    return None if _unrelated(measured, lines[best], heard, both=both) else best


def _steps(one: npt.NDArray[np.complex64], following: npt.NDArray[np.complex64]) -> Real:
    """Return the phase between neighbours, (N, K)."""
    axes = tuple(range(2, one.ndim))
    phase: Real = np.angle((one.conj() * following).sum(axes, dtype=np.complex128))
    return phase


def _swapped(csi: npt.NDArray[np.complex64], heard: npt.NDArray[np.bool_]) -> bool:
    """Return whether the last tone is followed by the first, as in FFT order, rather than the middle by the next one.

    A step goes on where it is like the mean of the others of its link. Where delays are so short that a whole spectrum
    turns by little, both do.
    """
    middle = csi.shape[-1] // 2
    if middle < 4:
        return False
    halves = csi[..., :middle], csi[..., middle:]
    usual = np.angle(sum(np.exp(1j * _steps(half[..., :-1], half[..., 1:])) for half in halves))
    jumps = [
        np.median(np.abs(np.angle(np.exp(1j * (_steps(one[..., -1:], other[..., :1]) - usual))))[heard])
        for one, other in (halves, halves[::-1])
    ]
    return bool(jumps[0] > 2 * jumps[1] and jumps[0] > np.pi / 4)


def _unrelated(measured: Real, straight: Real, heard: npt.NDArray[np.bool_], *, both: bool) -> bool:
    own = _rest(measured - straight, heard, both=both)
    shift = math.ceil(len(straight) / 3)  # another position, also where neighbouring rows are neighbours in space
    other = _rest(measured - np.roll(straight, shift, 0), heard, both=both)
    return own > _UNRELATED * other


def _rest(phase: Real, heard: npt.NDArray[np.bool_], *, both: bool) -> float:
    """Return the median of phases, in absolute value, without what sites, and if `both` positions, have in common."""
    turn = np.where(heard, np.exp(1j * phase), 0)
    for axis in (1, 0) if both else (0,):
        turn = turn * np.exp(-1j * np.angle(turn.sum(axis, keepdims=True)))
    return float(np.median(np.abs(np.angle(turn[heard]))))

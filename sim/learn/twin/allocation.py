"""Allocation of a report's bits to the parameters of its atoms, by rule.

With the positions of some training users known, the information that the cloud's fit would have follows from the
widths of all parameters (`cloud.fusion.twin_fit`). From reports of one to seven atoms with all parameters in full, bits
are taken one by one, each where it raises the mean deviation of the position least; each length gets the number of
atoms with the lowest deviation. Below `LINEAR_BITS`, where quantiser cells are so large that the linear model does not
hold, widths are chosen by the measured error of training users instead. No test position is used.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fronthaul.payload.atoms import PER_ATOM, Real
from fronthaul.payload.twin import LEVEL_BITS, MOST_BITS, report_widths
from sim.learn.twin.prediction import KnownUsers, Prediction
from sim.plan.weights import Weights
from sim.world.paths import PathSet
from sim.world.scenario import Scenario

ATOMS = 7
"""Maximum number of atoms of a report."""
SHORTEST_BITS, LONGEST_BITS = 12, 512
_FIRST, _OTHER = (3, 0, 5, 1, 1), (3, 3, 7, 3, 3)
"""Least widths of amplitude, phase, τ, α and β, of the first atom and of others: cells within what the grid resolves,
where the linear model of the errors holds."""
LINEAR_BITS = 20
"""Length of the shortest report for which the linear model of the errors holds."""
_SENT = (0, 2, 3, 4)  # parameters of a report's only atom: its phase is not sent
_KEPT = 3  # allocations of a length from which shorter ones follow
FLOORS = (1e-5, 1e-4)
"""Variances of the map's own error, as shares of a link's power, for which bits may be allocated: those that fits find
most often (`cloud.fusion.twin`). Which of them serves a city better is measured."""


class Allocator:
    """Allocates bits by the deviations that widths lead to."""

    def __init__(self, scenario: Scenario, weights: Weights, paths: PathSet) -> None:
        """Take a twin without allocation, and the paths of training users that are not stored in it."""
        self._users = KnownUsers(scenario, weights, paths)

    def table(self, floor: float, on_progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Return the allocation for a floor.

        Of each number of atoms it holds the order in which parameters get their bits; `lengths` and `atoms` list from
        which length on a report has how many atoms.
        """
        orders: dict[str, Any] = {}
        deviation = np.full((ATOMS + 1, LONGEST_BITS + 1), np.inf)
        for atoms in range(1, ATOMS + 1):
            orders[str(atoms)], deviation[atoms] = self._order(atoms, floor)
            on_progress(atoms, ATOMS)
        first = SHORTEST_BITS
        best = deviation[:, first:].argmin(0)
        change = np.flatnonzero(np.diff(best, prepend=-1))
        lengths = [first + int(at) for at in change]
        return {
            "lengths": [*lengths, LONGEST_BITS],
            "atoms": [*(int(best[at]) for at in change), int(best[-1])],
            "orders": orders,
        }

    def _order(self, atoms: int, floor: float) -> tuple[dict[str, list[int]], Real]:
        """Return least widths of a number of atoms, the order of further bits, and the deviation [m] for each length.

        Bits are taken from a full report, one after the other, always where it hurts least. Building a report up would
        not do: a bit for one parameter of an atom is worth nothing before the others are known.
        """
        prediction = Prediction(self._users, atoms, floor)

        def predict(widths: npt.NDArray[np.int64]) -> float:
            return float(prediction(tuple(tuple(int(width) for width in row) for row in widths)).mean())

        widths = np.full((atoms, PER_ATOM), MOST_BITS)
        widths[0, 1] = 0  # the first phase is not sent
        least = np.array([_FIRST, *[_OTHER] * (atoms - 1)])
        order: list[int] = []
        deviation = np.full(LONGEST_BITS + 1, np.inf)
        now = predict(widths)
        losses = [(-math.inf, place) for place in np.ndindex(*widths.shape) if place != (0, 1)]
        length = LEVEL_BITS + int(widths.sum())
        while True:
            if length <= LONGEST_BITS:
                deviation[length] = now
            fresh: set[tuple[int, ...]] = set()
            # Losses grow as bits are taken: one that is still the smallest after it was renewed is the smallest.
            while losses and (place := losses[0][1]) not in fresh:
                heapq.heappop(losses)
                if widths[place] > least[place]:
                    widths[place] -= 1
                    heapq.heappush(losses, (predict(widths) - now, place))
                    widths[place] += 1
                    fresh.add(place)
            if not losses:
                return {"least": least.ravel().tolist(), "then": order[::-1]}, deviation
            loss, place = losses[0]
            widths[place] -= 1
            length -= 1
            now += loss
            order.append(place[0] * PER_ATOM + place[1])


def short_reports(config: dict[str, Any], error_m: Callable[[int], float]) -> dict[str, list[int]]:
    """Return the widths of reports of one atom with fewer than `LINEAR_BITS` bits, by length.

    From the report of `LINEAR_BITS` on, those of each length are the best of a few that have a bit less than the best
    ones of the length above, or one parameter less than the best ones of a length farther above.

    Args:
        config: of the twin; its allocation of longer reports. Widths that are tried are put there.
        error_m: returns the error of a report of some length, by `config`.
    """
    table = config["allocation"]
    [widths] = report_widths(config, LINEAR_BITS)
    kept = {LINEAR_BITS: [tuple(widths)]}
    dropped: dict[int, set[tuple[int, ...]]] = {}
    found: dict[str, list[int]] = {}
    for length in range(LINEAR_BITS, SHORTEST_BITS - 1, -1):
        if length < LINEAR_BITS:
            tried = {_less(one, at, 1) for one in kept[length + 1] for at in _SENT if one[at]}
            errors = {}
            for one in sorted(tried | dropped.get(length, set())):
                table["short"] = {str(length): [*one]}
                errors[one] = error_m(length)
            kept[length] = sorted(errors, key=errors.__getitem__)[:_KEPT]
            found[str(length)] = [*kept[length][0]]
        for one in kept[length]:
            for at in (0, 3, 4):
                less = _less(one, at, one[at])
                dropped.setdefault(LEVEL_BITS + sum(less), set()).add(less)
    return found


def _less(widths: tuple[int, ...], at: int, bits: int) -> tuple[int, ...]:
    return (*widths[:at], widths[at] - bits, *widths[at + 1 :])

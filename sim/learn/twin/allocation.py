"""Allocation of a report's bits to the parameters of its atoms, by rule.

With the positions of some training users known, the information that the cloud's fit would have follows from the
widths of all parameters (`cloud.fusion.twin_fit`). From reports of one to seven atoms with all parameters in full, bits
are taken one by one, each where it raises the mean deviation of the position least; each length gets the number of
atoms with the lowest deviation. No test position is used.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree

from cloud.fusion.twin_fit import Fitting, Tolerances, correction, observed
from cloud.fusion.twin_map import TwinMap
from edge.atom_fit import fit_atoms, slot_reduced
from fronthaul.payload.atoms import PER_ATOM, Complex, Real
from fronthaul.payload.twin import LEVEL_BITS, MOST_BITS, Atoms, steps, variances
from sim.plan.weights import Weights
from sim.world.channel import Motion, Synthesizer, pad_paths, silence_w
from sim.world.paths import PathSet
from sim.world.scenario import ClockErrors, Scenario

ATOMS = 7
"""Maximum number of atoms of a report."""
SHORTEST_BITS, LONGEST_BITS = 12, 512
_FIRST, _OTHER = (3, 0, 5, 1, 1), (3, 3, 7, 3, 3)
"""Least widths of amplitude, phase, τ, α and β, of the first atom and of others: cells within what the grid resolves,
where the linear model of the errors holds."""
_PRIOR_M = 30.0  # deviation of a position of which nothing is known
_FLOOR = 1e-5  # usual among those that the fit finds (`cloud.fusion.twin`)


class Allocator:
    """Predicts the deviation of positions from the widths of a report, and allocates bits by it."""

    def __init__(self, scenario: Scenario, weights: Weights, paths: PathSet) -> None:
        """Take a twin without allocation, and the paths of training users that are not stored in it."""
        self.world = TwinMap(weights.config, weights.cloud())
        self.noise = scenario.tone_noise_w / scenario.tone_power_w / scenario.numerology.slots
        self.ranges = [(low, high) for low, high in weights.cloud()["gain_db"].tolist()]
        self.channel, link = heard_channels(scenario, paths)
        self.fix, self.site = np.divmod(link, paths.sites)
        self.position = paths.position
        near = cKDTree(self.world.position).query(self.position, k=8)[1].reshape(len(paths), -1)
        self.images = self.world.images(near[self.fix], self.site, self.position[self.fix], 10)

    def table(self, on_progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Return the allocation.

        Of each number of atoms it holds the order in which parameters get their bits; `lengths` and `atoms` list from
        which length on a report has how many atoms.
        """
        orders: dict[str, Any] = {}
        deviation = np.full((ATOMS + 1, LONGEST_BITS + 1), np.inf)
        for atoms in range(1, ATOMS + 1):
            orders[str(atoms)], deviation[atoms] = self._order(atoms)
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

    def _order(self, atoms: int) -> tuple[dict[str, list[int]], Real]:
        """Return least widths of a number of atoms, the order of further bits, and the deviation [m] for each length.

        Bits are taken from a full report, one after the other, always where it hurts least. Building a report up would
        not do: a bit for one parameter of an atom is worth nothing before the others are known.
        """
        predict = _Prediction(self, fit_atoms(self.world.grid, self.channel, atoms))
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


class _Prediction:
    """Mean deviation of the positions [m] as a function of the widths."""

    def __init__(self, own: Allocator, fitted: tuple[Real, Any, Real]) -> None:
        place, gain, share = fitted
        self._size, self._own = np.abs(gain), own
        reported = Atoms(place, gain, np.zeros((*gain.shape, PER_ATOM)), share)
        self._seen = seen = observed(own.world.grid, reported, own.noise)
        links = (own.site, own.fix, len(own.position))
        model = Fitting(own.world, seen, own.images, *links, _FLOOR, Tolerances()).linear(own.position)
        self._outer = 1 / (seen.outer + _FLOOR / 2 * seen.power)
        self._whole = self._outer[:, None, None] * model.whole
        diagonal = np.arange(model.nuisances)
        self._whole[:, diagonal, diagonal] += 1
        self._within, self._nuisances = model.within, model.nuisances

    def __call__(self, widths: npt.NDArray[np.int64]) -> float:
        own = self._own
        table = tuple(tuple(int(width) for width in row) for row in widths)
        variance = np.empty((*self._size.shape, PER_ATOM))
        for site, amplitude_db in enumerate(own.ranges):
            links = own.site == site
            variance[links] = variances(self._size[links], steps(table, amplitude_db))
        inner = correction(self._seen.inner(_FLOOR, variance.reshape(len(variance), -1)), self._outer)
        square = self._whole + self._within.swapaxes(-1, -2) @ inner @ self._within
        n = self._nuisances
        solved = np.linalg.solve(square[:, :n, :n], square[:, :n, n:])
        of_links = square[:, n:, n:] - square[:, n:, :n] @ solved
        information = np.tile(np.eye(3) / _PRIOR_M**2, (len(own.position), 1, 1))
        np.add.at(information, own.fix, of_links)
        return float(np.sqrt(np.trace(np.linalg.inv(information), axis1=1, axis2=2)).mean())


def heard_channels(scenario: Scenario, paths: PathSet) -> tuple[Complex, npt.NDArray[np.int64]]:
    """Return the reduced channels (B, M·F) of all links that hear a user, with noise and without clock errors.

    Returns:
        Channels, and the numbers n·K + k of their links (B,).
    """
    draw = torch.Generator().manual_seed(0)
    motion = Motion.draw(replace(scenario, clock=ClockErrors()), len(paths), draw)
    response = Synthesizer(scenario).response(pad_paths(paths, scenario.numerology.carrier_hz), motion)
    noise = torch.view_as_complex(torch.randn(*response.shape, 2, generator=draw))
    noisy = response + math.sqrt(scenario.tone_noise_w / scenario.tone_power_w / 2) * noise
    whole = noisy.flatten(3).flatten(0, 1).numpy().astype(np.complex128)
    energy = (np.abs(whole) ** 2).sum((1, 2)) * scenario.tone_power_w
    link = np.flatnonzero(energy > silence_w(scenario))
    return slot_reduced(whole[link]), link

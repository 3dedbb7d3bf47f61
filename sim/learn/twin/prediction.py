"""Deviations of positions that reports of some widths lead to: the Fisher information of quantised reports.

The information is that of the cloud's own model of a report (`cloud.fusion.twin_fit`) at the true position: the errors
of the atoms' parameters are those of quantisers, step²/12, and noise; they pass through the atoms' derivatives to the
channel, and through the map's anchors to the position; gains of paths are unknown. It is a bound for the mean square
of an unbiased estimator if quantisers add Gaussian noise of their own. They do not: their error is uniform and fixed by
the channel, so that it is an approximation, near where cells are small, and none where they are larger than what the
model's derivatives hold for, below about 20 bit.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree

from cloud.fusion.twin_fit import Fitting, Tolerances, correction, observed
from cloud.fusion.twin_map import TwinMap
from edge.atom_fit import fit_atoms, slot_reduced
from fronthaul.payload.atoms import PER_ATOM, Complex, Real
from fronthaul.payload.twin import Atoms, Widths, steps, variances
from sim.plan.weights import Weights
from sim.world.channel import Motion, Synthesizer, pad_paths, silence_w
from sim.world.paths import PathSet
from sim.world.scenario import ClockErrors, Scenario

_PRIOR_M = 30.0  # deviation of a position of which nothing is known


class KnownUsers:
    """Links of users at known positions, and what the map has of them.

    Attributes:
        world: map.
        noise: power of the noise of a reduced channel.
        ranges: of the first amplitude, by site [dB].
        channel: reduced channels (B, M·F).
        fix: user of each link (B,).
        site: its site (B,).
        position: of the users (N, 3) [m].
        images: anchors of the links.
    """

    def __init__(self, scenario: Scenario, weights: Weights, paths: PathSet) -> None:
        """Take a twin, and the paths of users."""
        self.world = TwinMap(weights.config, weights.cloud())
        self.noise = scenario.tone_noise_w / scenario.tone_power_w / scenario.numerology.slots
        self.ranges = [(low, high) for low, high in weights.cloud()["gain_db"].tolist()]
        self.channel, link = heard_channels(scenario, paths)
        self.fix, self.site = np.divmod(link, paths.sites)
        self.position = paths.position
        near = cKDTree(self.world.position).query(self.position, k=8)[1].reshape(len(paths), -1)
        self.images = self.world.images(near[self.fix], self.site, self.position[self.fix], 10)


class Prediction:
    """Deviations of positions as a function of the widths of a report."""

    def __init__(self, own: KnownUsers, atoms: int, floor: float) -> None:
        """Prepare reports of a number of atoms, and a map whose own error is `floor` of a link's power."""
        place, gain, share = fit_atoms(own.world.grid, own.channel, atoms)
        self._size, self._own, self._floor = np.abs(gain), own, floor
        reported = Atoms(place, gain, np.zeros((*gain.shape, PER_ATOM)), share)
        self._seen = seen = observed(own.world.grid, reported, own.noise)
        links = (own.site, own.fix, len(own.position))
        model = Fitting(own.world, seen, own.images, *links, floor, Tolerances()).linear(own.position)
        self._outer = 1 / (seen.outer + floor / 2 * seen.power)
        self._whole = self._outer[:, None, None] * model.whole
        diagonal = np.arange(model.nuisances)
        self._whole[:, diagonal, diagonal] += 1
        self._within, self._nuisances = model.within, model.nuisances

    def __call__(self, widths: Widths) -> Real:
        """Return the deviations of the users' positions (N,) [m]."""
        own = self._own
        variance = np.empty((*self._size.shape, PER_ATOM))
        for site, amplitude_db in enumerate(own.ranges):
            links = own.site == site
            variance[links] = variances(self._size[links], steps(widths, amplitude_db))
        inner = correction(self._seen.inner(self._floor, variance.reshape(len(variance), -1)), self._outer)
        square = self._whole + self._within.swapaxes(-1, -2) @ inner @ self._within
        n = self._nuisances
        solved = np.linalg.solve(square[:, :n, :n], square[:, :n, n:])
        of_links = square[:, n:, n:] - square[:, n:, :n] @ solved
        information = np.tile(np.eye(3) / _PRIOR_M**2, (len(own.position), 1, 1))
        np.add.at(information, own.fix, of_links)
        found: Real = np.sqrt(np.trace(np.linalg.inv(information), axis1=1, axis2=2))
        return found


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

"""Training snapshots made on the fly: traced positions, slightly displaced, with fresh noise, motion and clock errors.

The paper draws new positions each epoch. Here the traced positions are a finite set: each user is displaced by a random
step of up to `jitter_m` along every axis, and its paths are recomputed for the new position
(`sim.world.channel.move_users`), so that training also covers the space between traced positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge.estimation import LmmseEstimator, spatial_covariance
from fronthaul.draws import generator
from sim.world.channel import Motion, PaddedPaths, Synthesizer, move_users, pilot_sequence, receiver_noise
from sim.world.scenario import Scenario


@dataclass(frozen=True)
class Batch:
    """Estimated channels (B, K, slot, antenna, tone) complex64 and true positions (B, 3) [m] of one batch."""

    channel: Tensor
    position: Tensor


class SnapshotSource:
    """Draws batches of snapshots from a path set."""

    def __init__(
        self,
        scenario: Scenario,
        paths: PaddedPaths,
        position: npt.NDArray[np.float64],
        covariance: Tensor,
        *,
        jitter_m: float = 0.0,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        """Prepare the source.

        Args:
            scenario: numerology, link budget and clocks.
            paths: padded paths of N positions, with mirrors if `jitter_m` > 0.
            position: true positions (N, 3) [m].
            covariance: spatial covariance (K, tone, antenna, antenna) for LMMSE.
            jitter_m: half width of the uniform step along each axis [m].
            seed: seed of all draws.
            device: device on which batches are made.
        """
        self.device = device or torch.device("cpu")
        self.scenario = scenario
        self._paths = paths.to(self.device)
        self._position = torch.from_numpy(position).float().to(self.device)
        self._jitter_m = jitter_m
        self._synthesizer = Synthesizer(scenario)
        self.draw = torch.Generator(self.device).manual_seed(seed)
        self._low = torch.tensor(scenario.users.low, device=self.device)
        self._high = torch.tensor(scenario.users.high, device=self.device)
        self._sigma = (scenario.tone_noise_w / scenario.tone_power_w / 2) ** 0.5
        pilots = pilot_sequence(scenario.numerology.tones)
        # The filter acts on matched pilots, whose noise is σ²/P: simulate it there (unit power, unit pilots).
        noise = scenario.tone_noise_w / scenario.tone_power_w
        self._estimator = LmmseEstimator(covariance, noise, 1.0, torch.ones_like(pilots)).to(self.device)

    def __len__(self) -> int:
        return len(self._position)

    def reseed(self, *key: int) -> None:
        """Restart all draws from the seed given by `key`."""
        self.draw.manual_seed(int(generator(key[0], "training", *key[1:]).integers(2**62)))

    def permutation(self) -> Tensor:
        """Return a new random order of all positions."""
        return torch.randperm(len(self), generator=self.draw, device=self.device)

    def batch(self, index: Tensor) -> Batch:
        """Make the snapshots of the given positions."""
        index, draw = index.to(self.device), self.draw
        paths, position = self._paths[index], self._position[index]
        if self._jitter_m:
            step = (torch.rand(len(index), 3, generator=draw, device=self.device) * 2 - 1) * self._jitter_m
            # Clip steps at the faces of the service area.
            step = torch.maximum(torch.minimum(step, self._high - position), self._low - position)
            paths = move_users(paths, step, self.scenario.numerology.carrier_hz)
            position = position + step
        response = self._synthesizer.response(paths, Motion.draw(self.scenario, len(index), draw))
        noise = torch.randn(*response.shape, 2, generator=draw, device=self.device)
        if self.scenario.link_budget.noise == "thermal":
            received = response + torch.view_as_complex(noise) * self._sigma
        else:
            received = response + receiver_noise(self.scenario, response, noise)
        return Batch(self._estimator.estimate(received), position)


def measure_covariance(scenario: Scenario, paths: PaddedPaths, positions: int = 4000) -> Tensor:
    """Return each site's spatial covariance (K, tone, antenna, antenna), a mean over positions. ECC Sec. IV-A."""
    synthesizer = Synthesizer(scenario)
    total: Tensor | None = None
    count = min(positions, len(paths.coefficient))
    chunks = list(torch.arange(count).split(500))
    draw = torch.Generator().manual_seed(0)
    for index in chunks:
        response = synthesizer.response(paths[index], Motion.draw(scenario, len(index), draw))
        part = torch.stack([spatial_covariance(response[:, k]) for k in range(response.shape[1])]) * len(index)
        total = part if total is None else total + part
    assert total is not None
    return total / count

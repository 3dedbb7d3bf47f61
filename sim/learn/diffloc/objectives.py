"""Training objectives of DiffLoc and its baselines. DiffLoc Sec. III-A, IV, V-B.

An objective returns one loss for each of K stacked networks, from embeddings e (K, B, E), normalised clean positions p
(B, D) and noise from `draw`. Several noisy versions of each sample share one embedding, the costly part of a pass.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cloud.fusion.scores.answers import Answers, FloatArray, eps_of
from cloud.fusion.scores.rule import Rule
from edge.score_network import ScoreNetwork, consistency_output
from fronthaul.payload.noise_levels import BETA, TIMESTEPS, Level, alpha_bars
from sim.learn.diffloc.features import SCALE_M

SOFT_M = 0.2
SOFT_POWER = 0.8
"""Dynamic soft labels: σ_s(t) = 20 cm · (t/T)^0.8. DiffLoc Sec. IV-B, Table II."""


class Objective(Protocol):
    """A loss for each of K stacked networks."""

    def loss(self, network: ScoreNetwork, embedding: Tensor, position: Tensor, draw: torch.Generator) -> Tensor:
        """Return (K,) losses, means over the batch."""


@dataclass(frozen=True)
class Regression:
    """Direct regression on the same body: x and t are zero. Its minimiser is E[p | h]."""

    def loss(self, network: ScoreNetwork, embedding: Tensor, position: Tensor, draw: torch.Generator) -> Tensor:
        """Return the mean squared error of the positions."""
        return (regress(network, embedding) - position).square().sum(-1).mean(1)


def regress(network: ScoreNetwork, embedding: Tensor) -> Tensor:
    """Return the output (K, B, outputs) of a network that is given the channel alone (x and t are zero)."""
    stations, batch, _ = embedding.shape
    nothing = embedding.new_zeros(stations, batch, network.shape.dimensions)
    out: Tensor = network(embedding, nothing, nothing[..., :1])
    return out


@dataclass(frozen=True)
class Diffusion:
    """Denoising score matching: predict the injected noise. DiffLoc Eq. 12; with soft labels Sec. IV-B.

    Attributes:
        timesteps: number of timesteps, T.
        beta: β_1 and β_T.
        soft: whether the clean position is blurred by the dynamic soft label; the target remains ε.
        versions: noisy versions of each sample in a step.
    """

    timesteps: int = TIMESTEPS
    beta: tuple[float, float] = BETA
    soft: bool = False
    versions: int = 2

    def loss(self, network: ScoreNetwork, embedding: Tensor, position: Tensor, draw: torch.Generator) -> Tensor:
        """Return the mean squared error of ε̂, with timesteps stratified over the batch."""
        stations, batch, _ = embedding.shape
        rows = batch * self.versions
        place: dict[str, Any] = {"generator": draw, "device": draw.device}
        shift = torch.rand((), **place)
        time = 1 + (((torch.randperm(rows, **place) + shift) / rows) * self.timesteps).long()  # 1 … T
        bar = torch.from_numpy(alpha_bars(self.timesteps, self.beta)).float().to(draw.device)[time - 1][:, None]
        clean = position.repeat(self.versions, 1)
        if self.soft:
            blur = SOFT_M / SCALE_M * (time / self.timesteps) ** SOFT_POWER
            clean = clean + blur[:, None] * torch.randn(clean.shape, **place)
        noise = torch.randn(clean.shape, **place)
        x = bar.sqrt() * clean + (1 - bar).sqrt() * noise  # DiffLoc Eq. 9
        at = (time / self.timesteps)[:, None].expand(stations, rows, 1)
        estimate = network(embedding.repeat(1, self.versions, 1), x.expand(stations, -1, -1), at)
        losses: Tensor = (estimate - noise).square().sum(-1).mean(1)  # DiffLoc Eq. 12
        return losses


@dataclass(frozen=True)
class Consistency:
    """‖f₁ − f₂‖² + ‖f₁ − p‖² + ‖f₂ − p‖² at two noise levels of the same position. DiffLoc Eq. 20-22.

    Attributes:
        sigma: σ_min and σ_max, normalised; those of Song et al. 2023, App. C [R].
        soft: whether both views are made from a blurred position, as in Sec. IV-B; the targets remain p.
        versions: pairs of each sample in a step.
    """

    sigma: tuple[float, float] = (0.002, 80.0)
    soft: bool = False
    versions: int = 1

    def loss(self, network: ScoreNetwork, embedding: Tensor, position: Tensor, draw: torch.Generator) -> Tensor:
        """Return the batch mean of the three terms; levels are drawn uniformly in log σ."""
        stations, batch, _ = embedding.shape
        rows = batch * self.versions
        low, high = self.sigma
        clean = position.repeat(self.versions, 1)
        place: dict[str, Any] = {"generator": draw, "device": draw.device}
        time = torch.rand(2, rows, 1, **place)
        sigma = low * (high / low) ** time  # inverse of DiffLoc Eq. 20
        seen = clean
        if self.soft:
            seen = clean + SOFT_M / SCALE_M * time**SOFT_POWER * torch.randn(2, *clean.shape, **place)
        x = (seen + sigma * torch.randn(2, *clean.shape, **place)).flatten(0, 1)  # DiffLoc Eq. 21
        sigma, time = sigma.flatten(0, 1), time.flatten(0, 1)
        both = consistency_output(
            network,
            embedding.repeat(1, 2 * self.versions, 1),
            x.expand(stations, -1, -1),
            sigma.expand(stations, -1, -1),
            time.expand(stations, -1, -1),
            low,
        )
        first, second = both.chunk(2, 1)
        terms = (first - second).square() + (first - clean).square() + (second - clean).square()
        return terms.sum(-1).mean(1)  # DiffLoc Eq. 22


@dataclass(frozen=True)
class Fused:
    """Squared error of the position that the cloud fuses from all base stations' answers in the first of its steps.

    For consistency models, whose first step decides: at σ_min, the second one's level, they return their input. The
    state is noise, as the cloud's is, and the same for all. ε̂ of a rule without Jacobians is affine in the ε̂_k, so that
    the fused position is

        p̂(x) = p̂(x; all f_k = 0) + Σ_k A_k f_k(x)

    Both parts are taken from the cloud's own rule; its clipping to the service area is left out.

    Attributes:
        rule: fusion rule of the cloud.
        posterior: Σ_k (K, D, D) with which the cloud runs it.
        level: its first level.
        sigma_min: the networks' σ_min.
        noise: normal noise on embeddings in training, in units of the deviation of each over the batch.
        apart: control: the error of each base station's own position, on the same states and with the same noise.
    """

    rule: Rule
    posterior: FloatArray
    level: Level
    sigma_min: float
    noise: float = 0.0
    apart: bool = False

    def loss(self, network: ScoreNetwork, embedding: Tensor, position: Tensor, draw: torch.Generator) -> Tensor:
        """Return the mean squared error, a K-th of it for each network: of all the same epoch is then the best."""
        stations, batch, size = len(embedding), *position.shape
        place: dict[str, Any] = {"generator": draw, "device": draw.device}
        if network.training and self.noise:
            spread = embedding.detach().std(1, keepdim=True)
            embedding = embedding + self.noise * spread * torch.randn(embedding.shape, **place)
        x = self.level.noise * torch.randn(batch, size, **place)
        sigma = x.new_full((stations, batch, 1), self.level.noise)
        time = torch.full_like(sigma, self.level.time)
        said = consistency_output(network, embedding, x.expand(stations, -1, -1), sigma, time, self.sigma_min)
        if self.apart:
            return (said - position).square().sum(-1).mean(1)
        without = self._fused(x.cpu().double().numpy(), np.zeros((stations, batch, size)))
        with torch.autocast(x.device.type, enabled=False):
            pulls = torch.bmm(said.float(), self._weights.to(x.device)).sum(0)
        fused = torch.from_numpy(without).float().to(x.device) + pulls
        return (fused - position).square().sum(-1).mean().expand(stations) / stations

    @functools.cached_property
    def _weights(self) -> Tensor:
        """A_kᵀ (K, D, D)."""
        stations, size, _ = self.posterior.shape
        state = np.zeros((1, size))
        without = self._fused(state, np.zeros((stations, 1, size)))
        units = np.eye(stations * size).reshape(-1, stations, 1, size)
        moved = np.stack([(self._fused(state, unit) - without)[0] for unit in units])
        return torch.from_numpy(moved.reshape(stations, size, size)).float()

    def _fused(self, x: FloatArray, said: FloatArray) -> FloatArray:
        """Return the fused position (N, D) of positions (K, N, D) that base stations said at states x (N, D)."""
        covariance = np.repeat(self.posterior[:, None], len(x), 1)
        eps = self.rule.eps(x, self.level, Answers(eps_of("consistency", said, x, self.level), covariance))
        fused: FloatArray = (x - self.level.noise * eps) / self.level.signal
        return fused


@dataclass(frozen=True)
class Grid:
    """Classification over grid points with soft labels: probability fusion's network. DiffLoc Sec. V-B3, its [14].

    A position is a weighted sum of the four grid points around it, with bilinear weights.

    Attributes:
        low: first grid point (D,), normalised.
        spacing: distance between grid points, normalised.
        counts: number of grid points on each axis.
    """

    low: tuple[float, ...]
    spacing: float
    counts: tuple[int, ...]

    @property
    def cells(self) -> int:
        """Number of grid points."""
        return int(torch.tensor(self.counts).prod())

    def points(self) -> Tensor:
        """Return the coordinates (cells, D) of the grid points."""
        axes = [a + self.spacing * torch.arange(n) for a, n in zip(self.low, self.counts, strict=True)]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(self.cells, -1).float()

    def labels(self, position: Tensor) -> Tensor:
        """Return soft labels (B, cells), under which the mean grid point is the position."""
        label = position.new_ones(len(position), 1)
        for axis, count in enumerate(self.counts):
            place = ((position[:, axis] - self.low[axis]) / self.spacing).clamp(0, count - 1)
            weight = (1 - (place[:, None] - torch.arange(count, device=place.device)).abs()).clamp_min(0)
            label = (label[:, :, None] * weight[:, None, :]).flatten(1)
        return label

    def loss(self, network: ScoreNetwork, embedding: Tensor, position: Tensor, draw: torch.Generator) -> Tensor:
        """Return the cross entropy with the soft labels."""
        chance = functional.log_softmax(regress(network, embedding), -1)
        return -(self.labels(position) * chance).sum(-1).mean(1)


def grid_over(position: Tensor, spacing_m: float) -> Grid:
    """Return the grid of `spacing_m` [m] that covers normalised positions (N, D)."""
    spacing = spacing_m / SCALE_M
    low, high = position.min(0).values, position.max(0).values
    counts = [max(2, int(torch.ceil(span / spacing)) + 1) for span in high - low]
    slack = [(n - 1) * spacing - float(span) for n, span in zip(counts, high - low, strict=True)]
    return Grid(tuple(float(a) - s / 2 for a, s in zip(low, slack, strict=True)), spacing, tuple(counts))

"""Evaluation of trained networks on held-out samples: each base station alone, fused positions, and their covariances.

Uses the rules and the sampler of the emulator's cloud (`cloud.fusion.scores`), on all samples of a split at once. No
function that makes an estimate takes the true positions of its samples; those that measure errors take them as `truth`.

Shapes: K base stations, N samples, P particles, D dimensions; everything is normalised unless marked [m].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import gammaincinv
from torch import Tensor

from cloud.fusion.scores.answers import Answers, Kind, eps_of
from cloud.fusion.scores.mixture import Mixture, product
from cloud.fusion.scores.prior import BoxPrior
from cloud.fusion.scores.rule import build_rule
from cloud.fusion.scores.sampler import Sampler
from edge.mixture_fit import fit_mixture
from edge.score_network import Denoiser, ScoreNetwork
from fronthaul.draws import generator
from fronthaul.payload.noise_levels import Level, noise_schedule
from sim.learn.diffloc.features import SCALE_M

FloatArray = npt.NDArray[np.float64]
SHARE = 0.9
"""Nominal coverage of the confidence region; the calibration factor attains it on validation samples."""


@dataclass(frozen=True)
class Networks:
    """K trained networks and their inputs for N samples.

    Attributes:
        denoiser: denoiser with the K networks.
        sampler: ``sampler`` table, see `fronthaul.payload.noise_levels.noise_schedule`.
        embedding: embeddings of the samples' channels (K, N, E).
        posterior: Σ_k (K, D, D), see `posteriors`.
        prior: box around the training positions.
        seed: seed of all draws.
    """

    denoiser: Denoiser
    sampler: dict[str, Any]
    embedding: Tensor
    posterior: FloatArray
    prior: BoxPrior
    seed: int = 0

    @property
    def kind(self) -> Kind:
        """Kind of the networks' output."""
        return "diffusion" if self.sampler["kind"] == "diffusion" else "consistency"

    def levels(self, steps: int) -> tuple[Level, ...]:
        """Return the noise schedule of `steps`."""
        return noise_schedule(self.sampler, steps)

    def of(self, stations: Sequence[int]) -> Networks:
        """Return the networks of some base stations."""
        chosen = list(stations)
        network = _some(self.denoiser.network, chosen)
        return replace(
            self,
            denoiser=Denoiser(network, self.sampler),
            embedding=self.embedding[chosen],
            posterior=self.posterior[chosen],
        )

    @torch.no_grad()
    def raw(self, x: FloatArray, level: Level) -> FloatArray:
        """Return the networks' outputs (K, P·N, D) at states (P·N, D), samples varying fastest."""
        stations, rows, _ = self.embedding.shape
        parts = []
        for state in torch.from_numpy(x).float().split(rows):  # a particle after the other: no embedding is repeated
            parts.append(self.denoiser.raw(self.embedding, state.expand(stations, -1, -1), level))
        out: FloatArray = torch.cat(parts, 1).double().numpy()
        return out

    def draws(self, samples: Sequence[int], particles: int, stream: str = "diffusion") -> Callable[[int], FloatArray]:
        """Return a function that draws standard normals (P·N, D) for a round, keyed by (seed, sample, round)."""
        size = len(self.prior.mean)

        def draw(round_: int) -> FloatArray:
            each = [generator(self.seed, stream, int(n), round_).standard_normal((particles, size)) for n in samples]
            return np.stack(each, 1).reshape(-1, size)

        return draw


def _some(network: ScoreNetwork, stations: list[int]) -> ScoreNetwork:
    """Return the networks of some base stations."""
    total = len(network.embed_channel.weight)
    if stations == list(range(total)):
        return network
    part = ScoreNetwork(network.shape, len(stations))
    state = {}
    for name, value in network.state_dict().items():
        if value.ndim == 0:
            state[name] = value
        elif value.ndim == 1:  # batch norm: K widths in a row
            state[name] = value.view(total, -1)[stations].flatten()
        else:
            state[name] = value[stations]
    part.load_state_dict(state)
    return part.eval()


@dataclass(frozen=True)
class Estimate:
    """Positions (N, D) and their claimed covariances (N, D, D), before calibration."""

    position: FloatArray
    covariance: FloatArray


def sample(
    networks: Networks,
    rule: str,
    steps: int,
    *,
    stations: Sequence[int] | None = None,
    particles: int = 1,
    local: FloatArray | None = None,
    jacobian_step: float = 1e-2,
) -> Estimate:
    """Sample positions with fused scores; several particles are averaged.

    Args:
        networks: networks of all base stations.
        rule: name of a fusion rule of scores.
        steps: steps of the noise schedule.
        stations: which base stations; all by default.
        particles: number of particles, P.
        local: covariances Σ_k (K, N, D, D) of each sample, instead of the constant ones.
        jacobian_step: step of the finite differences, for rules that need Jacobians.
    """
    chosen = list(range(len(networks.posterior))) if stations is None else list(stations)
    networks = networks.of(chosen)
    count = networks.embedding.shape[1]
    built = build_rule(rule, networks.prior)
    sampler = Sampler(networks.kind, networks.levels(steps), built, networks.draws(range(count), particles))
    each = np.repeat(networks.posterior[:, None], count, 1) if local is None else local[chosen]
    covariance = np.tile(each, (1, particles, 1, 1))
    while not sampler.done:
        sampler.advance(_answers(networks, sampler, covariance, jacobian_step if built.needs_jacobian else 0.0))
    shape = (particles, count, -1)
    return Estimate(
        sampler.position.reshape(shape).mean(0),
        sampler.covariance.reshape(particles, count, *networks.prior.covariance.shape).mean(0),
    )


def _answers(networks: Networks, sampler: Sampler, covariance: FloatArray, difference: float) -> Answers:
    x, level = sampler.x, sampler.level

    def eps(state: FloatArray) -> FloatArray:
        return eps_of(networks.kind, networks.raw(state, level), state, level)

    here = eps(x)
    jacobian = None
    if difference:
        step = difference * max(level.noise, 0.1)
        columns = [(eps(x + step * axis) - here) / step for axis in np.eye(x.shape[-1])]
        jacobian = np.stack(columns, -1)
    return Answers(here, covariance, jacobian)


def local_samples(networks: Networks, steps: int, particles: int) -> FloatArray:
    """Return positions (K, P, N, D) sampled by each base station on its own."""
    found = []
    count = networks.embedding.shape[1]
    for k in range(len(networks.posterior)):
        one = networks.of([k])
        draw = one.draws(range(count), particles, f"local-{k}")
        built = build_rule("sum", networks.prior)  # of one base station every rule is itself
        sampler = Sampler(networks.kind, networks.levels(steps), built, draw)
        covariance = np.broadcast_to(one.posterior, (1, particles * count, *networks.posterior[k].shape))
        while not sampler.done:
            sampler.advance(_answers(one, sampler, covariance, 0.0))
        found.append(sampler.position.reshape(particles, count, -1))
    return np.stack(found)


def local_covariances(samples: FloatArray, floor: float = 0.02) -> FloatArray:
    """Return Σ_k (K, N, D, D) of local samples (K, P, N, D), with `floor`² [normalised] added to the diagonal."""
    centred = samples - samples.mean(1, keepdims=True)
    spread: FloatArray = np.einsum("kpni,kpnj->knij", centred, centred) / (samples.shape[1] - 1)
    return spread + floor**2 * np.eye(samples.shape[-1])


def fuse_mixtures(samples: FloatArray, widen: FloatArray, components: int = 3) -> Estimate:
    """Fuse by the exact product of the base stations' Gaussian mixtures, fitted to their samples (K, P, N, D).

    `widen` (K, D, D) is added to each component's covariance. The prior is taken as flat: it is not divided out.
    """
    stations, _, count, size = samples.shape
    position, covariance = np.empty((count, size)), np.empty((count, size, size))
    for n in range(count):
        mixtures = []
        for k in range(stations):
            fitted = fit_mixture(samples[k, :, n], components)
            mixtures.append(Mixture(fitted.weight, fitted.mean, fitted.covariance + widen[k]))
        position[n], covariance[n] = product(mixtures).moments()
    return Estimate(position, covariance)


def fuse_gaussians(position: FloatArray, covariance: FloatArray) -> Estimate:
    """Return the precision-weighted mean of K estimates (K, N, D) with constant covariances (K, D, D)."""
    precision = np.linalg.inv(covariance)
    total = precision.sum(0)
    claimed = np.linalg.inv(total)
    mean = np.einsum("ij,kjl,knl->ni", claimed, precision, position)
    return Estimate(mean, np.broadcast_to(claimed, (position.shape[1], *claimed.shape)))


# -- comparisons with the truth


def posteriors(estimates: FloatArray, truth: FloatArray) -> FloatArray:
    """Return Σ_k (K, D, D): second moments of the errors of K estimates (K, N, D) on validation samples."""
    error = estimates - truth
    moments: FloatArray = np.einsum("kni,knj->kij", error, error) / error.shape[1]
    return moments


def errors_m(position: FloatArray, truth: FloatArray) -> FloatArray:
    """Return Euclidean errors (…, N) [m] of normalised estimates."""
    found: FloatArray = np.linalg.norm(position - truth, axis=-1) * SCALE_M
    return found


def normalised_squares(estimate: Estimate, truth: FloatArray) -> FloatArray:
    """Return eᵀ C⁻¹ e (N,); it is χ² with D degrees of freedom if errors are Gaussian with covariance C."""
    error = estimate.position - truth
    solved = np.linalg.solve(estimate.covariance, error[..., None])[..., 0]
    squares: FloatArray = (error * solved).sum(-1)
    return squares


def calibration(estimate: Estimate, truth: FloatArray) -> float:
    """Return the factor on the covariance that makes the 90 % region cover 90 % of these (validation) samples."""
    size = truth.shape[-1]
    return float(np.quantile(normalised_squares(estimate, truth), SHARE) / (2 * gammaincinv(size / 2, SHARE)))


def coverage(estimate: Estimate, truth: FloatArray, factor: float = 1.0) -> float:
    """Return the share of samples within their 90 % region, with covariances multiplied by `factor`."""
    size = truth.shape[-1]
    return float((normalised_squares(estimate, truth) <= factor * (2 * gammaincinv(size / 2, SHARE))).mean())

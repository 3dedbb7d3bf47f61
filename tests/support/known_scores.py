"""Posteriors whose noised scores are known, and the fusion rules measured on them; no network anywhere.

Run as a script, it prints the table that tests/cloud/fusion/scores/test_analytic.py asserts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from cloud.fusion.scores.answers import Answers, FloatArray
from cloud.fusion.scores.mixture import Mixture, product
from cloud.fusion.scores.rule import RULES, build_rule
from cloud.fusion.scores.sampler import Sampler
from fronthaul.payload.noise_levels import Level, diffusion_schedule


@dataclass(frozen=True)
class NormalPrior:
    """A Gaussian prior, under which Gaussian posteriors have known products."""

    mean: FloatArray
    covariance: FloatArray

    def score(self, x: FloatArray) -> FloatArray:
        return np.asarray(-np.linalg.solve(self.covariance, (x - self.mean).T).T)

    def held(self, position: FloatArray) -> FloatArray:
        return position  # a normal prior holds nothing impossible

    def eps(self, x: FloatArray, level: Level) -> FloatArray:
        noised = level.signal**2 * self.covariance + level.noise**2 * np.eye(len(self.mean))
        return np.asarray(level.noise * np.linalg.solve(noised, (x - level.signal * self.mean).T).T)


@dataclass(frozen=True)
class KnownPosteriors:
    """Mixtures of C Gaussians: weight (K, N, C), mean (K, N, C, D), covariance (K, N, C, D, D)."""

    weight: FloatArray
    mean: FloatArray
    covariance: FloatArray

    def moments(self) -> tuple[FloatArray, FloatArray]:
        """Means (K, N, D) and covariances (K, N, D, D)."""
        mean = np.einsum("knc,kncd->knd", self.weight, self.mean)
        apart = self.mean - mean[:, :, None]
        within = np.einsum("knc,kncij->knij", self.weight, self.covariance)
        return mean, within + np.einsum("knc,knci,kncj->knij", self.weight, apart, apart)

    def answers(self, x: FloatArray, level: Level) -> Answers:
        """The exact ε̂ and Jacobian: ∇∇log p = Σ r_c (g_c g_cᵀ − V_c⁻¹) − ḡ ḡᵀ, responsibilities r, g_c = V_c⁻¹ d_c."""
        a, s = level.signal, level.noise
        noised = np.linalg.inv(a**2 * self.covariance + s**2 * np.eye(x.shape[1]))
        apart = x[:, None, :] - a * self.mean
        pull = np.einsum("kncij,kncj->knci", noised, apart)
        log = np.log(self.weight) + (np.linalg.slogdet(noised)[1] - np.einsum("knci,knci->knc", apart, pull)) / 2
        share = np.exp(log - log.max(axis=2, keepdims=True))
        share /= share.sum(axis=2, keepdims=True)
        score = np.einsum("knc,knci->kni", share, pull)
        bends = np.einsum("knc,kncij->knij", share, noised) - np.einsum("knc,knci,kncj->knij", share, pull, pull)
        bends += np.einsum("kni,knj->knij", score, score)
        return Answers(s * score, self.moments()[1], s * bends)


def sample(
    rule: str, posteriors: KnownPosteriors, prior: NormalPrior, random: Generator, schedule: Sequence[Level]
) -> Sampler:
    """Run a sampler with one state for each of the N problems to its end."""
    shape = posteriors.mean.shape[1], posteriors.mean.shape[3]
    sampler = Sampler("diffusion", schedule, build_rule(rule, prior), lambda _: random.standard_normal(shape))
    while not sampler.done:
        sampler.advance(posteriors.answers(sampler.x, sampler.level))
    return sampler


def one_dimensional(
    peaks: FloatArray, share: FloatArray, deviation: float, copies: int = 1
) -> tuple[KnownPosteriors, NormalPrior]:
    """Posteriors under the prior N(0, 1) of likelihoods Σ_c share_c N(p; peak_c, deviation²), both (K, N, C)."""
    peaks, share = np.repeat(peaks, copies, axis=1), np.repeat(share, copies, axis=1)
    variance = 1 / (1 + deviation**-2)
    log = np.log(share) - peaks**2 / (1 + deviation**2) / 2
    weight = np.exp(log - log.max(axis=2, keepdims=True)) + 1e-300
    weight /= weight.sum(axis=2, keepdims=True)
    mean = variance * peaks[..., None] / deviation**2
    prior = NormalPrior(np.zeros(1), np.eye(1))
    return KnownPosteriors(weight, mean, np.full((*mean.shape, 1), variance)), prior


FINE = diffusion_schedule(400, 2000, (5e-5, 1e-2))
"""A noise schedule ten times finer at its end than the paper's: least noise over signal 0.007."""


def unimodal(rule: str, seed: int, problems: int = 200, copies: int = 8, stations: int = 7) -> tuple[float, float]:
    """RMSE of the samples' mean, and the samples' deviation, both over those of the true product.

    Truths p ~ N(0, 1); each base station sees p with Gaussian noise of deviation 0.1.
    """
    random = np.random.default_rng(seed)
    truth = random.standard_normal(problems)
    seen = truth + 0.1 * random.standard_normal((stations, problems))
    precision = 1 + stations / 0.1**2
    best = seen.sum(axis=0) / 0.1**2 / precision
    posteriors, prior = one_dimensional(seen[..., None], np.ones((stations, problems, 1)), 0.1, copies)
    position = sample(rule, posteriors, prior, random, FINE).position.reshape(problems, copies)
    rmse = np.sqrt(np.mean((position.mean(axis=1) - truth) ** 2) / np.mean((best - truth) ** 2))
    return float(rmse), float(np.sqrt(position.var(axis=1, ddof=1).mean() * precision))


def bimodal(rule: str, seed: int, problems: int = 1000, stations: int = 5) -> float:
    """Share of problems in which the fix (one sample; of ``exact`` the mean) is five deviations or more off the truth.

    Truths p ~ N(0, 1). Each base station's likelihood has two peaks of deviation 0.05, the lighter at the truth (0.4),
    the heavier (0.6) at a ghost of its own, drawn from N(0, 1.5²); each peak is off by noise of the same deviation.
    """
    random = np.random.default_rng(seed)
    truth = random.standard_normal(problems)
    ghost = 1.5 * random.standard_normal((stations, problems))
    peaks = np.stack([np.broadcast_to(truth, ghost.shape), ghost], axis=2)
    peaks = peaks + 0.05 * random.standard_normal(peaks.shape)
    posteriors, prior = one_dimensional(peaks, np.broadcast_to([0.4, 0.6], peaks.shape), 0.05)
    if rule == "exact":
        position = exact(posteriors, prior)
    else:
        position = sample(rule, posteriors, prior, random, diffusion_schedule(100)).position
    return float(np.mean(np.abs(position[:, 0] - truth) > 5 * 0.05))


def exact(posteriors: KnownPosteriors, prior: NormalPrior) -> FloatArray:
    """Means (N, D) of the exact products."""
    over = Mixture(np.ones(1), prior.mean[None], prior.covariance[None])
    stations, problems = posteriors.weight.shape[:2]

    def factor(k: int, n: int) -> Mixture:
        return Mixture(posteriors.weight[k, n], posteriors.mean[k, n], posteriors.covariance[k, n])

    return np.array([product([factor(k, n) for k in range(stations)], over).moments()[0] for n in range(problems)])


def analytic_table(seeds: Sequence[int] = range(3)) -> dict[str, tuple[float, float, float]]:
    """RMSE ratio and spread ratio of the unimodal problem, wrong-mode rate of the bimodal: means over seeds."""

    def over_seeds(measure: Callable[[str, int], float | tuple[float, float]], rule: str) -> FloatArray:
        return np.mean([measure(rule, seed) for seed in seeds], axis=0)

    table = {rule: (*over_seeds(unimodal, rule).tolist(), float(over_seeds(bimodal, rule))) for rule in RULES}
    return {**table, "exact": (1.0, 1.0, float(over_seeds(bimodal, "exact")))}


if __name__ == "__main__":
    print(f"{'rule':10s} {'RMSE / optimal':>15s} {'spread / optimal':>17s} {'wrong mode':>11s}")
    for name, (rmse_ratio, spread_ratio, wrong) in analytic_table().items():
        print(f"{name:10s} {rmse_ratio:15.3f} {spread_ratio:17.4f} {wrong:11.1%}")

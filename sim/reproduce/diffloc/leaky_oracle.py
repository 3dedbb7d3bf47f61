"""LEAKY, NOT AN ESTIMATOR: samplers whose states are built from the true position, to show what that would look like.

Nothing here estimates a position. Each function is given the truth at test time, in ways in which an evaluation might
leak it by mistake, so that the resulting errors can be compared with published ones. It is the only code of this
project that uses the truth in sampling, all its functions are called ``leaky_…``, and no module other than
`leaky_table` imports it (`tests/sim/reproduce/diffloc/test_diffloc_tables.py`).

Shapes: K base stations, N samples, D dimensions; normalised.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cloud.fusion.scores.answers import Answers, eps_of
from cloud.fusion.scores.rule import build_rule
from edge.score_network import Denoiser
from fronthaul.draws import generator
from fronthaul.payload.noise_levels import Level, alpha_bars
from sim.learn.diffloc.evaluate import FloatArray, Networks


def leaky_consistency(networks: Networks, truth: FloatArray, sigma_min: float) -> FloatArray:
    """Evaluate a consistency model once, at σ_min, on x_k = p + σ_min z_k; return its outputs (K, N, D).

    As f(x) = x at σ_min for any network, the output is x_k itself: in two dimensions its mean error is σ_min √(π/2),
    and that of the mean over K base stations 1/√K of this.

    Args:
        networks: networks on the samples; their channels do not affect the result.
        truth: true positions p (N, D).
        sigma_min: σ_min of the parameterisation, which may differ from the one the network was trained with.
    """
    sampler = {"kind": "consistency", "sigma": [sigma_min, networks.sampler["sigma"][1]]}
    level = Level(1.0, sigma_min, 0.0)
    said = []
    for k in range(len(networks.posterior)):
        one = networks.of([k])
        parameterised = replace(one, denoiser=Denoiser(one.denoiser.network, sampler), sampler=sampler)
        x = truth + sigma_min * _leaky_noise(truth, k)
        said.append(parameterised.raw(x, level)[0])
    return np.stack(said)


def leaky_denoising(networks: Networks, truth: FloatArray, time: int = 1) -> FloatArray:
    """Denoise x_t = √ᾱ_t p + √(1 − ᾱ_t) ε_k, made from the truth; return p̂ (K, N, D) of each base station.

    This is what DDIM returns if its state is made anew from the true position at each step, as in training: earlier
    steps have no effect, so only the last level t = 1 counts. A network with ε̂ = 0 would have a mean error of
    √(π/2) √(1 − ᾱ_t) / √ᾱ_t in two dimensions.

    Args:
        networks: networks of a diffusion model.
        truth: true positions p (N, D).
        time: timestep t.
    """
    level = _leaky_level(networks, time)
    said = []
    for k in range(len(networks.posterior)):
        x = level.signal * truth + level.noise * _leaky_noise(truth, k)
        said.append((x - level.noise * networks.of([k]).raw(x, level)[0]) / level.signal)
    return np.stack(said)


def leaky_sum(networks: Networks, truth: FloatArray, time: int = 1) -> FloatArray:
    """Denoise with the paper's rule: p̂ (N, D) from Σ_k ε̂_k on one x_t for all base stations. DiffLoc Eq. 19."""
    level = _leaky_level(networks, time)
    x = level.signal * truth + level.noise * _leaky_noise(truth, 0)
    fused: FloatArray = (x - level.noise * networks.raw(x, level).sum(0)) / level.signal
    return fused


def leaky_start(networks: Networks, truth: FloatArray, bar: float, rule: str, steps: int) -> tuple[FloatArray, float]:
    """Sample by DDIM from x_t made of the truth at the level whose ᾱ_t is nearest to `bar`.

    Returns:
        Positions (N, D), and that ᾱ_t.
    """
    table = networks.sampler
    bars = alpha_bars(int(table["timesteps"]), tuple(table["beta"]))
    first = 1 + int(np.argmin(np.abs(bars - bar)))
    times = np.unique(np.round(np.linspace(1, first, min(steps, first))).astype(int))[::-1]
    levels = [_leaky_level(networks, int(t)) for t in times]
    built = build_rule(rule, networks.prior)
    covariance = np.repeat(networks.posterior[:, None], len(truth), 1)
    x = levels[0].signal * truth + levels[0].noise * _leaky_noise(truth, 0)
    position = x
    for level, after in zip(levels, [*levels[1:], None], strict=True):
        answers = Answers(eps_of(networks.kind, networks.raw(x, level), x, level), covariance)
        eps = built.eps(x, level, answers)
        position = (x - level.noise * eps) / level.signal
        if after is not None:
            x = after.signal * position + after.noise * eps  # DiffLoc Eq. 13
    return position, float(bars[first - 1])


def leaky_fused(said: FloatArray) -> FloatArray:
    """Return the mean (N, D) of the outputs of K base stations (K, N, D)."""
    mean: FloatArray = said.mean(0)
    return mean


def _leaky_level(networks: Networks, time: int) -> Level:
    table = networks.sampler
    steps = int(table["timesteps"])
    bar = alpha_bars(steps, tuple(table["beta"]))[time - 1]
    return Level(float(np.sqrt(bar)), float(np.sqrt(1 - bar)), time / steps)


def _leaky_noise(truth: FloatArray, *key: int) -> FloatArray:
    """Draw standard normals (N, D)."""
    return generator(0, "leaky", *key).standard_normal(truth.shape)

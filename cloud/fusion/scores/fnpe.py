"""Factorised neural posterior estimation: the sum, minus the clean prior's score, faded in as noise vanishes.

    s(x) = (1 − K)(1 − t/T) ∇log p(x) + Σ_k s_k(x)                                                arXiv 2209.14249

∇log p is the *clean* prior's score, taken at the noised x; it bridges from N(0, I) at t = T to the posterior at t = 0.
A uniform prior has score 0 wherever its score exists, so **under a box prior this is DiffLoc's sum**: a box affects
noised scores only through its faces, which the formula ignores. The claimed covariance differs, and clean
estimates are clipped to the prior's range (`Rule.holds`). Under a prior with a nonzero score, such as a Gaussian, the
rule itself differs from the sum.
"""

from __future__ import annotations

from cloud.fusion.scores.answers import Answers, FloatArray
from cloud.fusion.scores.precisions import beyond_prior, inverse, prior_precision
from cloud.fusion.scores.prior import Prior
from fronthaul.payload.noise_levels import Level


class FnpeRule:
    """Fusion rule `fnpe`; see the module docstring."""

    name = "fnpe"
    needs_jacobian = False
    holds = True

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def eps(self, x: FloatArray, level: Level, answers: Answers) -> FloatArray:
        """Return ε̂ = Σ_k ε̂_k − (1 − K)(1 − t/T) s ∇log p(x) (N, D)."""
        fade = (1 - answers.stations) * (1 - level.time) * level.noise
        fused: FloatArray = answers.eps.sum(axis=0) - fade * self.prior.score(x)
        return fused

    def covariance(self, level: Level, answers: Answers) -> FloatArray:
        """Return (Σ_0⁻¹ + Σ_k (Σ_k⁻¹ − Σ_0⁻¹))⁻¹ (N, D, D), each bracket clipped as `precisions` explains."""
        return inverse(prior_precision(self.prior) + beyond_prior(answers, self.prior).sum(axis=0))


build = FnpeRule

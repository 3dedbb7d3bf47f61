"""DiffLoc's rule: the scores are summed.

    ∇log p_t(x | h_1 … h_K) = Σ_k ∇log p_t(x | h_k),   ε̂ = Σ_k ε̂_k                              DiffLoc Eq. 18, 19

Holds for clean positions (t = 0) under a flat prior. At t > 0 noising and multiplying do not commute, and each ε̂_k
contains the noised prior's score, which is thus counted K times.
"""

from __future__ import annotations

from cloud.fusion.scores.answers import Answers, FloatArray
from cloud.fusion.scores.precisions import inverse, station_precisions
from cloud.fusion.scores.prior import Prior
from fronthaul.payload.noise_levels import Level


class SumRule:
    """Fusion rule `sum`; see the module docstring."""

    name = "sum"
    needs_jacobian = False
    holds = False

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def eps(self, x: FloatArray, level: Level, answers: Answers) -> FloatArray:
        """Return ε̂ = Σ_k ε̂_k (N, D). DiffLoc Eq. 19."""
        total: FloatArray = answers.eps.sum(axis=0)
        return total

    def covariance(self, level: Level, answers: Answers) -> FloatArray:
        """Return (Σ_k Σ_k⁻¹)⁻¹ (N, D, D), with the prior counted K times, as in ε̂."""
        return inverse(station_precisions(answers, self.prior).sum(axis=0))


build = SumRule

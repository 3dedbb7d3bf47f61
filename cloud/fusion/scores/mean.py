"""The scores are averaged, which is what an ensemble of equals would do.

    ε̂ = (1/K) Σ_k ε̂_k

At t = 0 that is the geometric mean of the posteriors, normalised: as wide as one of them, however many there are.
"""

from __future__ import annotations

from cloud.fusion.scores.answers import Answers, FloatArray
from cloud.fusion.scores.precisions import inverse, station_precisions
from cloud.fusion.scores.prior import Prior
from fronthaul.payload.noise_levels import Level


class MeanRule:
    """See the module."""

    name = "mean"
    needs_jacobian = False
    holds = True

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def eps(self, x: FloatArray, level: Level, answers: Answers) -> FloatArray:
        """ε̂ = (1/K) Σ_k ε̂_k (N, D)."""
        mean: FloatArray = answers.eps.mean(axis=0)
        return mean

    def covariance(self, level: Level, answers: Answers) -> FloatArray:
        """((1/K) Σ_k Σ_k⁻¹)⁻¹ (N, D, D)."""
        return inverse(station_precisions(answers, self.prior).mean(axis=0))


build = MeanRule

"""The scores are averaged, as in an ensemble of models of equal weight.

    ε̂ = (1/K) Σ_k ε̂_k

At t = 0 this is the normalised geometric mean of the posteriors: as wide as one of them, whatever their number.
"""

from __future__ import annotations

from cloud.fusion.scores.answers import Answers, FloatArray
from cloud.fusion.scores.precisions import inverse, station_precisions
from cloud.fusion.scores.prior import Prior
from fronthaul.payload.noise_levels import Level


class MeanRule:
    """Fusion rule `mean`; see the module docstring."""

    name = "mean"
    needs_jacobian = False
    holds = True

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def eps(self, x: FloatArray, level: Level, answers: Answers) -> FloatArray:
        """Return ε̂ = (1/K) Σ_k ε̂_k (N, D)."""
        mean: FloatArray = answers.eps.mean(axis=0)
        return mean

    def covariance(self, level: Level, answers: Answers) -> FloatArray:
        """Return ((1/K) Σ_k Σ_k⁻¹)⁻¹ (N, D, D)."""
        return inverse(station_precisions(answers, self.prior).mean(axis=0))


build = MeanRule

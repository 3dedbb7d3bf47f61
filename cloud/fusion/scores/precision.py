"""Precision-weighted mean of clean positions: this project's reading of "sum of predictions" for DiffLoc-CT [R].

A consistency model outputs a clean position p̂_k, and a sum of positions has no meaning (DiffLoc Sec. IV-D). A mean
weighted by each base station's precision has one:

    p̂ = (Σ_k Σ_k⁻¹)⁻¹ Σ_k Σ_k⁻¹ p̂_k,   p̂_k = (x − s ε̂_k) / a

The weights sum to I, so the same mean of the ε̂_k is the ε̂ of p̂.
"""

from __future__ import annotations

from cloud.fusion.scores.answers import Answers, FloatArray
from cloud.fusion.scores.precisions import apply, inverse, solve, station_precisions
from cloud.fusion.scores.prior import Prior
from fronthaul.payload.noise_levels import Level


class PrecisionRule:
    """Fusion rule `precision`; see the module docstring."""

    name = "precision"
    needs_jacobian = False
    holds = True

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def eps(self, x: FloatArray, level: Level, answers: Answers) -> FloatArray:
        """Return ε̂ = (Σ_k Σ_k⁻¹)⁻¹ Σ_k Σ_k⁻¹ ε̂_k (N, D)."""
        precision = station_precisions(answers, self.prior)
        return solve(precision.sum(axis=0), apply(precision, answers.eps).sum(axis=0))

    def covariance(self, level: Level, answers: Answers) -> FloatArray:
        """Return (Σ_k Σ_k⁻¹)⁻¹ (N, D, D)."""
        return inverse(station_precisions(answers, self.prior).sum(axis=0))


build = PrecisionRule

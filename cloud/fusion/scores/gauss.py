"""GAUSS: scores weighted by the precision of the clean position given x, for Gaussian posteriors.

    Λ_k = Σ_k⁻¹ + (a²/s²) I,   Λ_0 = Σ_0⁻¹ + (a²/s²) I
    s(x) = [Σ_k Λ_k + (1 − K) Λ_0]⁻¹ [Σ_k Λ_k s_k + (1 − K) Λ_0 s_0]                             arXiv 2404.07593

with s_0 the score of the *noised* prior. Exact where prior and posteriors are Gaussian with these covariances. The
code multiplies all precisions by s²/a² = ρ², so that no term grows without bound at low noise: M = ρ² Λ.
"""

from __future__ import annotations

import numpy as np

from cloud.fusion.scores.answers import Answers, FloatArray
from cloud.fusion.scores.precisions import apply, beyond_prior, inverse, prior_precision, solve
from cloud.fusion.scores.prior import Prior
from fronthaul.payload.noise_levels import Level


class GaussRule:
    """Fusion rule `gauss`; see the module docstring."""

    name = "gauss"
    needs_jacobian = False
    holds = True

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def eps(self, x: FloatArray, level: Level, answers: Answers) -> FloatArray:
        """Return ε̂ (N, D); the total is positive definite, as negative eigenvalues of each Λ_k − Λ_0 are set to 0."""
        beyond = level.ratio**2 * beyond_prior(answers, self.prior)
        return weighted(x, level, answers, beyond, self.prior)

    def covariance(self, level: Level, answers: Answers) -> FloatArray:
        """Return (Σ_0⁻¹ + Σ_k (Σ_k⁻¹ − Σ_0⁻¹))⁻¹ (N, D, D), each bracket clipped as `precisions` explains."""
        return inverse(prior_precision(self.prior) + beyond_prior(answers, self.prior).sum(axis=0))


build = GaussRule


def weighted(x: FloatArray, level: Level, answers: Answers, beyond: FloatArray, prior: Prior) -> FloatArray:
    """Return ε̂ (N, D) from `beyond` (K, N, D, D), M_k − M_0 of each base station, positive semidefinite.

    Since Σ_k M_k + (1 − K) M_0 = M_0 + Σ_k (M_k − M_0), the total is at least M_0.
    """
    shared = np.eye(x.shape[-1]) + level.ratio**2 * prior_precision(prior)  # M_0
    eps_prior = prior.eps(x, level)
    pulls = apply(shared, answers.eps.sum(axis=0) + (1 - answers.stations) * eps_prior)
    return solve(shared + beyond.sum(axis=0), pulls + apply(beyond, answers.eps).sum(axis=0))

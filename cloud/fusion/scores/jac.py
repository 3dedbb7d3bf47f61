"""JAC: as GAUSS, with the precision of the clean position given x computed from the scores' Jacobians.

By Tweedie's formula for x = a p + s ε (second order, any a and s),

    E[p | x] = (x + s² s_k) / a = (x − s ε̂_k) / a
    Cov[p | x] = (s²/a²)(I + s² ∇s_k) = (s²/a²)(I − s ∂ε̂_k/∂x) = Λ_k⁻¹                        arXiv 2404.07593

which is the reference's Λ_k = (α/σ²)(I + σ² ∇s_k)⁻¹ for α = a², σ² = s², and also holds at a = 1. It does not require
Gaussian posteriors; only the combination, the sum of precisions minus K − 1 times the prior's, is an approximation.

As a covariance, I − s ∂ε̂/∂x is symmetric and positive, and for a log-concave posterior its eigenvalues are at most 1.
Networks guarantee none of this, so the symmetric part is taken, with eigenvalues clipped to [v/(ρ² + v), 1], where v is
the minimum accepted variance (`precisions`). That alone does not keep Σ_k Λ_k + (1 − K) Λ_0 positive at high noise:
between two modes a base station may be less certain than the prior's Gaussian. So Λ_k − Λ_0 is also clipped to be
positive semidefinite.
"""

from __future__ import annotations

import numpy as np

from cloud.fusion.scores.answers import Answers, FloatArray
from cloud.fusion.scores.gauss import weighted
from cloud.fusion.scores.precisions import bounded_variances, clipped_inverse, inverse, prior_precision, psd_part
from cloud.fusion.scores.prior import Prior
from fronthaul.payload.noise_levels import Level


class JacRule:
    """Fusion rule `jac`; see the module docstring."""

    name = "jac"
    needs_jacobian = True
    holds = True

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    def eps(self, x: FloatArray, level: Level, answers: Answers) -> FloatArray:
        """Return ε̂ (N, D).

        Raises:
            ValueError: there are no Jacobians.
        """
        return weighted(x, level, answers, self._beyond(level, answers), self.prior)

    def covariance(self, level: Level, answers: Answers) -> FloatArray:
        """Return (Λ − (a²/s²) I)⁻¹ (N, D, D) for this level's total Λ; at most the prior's covariance.

        Raises:
            ValueError: there are no Jacobians.
        """
        return inverse(prior_precision(self.prior) + self._beyond(level, answers).sum(axis=0) / level.ratio**2)

    def _beyond(self, level: Level, answers: Answers) -> FloatArray:
        """Return M_k − M_0 (K, N, D, D), M = ρ² Λ, clipped to be positive semidefinite."""
        if answers.jacobian is None:
            raise ValueError("fusion rule 'jac' needs the Jacobians of the base stations' ε̂")
        unit, square = np.eye(answers.eps.shape[-1]), level.ratio**2
        least, _ = bounded_variances(self.prior)
        own = clipped_inverse(unit - level.noise * answers.jacobian, least / (square + least), 1.0)  # M_k
        return psd_part(own - unit - square * prior_precision(self.prior))


build = JacRule

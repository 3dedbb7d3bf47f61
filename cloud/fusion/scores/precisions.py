"""Precisions of base stations' posteriors, and the information of each beyond the shared prior.

With conditionally independent channels (DiffLoc Eq. 14) the posteriors multiply, and the prior that each of them
contains must count once: for Gaussians the fused precision is

    Σ_k Σ_k⁻¹ + (1 − K) Σ_0⁻¹ = Σ_0⁻¹ + Σ_k (Σ_k⁻¹ − Σ_0⁻¹)

Each bracket is a likelihood's information, so it is positive semidefinite: a Gaussian posterior is never wider than
its prior. Estimated covariances violate this by chance, and a non-Gaussian prior violates it for single draws; such
directions count as carrying no information. The clipped sum is positive definite for any finite input.
"""

from __future__ import annotations

import numpy as np

from cloud.fusion.scores.answers import Answers, FloatArray
from cloud.fusion.scores.prior import Prior

FLOOR, CEILING = 1e-4, 10.0
"""Limits of a base station's posterior standard deviation, in units of the prior's smallest and largest one.

In a service area of 350 m these are 1 cm and 1 km. They bound precisions, so that a singular covariance, or a Jacobian
that no posterior can have, still gives a finite summand.
"""


def symmetric(matrix: FloatArray) -> FloatArray:
    """Return the symmetric part of matrices (…, D, D)."""
    return np.asarray((matrix + np.swapaxes(matrix, -1, -2)) / 2, np.float64)


def psd_part(matrix: FloatArray) -> FloatArray:
    """Return the symmetric part of matrices (…, D, D) with its negative eigenvalues set to 0."""
    value, vector = np.linalg.eigh(symmetric(matrix))
    scaled = vector * np.maximum(value, 0.0)[..., None, :]
    return symmetric(np.asarray(scaled @ np.swapaxes(vector, -1, -2), np.float64))


def clipped_inverse(matrix: FloatArray, low: float, high: float) -> FloatArray:
    """Invert the symmetric part of matrices (…, D, D), with eigenvalues clipped to low … high and low > 0."""
    value, vector = np.linalg.eigh(symmetric(matrix))
    scaled = vector / np.clip(value, low, high)[..., None, :]
    return symmetric(np.asarray(scaled @ np.swapaxes(vector, -1, -2), np.float64))


def bounded_variances(prior: Prior) -> tuple[float, float]:
    """Return the minimum and maximum variance that is accepted from a base station."""
    value = np.linalg.eigvalsh(prior.covariance)
    return FLOOR**2 * float(value[0]), CEILING**2 * float(value[-1])


def prior_precision(prior: Prior) -> FloatArray:
    """Return Σ_0⁻¹ (D, D)."""
    return np.asarray(np.linalg.inv(prior.covariance), np.float64)


def station_precisions(answers: Answers, prior: Prior) -> FloatArray:
    """Return Σ_k⁻¹ (K, N, D, D), eigenvalues of Σ_k clipped to the accepted variances."""
    return clipped_inverse(answers.covariance, *bounded_variances(prior))


def beyond_prior(answers: Answers, prior: Prior) -> FloatArray:
    """Return Σ_k⁻¹ − Σ_0⁻¹ (K, N, D, D), clipped to be positive semidefinite."""
    return psd_part(station_precisions(answers, prior) - prior_precision(prior))


def inverse(matrix: FloatArray) -> FloatArray:
    """Invert symmetric positive definite matrices (…, D, D); the result is exactly symmetric."""
    return symmetric(np.asarray(np.linalg.inv(matrix), np.float64))


def apply(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    """Multiply matrices (…, D, D) by vectors (…, D)."""
    return np.asarray(np.einsum("...ij,...j->...i", matrix, vector), np.float64)


def solve(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    """Solve linear systems with matrices (…, D, D) and right-hand sides (…, D)."""
    return np.asarray(np.linalg.solve(matrix, vector[..., None])[..., 0], np.float64)

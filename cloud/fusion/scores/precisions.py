"""Precisions of base stations' posteriors, and what each of them knows beyond the prior they share.

With conditionally independent channels (DiffLoc Eq. 14) the posteriors multiply, and the prior each of them contains is
to count once: for Gaussians the fused precision is

    Σ_k Σ_k⁻¹ + (1 − K) Σ_0⁻¹ = Σ_0⁻¹ + Σ_k (Σ_k⁻¹ − Σ_0⁻¹)

Each bracket is a likelihood's information, so it is positive semidefinite: a posterior cannot know less than the prior.
Estimated covariances break that by chance, and a prior that is not Gaussian breaks it for single draws; such directions
are counted as knowing nothing. The clipped sum is positive definite whatever came in.
"""

from __future__ import annotations

import numpy as np

from cloud.fusion.scores.answers import Answers, FloatArray
from cloud.fusion.scores.prior import Prior

FLOOR, CEILING = 1e-4, 10.0
"""Least and most deviation that a base station is believed, in units of the prior's smallest and largest.

In a service area of 350 m these are 1 cm and 1 km. They bound precisions: a covariance that came out singular, or a
Jacobian beyond what any posterior has, stays a number that others can be added to.
"""


def symmetric(matrix: FloatArray) -> FloatArray:
    """Symmetric part of matrices (…, D, D)."""
    return np.asarray((matrix + np.swapaxes(matrix, -1, -2)) / 2, np.float64)


def psd_part(matrix: FloatArray) -> FloatArray:
    """Symmetric part of matrices (…, D, D) with its negative eigenvalues set to 0."""
    value, vector = np.linalg.eigh(symmetric(matrix))
    scaled = vector * np.maximum(value, 0.0)[..., None, :]
    return symmetric(np.asarray(scaled @ np.swapaxes(vector, -1, -2), np.float64))


def clipped_inverse(matrix: FloatArray, low: float, high: float) -> FloatArray:
    """Inverse of the symmetric part of matrices (…, D, D) with eigenvalues clipped to low … high, low above 0."""
    value, vector = np.linalg.eigh(symmetric(matrix))
    scaled = vector / np.clip(value, low, high)[..., None, :]
    return symmetric(np.asarray(scaled @ np.swapaxes(vector, -1, -2), np.float64))


def believed_variances(prior: Prior) -> tuple[float, float]:
    """Return the least and the most variance that a base station is believed."""
    value = np.linalg.eigvalsh(prior.covariance)
    return FLOOR**2 * float(value[0]), CEILING**2 * float(value[-1])


def prior_precision(prior: Prior) -> FloatArray:
    """Σ_0⁻¹ (D, D)."""
    return np.asarray(np.linalg.inv(prior.covariance), np.float64)


def station_precisions(answers: Answers, prior: Prior) -> FloatArray:
    """Σ_k⁻¹ (K, N, D, D)."""
    return clipped_inverse(answers.covariance, *believed_variances(prior))


def beyond_prior(answers: Answers, prior: Prior) -> FloatArray:
    """Σ_k⁻¹ − Σ_0⁻¹ (K, N, D, D), clipped to be positive semidefinite."""
    return psd_part(station_precisions(answers, prior) - prior_precision(prior))


def inverse(matrix: FloatArray) -> FloatArray:
    """Inverse of symmetric positive definite matrices (…, D, D), symmetric again."""
    return symmetric(np.asarray(np.linalg.inv(matrix), np.float64))


def apply(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    """Matrices (…, D, D) times vectors (…, D)."""
    return np.asarray(np.einsum("...ij,...j->...i", matrix, vector), np.float64)


def solve(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    """Solve matrices (…, D, D) for vectors (…, D)."""
    return np.asarray(np.linalg.solve(matrix, vector[..., None])[..., 0], np.float64)

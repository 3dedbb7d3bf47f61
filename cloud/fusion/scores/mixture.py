"""Gaussian mixtures and their exact product: the joint posterior of K base stations, each of which sent its own.

    Π_k p(x | h_k) / p(x)^(K−1),   p(x | h_k) = Σ_c w_kc N(x; m_kc, S_kc)

A product of Gaussians is one, so the product of mixtures is a mixture with one component for each choice of one
component per factor. Under a uniform prior there is no division; a single Gaussian may be given as prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from cloud.fusion.scores.answers import FloatArray
from cloud.fusion.scores.precisions import apply, inverse, psd_part, solve

MOST_COMPONENTS = 20_000
"""Limit above which the lightest components are dropped after each factor; the 3⁹ of nine base stations still fit."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """Mixture of C Gaussians.

    Attributes:
        weight: (C,), not negative; read as proportions, whatever they sum to.
        mean: (C, D).
        covariance: (C, D, D), symmetric positive definite.

    Raises:
        ValueError: shapes do not match, weights are negative or all 0, a number is not finite, or a covariance is not
            positive definite.
    """

    weight: FloatArray
    mean: FloatArray
    covariance: FloatArray

    def __post_init__(self) -> None:
        count, size = self.mean.shape if self.mean.ndim == 2 else (0, 0)
        if not count or self.weight.shape != (count,) or self.covariance.shape != (count, size, size):
            raise ValueError(
                "a mixture needs weights (C,), means (C, D) and covariances (C, D, D), not "
                f"{self.weight.shape}, {self.mean.shape} and {self.covariance.shape}"
            )
        if not all(np.isfinite(part).all() for part in (self.weight, self.mean, self.covariance)):
            raise ValueError("a mixture must be finite")
        if (self.weight < 0).any() or not self.weight.sum() > 0:
            raise ValueError("weights of a mixture must not be negative, nor all of them 0")
        if not np.linalg.eigvalsh(self.covariance).min() > 0:
            raise ValueError("covariances of a mixture must be positive definite")

    @property
    def log_weight(self) -> FloatArray:
        """Logarithms (C,) of the weights, normalised; −∞ for a weight of 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.weight / self.weight.sum()), np.float64)

    def moments(self) -> tuple[FloatArray, FloatArray]:
        """Return mean (D,) and covariance (D, D)."""
        weight = self.weight / self.weight.sum()
        mean = weight @ self.mean
        apart = self.mean - mean
        return mean, np.einsum("c,cij->ij", weight, self.covariance) + np.einsum("c,ci,cj->ij", weight, apart, apart)


def product(mixtures: Sequence[Mixture], prior_mixture: Mixture | None = None) -> Mixture:
    """Return the normalised product of K ≥ 1 mixtures, divided by the prior to the power of K − 1.

    All components are kept up to `MOST_COMPONENTS`; beyond, the lightest are dropped after each factor. Weights are
    carried as logarithms, so factors that hardly overlap do not vanish.

    Args:
        mixtures: the factors, each containing the prior.
        prior_mixture: None for a uniform prior. Otherwise it has one component, since with more the quotient is not a
            mixture. Components wider than the prior are clipped to its width (see `precisions`).

    Raises:
        ValueError: there are no mixtures, their dimensions differ, or the prior has several components.
    """
    if not mixtures:
        raise ValueError("a product of mixtures needs at least one")
    if prior_mixture is not None and len(prior_mixture.weight) != 1:
        raise ValueError(f"a prior to divide by must be one Gaussian, not {len(prior_mixture.weight)}")
    size = mixtures[0].mean.shape[1]
    over = _Terms.flat(size) if prior_mixture is None else _Terms.of(prior_mixture, _Terms.flat(size))
    total = _Terms.of(mixtures[0], over).lightened()
    for mixture in mixtures[1:]:
        if mixture.mean.shape[1] != size:
            raise ValueError(f"mixtures of {size} and of {mixture.mean.shape[1]} dimensions have no product")
        total = total.times(_Terms.of(mixture, over), over).lightened()
    return Mixture(np.exp(total.log_weight), total.mean, inverse(total.precision))


@dataclass(frozen=True, slots=True)
class _Terms:
    """C Gaussians by precision (C, D, D), its log determinant (C,), mean (C, D) and log weight (C,)."""

    log_weight: FloatArray
    mean: FloatArray
    precision: FloatArray
    log_det: FloatArray

    @classmethod
    def flat(cls, size: int) -> _Terms:
        """Return a constant factor, the divisor under a uniform prior."""
        return cls(np.zeros(1), np.zeros((1, size)), np.zeros((1, size, size)), np.zeros(1))

    @classmethod
    def of(cls, mixture: Mixture, over: _Terms) -> _Terms:
        """Return the components of nonzero weight, none wider than the divisor `over`."""
        counts = mixture.weight > 0
        precision = over.precision + psd_part(inverse(mixture.covariance[counts]) - over.precision)
        return cls(mixture.log_weight[counts], mixture.mean[counts], precision, np.linalg.slogdet(precision)[1])

    def times(self, other: _Terms, over: _Terms) -> _Terms:
        """Return all pairwise products with the components of `other`, divided by that of `over`.

        With P = P_a + P_b − P_o and m its mean, the product has the mass

            log w = log w_a + log w_b + ½ log(|P_a| |P_b| / |P_o| / |P|) − ½ (q_a + q_b − q_o)

        with q_i = (m_i − m)ᵀ P_i (m_i − m).
        """
        size = self.mean.shape[1]
        precision = self.precision[:, None] + other.precision - over.precision
        pull = apply(self.precision, self.mean)[:, None] + apply(other.precision, other.mean)
        mean = solve(precision, pull - apply(over.precision, over.mean))
        log_det = np.linalg.slogdet(precision)[1]
        squares = _square(self.precision[:, None], self.mean[:, None] - mean)
        squares = squares + _square(other.precision, other.mean - mean) - _square(over.precision, over.mean - mean)
        spread = self.log_det[:, None] + other.log_det - over.log_det - log_det
        weight = self.log_weight[:, None] + other.log_weight + (spread - squares) / 2
        return _Terms(
            weight.reshape(-1), mean.reshape(-1, size), precision.reshape(-1, size, size), log_det.reshape(-1)
        )

    def lightened(self) -> _Terms:
        """Return the heaviest components, at most `MOST_COMPONENTS`, with weights that sum to 1."""
        kept = np.arange(len(self.log_weight))
        if len(kept) > MOST_COMPONENTS:
            kept = np.sort(np.argsort(-self.log_weight, kind="stable")[:MOST_COMPONENTS])
        weight = self.log_weight[kept]
        return _Terms(
            np.asarray(weight - logsumexp(weight), np.float64),
            self.mean[kept],
            self.precision[kept],
            self.log_det[kept],
        )


def _square(matrix: FloatArray, vector: FloatArray) -> FloatArray:
    """Return vᵀ M v (…)."""
    return np.asarray(np.einsum("...i,...i->...", vector, apply(matrix, vector)), np.float64)

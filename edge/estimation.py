"""LMMSE channel estimation from uplink pilots with a measured spatial covariance. ECC Eq. 2-4.

Notation: Y = √P H∘s + N per tone, pilots |s| = 1 known, noise variance σ² per antenna, P transmit power.
With R the spatial covariance of the channel (antennas × antennas) at that tone,

    Ĥ = R (R + (σ²/P) I)^{-1} · (matched filter  s* Y / √P)          ECC Eq. 4
"""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor


class Estimator(Protocol):
    """Interface of a channel estimator."""

    def estimate(self, received: Tensor) -> Tensor:
        """Estimate Ĥ (…, slot, antenna, tone) from received pilots of the same shape [√W]."""


class LeastSquaresEstimator:
    """Matched filter alone, for pilots without noise: LMMSE then changes nothing, and R need not be known."""

    def __init__(self, power_w: float, pilots: Tensor) -> None:
        """Prepare the filter for transmit power P per tone [W] and pilots s (tone,) complex64 of unit modulus."""
        self._matched = (pilots.conj() / power_w**0.5).to(torch.complex64)

    def estimate(self, received: Tensor) -> Tensor:
        """Estimate Ĥ (…, slot, antenna, tone) from received pilots of the same shape [√W]. ECC Eq. 2."""
        estimate: Tensor = received * self._matched
        return estimate


class LmmseEstimator:
    """Per-tone LMMSE filter with a fixed covariance."""

    def __init__(self, covariance: Tensor, noise_w: float, power_w: float, pilots: Tensor) -> None:
        """Prepare the filters.

        Args:
            covariance: R (tone, antenna, antenna) complex64, averaged over many training positions.
            noise_w: noise power σ² per antenna and tone [W].
            power_w: transmit power P per tone [W].
            pilots: s (tone,) complex64 of unit modulus.
        """
        loaded = covariance.to(torch.complex128)
        identity = torch.eye(covariance.shape[-1], dtype=torch.complex128)
        # R and (R + cI)^{-1} commute, so solving from the left gives the same filter.
        weights = torch.linalg.solve(loaded + noise_w / power_w * identity, loaded)
        self._weights = weights.to(torch.complex64)
        self._matched = (pilots.conj() / power_w**0.5).to(torch.complex64)

    def to(self, device: torch.device) -> Self:
        """Move the filters to `device`; return the estimator itself."""
        self._weights, self._matched = self._weights.to(device), self._matched.to(device)
        return self

    def estimate(self, received: Tensor) -> Tensor:
        """Estimate Ĥ (…, slot, antenna, tone) from received pilots of the same shape [√W]."""
        matched = (received * self._matched).movedim(-1, -3)  # (…, tone, slot, antenna)
        estimate: Tensor = (matched @ self._weights.transpose(-1, -2)).movedim(-3, -1)
        return estimate


def spatial_covariance(response: Tensor) -> Tensor:
    """Return R (tone, antenna, antenna), averaged over positions and slots of H (N, slot, antenna, tone)."""
    stacked = response.movedim(-1, 0).flatten(1, 2)  # (tone, N·slot, antenna)
    return stacked.transpose(-1, -2) @ stacked.conj() / stacked.shape[1]

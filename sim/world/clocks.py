"""Synchronisation errors of base stations: Gaussian, or truncated as in 3GPP's evaluations (TR 38.855)."""

from __future__ import annotations

import torch
from torch import Tensor

from sim.world.scenario import ClockErrors


def site_errors_ns(clock: ClockErrors, normal: Tensor) -> Tensor:
    """Return clock errors of sites [ns] from `normal`, independent standard normal draws of the same shape.

    With a limit each draw is mapped by the inverse CDF method to a Gaussian truncated to ± `bs_limit_sigmas`, so that
    each error takes exactly one draw; without a limit draws are only scaled.
    """
    if clock.bs_limit_sigmas:
        normal = truncated(normal, clock.bs_limit_sigmas)
    return normal * clock.bs_sigma_ns


def truncated(normal: Tensor, limit: float) -> Tensor:
    """Map standard normal draws to draws of the standard normal truncated to ± `limit`."""
    outside = torch.special.ndtr(torch.tensor(-limit, dtype=torch.float64))
    tail = torch.special.ndtr(-normal.double().abs())  # in the lower tail, where probabilities keep their precision
    size = torch.special.ndtri(outside + tail * (1 - 2 * outside)).abs().clamp_max(limit)
    return torch.copysign(size, normal.double()).to(normal.dtype)

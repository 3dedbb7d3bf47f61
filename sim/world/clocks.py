"""Synchronisation errors of base stations: Gaussian, or truncated as in 3GPP's evaluations (TR 38.855)."""

from __future__ import annotations

import torch
from torch import Tensor

from sim.world.scenario import ClockErrors


def site_errors_ns(clock: ClockErrors, normal: Tensor) -> Tensor:
    """Errors of sites' clocks [ns], of the shape of `normal`, independent standard normal draws.

    A limit maps the draws through their distribution to that of a Gaussian truncated to ± `bs_limit_sigmas`: one
    draw stays one draw, and no limit leaves the draws as they are.
    """
    if clock.bs_limit_sigmas:
        normal = truncated(normal, clock.bs_limit_sigmas)
    return normal * clock.bs_sigma_ns


def truncated(normal: Tensor, limit: float) -> Tensor:
    """Standard normal draws as draws of the standard normal truncated to ± `limit`."""
    outside = torch.special.ndtr(torch.tensor(-limit, dtype=torch.float64))
    tail = torch.special.ndtr(-normal.double().abs())  # in the lower tail, where probabilities keep their digits
    size = torch.special.ndtri(outside + tail * (1 - 2 * outside)).abs().clamp_max(limit)
    return torch.copysign(size, normal.double()).to(normal.dtype)

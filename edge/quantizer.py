"""The midrise quantiser with straight-through gradient, for training. ECC Eq. 19 and 35.

The reference implementation is `fronthaul.codec.codebook.MidriseCodebook`; a test checks that both agree.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fronthaul.codec.codebook import gaussian_step


class _StraightThrough(torch.autograd.Function):
    """Forward: quantise. Backward: identity inside the clip range, zero outside [R]."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor, step: Tensor, bits: int) -> Tensor:
        half = 2 ** (bits - 1)
        level = torch.floor(latent / step)
        ctx.save_for_backward((level >= -half) & (level < half))
        return step * (level.clamp(-half, half - 1) + 0.5)  # ECC Eq. 19

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None  # ECC Eq. 35


def quantise_straight_through(latent: Tensor, step: Tensor, bits: int) -> Tensor:
    """Return the reconstruction ẑ of `latent` (…, L) with steps Δ that broadcast against it; differentiable."""
    quantised: Tensor = _StraightThrough.apply(latent, step, bits)  # type: ignore[no-untyped-call]
    return quantised


class _MixedStraightThrough(torch.autograd.Function):
    """As `_StraightThrough`, with a width for each number; without bits the result and its gradient are zero."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor, step: Tensor, widths: Tensor) -> Tensor:
        half = 2.0 ** (widths - 1)
        level = torch.floor(numbers / step)
        sent = widths > 0
        ctx.save_for_backward((level >= -half) & (level < half) & sent)
        return step * (level.clamp(-half, half - 1) + 0.5) * sent  # ECC Eq. 19

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None  # ECC Eq. 35


def quantise_mixed_straight_through(numbers: Tensor, widths: Tensor) -> Tensor:
    """Return the reconstruction of numbers (…) of unit variance at `widths` (…) of 0 to 8 bits each; differentiable."""
    table = torch.tensor([1.0, *(gaussian_step(width) for width in range(1, 9))], device=numbers.device)
    step, bits = table[widths], widths.float()
    quantised: Tensor = _MixedStraightThrough.apply(numbers, step, bits)  # type: ignore[no-untyped-call]
    return quantised

"""Channel taps, which a front end may output instead of tones. DiffLoc Eq. 2-3.

Notation: F tones H[f], f = 0 … F−1, Δ apart and symmetric around the carrier; N-point IFFT; L first taps:

    h[l] = 1/√N Σ_f H[f] e^{j2π (f − F/2) l/N},   l = 0 … L−1

A path of delay τ is a Dirichlet kernel there, so that neither tones nor an IFFT are needed (with u = l/N − τΔ):

    h[l] = e^{−jπ l/N} sin(πFu) / (√N sin(πu))
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sim.world.scenario import Numerology


def dirichlet_taps(delay_s: Tensor, numerology: Numerology) -> Tensor:
    """Return the taps h (…, L) complex64 of paths with unit gain and delays (…,) [s]."""
    count, size = numerology.tones, numerology.ifft
    tap = torch.arange(numerology.taps, dtype=torch.float64, device=delay_s.device) / size
    # Double precision: F·u reaches hundreds, and a kernel's flank is a small difference of phases.
    u = math.pi * (tap - delay_s.double()[..., None] * numerology.tone_spacing_hz)
    below = torch.sin(u)
    # Where a delay matches a tap to within 1e-9, the ratio is its limit (of either sign where u/π is an odd integer).
    hit = below.abs() < 1e-9
    ratio = torch.where(hit, count * torch.cos(count * u) / torch.cos(u), torch.sin(count * u) / below)
    turn = torch.polar(torch.full_like(tap, size**-0.5), -math.pi * tap)
    return (ratio * turn).to(torch.complex64)


def tones_to_taps(numerology: Numerology) -> Tensor:
    """Return the factor (F, L) complex64 by which tones (…, F) become taps (…, L): that of the IFFT above."""
    tone = torch.arange(numerology.tones, dtype=torch.float64) - numerology.tones / 2
    tap = torch.arange(numerology.taps, dtype=torch.float64) / numerology.ifft
    scale = torch.full((len(tone), len(tap)), numerology.ifft**-0.5, dtype=torch.float64)
    return torch.polar(scale, 2 * math.pi * torch.outer(tone, tap)).to(torch.complex64)


def white_to_taps(numerology: Numerology) -> Tensor:
    """Return the factor S (L, L) complex64: for white draws w (L,), S w has the covariance S Sᴴ of white noise's taps.

    Noise of variance 1 on F of the IFFT's N bins has the covariance C[l, m] = 1/N Σ_f e^{j2π (f − F/2)(l − m)/N}
    over taps, nearly singular where N > F. S is its Hermitian square root: unlike other factors, unique.
    """
    return torch.from_numpy(_square_root(numerology.tones, numerology.ifft, numerology.taps))


@functools.cache
def _square_root(tones: int, ifft: int, taps: int) -> npt.NDArray[np.complex64]:
    from scipy.linalg import toeplitz

    phase = 2j * np.pi / ifft * (np.arange(tones) - tones / 2)
    column = np.exp(np.outer(np.arange(taps), phase)).sum(1) / ifft
    values, vectors = np.linalg.eigh(toeplitz(column))
    root: npt.NDArray[np.complex64] = (vectors * np.sqrt(values.clip(0))) @ vectors.conj().T
    return root.astype(np.complex64)

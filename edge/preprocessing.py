"""Gain, normalisation, phase stabilisation and stacking of the estimated channel. ECC Eq. 7-15.

Notation: Ĥ (…, slot, antenna, tone) complex64; T slots, M antennas, F tones.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Phase = Literal["none", "slot", "tone"]
"""Phase stabilisation: ``tone`` is the paper's (one rotation for each slot and tone; it removes the delay ramp that
all antennas share); ``slot`` rotates each slot by one phase, taken at the middle tone, and keeps the ramp; ``none``."""

PHASES: tuple[str, ...] = get_args(Phase)

_GAIN_FLOOR = 1e-12  # ε of Eq. 8; link amplitudes are 1e-3 … 1e-7
_REFERENCE_FLOOR = 1e-6  # δ of Eq. 10, relative to a snapshot of unit norm


def channel_gain(channel: Tensor) -> Tensor:
    """Return the Frobenius norm g (…) over slots, antennas and tones. ECC Eq. 7."""
    parts = torch.view_as_real(channel.flatten(-3))
    return parts.square().flatten(-2).sum(-1).sqrt()


def normalise(channel: Tensor, gain: Tensor) -> Tensor:
    """Return Ĥ / (g + ε). ECC Eq. 8."""
    # Torch divides by a complex number in this way too, but in eight times the time.
    return channel * (1 / (gain[..., None, None, None] + _GAIN_FLOOR))


def phase_stabilise(channel: Tensor, phase: Phase = "tone") -> Tensor:
    """Remove phases common to all antennas, relative to the strongest antenna. ECC Eq. 9-11.

    The reference antenna has the most energy over the snapshot (ties: smallest index). Entries whose reference is
    below δ are unchanged. Relative phases across antennas are preserved (Eq. 12).
    """
    if phase == "none":
        return channel
    squares = torch.view_as_real(channel).square()
    energy = (squares[..., 0] + squares[..., 1]).sum((-3, -1))  # (…, antenna)
    strongest = energy.argmax(-1)  # first maximum: smallest index  # ECC Eq. 9
    middle = channel.shape[-1] // 2
    tones = channel[..., middle : middle + 1] if phase == "slot" else channel
    index = strongest[..., None, None, None].expand(*tones.shape[:-2], 1, tones.shape[-1])
    reference = tones.gather(-2, index)  # (…, slot, 1, tone)
    modulus = reference.abs()
    rotation = torch.where(modulus < _REFERENCE_FLOOR, 1.0, reference.conj() / modulus.clamp_min(1e-30))  # ECC Eq. 10
    return channel * rotation  # ECC Eq. 11


def stack(channel: Tensor) -> Tensor:
    """Return real input X (…, 2, tone, slot·antenna) with channels (real, imaginary), slots outer. ECC Eq. 13-15.

    Scaled by √(T·M·F), so that a normalised snapshot has unit mean square per complex entry.
    """
    flat = channel.movedim(-1, -3).flatten(-2)  # (…, tone, slot·antenna), in memory too after LMMSE estimation
    scale = float(flat.shape[-1] * flat.shape[-2]) ** 0.5
    stacked: Tensor = (torch.view_as_real(flat) * scale).movedim(-1, -3)
    return stacked


def preprocess(channel: Tensor, phase: Phase) -> tuple[Tensor, Tensor]:
    """Return the encoder input X (…, 2, tone, slot·antenna) float32 and the gain g (…). ECC Eq. 7-15."""
    gain = channel_gain(channel)
    return stack(phase_stabilise(normalise(channel, gain), phase)), gain

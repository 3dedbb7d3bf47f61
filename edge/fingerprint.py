"""Channel fingerprints: delay taps, then magnitudes and wrapped phases. DiffLoc Eq. 2-4."""

from __future__ import annotations

import torch
from torch import Tensor


def delay_taps(channel: Tensor, ifft: int, taps: int) -> Tensor:
    """Return the first taps (…, taps) of the unitary `ifft`-point IFFT of F centred tones (…, F). DiffLoc Eq. 2-3.

    Tone f is subcarrier f − F/2 of the grid, so that tone F/2 is the carrier.
    """
    tones = channel.shape[-1]
    grid = channel.new_zeros(*channel.shape[:-1], ifft)
    below = tones // 2
    grid[..., : tones - below] = channel[..., below:]
    grid[..., ifft - below :] = channel[..., :below]
    taken: Tensor = torch.fft.ifft(grid, norm="ortho")[..., :taps]
    return taken


def fingerprint(taps: Tensor) -> Tensor:
    """Return fingerprints (B, 2·pairs·taps) float32 of delay taps (B, slot, pair, tap) complex64. DiffLoc Eq. 4.

    All magnitudes come first, then all wrapped phases [rad]; both have pairs as the outer index. Only slot 0 is used.
    The phase of a tap that is exactly zero is zero.
    """
    flat = taps[:, 0].flatten(1)
    return torch.cat([flat.abs(), flat.angle()], 1)


def beam_levels(taps: Tensor, polarizations: int, columns: int, rows: int, ports: int) -> Tensor:
    """Return log-levels (B, beams·taps) [log10 of an amplitude] of delay taps (B, slot, pair, tap), slot 0.

    A two-dimensional DFT over each polarisation's array turns antennas into beams; levels more
    than 80 dB below the snapshot's strongest are raised to that floor. Not in the paper: it keeps the array's angular
    information and drops phases.
    """
    b, _, _, length = taps.shape
    grid = taps[:, 0].reshape(b, polarizations, columns, rows, ports, length)
    level = torch.fft.fft2(grid, dim=(2, 3)).abs().flatten(1)
    floor = (level.amax(1, keepdim=True) * 1e-4).clamp_min(1e-20)
    return torch.maximum(level, floor).log10()

"""Angle-delay channel power matrix (ADCPM) at a base station, sent as float32. A baseline of ECC (Sec. IV-E, [38]).

With H_t (M, F) the channel of slot t, V the unitary two-dimensional DFT over the array's columns and rows, and U the
unitary inverse DFT over the tones,

    P[m, d] = 1/T Σ_t |(V H_t U)[m, d]|²,     Σ_{m,d} P[m, d] = g² / T   with the gain g of ECC Eq. 7

A report holds these M·F powers as they are, for [38] says nothing of quantising them: 32 bit each, 3072 bit for 4
antennas and 24 tones, as many as those of ECC at B = 4. The gain is in the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge.scheme import EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec
from fronthaul.payload.floats import FloatPayload


def angle_delay_power(channel: Tensor, rows: int, columns: int) -> Tensor:
    """Return P (…, antenna, tone), float32, of channels (…, slot, antenna, tone); antennas are column by column."""
    grid = channel.unflatten(-2, (columns, rows))
    spectrum = torch.fft.ifft(torch.fft.fft2(grid, dim=(-3, -2), norm="ortho"), dim=-1, norm="ortho")
    power: Tensor = (spectrum.real.square() + spectrum.imag.square()).mean(-4)
    return power.flatten(-3, -2)


def make(setup: EdgeSetup) -> EdgeScheme:
    """Make the scheme.

    Raises:
        ValueError: `setup.payload` asks for quantised numbers.
    """
    if setup.payload.bits is not None:
        raise ValueError("it sends powers as float32: --bits is lossless")
    return AdcpmEdge(setup)


class AdcpmEdge:
    """Computes angle-delay power maps."""

    name = "adcpm"

    def __init__(self, setup: EdgeSetup) -> None:
        config = setup.config
        self._rows, self._columns = int(config["rows"]), int(config["columns"])
        self._payload = FloatPayload(self._rows * self._columns * int(config["tones"]))
        self.format = self._payload.format

    @torch.inference_mode()
    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone) as power maps."""
        power = angle_delay_power(channel, self._rows, self._columns).flatten(1).float().numpy()
        return Encoded([self._payload.encode(one) for one in power])


build = EdgeBuilder(SchemeSpec(options={}, resolution="lossless"), make)

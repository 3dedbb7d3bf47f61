"""`ecc-klt` and `ecc-rd` at the base station: ECC's latent and gain in as many bits as the user says.

Both transform and quantise alike (`fronthaul.payload.rate`). `ecc-klt` has the networks of `ecc` as they are, and a
transform fitted to them; the networks and the transform of `ecc-rd` were trained together, through the quantiser.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from edge.ecc import load_encoder
from edge.preprocessing import preprocess
from edge.scheme import Chosen, EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec, emptied
from fronthaul.payload.rate import DEFAULT_BITS, Float32, Transform, rate_payload


class LatentEdge:
    """Encoder and transform of one base station; a user who is not heard is reported by an empty payload."""

    def __init__(self, name: str, setup: EdgeSetup) -> None:
        self.name = name
        self._phase = setup.config["phase"]
        self._encoder = load_encoder(setup)
        self._device = torch.device(setup.device)
        named = setup.tensors.items()
        self._own = {k.removeprefix("rate."): v.float().numpy() for k, v in named if k.startswith("rate.")}
        self._transform = Transform(self._own)

    @torch.inference_mode()
    def numbers(self, channel: Tensor) -> tuple[Float32, Float32]:
        """Return gains (B,) [dB] and numbers y (B, 1 + L) of Ĥ (B, slot, antenna, tone)."""
        x, gain = preprocess(channel, self._phase)
        latent = self._encoder(x.to(self._device)).cpu().numpy()
        gain_db = 20 * np.log10(np.maximum(gain.float().numpy(), np.float32(1e-12)))
        return gain_db, self._transform.analyse(gain_db, latent)

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Empty the payloads of snapshots in which the user is not heard."""
        return emptied(encoded, heard)


class RateEdge(LatentEdge):
    """Quantises all numbers in as many bits as the user says."""

    def __init__(self, name: str, setup: EdgeSetup) -> None:
        super().__init__(name, setup)
        self._payload = rate_payload(self._own, setup.options)
        self.format = self._payload.format

    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone)."""
        return Encoded([self._payload.encode(y) for y in self.numbers(channel)[1]])


def _builder(name: str) -> EdgeBuilder:
    def make(setup: EdgeSetup) -> EdgeScheme:
        return RateEdge(name, setup)

    def chosen(setup: EdgeSetup) -> Chosen:
        return Chosen(name, {"bits_per_report": DEFAULT_BITS, "entropy": 0, **setup.options})

    options = {"bits_per_report": int, "entropy": int}
    return EdgeBuilder(SchemeSpec(options=options, resolution="own", chosen=chosen), make)


build_klt, build_rd = _builder("ecc-klt"), _builder("ecc-rd")

"""ECC at the base station: preprocessing, residual SegNet encoder, midrise quantiser. ECC Sec. II-C, III-A.

A report carries L = tones × 32 indices of B bits in tone order (Eq. 17) and, as side information, the gain g as
float32 (Eq. 7). Without an encoder it carries the preprocessed channel itself: as complex64 ("lossless", the paper's
reference, the 64 bits a complex entry of Eq. 37), or in fewer bits as 16-bit IQ or O-RAN block floating point, as
`EdgeSetup.payload` says. The side information stays the gain. It also fixes the scale of fixed point numbers: the
preprocessed channel has a known norm, to which the cloud brings them back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge.encoder import SegNetEncoder
from edge.preprocessing import preprocess
from edge.scheme import EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec
from fronthaul.codec.codebook import MidriseCodebook
from fronthaul.codec.iq import iq_codec
from fronthaul.payload.choice import PayloadChoice

SIDE_BYTES = 4


def make(setup: EdgeSetup) -> EdgeScheme:
    """Make base station `setup.bs`'s encoder, or what forwards the channel, as `setup.payload` says.

    Raises:
        ValueError: the weights were trained with an encoder and none is asked for, or the other way round.
    """
    payload, trained = setup.payload, PayloadChoice(setup.config["bits"])
    if (payload.forwarded is None) != (trained.forwarded is None):
        raise ValueError(f"they were trained {'with' if trained.forwarded is None else 'without'} an encoder")
    if payload.bits is None:
        return ForwardingEdge(setup.config, payload.forward)
    return EccEdge(setup, payload.bits)


build = EdgeBuilder(SchemeSpec(forwards=True), make)


class EccEdge:
    """Encoder and B-bit quantiser of one base station."""

    name = "ecc"
    side_bytes = SIDE_BYTES

    def __init__(self, setup: EdgeSetup, bits: int) -> None:
        shape = setup.config["encoder"]
        self.bits = bits
        self.coefficients = int(shape["tones"] * shape["coefficients"])
        self._phase = setup.config["phase"]
        self._encoder = SegNetEncoder(**shape)
        prefix = "encoder."
        own = {k.removeprefix(prefix): v.float() for k, v in setup.tensors.items() if k.startswith(prefix)}
        self._encoder.load_state_dict(own)
        self._device = torch.device(setup.device)
        self._encoder.eval().to(self._device)
        step = setup.tensors[f"step.{bits}"].float().numpy()
        self.codebook = MidriseCodebook(np.tile(step, shape["tones"]), bits)

    @torch.inference_mode()
    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone) into indices (B, L) and gains."""
        x, gain = preprocess(channel, self._phase)
        latent = self._encoder(x.to(self._device)).flatten(1).cpu().numpy()  # ECC Eq. 17
        return Encoded(self.codebook.index(latent), side_of_gain(gain))


class ForwardingEdge:
    """The preprocessed channel itself, in the words of an IQ codec."""

    name = "ecc"
    side_bytes = SIDE_BYTES

    def __init__(self, config: Any, forward: str = "complex64") -> None:
        self._codec = iq_codec(forward, config["slots"] * config["antennas"], config["tones"])
        self.bits = self._codec.bits
        self.coefficients = self._codec.words
        self._phase = config["phase"]

    @torch.inference_mode()
    def encode(self, channel: Tensor) -> Encoded:
        """Send X (B, 2, tone, slot·antenna), a row for each slot and antenna."""
        x, gain = preprocess(channel, self._phase)
        csi = torch.view_as_complex(x.permute(0, 3, 2, 1).contiguous())  # (B, slot·antenna, tone)
        words, _ = self._codec.encode(csi.numpy())  # the gain stands in for the scale: X has a known norm
        return Encoded(words.astype(np.uint32), side_of_gain(gain))


def side_of_gain(gain: Tensor) -> list[bytes]:
    """The gains (B,) as big-endian float32, one byte string a snapshot."""
    wire = gain.float().numpy().astype(">f4").tobytes()
    return [wire[start : start + SIDE_BYTES] for start in range(0, len(wire), SIDE_BYTES)]

"""ECC at the base station: preprocessing, residual SegNet encoder, midrise quantiser. ECC Sec. II-C, III-A.

A report carries L = tones × 32 indices of B bits in tone order (Eq. 17) and, as side information, the gain g (Eq. 7).
Without an encoder it carries the preprocessed channel itself: as complex64 ("lossless", the paper's reference, 64 bits
per complex entry as in Eq. 37), or in fewer bits as 16-bit IQ or O-RAN block floating point; `EdgeSetup.payload`
selects the format. The codecs of both are in `fronthaul.payload.ecc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from edge.encoder import SegNetEncoder
from edge.preprocessing import preprocess
from edge.scheme import EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec
from fronthaul.payload.choice import PayloadChoice
from fronthaul.payload.ecc import ChannelPayload, LatentPayload, unheard


def make(setup: EdgeSetup) -> EdgeScheme:
    """Make the encoder of base station `setup.bs`, or the forwarding scheme, as `setup.payload` selects.

    Raises:
        ValueError: the weights were trained with an encoder and `setup.payload` selects none, or vice versa.
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

    def __init__(self, setup: EdgeSetup, bits: int) -> None:
        self._phase = setup.config["phase"]
        self._encoder, self._device = load_encoder(setup), torch.device(setup.device)
        step = setup.tensors[f"step.{bits}"].float().numpy()
        self.payload = LatentPayload(step, int(setup.config["encoder"]["tones"]), bits)
        self.format = self.payload.format

    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone) into latents (B, L) and gains."""
        return self.encode_together([self], [channel])[0]

    @torch.inference_mode()
    def encode_together(self, schemes: Sequence[EccEdge], channels: Sequence[Tensor]) -> list[Encoded]:
        """Encode the channels of several base stations, each by its own encoder and quantiser."""
        prepared = [preprocess(channel, scheme._phase) for scheme, channel in zip(schemes, channels, strict=True)]
        latents = [scheme._encoder(x.to(scheme._device)) for scheme, (x, _) in zip(schemes, prepared, strict=True)]
        return [
            _encoded(scheme.payload, latent.flatten(1).cpu().numpy(), gain)  # ECC Eq. 17
            for scheme, latent, (_, gain) in zip(schemes, latents, prepared, strict=True)
        ]

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Mark reports on users that are not heard."""
        return _marked(encoded, heard)


class ForwardingEdge:
    """Sends the preprocessed channel itself, coded by an IQ codec; `name` is the scheme's."""

    def __init__(self, config: Any, forward: str = "complex64", name: str = "ecc") -> None:
        self.name = name
        self.payload = ChannelPayload(forward, config["slots"] * config["antennas"], config["tones"])
        self.format = self.payload.format
        self._phase = config["phase"]

    @torch.inference_mode()
    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone) as the preprocessed X, one row for each slot and antenna, and gains."""
        x, gain = preprocess(channel, self._phase)
        csi = torch.view_as_complex(x.permute(0, 3, 2, 1).contiguous())  # (B, slot·antenna, tone)
        return _encoded(self.payload, csi.numpy(), gain)

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Mark reports on users that are not heard."""
        return _marked(encoded, heard)


def load_encoder(setup: EdgeSetup) -> SegNetEncoder:
    """Return a base station's encoder, ready to run on its device."""
    encoder = SegNetEncoder(**setup.config["encoder"])
    prefix = "encoder."
    own = {k.removeprefix(prefix): v.float() for k, v in setup.tensors.items() if k.startswith(prefix)}
    encoder.load_state_dict(own)
    return encoder.eval().to(torch.device(setup.device))


def _encoded(codec: LatentPayload | ChannelPayload, numbers: npt.NDArray[Any], gain: Tensor) -> Encoded:
    """Encode the numbers (B, …) of each snapshot, with gains (B,) as side information."""
    return Encoded(*codec.encode(numbers, gain.float().tolist()))


def _marked(encoded: Encoded, heard: Sequence[bool]) -> Encoded:
    sides = zip(encoded.side, heard, strict=True)
    return replace(encoded, side=[side if is_heard else unheard(side) for side, is_heard in sides])

"""Payloads of `ecc`: quantised latents, or the channel itself, with a gain as side information.

    latent    L = tones × coefficients indices of B bits, in tone order                                 ECC Eq. 17, 19
    channel   the preprocessed channel in the words of an IQ codec (`fronthaul.codec.iq`)               ECC Eq. 37
    side      the gain g as float32                                                                     ECC Eq. 7
              negative if the base station does not hear the user, and g is that of noise

Fixed-point numbers need no scale beside the gain: the preprocessed channel has a known norm (Eq. 8).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fronthaul.codec.bitstream import pack, pack_rows, unpack, unpack_rows
from fronthaul.codec.codebook import MidriseCodebook
from fronthaul.codec.iq import Csi, iq_codec, of_norm
from fronthaul.message.messages import Payload, PayloadFormat

Float32 = npt.NDArray[np.float32]

_GAIN = struct.Struct(">f")
SIDE_BYTES = _GAIN.size


class LatentPayload:
    """Payload of the latents of one base station.

    Attributes:
        format: format of every report.
        codebook: quantiser of a report's L numbers.
    """

    def __init__(self, step: Float32, tones: int, bits: int) -> None:
        """Set the quantiser steps (coefficients,), the same for each of `tones`, and B."""
        self.codebook = MidriseCodebook(np.tile(step, tones), bits)
        self.format = PayloadFormat.uniform(bits, tones * len(step), SIDE_BYTES)
        self._bits, self._tones = bits, tones

    def encode(self, latent: Float32, gain: Sequence[float]) -> tuple[list[Payload], list[bytes]]:
        """Return payloads and side information of the latents (B, L) and gains (B,) of B reports."""
        return pack_rows(self.codebook.index(latent), self._bits), [_GAIN.pack(one) for one in gain]

    def decode(self, payloads: Sequence[Payload], sides: Sequence[bytes]) -> tuple[Float32, list[float]]:
        """Return latents (B, tones, coefficients) and gains (B,) of B reports.

        Raises:
            RemoteError: a payload of another size.
        """
        count = self.format.max_bits // self._bits
        latent = self.codebook.reconstruct(unpack_rows(payloads, self._bits, count))
        return latent.reshape(len(payloads), self._tones, -1), [_gain(side) for side in sides]


class ChannelPayload:
    """Payload of the forwarded, preprocessed channel.

    Attributes:
        format: format of every report.
    """

    def __init__(self, forward: str, rows: int, tones: int) -> None:
        """Set up for channels of `rows` (slots × antennas) and `tones`, encoded by codec `forward`.

        Raises:
            LocalError: there is no such codec.
        """
        self._codec = iq_codec(forward, rows, tones)
        self.format = PayloadFormat.uniform(self._codec.bits, self._codec.words, SIDE_BYTES)

    def encode(self, csi: Csi, gain: Sequence[float]) -> tuple[list[Payload], list[bytes]]:
        """Return payloads and side information of the channels (B, rows, tones) and gains (B,) of B reports.

        The codec's scale is not sent.
        """
        words = [self._codec.encode(one)[0] for one in csi]
        return [pack(one, self._codec.bits) for one in words], [_GAIN.pack(one) for one in gain]

    def decode(self, payloads: Sequence[Payload], sides: Sequence[bytes]) -> tuple[Float32, list[float]]:
        """Return channels (B, tones, 2 rows), real and imaginary parts in turn, and gains (B,) of B reports.

        Raises:
            RemoteError: a payload of another size, or words that no encoder produces.
        """
        return np.stack([self._channel(payload) for payload in payloads]), [_gain(side) for side in sides]

    def _channel(self, payload: Payload) -> Float32:
        csi = self._codec.decode(unpack(payload, self._codec.bits, self._codec.words))
        if self._codec.scaled:  # back to the norm that preprocessing gave it  # ECC Eq. 8
            csi = of_norm(csi, math.sqrt(csi.size))
        return np.ascontiguousarray(csi.T).view(np.float32)


def unheard(side: bytes) -> bytes:
    """Return side information that says that the base station does not hear the user."""
    return _GAIN.pack(-_gain(side))


def is_heard(side: bytes) -> bool:
    """Return whether the base station hears the user."""
    return not side[0] & 0x80  # the sign


def _gain(side: bytes) -> float:
    gain: float = _GAIN.unpack(side)[0]
    return abs(gain)

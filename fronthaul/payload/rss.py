"""Payload of `rss`: one gain [dB] in B bits, on the interval seen in training; beside it, whether the user is heard."""

from __future__ import annotations

import numpy as np

from fronthaul.codec.bitstream import pack, unpack
from fronthaul.codec.codebook import UniformCodebook
from fronthaul.message.messages import Payload, PayloadFormat
from fronthaul.payload.hearing import HEARD

LOSSLESS_BITS = 16
"""Bits that stand in for lossless: steps below 0.002 dB."""


class RssPayload:
    """Payload of a gain.

    Attributes:
        format: format of every report.
    """

    def __init__(self, low_db: float, high_db: float, bits: int | None) -> None:
        """Quantise on `low_db`..`high_db` in `bits`; None uses the finest resolution."""
        self._bits = bits or LOSSLESS_BITS
        self._codebook = UniformCodebook(low_db, high_db, self._bits)
        self.format = PayloadFormat.uniform(self._bits, 1, len(HEARD))

    def encode(self, gain_db: float) -> Payload:
        """Return the payload of a gain [dB]."""
        return pack(self._codebook.index(np.array([gain_db], np.float32)), self._bits)

    def decode(self, payload: Payload) -> float:
        """Return the gain [dB] of a payload.

        Raises:
            RemoteError: a payload of another size.
        """
        return float(self._codebook.reconstruct(unpack(payload, self._bits, 1))[0])

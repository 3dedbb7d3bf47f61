"""Payload of `rss`: one gain [dB] in B bits, on the interval seen in training; beside it, whether the user is heard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fronthaul.codec.bitstream import pack_rows, unpack_rows
from fronthaul.codec.codebook import UniformCodebook
from fronthaul.message.messages import Payload, PayloadFormat
from fronthaul.payload.hearing import HEARD

LOSSLESS_BITS = 16
"""Bits that stand in for lossless: steps below 0.002 dB."""


class RssPayload:
    """Payloads of gains.

    Attributes:
        format: format of every report.
    """

    def __init__(self, low_db: float, high_db: float, bits: int | None) -> None:
        """Quantise on `low_db`..`high_db` in `bits`; None uses the finest resolution."""
        self._bits = bits or LOSSLESS_BITS
        self._codebook = UniformCodebook(low_db, high_db, self._bits)
        self.format = PayloadFormat.uniform(self._bits, 1, len(HEARD))

    def encode(self, gain_db: npt.NDArray[np.float32]) -> list[Payload]:
        """Return the payloads of gains (B,) [dB]."""
        return pack_rows(self._codebook.index(gain_db)[:, None], self._bits)

    def decode(self, payloads: Sequence[Payload]) -> list[float]:
        """Return the gains (B,) [dB] of payloads.

        Raises:
            RemoteError: a payload of another size.
        """
        gain_db: list[float] = self._codebook.reconstruct(unpack_rows(payloads, self._bits, 1)[:, 0]).tolist()
        return gain_db

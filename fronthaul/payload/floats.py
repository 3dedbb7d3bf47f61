"""Payload of a few numbers as they are: float32 words, most significant bit first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fronthaul.codec.bitstream import pack, unpack
from fronthaul.message.messages import Payload, PayloadFormat

Float32 = npt.NDArray[np.float32]
WORD_BITS = 32


class FloatPayload:
    """Payload of `count` numbers.

    Attributes:
        format: format of every report.
    """

    def __init__(self, count: int) -> None:
        self.format = PayloadFormat.uniform(WORD_BITS, count)
        self._count = count

    def encode(self, values: Float32) -> Payload:
        """Return the payload of values (count,)."""
        return pack(np.ascontiguousarray(values, np.float32).view(np.uint32), WORD_BITS)

    def decode(self, payload: Payload) -> Float32:
        """Return the values (count,) of a payload, whatever they are: not a number and infinity included.

        Raises:
            RemoteError: a payload of another size.
        """
        return unpack(payload, WORD_BITS, self._count).view(np.float32)

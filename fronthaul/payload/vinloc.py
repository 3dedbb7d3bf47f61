"""Payload of `vinloc`: 256 values in B bits each, and whether the user is heard.

Values lie in (−1, 1), so the step is 2 / 2^B; lossless values are float32 words. The side information is one byte:
1, or 0 (with all indices zero) if the base station does not hear the user.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fronthaul.codec.bitstream import pack, unpack
from fronthaul.codec.codebook import MidriseCodebook
from fronthaul.message.messages import Payload, PayloadFormat
from fronthaul.payload.hearing import HEARD, UNHEARD

VALUES = 256
"""Count of numbers that a base station sends per snapshot."""
LOSSLESS_BITS = 32

Values = npt.NDArray[np.float32]


class VinLocPayload:
    """Payload of the values of one base station.

    Attributes:
        format: format of every report.
    """

    def __init__(self, bits: int | None) -> None:
        """Quantise each value in `bits`; None sends float32 words."""
        self._bits = bits or LOSSLESS_BITS
        self._codebook = None if bits is None else MidriseCodebook(2.0 / 2**bits, bits)
        self.format = PayloadFormat.uniform(self._bits, VALUES, 1)

    def encode(self, values: Values | None) -> tuple[Payload, bytes]:
        """Return payload and side information of values (256,), which are None if the user is not heard."""
        if values is None:
            return pack(np.zeros(VALUES, np.uint32), self._bits), UNHEARD
        index = values.view(np.uint32) if self._codebook is None else self._codebook.index(values)
        return pack(index, self._bits), HEARD

    def decode(self, payload: Payload, side: bytes) -> Values | None:
        """Return the values (256,) of a report, or None if the user is not heard; float32 values are not range-checked.

        Raises:
            RemoteError: a payload of another size.
        """
        if side == UNHEARD:
            return None
        index = unpack(payload, self._bits, VALUES)
        return index.view(np.float32) if self._codebook is None else self._codebook.reconstruct(index)

"""Payloads of a batch, taken apart again."""

import numpy as np
import numpy.typing as npt

from edge.scheme import Encoded
from fronthaul.codec.bitstream import unpack


def indices(encoded: Encoded, bits: int) -> npt.NDArray[np.uint32]:
    """Indices (B, L) of `bits` each of a batch's payloads."""
    return np.stack([unpack(payload, bits, payload.bits // bits) for payload in encoded.payloads])

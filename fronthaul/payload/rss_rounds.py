"""Payloads of `rss-rounds`: an estimate down, residual and slope up.

state     an estimate x in the service area: three coordinates of 16 bits each
answer    a residual in standard deviations, clipped to ±2, and its slope over distance [1/m], on a log scale: B bits
          each
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fronthaul.codec.bitstream import pack, unpack
from fronthaul.codec.codebook import UniformCodebook
from fronthaul.message.messages import Payload, PayloadFormat
from fronthaul.payload.hearing import HEARD

COORDINATE_BITS = 16
RESIDUAL = 2.0
SLOPE_PER_M = (1e-3, 1.0)
LOSSLESS_BITS = 16

NOTHING = Payload(b"", 0)
"""The empty payload of a report of round 0."""


class StatePayload:
    """Coder for an estimate (3,) [m]."""

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        """Quantise within the service area [m]."""
        self._axes = [UniformCodebook(*ends, COORDINATE_BITS) for ends in zip(low, high, strict=True)]

    def encode(self, estimate: npt.NDArray[np.float64]) -> Payload:
        """Return the payload of an estimate (3,) [m]."""
        index = [axis.index(np.array(x, np.float32)) for axis, x in zip(self._axes, estimate, strict=True)]
        return pack(np.array(index, np.uint32), COORDINATE_BITS)

    def decode(self, payload: Payload) -> npt.NDArray[np.float64]:
        """Return the estimate (3,) [m] of a payload.

        Raises:
            RemoteError: a payload of another size.
        """
        index = unpack(payload, COORDINATE_BITS, len(self._axes))
        return np.array([axis.reconstruct(i) for axis, i in zip(self._axes, index, strict=True)], float)


class AnswerPayload:
    """Payload of residual and slope of one base station.

    Attributes:
        report_format: format of a report of round 0: a byte that says whether the user is heard.
        format: format of every answer.
    """

    def __init__(self, bits: int | None) -> None:
        """Quantise each number in `bits`; None uses the finest resolution."""
        self._bits = bits or LOSSLESS_BITS
        self._residual = UniformCodebook(-RESIDUAL, RESIDUAL, self._bits)
        self._log_slope = UniformCodebook(math.log(SLOPE_PER_M[0]), math.log(SLOPE_PER_M[1]), self._bits)
        self.report_format = PayloadFormat.uniform(self._bits, 0, len(HEARD))
        self.format = PayloadFormat.uniform(self._bits, 2)

    def encode(self, residual: float, slope_per_m: float) -> Payload:
        """Return the payload of an answer; slopes below the smallest, also negative ones, are sent as the smallest."""
        log_slope = math.log(max(slope_per_m, SLOPE_PER_M[0]))
        found = zip((self._residual, self._log_slope), (residual, log_slope), strict=True)
        return pack(np.array([book.index(np.array(value, np.float32)) for book, value in found], np.uint32), self._bits)

    def decode(self, payload: Payload) -> tuple[float, float]:
        """Return residual [standard deviations] and slope [1/m] of an answer.

        Raises:
            RemoteError: a payload of another size.
        """
        index = unpack(payload, self._bits, 2)
        return float(self._residual.reconstruct(index[0])), math.exp(float(self._log_slope.reconstruct(index[1])))

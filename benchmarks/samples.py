"""A report as it crosses the fronthaul, made without networks: what it says does not change what it costs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fronthaul.bitstream import pack
from fronthaul.messages import Frame, Report, ReportKey

STATIONS = 6
COEFFICIENTS = 768
BITS = 4
SIDE = np.float32(1e-5).astype(">f4").tobytes()


def indices(bits: int) -> npt.NDArray[np.uint32]:
    """Uniform indices of `bits` each (COEFFICIENTS,)."""
    return np.random.default_rng(1).integers(0, 1 << bits, COEFFICIENTS, dtype=np.uint32)


def frame(bits: int = BITS) -> Frame:
    """One report in its frame."""
    return Frame(3, Report(ReportKey(bs=5, epoch=0, snapshot=1000), pack(indices(bits), bits), SIDE))

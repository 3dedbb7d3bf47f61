"""Reports for the fronthaul benchmarks, made without networks: their cost does not depend on their values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fronthaul.codec.bitstream import pack
from fronthaul.message.messages import Frame, Report, ReportKey

STATIONS = 6
COEFFICIENTS = 768
BITS = 4
SIDE = np.float32(1e-5).astype(">f4").tobytes()


def indices(bits: int) -> npt.NDArray[np.uint32]:
    """Draw uniform indices of `bits` each (COEFFICIENTS,)."""
    return np.random.default_rng(1).integers(0, 1 << bits, COEFFICIENTS, dtype=np.uint32)


def reports(count: int, *, bs: int = 5, first: int = 1000, bits: int = BITS) -> list[Report]:
    """Return reports of one base station on `count` consecutive snapshots."""
    payload = pack(indices(bits), bits)
    return [Report(ReportKey(bs=bs, epoch=0, snapshot=first + n), payload, SIDE) for n in range(count)]


def frame(count: int = 1) -> Frame:
    """Return `count` reports in one frame."""
    return Frame(3, tuple(reports(count)))

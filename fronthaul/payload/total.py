"""Payload of `ecc-total`: that of `ecc-klt`, in lengths by which all base stations together keep one budget.

Of K base stations, k finds its class c among C = 2^w by its gain; a training snapshot is in each class equally often.
m, s are mean and deviation of the numbers y (`fronthaul.payload.rate`) within a class; numbers beyond the first few,
and all of them if C = 1, keep 0 and 1.

    report   c in w bits, then (y - m_kc) / s_kc in n_kc bits, shared out by the worths worth_i s_kci²
    n_kc     how often (k, c) is among the first C (N - K w) entries of `order`

`order` lists which class of which base station gets each bit of the budget: always that in which the bit lowers the
expected square of the position error most (`sim.learn.ecc.allocation`). A bit of a class costs 1/C bit on average, so
that lengths have the sum N exactly, averaged over the classes. The cloud reads c, and with it all that it has to know:
nothing is sent down, and nobody has to know another base station's gain. With C = 1, each base station has one length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fronthaul.codec.bitstream import with_prefix, without_prefix
from fronthaul.message.messages import Payload, PayloadFormat
from fronthaul.payload.rate import CELLS, Float32, RatePayload, is_coded

CLASSES = (1, 8)
"""C without and with lengths that follow the gain."""
DEFAULT_BITS = 64
"""Budget without `--total-bits`, for each base station [bit]."""
SHORTEST_BITS, LONGEST_BITS = 8, 128
"""Least and largest budget, for each base station [bit]."""
OPTIONS = {"total_bits": int, "classes": int, "entropy": int}


class TotalPayload:
    """Payload of the numbers y of one base station.

    Attributes:
        lengths: n_kc of its classes (C,), without the bits of c [bit].
        format: format of every report.
    """

    def __init__(
        self,
        tensors: Mapping[str, npt.NDArray[Any]],
        lengths: npt.NDArray[np.intp],
        longest: int,
        *,
        coded: bool = False,
    ) -> None:
        """Prepare all classes.

        Args:
            tensors: `worth` (1 + L,), and of C > 1 classes `gain_classes` (C - 1,), the gains [dB] between them, and
                `class_mean`, `class_deviation` (C, n) of the first n numbers.
            lengths: of the classes (C,) [bit].
            longest: length of any base station's longest class [bit]: all have one format.
            coded: whether payloads are entropy-coded, with the table of a Gaussian.
        """
        worth, count = tensors["worth"].astype(np.float64), len(lengths)
        self.lengths, self._width = lengths, class_bits(count)
        self._borders = tensors["gain_classes"] if count > 1 else np.zeros(0)
        self._mean = np.zeros((count, len(worth)), np.float32)
        self._deviation = np.ones_like(self._mean)
        if count > 1:
            known = tensors["class_mean"].shape[1]
            self._mean[:, :known], self._deviation[:, :known] = tensors["class_mean"], tensors["class_deviation"]
        counts = np.zeros((0, CELLS), np.uint8) if coded else None
        self._parts = [
            RatePayload(worth * own.astype(np.float64) ** 2, int(bits), counts, least=0)
            for own, bits in zip(self._deviation, lengths, strict=True)
        ]
        self.format = PayloadFormat(self._width + longest, fixed=False)

    def encode(self, gain_db: float, y: Float32) -> Payload:
        """Return the payload of numbers (1 + L,) at a gain [dB]."""
        c = int(np.searchsorted(self._borders, gain_db))
        return with_prefix(self._parts[c].encode((y - self._mean[c]) / self._deviation[c]), c, self._width)

    def decode(self, payload: Payload) -> Float32:
        """Return ŷ (1 + L,) of a payload.

        Raises:
            RemoteError: a payload that `encode` does not make.
        """
        c, rest = without_prefix(payload, self._width)
        found: Float32 = self._parts[c].decode(rest) * self._deviation[c] + self._mean[c]
        return found


def class_bits(classes: int) -> int:
    """Return w, the bits that name one of 2^w classes."""
    return classes.bit_length() - 1


def shared_lengths(order: npt.NDArray[np.integer[Any]], stations: int, classes: int, bits: int) -> npt.NDArray[np.intp]:
    """Return the lengths n (K, C) [bit] of all classes within a budget of `bits` for all base stations.

    Args:
        order: k C + c of the class that gets the next bit.
        stations: K.
        classes: C.
        bits: N.

    Raises:
        ValueError: there is no such budget.
    """
    named = stations * class_bits(classes)
    least, most = SHORTEST_BITS * stations, named + len(order) // classes
    if not least <= bits <= most:
        raise ValueError(f"{stations} base stations together have {least} to {most} bits, not {bits}")
    given = order[: classes * (bits - named)]
    return np.bincount(given, minlength=stations * classes).reshape(stations, classes)


def total_payload(
    bs: int, stations: int, tensors: Mapping[str, npt.NDArray[Any]], options: Mapping[str, str | int]
) -> TotalPayload:
    """Return the payload of a base station, given its tensors and a run's options.

    Raises:
        ValueError: an option has no such value.
    """
    chosen = total_options(stations, options)
    classes = chosen["classes"]
    if classes not in CLASSES:
        raise ValueError(f"a base station has {' or '.join(map(str, CLASSES))} classes, not {classes}")
    lengths = shared_lengths(tensors[f"order_{classes}"].astype(np.intp), stations, classes, chosen["total_bits"])
    return TotalPayload(tensors, lengths[bs], int(lengths.max()), coded=is_coded(options))


def total_options(stations: int, options: Mapping[str, str | int]) -> dict[str, int]:
    """Return the options of a run, all with their values."""
    default = {"total_bits": DEFAULT_BITS * stations, "classes": CLASSES[-1], "entropy": 0}
    return default | {name: int(value) for name, value in options.items()}

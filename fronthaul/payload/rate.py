"""Payload of `ecc-klt` and `ecc-rd`: latent and gain in exactly N bits, by a transform and quantisers of mixed widths.

Notation: z latent (F, C) of tones and coefficients, L = F·C; γ gain [dB]; B reports.

    t = (γ − γ̄, (Uᵀ (z − z̄))_g Q_g for every tone mode g, in the order of `order`) / scale        (1 + L,)
    y = A t for the first M numbers of t, the others unchanged                                    unit variance
    ŷ = midrise quantiser of n_i bits for y_i, Δ the best of a unit Gaussian; 0 where n_i = 0      ECC Eq. 19
    n  reverse water-filling: each bit goes where it lowers Σ_i worth_i · E(y_i − ŷ_i)² most

U (F, F) decorrelates the tones, Q_g (C, C) the coefficients of a mode, A (M, M) what is left between the numbers that
matter most: for the numbers that get bits in short reports this is as good as a whole transform of L × L, at a
fourteenth of its size. Bits are nested: a longer report refines a shorter one's.

A report carries the indices in the order of y, without those of 0 bits, each in n_i bits, or with entropy coding in one
arithmetic code of them all (`fronthaul.codec.interval`), where that is shorter: a payload of N bits is not coded. Each
number's table of symbols follows, in integers, from how often training snapshots fell into 16 cells of y_i, or from a
unit Gaussian. A base station that does not hear the user sends an empty payload.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fronthaul.codec import interval
from fronthaul.codec.bitstream import pack_mixed, unpack_mixed
from fronthaul.codec.codebook import MidriseCodebook, gaussian_step
from fronthaul.errors import RemoteError
from fronthaul.message.messages import Payload, PayloadFormat

Float32 = npt.NDArray[np.float32]

DEFAULT_BITS = 64
"""Length of a report without `--bits-per-report` [bit]."""
SHORTEST_BITS, LONGEST_BITS = 16, 4096
MOST_BITS = 8
"""Maximum width of an index."""
QUANTISER_ERROR = (1.0, 0.3634, 0.1188, 0.03744, 0.01154, 0.003495, 0.001041, 3.035e-4, 8.714e-5)
"""Mean squared error of a unit Gaussian under a uniform quantiser of 0 to 8 bits (Max, 1960)."""
CELLS = 16
"""Cells in which y_i is counted: those of the quantiser of 4 bits."""
_STEPS = (6536, 4078, 2400, 1373, 771, 426, 233, 126)  # Δ of 1 to 8 bits [1/4096]
_END = 6 * 4096  # of the outermost cells
_GAUSSIAN = (69, 79, 111, 146, 183, 216, 241, 255, 255, 241, 216, 183, 146, 111, 79, 69)


class Transform:
    """Transform of one base station, in both directions."""

    def __init__(self, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take `centre` (1 + L,), `scale` (1 + L,), `order` (L,), `tones` (F, F), `modes` (F·C, C), `mixing` (M, M).

        `unmixing` (M, M) undoes `mixing`; by default it is its inverse.
        """
        self._centre, self._scale = (tensors[name].astype(np.float32) for name in ("centre", "scale"))
        self._order = tensors["order"].astype(np.intp)
        self._tones = tensors["tones"].astype(np.float32)
        modes = tensors["modes"].astype(np.float32)
        self._modes = modes.reshape(len(self._tones), -1, modes.shape[-1])
        self._mixing = tensors["mixing"].astype(np.float32)
        # Inverses, not transposes: stored in few bits, the matrices are not quite orthogonal.
        self._tones_back, self._modes_back = _inverse(self._tones), _inverse(self._modes)
        undone = tensors.get("unmixing")
        self._unmixing = _inverse(self._mixing) if undone is None else undone.astype(np.float32)

    def analyse(self, gain_db: Float32, latent: Float32) -> Float32:
        """Return y (B, 1 + L) of gains (B,) [dB] and latents (B, F, C)."""
        whole = np.column_stack([gain_db, latent.reshape(len(latent), -1)]) - self._centre
        z = whole[:, 1:].reshape(latent.shape)
        apart = np.matmul(np.matmul(self._tones.T, z).transpose(1, 0, 2), self._modes)  # (F, B, C)
        whole[:, 1:] = apart.transpose(1, 0, 2).reshape(len(z), -1)[:, self._order]
        y = whole / self._scale
        m = len(self._mixing)
        y[:, :m] = y[:, :m] @ self._mixing.T
        return y.astype(np.float32)

    def synthesise(self, y: Float32) -> tuple[Float32, Float32]:
        """Return gains (B,) [dB] and latents (B, F, C) of y (B, 1 + L)."""
        m = len(self._unmixing)
        whole = np.concatenate([y[:, :m] @ self._unmixing.T, y[:, m:]], 1) * self._scale
        apart = np.empty_like(whole[:, 1:])
        apart[:, self._order] = whole[:, 1:]
        z = np.matmul(apart.reshape(len(y), *self._modes.shape[:2]).transpose(1, 0, 2), self._modes_back)
        z = np.matmul(self._tones_back.T, z.transpose(1, 0, 2)) + self._centre[1:].reshape(1, *self._modes.shape[:2])
        return whole[:, 0] + self._centre[0], z.astype(np.float32)


class RatePayload:
    """Payload of the numbers y of one base station.

    Attributes:
        widths: of each number (1 + L,) [bit].
        format: format of every report.
    """

    def __init__(
        self,
        worth: npt.NDArray[np.floating[Any]],
        bits: int,
        counts: npt.NDArray[np.uint8] | None = None,
        least: int = SHORTEST_BITS,
    ) -> None:
        """Share `bits` out among numbers of unit variance, of which an error costs `worth` (1 + L,) times its square.

        `counts` (n, `CELLS`) are square roots of how often the first n numbers fell into each cell, up to a factor; of
        the others, a Gaussian's. With them, even if n = 0, payloads are entropy-coded. There are no reports of fewer
        than `least` bits.

        Raises:
            ValueError: there are no reports of this length.
        """
        most = min(LONGEST_BITS, MOST_BITS * int(np.count_nonzero(worth)))
        if not least <= bits <= most:
            raise ValueError(f"a report has {least} to {most} bits, not {bits}")
        self.widths = shared_out(worth, bits)
        self.format = PayloadFormat(bits, fixed=False)
        self._books = [
            (np.flatnonzero(self.widths == width), MidriseCodebook(gaussian_step(width), width))
            for width in range(1, MOST_BITS + 1)
        ]
        self._sent = np.flatnonzero(self.widths)
        self._tables: list[interval.Table] | None = None
        if counts is not None and len(self._sent):
            rows = [counts[i] if i < len(counts) else np.array(_GAUSSIAN) for i in self._sent.tolist()]
            self._tables = [symbols(row, width) for row, width in zip(rows, self.widths[self._sent], strict=True)]

    def encode(self, y: Float32) -> Payload:
        """Return the payload of numbers (1 + L,)."""
        index = np.zeros(len(y), np.uint32)
        for own, book in self._books:
            index[own] = book.index(y[own])
        return self._packed(index)

    def _packed(self, index: npt.NDArray[np.uint32]) -> Payload:
        if self._tables is not None:
            coded = interval.encode(index[self._sent].tolist(), self._tables)
            if coded.bits < self.format.max_bits:
                return coded
        return pack_mixed(index, self.widths)

    def decode(self, payload: Payload) -> Float32:
        """Return ŷ (1 + L,) of a payload.

        Raises:
            RemoteError: a payload that `encode` does not make.
        """
        if self._tables is None or payload.bits == self.format.max_bits:
            index = unpack_mixed(payload, self.widths)
        else:
            index = np.zeros(len(self.widths), np.uint32)
            index[self._sent] = interval.decode(payload, self._tables)
        if self._packed(index) != payload:
            raise RemoteError("field", "the report has a shorter code")
        y = np.zeros(len(index), np.float32)
        for own, book in self._books:
            y[own] = book.reconstruct(index[own])
        return y


def rate_payload(tensors: Mapping[str, npt.NDArray[Any]], options: Mapping[str, str | int]) -> RatePayload:
    """Return the payload of a base station, given its tensors and a run's options.

    Raises:
        ValueError: there are no reports of this length, or an option is neither on nor off.
    """
    counts = tensors.get("counts", np.zeros((0, CELLS))).astype(np.uint8) if is_coded(options) else None
    return RatePayload(tensors["worth"], int(options.get("bits_per_report", DEFAULT_BITS)), counts)


def is_coded(options: Mapping[str, str | int]) -> bool:
    """Return whether a run's payloads are entropy-coded.

    Raises:
        ValueError: the option is neither on nor off.
    """
    entropy = int(options.get("entropy", 0))
    if entropy not in (0, 1):
        raise ValueError(f"the option entropy is 0 or 1, not {entropy}")
    return bool(entropy)


def shared_out(worth: npt.NDArray[np.floating[Any]], bits: int) -> npt.NDArray[np.intp]:
    """Return the widths (n,) of numbers of unit variance, of which an error costs `worth` (n,) times its square."""
    widths = np.zeros(len(worth), np.intp)
    value = worth.astype(np.float64).tolist()
    heap = [(-one * (QUANTISER_ERROR[0] - QUANTISER_ERROR[1]), place) for place, one in enumerate(value)]
    heapq.heapify(heap)
    for _ in range(bits):
        _, place = heap[0]
        widths[place] = width = widths[place] + 1
        if width == MOST_BITS:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (-value[place] * (QUANTISER_ERROR[width] - QUANTISER_ERROR[width + 1]), place))
    return widths


def cell_counts(y: Float32) -> npt.NDArray[np.uint8]:
    """Return the square roots of how often numbers (N, n) fall into each cell, and once more; the largest is 255."""
    index = MidriseCodebook(gaussian_step(4), 4).index(y)
    found = np.stack([1 + np.bincount(column, minlength=CELLS) for column in index.T])
    roots: npt.NDArray[np.uint8] = np.round(255 * np.sqrt(found / found.max(1, keepdims=True))).astype(np.uint8)
    return roots


def symbols(roots: npt.NDArray[np.integer[Any]], width: int) -> interval.Table:
    """Return the table of a quantiser of `width` bits for a number.

    Of the number, square roots of counts (`CELLS`,) are known; within a cell all values are equally likely.
    """
    counts = [int(root) ** 2 + 2 for root in roots.tolist()]  # 2: what was not seen may still come
    edges = [-_END, *(k * _STEPS[3] for k in range(1 - CELLS // 2, CELLS // 2)), _END]

    def below(value: int) -> int:
        cell = bisect_right(edges, value) - 1
        share = (counts[cell] * (value - edges[cell]) << 16) // (edges[cell + 1] - edges[cell])
        return (sum(counts[:cell]) << 16) + share

    half = 1 << (width - 1)
    borders = [0, *(below(k * _STEPS[width - 1]) for k in range(1 - half, half)), sum(counts) << 16]
    return interval.table(np.diff(np.array(borders)))


def _inverse(matrix: Float32) -> Float32:
    found: Float32 = np.linalg.inv(matrix.astype(np.float64)).astype(np.float32)
    return found

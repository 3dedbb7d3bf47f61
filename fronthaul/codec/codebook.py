"""Scalar quantisers between values and indices: the reference that every other implementation is tested against.

Notation: z value, B = `bits`, Delta = `step`, k signed cell number, z^ reconstruction point. The *index* that
is sent is k in offset binary, an unsigned integer in 0 .. 2^B - 1 that grows with z.

All arithmetic is IEEE float32, rounded once per operation, so that torch agrees bit for bit. That needs the
step as a tensor on the values' own device and not as a Python number: torch on CUDA divides by a scalar by
multiplying with its reciprocal, which rounds differently.
"""

import functools
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fronthaul.errors import LocalError

Float32 = NDArray[np.float32]
UInt32 = NDArray[np.uint32]

_TINY = np.finfo(np.float32).tiny  # below it a step is subnormal, which some devices flush to zero


class MidriseCodebook:
    """Uniform midrise quantiser, symmetric about zero (ECC Eq. 19).

    Attributes:
        step: Delta, float32, shape () or one that broadcasts against the values' last axis.
        bits: B, 1..8 [bit].
    """

    def __init__(self, step: ArrayLike, bits: int) -> None:
        """Set Delta and B.

        Raises:
            LocalError: `bits` outside 1..8, or a step that is not positive or does not fit float32.
        """
        self.bits = _checked_bits(bits, 8)
        self.levels = 1 << bits
        with np.errstate(over="ignore"):  # an infinite step is caught below
            self.step: Float32 = np.array(step, dtype=np.float32)
            outermost = self.step * np.float32(self.levels / 2)
        if self.step.ndim > 1:
            raise LocalError(f"the step is a number or a vector, not of shape {self.step.shape}")
        if not (np.all(self.step >= _TINY) and np.all(np.isfinite(outermost))):
            raise LocalError(f"every step must be positive and a normal float32, got {step!r}")
        self.step.flags.writeable = False

    def index(self, z: Float32) -> UInt32:
        """Return the index of each value; values beyond the outermost cells are clipped into them.

        Args:
            z: float32, shape (..., L).

        Returns:
            uint32, same shape, in 0 .. 2^B - 1.

        Raises:
            LocalError: `z` is not float32 (rounding it here could flip an index), or holds NaN.
        """
        _require_float32(z)
        with np.errstate(over="ignore", under="ignore"):  # +-inf is clipped like any large value
            k = np.floor(z / self.step) + np.float32(self.levels // 2)  # ECC Eq. 19
        index: UInt32 = np.clip(k, 0, self.levels - 1).astype(np.uint32)
        return index

    def reconstruct(self, index: UInt32) -> Float32:
        """Return the reconstruction point z^ = Delta (k + 1/2) of each index (ECC Eq. 19).

        Args:
            index: unsigned integers, shape (..., L).

        Returns:
            float32, same shape.

        Raises:
            LocalError: an index that is not an unsigned integer below 2^B.
        """
        _require_index(index, self.levels)
        centre = index.astype(np.float32) + np.float32(0.5 - self.levels / 2)  # k + 1/2, exact
        return np.asarray(self.step * centre, dtype=np.float32)


class _Cells:
    """An interval cut into cells of equal width, each reconstructed at its middle.

    Attributes:
        low: lower end of the interval, in the values' unit.
        high: upper end of the interval, in the values' unit.
        levels: number of cells.
    """

    def __init__(self, low: float, high: float, levels: int) -> None:
        self.levels = levels
        self.low, self.high = float(low), float(high)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise LocalError(f"the interval must be finite and not empty, got {low} .. {high}")
        with np.errstate(over="ignore", under="ignore"):  # caught by the check that follows
            self._low = np.float32(self.low)
            self._width = np.float32((self.high - self.low) / self.levels)
        every_index = np.arange(self.levels, dtype=np.uint32)
        with np.errstate(all="ignore"):
            points = _Cells.reconstruct(self, every_index)
            distinct = np.all(np.isfinite(points)) and self._width >= _TINY
        if not (distinct and np.array_equal(_Cells.index(self, points), every_index)):
            raise LocalError(f"{levels} cells on {low} .. {high} are too narrow or too wide for float32")

    def index(self, z: Float32) -> UInt32:
        """Return the index of each value; values outside the interval are clipped into its end cells.

        Args:
            z: float32, any shape.

        Returns:
            uint32, same shape, below `levels`.

        Raises:
            LocalError: `z` is not float32, or holds NaN.
        """
        _require_float32(z)
        with np.errstate(over="ignore", under="ignore"):
            cell = np.clip(np.floor((z - self._low) / self._width), 0, self.levels - 1)
        index: UInt32 = cell.astype(np.uint32)
        return index

    def reconstruct(self, index: UInt32) -> Float32:
        """Return the middle of each index's cell.

        Args:
            index: unsigned integers, any shape.

        Returns:
            float32, same shape.

        Raises:
            LocalError: an index that is not an unsigned integer below `levels`.
        """
        _require_index(index, self.levels)
        centre = index.astype(np.float32) + np.float32(0.5)
        return np.asarray(self._low + self._width * centre, dtype=np.float32)


class UniformCodebook(_Cells):
    """Uniform quantiser of an interval in 2^B cells, for scalars such as a gain in dB.

    Attributes:
        bits: B, 1..16 [bit].
    """

    def __init__(self, low: float, high: float, bits: int) -> None:
        """Set the interval and B.

        Raises:
            LocalError: `bits` outside 1..16, an empty or infinite interval, or cells too narrow for float32.
        """
        self.bits = _checked_bits(bits, 16)
        super().__init__(low, high, 1 << bits)


class OptionalCodebook(_Cells):
    """Uniform quantiser of an interval in 2^B − 1 cells, whose last index stands for a missing value.

    NaN and infinities get the index 2^B − 1, which is reconstructed as NaN.

    Attributes:
        bits: B, 2..16 [bit].
    """

    def __init__(self, low: float, high: float, bits: int) -> None:
        """Set the interval and B.

        Raises:
            LocalError: `bits` outside 2..16, an empty or infinite interval, or cells too narrow for float32.
        """
        self.bits = _checked_bits(bits, 16)
        if bits < 2:
            raise LocalError("bits must be an int in 2..16: one index marks a missing value")
        super().__init__(low, high, (1 << bits) - 1)

    def index(self, z: Float32) -> UInt32:
        """Return the index of each value, `levels` if it is not finite; see `_Cells.index`."""
        finite = np.isfinite(z)
        cell = super().index(np.where(finite, z, np.float32(0)).astype(z.dtype))
        return np.where(finite, cell, np.uint32(self.levels))

    def reconstruct(self, index: UInt32) -> Float32:
        """Return the middle of each index's cell, NaN for `levels`; see `_Cells.reconstruct`."""
        _require_index(index, self.levels + 1)
        missing = index == self.levels
        return np.where(missing, np.float32(np.nan), super().reconstruct(np.where(missing, 0, index).astype(np.uint32)))


@functools.cache
def gaussian_step(bits: int) -> float:
    """Return the midrise step with the least mean squared error for a unit Gaussian, 1 <= bits <= 8.

    Neighbouring cells meet midway between their reconstruction points, where both have the same error, so moving the
    borders does not contribute, and the derivative of the error by Delta is, with a_k = k + 1/2,

        -2 sum_k a_k integral over cell k of (z - a_k Delta) phi(z) dz.

    It has one sign change, found by bisection.

    Raises:
        LocalError: `bits` outside 1..8.
    """
    half = (1 << _checked_bits(bits, 8)) // 2

    def descent(step: float) -> float:
        total = 0.0
        for k in range(half):  # both signs of z contribute alike
            low, high = k * step, (k + 1) * step if k < half - 1 else math.inf
            mean = _density(low) - _density(high)
            probability = 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))
            total += (k + 0.5) * (mean - (k + 0.5) * step * probability)
        return total

    below, above = 1e-3, 4.0
    for _ in range(60):  # 4 / 2^60 is finer than a float64 near 1
        middle = 0.5 * (below + above)
        if descent(middle) > 0:
            below = middle
        else:
            above = middle
    return 0.5 * (below + above)


def _density(z: float) -> float:
    return math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _checked_bits(bits: object, most: int) -> int:
    if not isinstance(bits, int) or not 1 <= bits <= most:
        raise LocalError(f"bits must be an int in 1..{most}, not {bits!r}")
    return bits


def _require_float32(z: object) -> None:
    if not isinstance(z, np.ndarray | np.generic) or z.dtype != np.float32:
        raise LocalError(f"values must be a float32 array, not {getattr(z, 'dtype', type(z).__name__)}")
    if np.isnan(z).any():
        raise LocalError("values must not hold NaN: it has no index")


def _require_index(index: object, levels: int) -> None:
    if not isinstance(index, np.ndarray | np.generic) or index.dtype.kind != "u":
        raise LocalError("indices must be an array of unsigned integers")
    if index.size and int(index.max()) >= levels:
        raise LocalError(f"indices must be below {levels}, got {int(index.max())}")

"""IQ codecs, which forward every complex entry of the CSI instead of a latent.

Notation: a report's CSI is x (R, F) complex64, one row for each slot and antenna (slots outer), F tones; w is a
mantissa's width with its sign, e a block's exponent, s the report's scale.

    complex64   2 x 32 bit      IEEE 754 floats                                          64 bit per entry
    iq16        2 x 16 bit      round(x / s) in two's complement                         32 bit per entry
    bfp<w>      per row and PRB of 12 tones, as O-RAN's block floating point (CUS-plane specification, annex A.1):

                +----------+----------+------+------+------+-----+-------+-------+
                | 0 0 0 0  | e, 4 bit | I_0  | Q_0  | I_1  | ... | I_11  | Q_11  |    8 (3w + 1) bit per PRB
                +----------+----------+------+------+------+-----+-------+-------+
                |<-- udCompParam ---->|  w bit each, two's complement, most significant bit first

Fixed point needs a full scale. Here it is the report's largest component, s = max(|Re x|, |Im x|) / 32767, so that no
entry is clipped. s is *not* in the payload: the amplitude of a whole report is side information, and a scheme that
sends the report's gain ‖x‖ need not send s as well, since s = ‖x‖ / ‖round(x / s)‖ up to rounding (`of_norm`).

Rounding. iq16: to nearest, ties to even, so |error| ≤ s/2 per component. bfp<w> starts from those 16 bit numbers v.
The annex fixes the exponent (the fewest bits to drop so that all 24 numbers fit w bits) and leaves the rounding to
the implementation; here v + 2^(e-1) is shifted by e (to nearest, ties up), and a positive number that would round up
to 2^(w-1) saturates at 2^(w-1) - 1. Hence |error| ≤ 2^(e-1) in units of s, and ≤ 2^e - 1 for one that saturates;
e = 0 is exact, so bfp16 is iq16 with headers. Decoding is v = mantissa · 2^e.

A last PRB of fewer than 12 tones is padded with zeros, which cost as many bits as tones.
"""

import re
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fronthaul.codec.bitstream import pack, unpack
from fronthaul.errors import LocalError, RemoteError
from fronthaul.message.messages import Payload

PRB_TONES = 12
FULL_SCALE = 32767
"""Largest magnitude of a 16 bit number here: -32768 is left unused, so that the range is symmetric."""

Csi = NDArray[np.complex64]
Words = NDArray[np.unsignedinteger]

_FIXED_BITS = 16
_FLOAT32 = np.finfo(np.float32)


class Coded(NamedTuple):
    """One report's payload, and the scale s of its numbers (1 for complex64)."""

    payload: Payload
    scale: float


class IqCodec(Protocol):
    """Codec for reports of one shape.

    Attributes:
        bits: width of a word, as for `fronthaul.codec.bitstream.pack` [bit].
        words: words per report; the payload has exactly `bits * words` bits.
        scaled: whether the words are in units of a scale that is not in the payload.
    """

    bits: int
    words: int
    scaled: bool

    def encode(self, csi: Csi) -> tuple[Words, NDArray[np.float64]]:
        """Return words (..., words) and scales (...) of reports (..., R, F) complex64.

        Raises:
            LocalError: another dtype or shape, or a number that is not finite in a fixed-point codec.
        """

    def decode(self, words: Words, scale: float = 1.0) -> Csi:
        """Return a report (R, F) complex64 from its words.

        Raises:
            RemoteError: "field" for words that no encoder produces.
        """


def compress(codec: IqCodec, csi: Csi) -> Coded:
    """Encode one report (R, F) complex64 to its exact bits.

    Raises:
        LocalError: as `IqCodec.encode`.
    """
    words, scale = codec.encode(csi)
    return Coded(pack(words, codec.bits), float(scale))


def decompress(codec: IqCodec, payload: Payload, scale: float = 1.0) -> Csi:
    """Undo `compress`, up to rounding; if the scale is not given, fixed-point values are returned in units of it.

    Raises:
        RemoteError: "length" or "field".
    """
    return codec.decode(unpack(payload, codec.bits, codec.words), scale)


def of_norm(csi: Csi, norm: float) -> Csi:
    """Scale a report to Frobenius norm `norm`; a report of zeros is returned as it is."""
    parts = csi.view(np.float32).astype(np.float64)
    now = float(np.sqrt(np.square(parts).sum()))
    if now == 0.0:
        return csi
    return (parts * (norm / now)).astype(np.float32).view(np.complex64)


def iq_codec(name: str, rows: int, tones: int) -> IqCodec:
    """Return the codec "complex64", "iq16" or "bfp1" ... "bfp16" for reports of `rows` x `tones` entries.

    Raises:
        LocalError: there is no such codec, or an empty shape.
    """
    if rows < 1 or tones < 1:
        raise LocalError(f"a report holds at least one entry, not {rows} x {tones}")
    if name == "complex64":
        return FloatIq(rows, tones)
    if name == "iq16":
        return FixedIq(rows, tones)
    if (width := re.fullmatch("bfp([1-9][0-9]?)", name)) and int(width[1]) <= _FIXED_BITS:
        return BlockFloatIq(rows, tones, int(width[1]))
    raise LocalError(f"CSI is forwarded as complex64, iq16 or bfp1 to bfp16 (as bfp9), not as {name!r}")


class FloatIq:
    """complex64 bit by bit, tone by tone: real and imaginary part of each row."""

    bits = 32
    scaled = False

    def __init__(self, rows: int, tones: int) -> None:
        self.words = 2 * rows * tones
        self._shape = (rows, tones)

    def encode(self, csi: Csi) -> tuple[Words, NDArray[np.float64]]:
        """Return words (..., words); every scale is 1. See `IqCodec.encode`."""
        _require(csi, self._shape)
        by_tone = np.ascontiguousarray(csi.swapaxes(-1, -2))
        batch = csi.shape[:-2]
        return by_tone.view(np.uint32).reshape(*batch, self.words), np.ones(batch)

    def decode(self, words: Words, scale: float = 1.0) -> Csi:
        """Return the report (R, F). See `IqCodec.decode`."""
        rows, tones = self._shape
        by_tone = words.astype(np.uint32).view(np.complex64).reshape(tones, rows)
        exact = np.ascontiguousarray(by_tone.T)
        return exact if scale == 1.0 else exact * np.float32(scale)


class FixedIq:
    """16 bit I and Q in two's complement, row by row."""

    bits = _FIXED_BITS
    scaled = True

    def __init__(self, rows: int, tones: int) -> None:
        self.words = 2 * rows * tones
        self._shape = (rows, tones)

    def encode(self, csi: Csi) -> tuple[Words, NDArray[np.float64]]:
        """Return words (..., words) and scales (...). See `IqCodec.encode`."""
        fixed, scale = _to_fixed(csi, self._shape)
        return fixed.astype(np.int16).view(np.uint16).reshape(*csi.shape[:-2], self.words), scale

    def decode(self, words: Words, scale: float = 1.0) -> Csi:
        """Return the report (R, F). See `IqCodec.decode`."""
        return _from_fixed(words.astype(np.uint16).view(np.int16).reshape(*self._shape, 2), scale)


class BlockFloatIq:
    """O-RAN block floating point with mantissas of w bits; a word is one byte."""

    bits = 8
    scaled = True

    def __init__(self, rows: int, tones: int, width: int) -> None:
        blocks = -(-tones // PRB_TONES)
        self.words = rows * blocks * (3 * width + 1)
        self._shape = (rows, tones)
        self._blocks = blocks
        self._width = width

    def encode(self, csi: Csi) -> tuple[Words, NDArray[np.float64]]:
        """Return bytes (..., words) and scales (...). See `IqCodec.encode`."""
        fixed, scale = _to_fixed(csi, self._shape)
        rows, tones = self._shape
        padded = np.zeros((*csi.shape[:-2], rows, self._blocks * PRB_TONES, 2), np.int32)
        padded[..., :tones, :] = fixed
        exponent, mantissa = block_float(padded.reshape(-1, 2 * PRB_TONES), self._width)
        # The low w bits of the big-endian 16 are the two's complement of w bits.
        octets = mantissa.astype(">i2").view(np.uint8).reshape(len(mantissa), 2 * PRB_TONES, 2)
        planes = np.unpackbits(octets, axis=-1)[..., _FIXED_BITS - self._width :].reshape(len(mantissa), -1)
        coded = np.concatenate([exponent.astype(np.uint8)[:, None], np.packbits(planes, axis=-1)], axis=-1)
        return coded.reshape(*csi.shape[:-2], self.words), scale

    def decode(self, words: Words, scale: float = 1.0) -> Csi:
        """Return the report (R, F). See `IqCodec.decode`."""
        width = self._width
        coded = words.astype(np.uint8).reshape(-1, 3 * width + 1)
        exponent = coded[:, :1].astype(np.int32)
        if exponent.max() > _FIXED_BITS - width:
            raise RemoteError("field", f"{width} bit and exponent {exponent.max()} are beyond {_FIXED_BITS} bit")
        planes = np.unpackbits(coded[:, 1:], axis=-1).reshape(-1, 2 * PRB_TONES, width)
        octets = np.zeros((len(coded), 2 * PRB_TONES, _FIXED_BITS), np.uint8)
        octets[..., :width] = planes  # at the top, so that the sign is where int16 has it ...
        high = np.packbits(octets, axis=-1).view(">i2")[..., 0].astype(np.int32)
        fixed = (high >> (_FIXED_BITS - width)) << exponent  # ... and comes down with the shift
        rows, tones = self._shape
        return _from_fixed(fixed.reshape(rows, self._blocks * PRB_TONES, 2)[:, :tones], scale)


def block_float(fixed: NDArray[np.int32], width: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return exponents (N,) and mantissas (N, 24) of `width` bits for N blocks (N, 24) of 16 bit numbers.

    O-RAN CUS annex A.1: maxValue = max(max v, |min v| - 1), since the negative range is one step longer;
    rawExp = floor(log2(maxValue) + 1), 0 for maxValue = 0; exponent = max(rawExp - width + 1, 0).
    """
    largest = np.maximum(fixed.max(axis=-1), -fixed.min(axis=-1) - 1)
    # frexp: v = m 2^k with 0.5 <= m < 1, so k = floor(log2 v) + 1; exact, and 0 for 0.
    raw: NDArray[np.int32] = np.frexp(np.maximum(largest, 0).astype(np.float64))[1]
    exponent = np.maximum(raw - width + 1, 0)
    shift = exponent[:, None]
    half = (1 << shift) >> 1
    mantissa = np.minimum((fixed + half) >> shift, (1 << (width - 1)) - 1)
    return exponent, mantissa


def _to_fixed(csi: Csi, shape: tuple[int, int]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return 16 bit numbers (..., R, F, 2) and scales (...), each a float32 value."""
    _require(csi, shape)
    parts = np.ascontiguousarray(csi).view(np.float32).reshape(*csi.shape, 2)
    peak = np.abs(parts).max(axis=(-3, -2, -1)).astype(np.float64)
    if not np.isfinite(peak).all():
        raise LocalError("fixed point cannot represent a value that is not finite")
    # A normal float32: subnormal ones are too coarse, and a report of zeros needs a scale as well.
    scale = np.maximum(peak / FULL_SCALE, _FLOAT32.tiny).astype(np.float32).astype(np.float64)
    fixed = np.rint(parts / scale[..., None, None, None])
    return np.clip(fixed, -FULL_SCALE, FULL_SCALE).astype(np.int32), scale


def _from_fixed(fixed: NDArray[np.signedinteger], scale: float) -> Csi:
    """Return entries (R, F) from numbers (R, F, 2)."""
    exact = fixed.astype(np.float64) * scale
    parts = np.clip(exact, _FLOAT32.min, _FLOAT32.max).astype(np.float32)  # -32768 is a step beyond the largest entry
    return np.ascontiguousarray(parts).view(np.complex64)[..., 0]


def _require(csi: object, shape: tuple[int, int]) -> None:
    if not isinstance(csi, np.ndarray) or csi.dtype != np.complex64:
        raise LocalError(f"CSI must be a complex64 array, not {getattr(csi, 'dtype', type(csi).__name__)}")
    if csi.shape[-2:] != shape:
        raise LocalError(f"CSI must end in {shape[0]} rows x {shape[1]} tones, not {csi.shape}")

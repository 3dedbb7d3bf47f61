"""Indices to exact bits and back: at one width, at mixed widths, or with a prefix code.

Layout: index 0 first, most significant bit first, no gaps between indices; the last byte is padded with zeros.

    bits = 3, indices 5, 1, 6:         1 0 1 0 0 1 1 1 | 0 (0 0 0 0 0 0 0)  ->  a7 00
    widths 3, 0, 6, indices 5, 0, 6:   1 0 1 0 0 0 1 1 | 0 (0 0 0 0 0 0 0)  ->  a3 00

Fixed widths are packed with NumPy: a loop over bitarrays takes twenty to fifty times as long for 768 indices. Rows of
many reports are packed at once: 32 in a quarter of the time of 32 calls. Prefix codes use bitarray, which implements
them in C; it is imported only there, so that trainings, which know quantisers but send nothing, run without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fronthaul.errors import LocalError, RemoteError
from fronthaul.message.messages import Payload

if TYPE_CHECKING:
    from bitarray import bitarray


def pack(index: NDArray[np.unsignedinteger], bits: int) -> Payload:
    """Pack indices at `bits` each; nothing is rounded or clipped.

    Args:
        index: unsigned integers below 2^bits, shape (count,) or any other, read in C order.
        bits: 1..32 [bit].

    Returns:
        count * bits bits.

    Raises:
        LocalError: `bits` out of range, a dtype that is not unsigned, or an index that does not fit.
    """
    return pack_rows(index.reshape(1, -1), bits)[0]


def pack_rows(index: NDArray[np.unsignedinteger], bits: int) -> list[Payload]:
    """Pack each row of indices (rows, count) as `pack` does.

    Raises:
        LocalError: as `pack`.
    """
    word = _word(bits)
    if index.dtype.kind != "u":
        raise LocalError(f"indices must be unsigned integers, not {index.dtype}")
    if index.size and int(index.max()) >> bits:
        raise LocalError(f"index {int(index.max())} does not fit into {bits} bits")
    rows, count = index.shape
    if bits <= 8:  # eight indices fill `bits` bytes, or a part of them whole ones: pairs are joined up to there
        words = -(-count // 8)
        full, kind = (8, np.uint8) if 8 % bits == 0 else (8 * bits, np.uint64)
        joined = np.zeros((rows, 8 * words), kind)
        joined[:, :count] = index
        width = bits
        while width < full:
            joined = joined[:, ::2] << kind(width) | joined[:, 1::2]
            width *= 2
        octets = joined.astype(f">u{joined.itemsize}").view(np.uint8).reshape(*joined.shape, joined.itemsize)
        octets = octets[:, :, -full // 8 :].reshape(rows, words * bits)
    else:
        octets = np.ascontiguousarray(index, word).view(np.uint8).reshape(index.size, word.itemsize)
        planes = np.unpackbits(octets, axis=1)[:, 8 * word.itemsize - bits :]
        octets = np.packbits(planes.reshape(rows, count * bits), axis=1)
    length = (count * bits + 7) // 8
    data, width = octets.tobytes(), octets.shape[1]
    return [Payload(data[row * width : row * width + length], count * bits) for row in range(rows)]


def unpack(payload: Payload, bits: int, count: int) -> NDArray[np.uint32]:
    """Undo `pack`.

    Args:
        payload: `count` indices of `bits` bits.
        bits: 1..32 [bit].
        count: number of indices that the scheme sends.

    Returns:
        uint32, shape (count,).

    Raises:
        LocalError: `bits` or `count` out of range.
        RemoteError: "length" if the payload does not have bits * count bits.
    """
    index: NDArray[np.uint32] = unpack_rows([payload], bits, count)[0]
    return index


def unpack_rows(payloads: Sequence[Payload], bits: int, count: int) -> NDArray[np.uint32]:
    """Undo `pack_rows`: uint32, shape (payloads, count).

    Raises:
        LocalError: as `unpack`.
        RemoteError: as `unpack`.
    """
    word = _word(bits)
    if count < 0:
        raise LocalError(f"the count of indices must not be negative, got {count}")
    for payload in payloads:
        if payload.bits != bits * count:
            expected = f"{count} indices of {bits} bits take {bits * count} bits"
            raise RemoteError("length", f"{expected}, the payload has {payload.bits}")
    rows, length = len(payloads), (count * bits + 7) // 8
    sent = np.frombuffer(b"".join([payload.data for payload in payloads]), np.uint8).reshape(rows, length)
    if 8 % bits == 0:
        each = np.empty((rows, length, 8 // bits), np.uint32)
        for place, right in enumerate(range(8 - bits, -1, -bits)):
            each[:, :, place] = sent >> np.uint8(right) & np.uint8((1 << bits) - 1)
        return each.reshape(rows, 8 // bits * length)[:, :count]
    if bits <= 8:
        words = -(-count // 8)
        octets = np.zeros((rows, words * bits), np.uint8)
        octets[:, :length] = sent
        joined = np.zeros((rows, words, 8), np.uint8)
        joined[:, :, 8 - bits :] = octets.reshape(rows, words, bits)
        shift = np.arange(7 * bits, -1, -bits, dtype=np.uint64)
        index = joined.view(">u8").astype(np.uint64) >> shift & np.uint64((1 << bits) - 1)
        return index.astype(np.uint32).reshape(rows, 8 * words)[:, :count]
    planes = np.zeros((rows * count, 8 * word.itemsize), np.uint8)
    planes[:, 8 * word.itemsize - bits :] = np.unpackbits(sent, axis=1)[:, : count * bits].reshape(rows * count, bits)
    return np.packbits(planes, axis=1).view(word).astype(np.uint32).reshape(rows, count)


def pack_mixed(index: NDArray[np.unsignedinteger], widths: Sequence[int] | NDArray[np.integer]) -> Payload:
    """Pack each index at its own width; nothing is rounded or clipped.

    Args:
        index: unsigned integers, each below 2^width, shape (count,).
        widths: 0..32 [bit], shape (count,); an index of width 0 is 0 and is not sent.

    Returns:
        As many bits as the widths add up to.

    Raises:
        LocalError: a width out of range, another shape, a dtype that is not unsigned, or an index that does not fit.
    """
    owner, shift = _places(widths)
    if index.dtype.kind != "u":
        raise LocalError(f"indices must be unsigned integers, not {index.dtype}")
    if index.shape != np.shape(widths):
        raise LocalError(f"widths {np.shape(widths)} are not of indices {index.shape}")
    wide = index.astype(np.uint64)
    too_large = np.flatnonzero(wide >> np.asarray(widths, np.uint64))
    if too_large.size:
        first = int(too_large[0])
        raise LocalError(f"index {int(index[first])} does not fit into {int(widths[first])} bits")
    return Payload(np.packbits(wide[owner] >> shift & np.uint64(1) != 0).tobytes(), owner.size)


def unpack_mixed(payload: Payload, widths: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint32]:
    """Undo `pack_mixed`: indices (count,) of widths (count,).

    Raises:
        LocalError: a width out of range.
        RemoteError: "length" if the payload does not have as many bits as the widths add up to.
    """
    owner, shift = _places(widths)
    if payload.bits != owner.size:
        raise RemoteError("length", f"the widths add up to {owner.size} bits, the payload has {payload.bits}")
    planes = np.unpackbits(np.frombuffer(payload.data, np.uint8), count=payload.bits).astype(np.uint64)
    # Sums of powers of two below 2^32: exact in float64.
    return np.bincount(owner, (planes << shift).astype(np.float64), len(widths)).astype(np.uint32)


def pack_code(index: NDArray[np.unsignedinteger], code: Mapping[int, bitarray]) -> Payload:
    """Pack indices with a prefix code that maps index to bits, such as one from `bitarray.util.huffman_code`.

    Raises:
        LocalError: an index that the code has no bits for.
    """
    from bitarray import bitarray

    bits = bitarray()
    try:
        bits.encode(dict(code), index.ravel().tolist())
    except ValueError as error:
        raise LocalError(f"the code lacks an index: {error}") from error
    return Payload(bits.tobytes(), len(bits))


def unpack_code(payload: Payload, code: Mapping[int, bitarray]) -> NDArray[np.uint32]:
    """Undo `pack_code`: return all indices (count,) in the payload.

    Raises:
        RemoteError: "length" if the payload ends within an index.
    """
    from bitarray import bitarray, decodetree

    bits = bitarray()
    bits.frombytes(payload.data)
    del bits[payload.bits :]
    try:
        return np.fromiter(bits.decode(decodetree(dict(code))), np.uint32)
    except ValueError as error:
        raise RemoteError("length", f"the payload ends within an index: {error}") from error


def with_prefix(payload: Payload, index: int, width: int) -> Payload:
    """Return an index below 2^width in `width` bits, and a payload behind it."""
    bits = width + payload.bits
    number = index << payload.bits | int.from_bytes(payload.data) >> (-payload.bits & 7)
    return Payload((number << (-bits & 7)).to_bytes((bits + 7) // 8), bits)


def without_prefix(payload: Payload, width: int) -> tuple[int, Payload]:
    """Undo `with_prefix`.

    Raises:
        RemoteError: "length" if the payload is shorter than the index.
    """
    bits = payload.bits - width
    if bits < 0:
        raise RemoteError("length", f"{payload.bits} bits have no place for an index of {width}")
    number = int.from_bytes(payload.data) >> (-payload.bits & 7)
    rest = number & (1 << bits) - 1
    return number >> bits, Payload((rest << (-bits & 7)).to_bytes((bits + 7) // 8), bits)


def _places(widths: Sequence[int] | NDArray[np.integer]) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Return, for each bit of a payload, which index it belongs to and its position (left shift) in that index."""
    width = np.asarray(widths)
    if width.ndim != 1 or (width.size and width.dtype.kind not in "iu") or np.any((width < 0) | (width > 32)):
        raise LocalError("widths must be integers in 0..32")
    width = width.astype(np.intp)
    owner = np.repeat(np.arange(width.size), width)
    return owner, (np.cumsum(width)[owner] - 1 - np.arange(owner.size)).astype(np.uint64)


def _word(bits: object) -> np.dtype[np.unsignedinteger]:
    """Return the narrowest big-endian word that holds `bits`: fewer bit planes to move."""
    if not isinstance(bits, int) or not 1 <= bits <= 32:
        raise LocalError(f"bits must be an int in 1..32, not {bits!r}")
    return np.dtype(">u1" if bits <= 8 else ">u2" if bits <= 16 else ">u4")

"""Indices to exact bits and back.

Layout: index 0 first, most significant bit first, no gap between indices; the last byte is zero padded.

    bits = 3, indices 5, 1, 6:   1 0 1 0 0 1 1 1 | 0 (0 0 0 0 0 0 0)  ->  a7 00
"""

import numpy as np
from numpy.typing import NDArray

from fronthaul.errors import LocalError, RemoteError
from fronthaul.message.messages import Payload


def pack(index: NDArray[np.unsignedinteger], bits: int) -> Payload:
    """Pack indices at `bits` each; nothing is rounded or clipped.

    Args:
        index: unsigned integers below 2^bits, shape (count,) or any other, which is read in C order.
        bits: 1..32 [bit].

    Returns:
        count * bits bits.

    Raises:
        LocalError: `bits` out of range, a dtype that is not unsigned, or an index that does not fit.
    """
    word = _word(bits)
    if index.dtype.kind != "u":
        raise LocalError(f"indices must be unsigned integers, not {index.dtype}")
    if index.size and int(index.max()) >> bits:
        raise LocalError(f"index {int(index.max())} does not fit into {bits} bits")
    octets = index.ravel().astype(word).view(np.uint8).reshape(index.size, word.itemsize)
    planes = np.unpackbits(octets, axis=1)[:, 8 * word.itemsize - bits :]
    return Payload(np.packbits(planes).tobytes(), bits * index.size)


def unpack(payload: Payload, bits: int, count: int) -> NDArray[np.uint32]:
    """Undo `pack`.

    Args:
        payload: `count` indices of `bits` bits.
        bits: 1..32 [bit].
        count: how many indices the scheme sends.

    Returns:
        uint32, shape (count,).

    Raises:
        LocalError: `bits` or `count` out of range.
        RemoteError: "length" where the payload is not of bits * count bits.
    """
    word = _word(bits)
    if count < 0:
        raise LocalError(f"the count of indices must not be negative, got {count}")
    if payload.bits != bits * count:
        expected = f"{count} indices of {bits} bits take {bits * count} bits"
        raise RemoteError("length", f"{expected}, the payload has {payload.bits}")
    planes = np.zeros((count, 8 * word.itemsize), dtype=np.uint8)
    flat = np.unpackbits(np.frombuffer(payload.data, dtype=np.uint8), count=payload.bits)
    planes[:, 8 * word.itemsize - bits :] = flat.reshape(count, bits)
    return np.packbits(planes, axis=1).view(word).ravel().astype(np.uint32)


def _word(bits: object) -> np.dtype[np.unsignedinteger]:
    """Return the narrowest big-endian word that holds `bits`: fewer bit planes to move."""
    if not isinstance(bits, int) or not 1 <= bits <= 32:
        raise LocalError(f"bits must be an int in 1..32, not {bits!r}")
    return np.dtype(">u1" if bits <= 8 else ">u2" if bits <= 16 else ">u4")

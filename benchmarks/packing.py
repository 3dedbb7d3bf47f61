"""Packing of 768 indices to a bit stream and unpacking, against a loop over the indices with bitarray."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from bitarray import bitarray
from bitarray.util import ba2int, int2ba

from benchmarks.samples import COEFFICIENTS, indices
from benchmarks.timing import Bench, Case, Row, measure
from fronthaul.codec.bitstream import pack, unpack

BITS = (1, 3, 4, 8, 32)


def run(bench: Bench) -> list[Row]:
    """Measure packing and unpacking of a report's payload; 3 bit stand for resolutions that do not fill bytes."""
    return [row for bits in BITS for row in measure(_cases(bits), bench.effort)]


def _cases(bits: int) -> list[Case]:
    index = indices(bits)
    payload = pack(index, bits)
    if payload.data != loop_pack(index, bits) or loop_unpack(payload.data, bits) != index.tolist():
        raise AssertionError("the loop packs other bits: there is nothing to compare")
    name = f"{bits} bit"
    return [
        Case(f"pack {name}", lambda: pack(index, bits), reference=f"pack {name}, loop"),
        Case(f"pack {name}, loop", lambda: loop_pack(index, bits)),
        Case(f"unpack {name}", lambda: unpack(payload, bits, COEFFICIENTS), reference=f"unpack {name}, loop"),
        Case(f"unpack {name}, loop", lambda: loop_unpack(payload.data, bits)),
    ]


def loop_pack(index: npt.NDArray[np.uint32], bits: int) -> bytes:
    """Pack indices one by one."""
    stream = bitarray(endian="big")
    for value in index.tolist():
        stream.extend(int2ba(value, bits, endian="big"))
    return stream.tobytes()


def loop_unpack(data: bytes, bits: int) -> list[int]:
    """Unpack the result of `loop_pack`."""
    stream = bitarray(endian="big")
    stream.frombytes(data)
    return [ba2int(stream[bits * k : bits * (k + 1)]) for k in range(COEFFICIENTS)]

"""TFRecord files of `tf.train.Example`, without TensorFlow.

A record is its length (uint64), a checksum of the length, the bytes, and a checksum of these (masked CRC-32C, little
endian; https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details). The bytes are a protocol
buffer (https://protobuf.dev/programming-guides/encoding/) with these fields, by number (tensorflow/core/example/
example.proto and feature.proto, tensorflow/core/framework/tensor.proto)::

    Example   1 features: Features      Features  1 feature: map of name (1) to Feature (2)
    Feature   1 bytes_list, 2 float_list, 3 int64_list, each with 1 value
    Tensor    1 dtype    2 tensor_shape: 2 dim: 1 size    4 tensor_content

Only what such records of channels need is read: strings of bytes, and in them serialised tensors
(`tf.io.serialize_tensor`) of real or complex numbers.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sim.errors import UserError

_MOST_BYTES = 1 << 30  # of a record: more is a damaged length
_TYPES = {1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 8: np.complex64, 9: np.int64, 18: np.complex128}
"""NumPy types of DataType (tensorflow/core/framework/types.proto)."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


def read_examples(path: Path, on_progress: Callable[[int, int], None] = lambda *_: None) -> Iterator[dict[str, bytes]]:
    """Yield, for each record of a file, its features that are strings of bytes; tell bytes done, of how many.

    Raises:
        UserError: the file is damaged.
    """
    with path.open("rb") as file:
        number, size = 0, path.stat().st_size
        while (head := file.read(12)) != b"":
            try:
                yield _example(_record(file, head))
            except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
                raise UserError(f"{path}: record {number} is damaged ({error}).") from error
            number += 1
            on_progress(file.tell(), size)


def parse_tensor(data: bytes) -> npt.NDArray[Any]:
    """Return a serialised tensor.

    Raises:
        ValueError: it is none, or of a type that is not read.
    """
    kind, shape, content = 0, [], b""
    for number, value in _message(data):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 2 and isinstance(value, bytes):
            dims = [dict(_message(dim)) for n, dim in _message(value) if n == 2 and isinstance(dim, bytes)]
            shape = [int(dim.get(1, 0)) for dim in dims]
        elif number == 4 and isinstance(value, bytes):
            content = value
    if kind not in _TYPES:
        raise ValueError(f"a tensor of type {kind}")
    return np.frombuffer(content, np.dtype(_TYPES[kind]).newbyteorder("<")).reshape(shape)


def _record(file: BinaryIO, head: bytes) -> bytes:
    length, crc = struct.unpack("<QI", head)
    if crc != _masked_crc(head[:8]) or length > _MOST_BYTES:
        raise ValueError("its length has another checksum")
    data = file.read(length + 4)
    if len(data) < length + 4:
        raise ValueError("it is cut short")
    return data[:-4]


def _example(data: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for _, features in _message(data):
        for _, entry in _message(_string(features)):
            name, feature = b"", b""
            for number, value in _message(_string(entry)):
                name, feature = (_string(value), feature) if number == 1 else (name, _string(value))
            for number, values in _message(feature):
                if number == 1:
                    found |= {name.decode(): _string(value) for _, value in _message(_string(values))}
    return found


def _string(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def _message(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if kind == _BYTES:
            size, at = _varint(data, at)
        if size is None or at + size > len(data):
            raise ValueError("a field is cut short")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number has too many bytes")


@functools.cache
def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def _masked_crc(data: bytes) -> int:
    crc, table = 0xFFFFFFFF, _crc_table()
    for byte in data:
        crc = crc >> 8 ^ table[crc & 0xFF ^ byte]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

"""Indices to bits, held against text made of "0" and "1"."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fronthaul.codec.bitstream import pack, unpack
from fronthaul.errors import LocalError, RemoteError
from fronthaul.message.messages import Payload


@st.composite
def index_lists(draw: st.DrawFn) -> tuple[list[int], int]:
    """Draw bits and indices that fit them."""
    bits = draw(st.integers(1, 32))
    return draw(st.lists(st.integers(0, (1 << bits) - 1), max_size=70)), bits


def test_golden_bytes() -> None:
    assert pack(np.array([5, 1, 6], np.uint32), 3) == Payload(bytes.fromhex("a700"), 9)


@given(index_lists())
def test_bits_are_those_of_the_binary_numerals_in_order(case: tuple[list[int], int]) -> None:
    indices, bits = case
    text = "".join(f"{index:0{bits}b}" for index in indices)
    payload = pack(np.array(indices, np.uint32), bits)
    assert payload.bits == len(text)
    assert "".join(f"{byte:08b}" for byte in payload.data) == text.ljust(-(-len(text) // 8) * 8, "0")


@given(index_lists())
def test_unpack_undoes_pack(case: tuple[list[int], int]) -> None:
    indices, bits = case
    index = np.array(indices, np.uint32)
    unpacked = unpack(pack(index, bits), bits, len(indices))
    assert unpacked.dtype == np.uint32
    np.testing.assert_array_equal(unpacked, index)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, ">u2"])
def test_any_unsigned_dtype_and_layout_gives_the_same_bits(dtype: str) -> None:
    index = np.arange(12, dtype=dtype).reshape(3, 4)
    expected = pack(np.arange(12, dtype=np.uint32), 4)
    assert pack(index, 4) == expected
    assert pack(np.asfortranarray(index), 4) == expected


@pytest.mark.parametrize(("bits", "payload_bits"), [(5, 3840), (4, 3072), (3, 2304), (2, 1536)])
def test_payload_of_the_paper(bits: int, payload_bits: int) -> None:
    payload = pack(np.zeros(768, np.uint32), bits)
    assert payload.bits == payload_bits
    assert len(payload.data) == payload_bits // 8


@pytest.mark.parametrize(
    ("index", "bits"),
    [
        (np.array([16], np.uint32), 4),
        (np.array([1], np.int64), 4),
        (np.array([1.0]), 4),
        (np.array([0], np.uint32), 0),
        (np.array([0], np.uint32), 33),
        (np.array([1 << 32], np.uint64), 32),
    ],
)
def test_what_does_not_fit_is_refused(index: np.ndarray, bits: int) -> None:
    with pytest.raises(LocalError):
        pack(index, bits)


@pytest.mark.parametrize(("bits", "count"), [(3, 2), (3, 4), (4, 3), (9, 2)])
def test_another_length_is_the_peers_fault(bits: int, count: int) -> None:
    with pytest.raises(RemoteError) as caught:
        unpack(Payload(bytes(2), 9), bits, count)
    assert caught.value.reason == "length"


@pytest.mark.parametrize(("bits", "count"), [(0, 1), (33, 1), (1, -1)])
def test_another_format_is_our_fault(bits: int, count: int) -> None:
    with pytest.raises(LocalError):
        unpack(Payload(b"", 0), bits, count)

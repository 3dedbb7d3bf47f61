"""Indices to bits, held against text made of "0" and "1"."""

import numpy as np
import pytest
from bitarray import bitarray
from hypothesis import given
from hypothesis import strategies as st

from fronthaul.codec.bitstream import (
    pack,
    pack_code,
    pack_mixed,
    pack_rows,
    unpack,
    unpack_code,
    unpack_mixed,
    unpack_rows,
)
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


@given(st.integers(1, 32), st.integers(0, 20), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_rows_are_packed_like_each_alone(bits: int, count: int, rows: int, seed: int) -> None:
    index = np.random.default_rng(seed).integers(0, 1 << bits, (rows, count), np.uint32)
    payloads = pack_rows(index, bits)
    assert payloads == [pack(row, bits) for row in index]
    unpacked = unpack_rows(payloads, bits, count)
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


widths_and_values = st.lists(
    st.integers(0, 32).flatmap(lambda width: st.tuples(st.just(width), st.integers(0, (1 << width) - 1))), max_size=60
)


@given(widths_and_values)
def test_mixed_widths_come_back_and_are_the_bits_one_after_the_other(drawn: list[tuple[int, int]]) -> None:
    widths = [width for width, _ in drawn]
    index = np.array([value for _, value in drawn], np.uint32)
    made = pack_mixed(index, widths)
    text = "".join(f"{value:0{width}b}" for width, value in drawn if width)
    assert made == Payload(bitarray(text).tobytes(), len(text))
    np.testing.assert_array_equal(unpack_mixed(made, widths), index)


@given(st.integers(1, 32), st.integers(0, 50), st.integers(0, 2**32 - 1))
def test_equal_widths_are_one_width(bits: int, count: int, seed: int) -> None:
    index = np.random.default_rng(seed).integers(0, 1 << bits, count).astype(np.uint32)
    assert pack_mixed(index, count * [bits]) == pack(index, bits)


def test_the_documented_mixed_example() -> None:
    assert pack_mixed(np.array([5, 0, 6], np.uint8), [3, 0, 6]) == Payload(b"\xa3\x00", 9)


@pytest.mark.parametrize(
    ("index", "widths", "sentence"),
    [
        ([1, 4], [1, 2], "index 4 does not fit into 2 bits"),
        ([1], [0], "index 1 does not fit into 0 bits"),
        ([1], [33], r"widths must be integers in 0\.\.32"),
        ([1], [-1], r"widths must be integers in 0\.\.32"),
        ([1], [1.0], r"widths must be integers in 0\.\.32"),
        ([1, 1], [1], r"widths \(1,\) are not of indices \(2,\)"),
    ],
)
def test_what_does_not_fit_mixed_widths_is_refused(index: list[int], widths: list[int], sentence: str) -> None:
    with pytest.raises(LocalError, match=sentence):
        pack_mixed(np.array(index, np.uint32), widths)


def test_mixed_widths_of_signed_numbers_and_of_another_sum_are_refused() -> None:
    with pytest.raises(LocalError, match="unsigned"):
        pack_mixed(np.array([1]), [1])
    with pytest.raises(RemoteError, match="the widths add up to 9 bits, the payload has 8"):
        unpack_mixed(Payload(b"\0", 8), [3, 6])


CODE = {3: bitarray("0"), 0: bitarray("10"), 7: bitarray("110"), 1: bitarray("111")}


@given(st.lists(st.sampled_from(sorted(CODE)), max_size=40))
def test_prefix_codes_come_back(values: list[int]) -> None:
    index = np.array(values, np.uint32)
    made = pack_code(index, CODE)
    assert made.bits == sum(len(CODE[value]) for value in values)
    np.testing.assert_array_equal(unpack_code(made, CODE), index)


def test_an_index_without_a_word_and_a_payload_that_ends_within_one_are_refused() -> None:
    with pytest.raises(LocalError, match="the code lacks an index"):
        pack_code(np.array([2], np.uint32), CODE)
    with pytest.raises(RemoteError, match="ends within an index"):
        unpack_code(Payload(b"\xc0", 2), CODE)

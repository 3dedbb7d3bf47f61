"""Arithmetic coding in one integer: exact, as short as can be, and one code for a message."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fronthaul.codec.interval import PRECISION, Table, decode, encode, table
from fronthaul.errors import LocalError, RemoteError
from fronthaul.message.messages import Payload

counts = st.lists(st.integers(0, 10**6), min_size=1, max_size=64).map(lambda one: table(np.array(one)))


@st.composite
def messages(draw: st.DrawFn) -> tuple[list[int], list[Table]]:
    """Symbols, and the table of each."""
    tables = draw(st.lists(counts, min_size=1, max_size=30))
    return [draw(st.integers(0, len(sums) - 2)) for sums in tables], tables


@given(messages())
def test_a_message_comes_back_from_the_shortest_bits_in_its_interval(message: tuple[list[int], list[Table]]) -> None:
    index, tables = message
    payload = encode(index, tables)
    assert decode(payload, tables) == index
    low, span = Fraction(0), Fraction(1)
    for s, sums in zip(index, tables, strict=True):  # the definition, in fractions
        low += span * Fraction(sums[s], 1 << PRECISION)
        span *= Fraction(sums[s + 1] - sums[s], 1 << PRECISION)
    value = Fraction(int.from_bytes(payload.data, "big"), 1 << 8 * len(payload.data))
    assert low <= value < low + span
    shorter = payload.bits - 1
    assert not shorter or -(-low * 2**shorter // 1) >= (low + span) * 2**shorter  # no point of a coarser grid is inside


@given(st.binary(min_size=1, max_size=12), st.integers(0, 7), st.lists(counts, min_size=1, max_size=8))
def test_any_bits_are_the_code_of_something_or_refused(data: bytes, cut: int, tables: list[Table]) -> None:
    bits = 8 * len(data) - cut
    payload = Payload(data[:-1] + bytes([data[-1] >> cut << cut]), bits)
    try:
        index = decode(payload, tables)
    except RemoteError as error:
        assert error.reason == "field"
    else:
        assert encode(index, tables) == payload


def test_golden_bytes() -> None:
    likely, unlikely = table(np.array([100, 10, 1, 1])), table(np.array([1, 1]))
    assert likely == (0, 14626, 16089, 16236, 16384)
    assert encode([0, 0, 0], [likely] * 3) == Payload(b"\x00", 1)
    assert encode([3, 1, 0, 1], [likely, unlikely, likely, unlikely]) == Payload(b"\xff\x80", 9)


@pytest.mark.parametrize("given", [[], [-1, 2], [1] * (1 + (1 << PRECISION - 1))])
def test_what_is_no_table(given: list[int]) -> None:
    with pytest.raises(LocalError):
        table(np.array(given, np.int64))

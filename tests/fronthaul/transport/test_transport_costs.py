"""Descriptions of what transports add: arithmetic, record, refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fronthaul.errors import LocalError
from fronthaul.transport.transport_costs import TransportCosts, recorded_costs

SIZES = st.integers(0, 255)


@given(
    st.builds(
        TransportCosts,
        name=st.text(),
        header_bytes=SIZES,
        long_header_bytes=SIZES | st.none(),
        short_bytes=st.integers(0, 1 << 20),
        encryption_bytes=SIZES,
        handshake_up_bytes=st.integers(0, 1 << 20),
        handshake_down_bytes=st.integers(0, 1 << 20),
        names_station=st.booleans(),
        kernel_counts=st.booleans(),
    ),
    st.integers(0, 1 << 20),
)
def test_a_record_comes_back_and_parts_add_up(costs: TransportCosts, size: int) -> None:
    assert recorded_costs(costs.to_text()) == costs
    assert costs.stream_bytes(size) == size + costs.framing_bytes(size) + costs.encryption_bytes


def test_headers_turn_long_by_what_is_framed() -> None:
    costs = TransportCosts("toy", header_bytes=1, long_header_bytes=5, short_bytes=10, encryption_bytes=4)
    assert [costs.framing_bytes(size) for size in (0, 6, 7)] == [1, 1, 5]


def test_the_name_is_part_of_the_handshake_where_it_is_sent() -> None:
    costs = TransportCosts("toy", handshake_up_bytes=10, handshake_down_bytes=20, names_station=True)
    assert [costs.handshake_bytes(bs) for bs in (0, 1000)] == [(16, 20), (17, 20)]


@pytest.mark.parametrize(
    "sizes",
    [{"header_bytes": 256}, {"header_bytes": -1}, {"long_header_bytes": 256}, {"encryption_bytes": 300},
     {"short_bytes": -1}, {"handshake_up_bytes": -1}],
)  # fmt: skip
def test_sizes_that_no_transport_has_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(LocalError, match="toy"):
        TransportCosts("toy", **sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"name": "toy", "unknown": 1}', '{"name": "toy", "header_bytes": "x"}']
)
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(LocalError, match="damaged"):
        recorded_costs(text)

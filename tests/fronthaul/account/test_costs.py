"""What frames cost, counted and modelled."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fronthaul.account.costs import (
    COSTS,
    FrameCost,
    cost_columns,
    lossless_bits,
    modelled_ecpri_ethernet_bytes,
    modelled_ethernet_bytes,
    modelled_tcpip_bytes,
)
from fronthaul.codec.bitstream import pack
from fronthaul.message.columns import frame_columns
from fronthaul.message.messages import MAX_BUNDLE, Frame, Payload, Report, ReportKey
from fronthaul.message.wire import BUNDLE_HEADER_BYTES, BUNDLE_KEY_BYTES, CRC_BYTES, encode
from fronthaul.transport.transport_costs import TransportCosts
from fronthaul.transport.zmtp import ZMTP_CURVE, ZMTP_NULL

TRANSPORTS = (ZMTP_NULL, ZMTP_CURVE, TransportCosts("toy", header_bytes=4))


def frame(count: int, bits: int, side_bytes: int) -> Frame:
    """Return a frame of zeros."""
    payload = Payload(bytes(-(-bits // 8)), bits)
    return Frame(0, tuple(Report(ReportKey(0, 0, index), payload, bytes(side_bytes)) for index in range(count)))


def frame_costs(sent: Frame, transport: TransportCosts) -> list[FrameCost]:
    """Return what each report of one frame costs."""
    columns = cost_columns(frame_columns(pa.array([encode(sent)])), transport)
    return [FrameCost(*row) for row in zip(*(columns[name].tolist() for name in COSTS), strict=True)]


def test_overhead_stays_within_its_budget() -> None:
    """Header, CRC, gain and ZMTP together cost at most 32 B beside the payload."""
    report = Report(ReportKey(0, 0, 0), pack(np.zeros(768, np.uint32), 4), bytes(4))
    (cost,) = frame_costs(Frame(0, (report,)), ZMTP_NULL)
    assert cost.stream_bytes - 3072 // 8 == 32


@given(st.integers(1, MAX_BUNDLE), st.integers(0, 3000), st.integers(0, 31), st.sampled_from(TRANSPORTS))
def test_costs_add_up_to_the_message_as_it_is_framed(
    count: int, bits: int, side_bytes: int, transport: TransportCosts
) -> None:
    sent = frame(count, bits, side_bytes)
    costs = frame_costs(sent, transport)
    assert len(costs) == count
    assert sum(cost.stream_bytes for cost in costs) == transport.stream_bytes(len(encode(sent)))
    for cost in costs:
        assert (cost.payload_bits, cost.side_bits) == (bits, 8 * side_bytes)
        assert (cost.payload_bits + cost.padding_bits) % 8 == 0


def test_what_a_bundle_shares_stands_in_the_first() -> None:
    shared = BUNDLE_HEADER_BYTES + CRC_BYTES
    first, *others = frame_costs(frame(3, 803, 4), ZMTP_CURVE)
    assert first == FrameCost(803, 32, shared + BUNDLE_KEY_BYTES, 5, 9, 33)
    assert others == [FrameCost(803, 32, BUNDLE_KEY_BYTES, 5, 0, 0)] * 2


@pytest.mark.parametrize(
    ("stream_bytes", "segments"), [(0, 0), (1, 1), (416, 1), (1448, 1), (1449, 2), (2896, 2), (2897, 3)]
)
def test_modelled_tcpip_and_ethernet(stream_bytes: int, segments: int) -> None:
    assert modelled_tcpip_bytes(stream_bytes) == stream_bytes + 52 * segments
    assert modelled_ethernet_bytes(stream_bytes) == stream_bytes + 66 * segments
    assert modelled_ethernet_bytes(stream_bytes, preamble_fcs_gap=True) == stream_bytes + 90 * segments


@pytest.mark.parametrize(("stream_bytes", "segments"), [(0, 0), (1, 1), (1428, 1), (1429, 2), (2856, 2), (2857, 3)])
def test_ipv6_adds_20_bytes_to_each_segment_and_takes_them_from_it(stream_bytes: int, segments: int) -> None:
    assert modelled_tcpip_bytes(stream_bytes, 40) == stream_bytes + 72 * segments
    assert modelled_ethernet_bytes(stream_bytes, 40) == stream_bytes + 86 * segments
    assert modelled_ethernet_bytes(stream_bytes, 40, preamble_fcs_gap=True) == stream_bytes + 110 * segments


@pytest.mark.parametrize(
    ("report_bytes", "mtu", "total"),
    [
        (0, 1500, 14 + 46),
        (34, 1500, 14 + 46),
        (35, 1500, 14 + 12 + 35),
        (1488, 1500, 14 + 1500),
        (1489, 1500, 14 + 1500 + 14 + 46),
        (2976, 1500, 2 * 1514),
        (0, 9000, 14 + 46),
        (1489, 9000, 14 + 12 + 1489),
        (8988, 9000, 14 + 9000),
        (8989, 9000, 14 + 9000 + 14 + 46),
    ],
)
def test_modelled_ecpri(report_bytes: int, mtu: int, total: int) -> None:
    assert modelled_ecpri_ethernet_bytes(report_bytes, mtu) == total
    pieces = max(1, -(-report_bytes // (mtu - 12)))
    assert modelled_ecpri_ethernet_bytes(report_bytes, mtu, preamble_fcs_gap=True) == total + 24 * pieces


def test_lossless_csi_of_the_paper() -> None:
    """ECC Eq. 37 for 10 slots, 4 antennas and 24 tones."""
    assert lossless_bits(10, 4, 24) == 61_440

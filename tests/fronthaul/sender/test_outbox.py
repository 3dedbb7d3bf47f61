"""Numbering, bundles and the link model's copies and drops, before anything is sent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fronthaul.errors import QueueFull, TransportError
from fronthaul.link.link_config import LinkConfig
from fronthaul.link.link_model import LinkModel
from fronthaul.log.sent import TRANSPORT_FULL, Departure, corrupted
from fronthaul.message.messages import Abort, Direction, Frame, Goodbye, Payload, Report, ReportKey
from fronthaul.message.wire import decode, encode
from fronthaul.sender.outbox import Outbox, amendment, drop_reason
from fronthaul.transport.zmtp import ZMTP_CURVE, ZMTP_NULL


def reports(count: int) -> list[Report]:
    return [Report(ReportKey(3, 1, snapshot), Payload(b"ab", 16), b"s") for snapshot in range(count)]


def model(**config: Any) -> LinkModel:
    return LinkModel(LinkConfig(**config), seed=1, bs=3, direction=Direction.UP, epoch=1)


def decoded(departures: list[Departure]) -> list[Frame]:
    frames = [decode(departure.message) for departure in departures]
    assert all(isinstance(frame, Frame) for frame in frames)
    return frames  # type: ignore[return-value]


@given(st.integers(0, 70), st.integers(1, 64), st.integers(0, 1000))
def test_reports_are_bundled_in_their_order_and_frames_numbered(count: int, bundle: int, first: int) -> None:
    outbox = Outbox(transport=ZMTP_NULL, bundle=bundle, first_seq=first)
    departures = outbox.frames(reports(count), 7)
    frames = decoded(departures)
    assert [report for frame in frames for report in frame.reports] == reports(count)
    assert all(len(frame.reports) == bundle for frame in frames[:-1])
    assert [frame.seq for frame in frames] == list(range(first, first + len(frames)))
    assert outbox.frames_made == first + len(frames)
    assert all(departure[1:] == (7, 7, None, (), None) for departure in departures)
    again = decoded(outbox.frames(reports(1), 8))
    assert [frame.seq for frame in again] == [first + len(frames)]


@given(
    st.integers(0, 20),
    st.integers(1, 5),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([None, 1e6]),
    st.sampled_from([None, 300]),
)
def test_every_copy_and_every_loss_is_a_frame_of_its_own(
    count: int, bundle: int, loss: float, duplicate: float, rate_bps: float | None, queue_bytes: int | None
) -> None:
    config = {"loss": loss, "duplicate": duplicate, "corrupt": 0.3, "rate_bps": rate_bps}
    if rate_bps is not None:
        config["queue_bytes"] = queue_bytes
    outbox, twin = Outbox(model(**config), transport=ZMTP_NULL, bundle=bundle), model(**config)
    departures = outbox.frames(reports(count), 50)
    frames = decoded(departures)
    assert [frame.seq for frame in frames] == list(range(len(frames)))  # drops included
    expected, seq = [], 0
    for begin in range(0, count, bundle):
        bundled = tuple(reports(count)[begin : begin + bundle])
        passage = None
        for attempt in (twin.frame, twin.copy):
            if passage is not None and not passage.duplicate:
                continue
            message = encode(Frame(seq, bundled))
            passage = attempt(seq, ZMTP_NULL.stream_bytes(len(message)), 8 * len(message), 50)
            expected.append(Departure(message, 50, passage.t_release_ns, passage.drop_reason, passage.flipped))
            seq += 1
    assert departures == expected
    for departure in departures:
        assert (corrupted(departure) != departure.message) == bool(departure.flipped)


def test_control_is_held_back_and_neither_numbered_nor_lost() -> None:
    outbox = Outbox(model(loss=1.0, delay_s=0.002), transport=ZMTP_NULL)
    departure = outbox.control(Goodbye(3, 1, 0), 100)
    assert departure == Departure(encode(Goodbye(3, 1, 0)), 100, 2_000_100)
    assert outbox.frames_made == 0
    assert Outbox(transport=ZMTP_NULL).control(Goodbye(3, 1, 0), 100).t_release_ns == 100


def test_encryption_takes_time_on_the_line() -> None:
    releases = [
        Outbox(model(rate_bps=1e6), transport=transport).frames(reports(1), 0)[0].t_release_ns
        for transport in (ZMTP_NULL, ZMTP_CURVE)
    ]
    message = len(encode(Frame(0, (reports(1)[0],))))
    more = ZMTP_CURVE.stream_bytes(message) - ZMTP_NULL.stream_bytes(message)
    assert releases[1] - releases[0] == more * 8000


@pytest.mark.parametrize(("kind", "reason"), [(QueueFull, TRANSPORT_FULL), (TransportError, "disconnected")])
def test_an_error_about_an_earlier_message_amends_its_row(kind: type[TransportError], reason: str) -> None:
    for message in (encode(Frame(5, tuple(reports(2)))), encode(Goodbye(3, 1, 0))):
        error = kind("of an earlier one")
        error.undelivered = message
        assert drop_reason(error) == reason
        assert amendment(error, 9) == (3, Departure(message, 9, 9, reason))
        error.undelivered = message[:-1] + bytes([message[-1] ^ 1])  # as the link model sent it on its way
        assert amendment(error, 9) is None
        error.undelivered = encode(Abort("in nobody's name"))
        assert amendment(error, 9) is None
        error.undelivered = None
        with pytest.raises(kind, match="of an earlier one"):
            amendment(error, 9)

"""Control messages: their bytes and their times, from journals and receive logs."""

import functools
from pathlib import Path

import pytest

from fronthaul.account.control import ClockSample, Traffic, control_traffic, ping_samples
from fronthaul.account.streams import ReceivedControl, SentControl, Texts, read_arrived, read_sent
from fronthaul.log.received import Arrival, Received, ReceiveLog
from fronthaul.log.sent import Departure, Journal, SendJournal
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import (
    Abort,
    Control,
    Direction,
    Frame,
    Goodbye,
    Payload,
    PayloadFormat,
    Ping,
    Pong,
    Registration,
    Report,
    ReportKey,
    Welcome,
)
from fronthaul.message.wire import encode
from fronthaul.transport.transport_costs import TransportCosts
from fronthaul.transport.zmtp import ZMTP_CURVE, ZMTP_NULL

FRAME = encode(Frame(0, (Report(ReportKey(3, 0, 0), Payload(b"\xab", 8)),)))
REGISTRATION = Registration(3, 0, "ecc", PayloadFormat.uniform(4, 768, 4), None, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
UP: list[Control] = [REGISTRATION, Ping(3, 0, 1000), Ping(3, 0, 2000), Goodbye(3, 0, 1)]
DOWN: list[Control] = [Welcome(3, 0), Pong(3, 0, 1000, 1500, 1600), Abort("no")]


def cost(*messages: Control, transport: TransportCosts = ZMTP_NULL) -> int:
    """Return what messages cost on the TCP stream [B]."""
    return sum(transport.stream_bytes(len(encode(message))) for message in messages)


def journal(
    path: Path, way: Direction, departures: dict[int, list[Departure]], transport: TransportCosts = ZMTP_NULL
) -> list[SentControl]:
    """Return the control messages of a journal, written and read."""
    sent = SendJournal(path, direction=way, transport=transport)
    for bs, messages in departures.items():
        sent.append(bs, messages)
    sent.close()
    return [*read_sent([Journal(path)], Texts()).control]


def log(path: Path, way: Direction, arrivals: list[Arrival]) -> list[ReceivedControl]:
    """Return the control messages of a receive log, written and read."""
    received = ReceiveLog(path, direction=way)
    received.append(arrivals)
    received.close()
    return [*read_arrived([Received(path)], Texts()).control]


@pytest.mark.parametrize("transport", [ZMTP_NULL, ZMTP_CURVE])
def test_sent_bytes_by_link_and_direction(tmp_path: Path, transport: TransportCosts) -> None:
    up = {3: [*(Departure(encode(message), 0, 0) for message in UP), Departure(FRAME, 0, 0)]}
    down = {3: [Departure(encode(message), 0, 0) for message in DOWN], 4: [Departure(encode(Welcome(4, 0)), 0, 0)]}
    sent = [
        *journal(tmp_path / "up", Direction.UP, up, transport=transport),
        *journal(tmp_path / "down", Direction.DOWN, down, transport=transport),
    ]
    part = functools.partial(cost, transport=transport)
    assert control_traffic(sent) == {
        (3, Direction.UP): Traffic(part(UP[0], UP[3]), part(UP[1], UP[2]), 4),
        (3, Direction.DOWN): Traffic(part(DOWN[0], DOWN[2]), part(DOWN[1]), 3),
        (4, Direction.DOWN): Traffic(part(Welcome(4, 0)), 0, 1),
    }


def test_what_the_queue_refused_crossed_nothing(tmp_path: Path) -> None:
    welcome = encode(Welcome(3, 0))
    departures = [Departure(welcome, 0, 0), Departure(welcome, 1, 1), Departure(welcome, 1, 1, "queue")]
    table = journal(tmp_path / "down", Direction.DOWN, {3: departures})
    assert control_traffic(table) == {(3, Direction.DOWN): Traffic(cost(Welcome(3, 0)), 0, 1)}


def test_nothing_sent_is_no_traffic(tmp_path: Path) -> None:
    assert control_traffic(journal(tmp_path / "sent", Direction.UP, {})) == {}
    received = log(tmp_path / "received", Direction.DOWN, [])
    assert ping_samples(received) == []


def test_pongs_are_clock_samples(tmp_path: Path) -> None:
    arrivals = [
        Arrival(3, encode(Pong(3, 1, 1000, 1500, 1600)), 2100, None),
        Arrival(3, encode(Welcome(3, 1)), 2200, None),
        Arrival(3, encode(Pong(3, 1, 3000, 3500, 3600)), 4100, FrameFate.REJECTED, "not asked for"),
        Arrival(3, FRAME, 4200, FrameFate.DELIVERED),
    ]
    assert ping_samples(log(tmp_path / "down", Direction.DOWN, arrivals)) == [
        ClockSample(bs=3, epoch=1, t1=1000, t2=1500, t3=1600, t4=2100)
    ]

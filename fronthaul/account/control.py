"""Cost and times of control messages, from journals and receive logs.

The ledger accounts for frames; this module accounts for everything else on a link except handshakes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fronthaul.account.streams import ReceivedControl, SentControl
from fronthaul.errors import RemoteError
from fronthaul.message.messages import Direction, Message, Ping, Pong
from fronthaul.message.wire import decode
from fronthaul.transport.transport_costs import TransportCosts


class Traffic(NamedTuple):
    """Control messages of a link in one direction, including the transport's overhead.

    Attributes:
        control_bytes: bytes of all control messages but heartbeats [B].
        heartbeat_bytes: bytes of pings and pongs [B].
        messages: number of messages of both kinds.
    """

    control_bytes: int
    heartbeat_bytes: int
    messages: int


class ClockSample(NamedTuple):
    """One exchange of a ping and its pong.

    Attributes:
        bs: base station.
        epoch: number of its earlier starts.
        t1: ping sent, by the BS's clock [ns].
        t2: ping received, by the cloud's clock [ns].
        t3: pong sent, by the cloud's clock [ns].
        t4: pong received, by the BS's clock [ns].
    """

    bs: int
    epoch: int
    t1: int
    t2: int
    t3: int
    t4: int


def control_traffic(sent: Iterable[SentControl]) -> dict[tuple[int, Direction], Traffic]:
    """Return the control messages that were sent, by link and direction."""
    traffic: dict[tuple[int, Direction], Traffic] = {}
    for message in sent:
        if message.drop_reason is None:
            _count(traffic, (message.bs, message.direction), message.message, message.transport)
    return traffic


def ping_samples(received: Iterable[ReceivedControl]) -> list[ClockSample]:
    """Return the ping exchanges whose pongs arrived."""
    samples = []
    for message in received:
        pong = _decoded(message.message)
        if isinstance(pong, Pong) and not message.rejected and message.direction is Direction.DOWN:
            times = (pong.t_sent_ns, pong.t_received_ns, pong.t_answered_ns, message.t_received_ns)
            samples.append(ClockSample(pong.bs, pong.epoch, *times))
    return samples


def _count(
    traffic: dict[tuple[int, Direction], Traffic], link: tuple[int, Direction], data: bytes, transport: TransportCosts
) -> None:
    cost = transport.stream_bytes(len(data))
    control_bytes, heartbeat_bytes, messages = traffic.get(link, (0, 0, 0))
    if isinstance(_decoded(data), Ping | Pong):
        traffic[link] = Traffic(control_bytes, heartbeat_bytes + cost, messages + 1)
    else:
        traffic[link] = Traffic(control_bytes + cost, heartbeat_bytes, messages + 1)


def _decoded(data: bytes) -> Message | None:
    try:
        return decode(data)
    except RemoteError:  # a receive log may hold bytes that are not a message
        return None

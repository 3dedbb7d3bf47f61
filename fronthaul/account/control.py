"""Cost and times of control messages, from journals and receive logs.

The ledger accounts for frames; this module accounts for everything else on a link except handshakes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fronthaul.errors import RemoteError
from fronthaul.log.sent import sent_rows
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction, Message, Ping, Pong
from fronthaul.message.wire import decode, is_control
from fronthaul.transport.transport_costs import TransportCosts, recorded_costs

if TYPE_CHECKING:
    import pyarrow as pa


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


def control_traffic(journal: pa.Table) -> dict[tuple[int, Direction], Traffic]:
    """Return the control messages that were sent, by link and direction.

    Args:
        journal: rows of one journal or of many, `sent.journal_table_schema()`.
    """
    traffic: dict[tuple[int, Direction], Traffic] = {}
    for row in sent_rows(journal):
        if row["drop_reason"] is None and is_control(row["message"]):
            _count(traffic, row, row["message"], recorded_costs(row["transport"]))
    return traffic


def control_rows(received: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a receive log that are control messages, including rejected ones."""
    import pyarrow.compute as pc

    fate = received["frame_fate"]
    rows: list[dict[str, Any]] = received.filter(
        pc.or_(pc.is_null(fate), pc.fill_null(pc.equal(fate, FrameFate.REJECTED.value), False))
    ).to_pylist()
    return [row for row in rows if row["frame_fate"] is None or is_control(row["data"])]


def ping_samples(received_down: pa.Table) -> list[ClockSample]:
    """Return the ping exchanges whose pongs arrived.

    Args:
        received_down: rows of the receive logs of base stations, `received.received_table_schema()`.
    """
    samples = []
    for row in control_rows(received_down):
        pong = _decoded(row["data"])
        if isinstance(pong, Pong) and row["frame_fate"] is None:
            times = (pong.t_sent_ns, pong.t_received_ns, pong.t_answered_ns, row["t_received_ns"])
            samples.append(ClockSample(pong.bs, pong.epoch, *times))
    return samples


def _count(
    traffic: dict[tuple[int, Direction], Traffic], row: dict[str, Any], data: bytes, transport: TransportCosts
) -> None:
    link = (row["bs"], Direction(row["direction"]))
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

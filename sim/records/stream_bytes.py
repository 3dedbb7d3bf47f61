"""Bytes of each connection: predicted from the journals and receive logs, checked against the kernel's counts.

The prediction covers the TCP stream: handshakes, control messages, heartbeats and frames, with the overhead of the
transport. On a link with one uninterrupted connection, prediction and kernel agree to the byte, in both directions and
at both ends. If a fault cut a connection, it is unknown how much of the journaled data crossed it; the prediction is
then an interval, from what arrived to what was sent. A control message that a link model held back until after the
connection was closed was never sent, and is not predicted.

Files: ``links/connections.parquet``: one row per link; ``links/sockets.parquet``: one row per TCP connection and end,
as its kernel counted it; ``links/events.parquet``: events such as connections made, lost and refused.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fronthaul.account.control import Traffic, control_traffic
from fronthaul.account.streams import SentControl
from fronthaul.errors import LocalError
from fronthaul.log.arrow_stream import read_stream
from fronthaul.log.recorder import connection_schema, event_schema
from fronthaul.log.stream_names import CONNECTIONS, EVENTS, CloudStart, EdgeStart, start_of
from fronthaul.message.messages import Direction
from fronthaul.transport.transport_costs import TransportCosts, recorded_costs
from sim.errors import UserError
from sim.records.columns import write_table
from sim.records.folder import RunFolder
from sim.records.links import Besides, LinkTotals, read_table

if TYPE_CHECKING:
    import pyarrow as pa

NOTHING = Traffic(0, 0, 0)


@dataclass(frozen=True)
class Way:
    """One direction of a link [B].

    Attributes:
        handshake: greeting and handshake of all connections.
        control: registration, welcome, goodbye.
        heartbeat: pings or pongs.
        data: all frames.
        stray: bytes that arrived and that no sender of the run wrote down: messages, and whatever else came over
            connections whose other end kept no books.
        least: lower end of the prediction: bytes that are known to have crossed.
        most: upper end of the prediction: bytes that may have crossed.
        kernel_sent: acknowledged bytes by the sender's kernel; None if a sender died before recording its count.
        kernel_received: bytes by the receiver's kernel; None if a receiver died before recording its count.
    """

    handshake: int
    control: int
    heartbeat: int
    data: int
    stray: int
    least: int
    most: int
    kernel_sent: int | None
    kernel_received: int | None

    def agrees(self, cut: int) -> bool:
        """Return whether the kernels' counts agree with the prediction, given `cut` cut connections.

        The kernel counts the other end's FIN as a received byte. If a reset follows, it is unknown whether it arrived,
        hence a tolerance of one byte per cut connection.
        """
        sent = self.least if self.kernel_sent is None else self.kernel_sent
        received = self.least if self.kernel_received is None else self.kernel_received
        return self.least <= sent <= self.most and self.least <= received <= self.most + cut


@dataclass(frozen=True)
class Connection:
    """All connections of one link.

    Attributes:
        bs: base station.
        connections: number of TCP connections; 0 for links in memory, whose bytes are predicted as for one.
        cut: number of connections that a fault ended.
        up: from BS to cloud.
        down: from cloud to BS.
    """

    bs: int
    connections: int
    cut: int
    up: Way
    down: Way

    @property
    def exact(self) -> bool:
        """Whether both kernels counted both directions, and prediction and kernels agree to the byte."""
        ways = (self.up, self.down)
        return all(way.least == way.most == way.kernel_sent == way.kernel_received for way in ways)


@dataclass(frozen=True)
class Sockets:
    """TCP connections of a run, as each end saw them (`recorder.connection_schema()`), and events.

    `silent`: number of starts of each base station that recorded no connection, for example because they were killed.
    """

    edge: pa.Table
    cloud: pa.Table
    events: pa.Table
    silent: Mapping[int, int] = field(default_factory=dict)


def read_sockets(folder: RunFolder) -> Sockets:
    """Read the connections and events that both ends recorded."""
    starts = {path: start_of(path.name) for path in folder.streams(CONNECTIONS)}
    edge = {path: start.bs for path, start in starts.items() if isinstance(start, EdgeStart)}
    return Sockets(
        _read(edge, connection_schema),
        _read((path for path, start in starts.items() if isinstance(start, CloudStart)), connection_schema),
        _read(folder.streams(EVENTS), event_schema),
        Counter(bs for path, bs in edge.items() if not len(_read([path], connection_schema))),
    )


def connections(
    besides: Besides, transport: TransportCosts, sockets: Sockets, links: Iterable[LinkTotals]
) -> list[Connection]:
    """Predict and count the bytes of each link's connections.

    Args:
        besides: control messages, and what else is in the journals and receive logs of all ends.
        transport: the transport's overhead.
        sockets: connections with their kernels' counts.
        links: totals of the frames.
    """
    totals = {(link.bs, link.direction): link for link in links}
    arrived, strays = besides.arrived_bytes, besides.stray_bytes
    pairs_of = _joined(sockets)
    sent_by: dict[int, list[SentControl]] = {}
    for message in besides.sent:
        sent_by.setdefault(message.bs, []).append(message)
    table = []
    for bs in sorted({bs for bs, _ in totals}):
        pairs = pairs_of.get(bs, [])
        sent = control_traffic(_released(sent_by.get(bs, []), pairs))
        came = bool(pairs) or any((bs, direction) in arrived for direction in Direction)
        handshake = transport.handshake_bytes(bs)
        # The cloud has recorded the connection of a killed start, unless both were killed at the same time.
        silent, alone = sockets.silent.get(bs, 0), sum(edge is None for edge, _ in pairs)
        pairs = [*pairs, *[(None, None)] * max(0, silent - alone if pairs else 0)]
        count = max(len(pairs), int(came))
        clean = len(pairs) <= 1 and all(edge and cloud and not edge["cut"] for edge, cloud in pairs)
        ways = []
        for direction, opening in zip(Direction, handshake, strict=True):
            traffic = sent.get((bs, direction), NOTHING)
            link = totals.get((bs, direction))
            frames = link.stream_bytes if link else 0
            up = direction is Direction.UP
            stray = strays.get((bs, direction), 0)
            if up and (stray or alone > silent):  # a stranger may have sent other things than messages, too
                stray = max(stray, sum(cloud["received_bytes"] for edge, cloud in pairs if cloud and not edge))
            most = count * opening + traffic.control_bytes + traffic.heartbeat_bytes + frames + stray
            ways.append(
                Way(
                    handshake=count * opening,
                    control=traffic.control_bytes,
                    heartbeat=traffic.heartbeat_bytes,
                    data=frames,
                    stray=stray,
                    least=most - (link.unsure_bytes if link else 0) if clean else arrived.get((bs, direction), 0),
                    most=most,
                    kernel_sent=_sum(pairs, 0 if up else 1, "sent_bytes"),
                    kernel_received=_sum(pairs, 1 if up else 0, "received_bytes"),
                )
            )
        cut = sum(not (edge and cloud) or edge["cut"] for edge, cloud in pairs)
        table.append(Connection(bs, len(pairs), cut, *ways))
    return table


def byte_problems(table: Iterable[Connection]) -> list[str]:
    """Check predicted stream bytes against the kernels' counts; return one sentence per contradiction."""
    problems = []
    for connection in table:
        for direction, way in zip(Direction, (connection.up, connection.down), strict=True):
            if connection.connections and not way.agrees(connection.cut):
                predicted = f"{way.most} B" if way.least == way.most else f"{way.least} to {way.most} B"
                problems.append(
                    f"on the link of BS {connection.bs} {direction}, {predicted} were predicted, the sender's kernel "
                    f"counted {way.kernel_sent} B and the receiver's {way.kernel_received} B"
                )
    return problems


def write_connections(folder: RunFolder, table: list[Connection], sockets: Sockets, transport: TransportCosts) -> None:
    """Write the tables of connections, sockets and events; the first holds the transport's costs as metadata."""
    import pyarrow as pa

    rows = []
    for connection in table:
        row: dict[str, Any] = {"bs": connection.bs, "connections": connection.connections, "cut": connection.cut}
        for direction, way in zip(Direction, (connection.up, connection.down), strict=True):
            row |= {f"{name}_{direction}_bytes": value for name, value in dataclasses.asdict(way).items()}
        rows.append(row)
    names = [field.name for field in dataclasses.fields(Way)]
    counts = [(f"{name}_{direction}_bytes", pa.int64()) for direction in Direction for name in names]
    schema = pa.schema([("bs", pa.uint16()), ("connections", pa.uint16()), ("cut", pa.uint16()), *counts])
    schema = schema.with_metadata({"transport": transport.to_text()})
    write_table(pa.Table.from_pylist(rows, schema), folder.connections)
    ends = [
        side.append_column("end", pa.repeat(pa.scalar(end), len(side)))
        for end, side in (("edge", sockets.edge), ("cloud", sockets.cloud))
    ]
    write_table(pa.concat_tables(ends), folder.sockets)
    write_table(sockets.events, folder.events)


def recorded_transport(folder: RunFolder) -> TransportCosts | None:
    """Read the transport's costs from the table of connections; None if they are not there, as before 0.2.0.

    Raises:
        UserError: the table is missing or damaged.
    """
    text = (read_table(folder.connections).schema.metadata or {}).get(b"transport")
    try:
        return None if text is None else recorded_costs(text.decode())
    except (LocalError, ValueError) as error:
        raise UserError(f"{folder.connections.name} is damaged: {error}.") from error


def read_connections(folder: RunFolder) -> list[Connection]:
    """Read the table of connections.

    Raises:
        UserError: it is missing or damaged.
    """
    names = [field.name for field in dataclasses.fields(Way)]
    found = []
    try:
        for row in read_table(folder.connections).to_pylist():
            up, down = (Way(**{name: row[f"{name}_{direction}_bytes"] for name in names}) for direction in Direction)
            found.append(Connection(row["bs"], row["connections"], row["cut"], up, down))
    except KeyError as error:
        raise UserError(f"{folder.connections.name} is damaged: it has no column {error}.") from error
    return found


def read_socket_tables(folder: RunFolder) -> Sockets:
    """Read the tables of sockets and events.

    Raises:
        UserError: one is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        sockets = read_table(folder.sockets)
        edge, cloud = (
            sockets.filter(pc.equal(sockets["end"], end)).select(connection_schema().names).cast(connection_schema())
            for end in ("edge", "cloud")
        )
        events = read_table(folder.events)
        return Sockets(edge, cloud, events.select(event_schema().names).cast(event_schema()))
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{folder.sockets.name} or {folder.events.name} is damaged: {error}.") from error


_Pair = tuple[dict[str, Any] | None, dict[str, Any] | None]


def _joined(sockets: Sockets) -> dict[int, list[_Pair]]:
    """Return the two ends of each TCP connection by BS; None for an end that died before recording its count."""
    edge = {(row["local"], row["remote"]): row for row in sockets.edge.to_pylist()}
    cloud = {(row["remote"], row["local"]): row for row in sockets.cloud.to_pylist()}
    found: dict[int, list[_Pair]] = {}
    for ends in sorted(edge.keys() | cloud.keys()):
        pair = edge.get(ends), cloud.get(ends)
        for bs in {row["bs"] for row in pair if row is not None and row["bs"] is not None}:
            found.setdefault(bs, []).append(pair)
    return found


def _released(control: Iterable[SentControl], pairs: list[_Pair]) -> list[SentControl]:
    """Return a link's control messages without those still held back when the sender closed its last connection."""
    last_ns: dict[Direction, int] = {}
    for end, direction in enumerate(Direction):
        closed = [pair[end] for pair in pairs]
        if closed and all(closed):  # else an end recorded no closing time, and what crossed is unknown anyway
            last_ns[direction] = max(row["t_closed_ns"] for row in closed if row)
    return [
        message
        for message in control
        if message.t_release_ns <= max(message.t_sent_ns, last_ns.get(message.direction, message.t_release_ns))
    ]


def _sum(pairs: list[_Pair], end: int, name: str) -> int | None:
    rows = [pair[end] for pair in pairs]
    return sum(row[name] for row in rows if row) if rows and all(rows) else None


def _read(paths: Iterable[Path], schema: Callable[[], pa.Schema]) -> pa.Table:
    import pyarrow as pa

    tables = [schema().empty_table()]
    for path in paths:
        try:
            tables.append(read_stream(path).replace_schema_metadata(None))
        except (FileNotFoundError, LocalError):  # never started
            continue
    return pa.concat_tables(tables)

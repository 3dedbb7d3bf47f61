"""What one end of its links writes down while a run goes on: streams that survive kill -9.

    <name>-sent.arrow          every message before it is sent
    <name>-received.arrow      every message that came, with its fate
    <name>-connections.arrow   every TCP connection that ended: what the kernel counted
    <name>-events.arrow        connections made, lost and refused, and what else happened
    <name>.pcapng              the data frames of the link as eCPRI, at base stations

Everything that a closed run says about its links is derived from these.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fronthaul.clock import Clock
from fronthaul.log.arrow_stream import RowStream
from fronthaul.log.pcapng import CaptureWriter
from fronthaul.log.received import Arrival, ReceiveLog
from fronthaul.log.sent import Departure, SendJournal, corrupted
from fronthaul.log.stream_names import CAPTURE, CONNECTIONS, EVENTS, RECEIVED, SENT
from fronthaul.message.messages import Direction
from fronthaul.message.wire import claim, is_control
from fronthaul.transport.transport import ConnectionCount, LinkEvent
from fronthaul.transport.transport_costs import TransportCosts

if TYPE_CHECKING:
    import pyarrow as pa


@functools.cache
def connection_schema() -> pa.Schema:
    """Return the columns of a connection that ended, as one end saw it; bytes are the kernel's [B]."""
    import pyarrow as pa

    return pa.schema(
        [
            ("bs", pa.uint16()),
            ("local", pa.string()),
            ("remote", pa.string()),
            ("t_opened_ns", pa.int64()),
            ("t_closed_ns", pa.int64()),
            ("sent_bytes", pa.int64()),
            ("received_bytes", pa.int64()),
            ("cut", pa.bool_()),
        ]
    )


@functools.cache
def event_schema() -> pa.Schema:
    """Return the columns of what happened to connections (`LinkEvent`), and at an end itself (`Recorder.event`)."""
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("kind", "peer", "detail")]
    return pa.schema([("t_ns", pa.int64()), *texts, ("bs", pa.uint16())])


class Recorder:
    """The streams of one end, for one start of its process."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        sends: Direction,
        transport: TransportCosts,
        capture_bs: int | None = None,
    ) -> None:
        """Create the streams.

        Args:
            folder: in which they lie.
            name: of the end and its start, which no other has.
            sends: which way its messages go; what it receives goes the other way.
            transport: what its links add to each message.
            capture_bs: the base station whose link is captured; None captures nothing.

        Raises:
            LocalError: one of the files is there already, or cannot be written.
        """
        receives = Direction.DOWN if sends is Direction.UP else Direction.UP
        self._sends, self._receives = sends, receives
        self._name = name
        self._capture = None
        with contextlib.ExitStack() as opened:  # closes them where one of them cannot be made
            self._journal = SendJournal(folder / f"{name}{SENT}", direction=sends, transport=transport)
            opened.callback(self._journal.close)
            self._log = ReceiveLog(folder / f"{name}{RECEIVED}", direction=receives)
            opened.callback(self._log.close)
            self._connections = RowStream(folder / f"{name}{CONNECTIONS}", connection_schema())
            opened.callback(self._connections.close)
            self._events = RowStream(folder / f"{name}{EVENTS}", event_schema())
            opened.callback(self._events.close)
            if capture_bs is not None:
                self._capture = CaptureWriter(folder / f"{name}{CAPTURE}", capture_bs)
                opened.callback(self._capture.close)
            self._streams = opened.pop_all()

    def sent(self, bs: int, departures: Sequence[Departure]) -> None:
        """Write down what is about to be sent over the link of `bs`.

        Raises:
            LocalError: the disk is full.
        """
        self.sent_all([(bs, departure) for departure in departures])

    def sent_all(self, sent: Sequence[tuple[int, Departure]]) -> None:
        """Write down what is about to be sent over several links, each message with its BS, in one write.

        Raises:
            LocalError: the disk is full.
        """
        self._journal.append_all(sent)
        if self._capture is not None:
            self._capture.write(
                [
                    (self._sends, _seq(departure.message), corrupted(departure), departure.t_release_ns)
                    for _, departure in sent
                    if departure.drop_reason is None and not is_control(departure.message)
                ]
            )

    def received(self, arrivals: Sequence[Arrival]) -> None:
        """Write down what came.

        Raises:
            LocalError: the disk is full.
        """
        if not arrivals:
            return
        self._log.append(arrivals)
        if self._capture is not None:
            frames = [a for a in arrivals if a.fate is not None]
            self._capture.write([(self._receives, _seq(a.data), a.data, a.t_received_ns) for a in frames])

    def links(self, connections: Sequence[ConnectionCount], events: Sequence[LinkEvent]) -> None:
        """Write down connections that ended, and what happened to others."""
        if connections:
            self._connections.extend([tuple(count) for count in connections])
        if events:
            self._events.extend([tuple(event) for event in events])

    def clock(self, clock: Clock) -> None:
        """Write down which clock this end reads: two ends that read the same one need no offset."""
        self.event(clock.now_ns(), "clock", clock.name)

    def event(self, t_ns: int, kind: str, detail: str, bs: int | None = None) -> None:
        """Write down what happened at this end, and to no connection.

        Args:
            t_ns: when [ns].
            kind: "clock" says which one it reads, "registration" that a BS was turned away, "fusion" that reports came
                to no fix, "excluded" that those of a BS could not be used for one.
            detail: for people.
            bs: whom it is about, where it is one BS.

        Raises:
            LocalError: the disk is full.
        """
        self._events.append(t_ns, kind, self._name, detail, bs)

    def close(self) -> None:
        """Mark the streams' ends; closing twice is fine.

        Raises:
            LocalError: the disk is full; the streams can be read, and are closed.
        """
        self._streams.close()  # each of them, also where the disk is full


def _seq(data: bytes) -> int:
    claimed = claim(data)
    return 0 if claimed is None else claimed.seq

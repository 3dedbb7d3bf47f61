"""The recorder of one end of the links: streams that are written during a run and survive kill -9.

    <name>-sent.arrow          every message before it is sent
    <name>-received.arrow      every message that arrived, with its fate
    <name>-connections.arrow   every TCP connection that ended, with the kernel's byte counts
    <name>-events.arrow        connections made, lost and refused, and other events
    <name>.pcapng              the data frames of the link as eCPRI, at base stations

All link results of a finished run are derived from these.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fronthaul.clock import Clock
from fronthaul.errors import LocalError
from fronthaul.log.arrow_stream import RowStream
from fronthaul.log.pcapng import Captured, CaptureWriter
from fronthaul.log.received import Arrival, ReceiveLog
from fronthaul.log.remote import Folder, RemoteFolder
from fronthaul.log.sent import Departure, SendJournal, corrupted
from fronthaul.log.stream_names import CAPTURE, CONNECTIONS, EVENTS, RECEIVED, SENT
from fronthaul.message.messages import Direction
from fronthaul.message.wire import ReportHeads, claim, is_control
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
    """Return the columns of connection events (`LinkEvent`) and of events at an end itself (`Recorder.event`)."""
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("kind", "peer", "detail")]
    return pa.schema([("t_ns", pa.int64()), *texts, ("bs", pa.uint16())])


class Recorder:
    """The streams of one end, for one start of its process."""

    def __init__(
        self,
        folder: Folder,
        name: str,
        *,
        sends: Direction,
        transport: TransportCosts,
        capture_bs: int | None = None,
    ) -> None:
        """Create the streams.

        Args:
            folder: folder of the streams.
            name: unique name of the end and its start.
            sends: direction of the messages that it sends; those that it receives go the other way.
            transport: the overhead of its links for each message.
            capture_bs: the base station whose link is captured; None captures nothing.

        Raises:
            LocalError: one of the files already exists, or cannot be written.
        """
        receives = Direction.DOWN if sends is Direction.UP else Direction.UP
        self._sends, self._receives = sends, receives
        self._name = name
        self._folder = folder
        self._capture = None
        with contextlib.ExitStack() as opened:  # closes all if one of them cannot be created
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
        """Record messages that are about to be sent over the link of `bs`.

        Raises:
            LocalError: the disk is full.
        """
        self.sent_all([(bs, departure) for departure in departures])

    def sent_all(self, sent: Sequence[tuple[int, Departure]]) -> None:
        """Record messages that are about to be sent over several links, each with its BS, in one write.

        They are on record on return, also where streams are kept on another machine.

        Raises:
            LocalError: the disk is full, or the other machine cannot be reached; none of them may be sent.
        """
        self._journal.append_all(sent)
        if self._capture is not None:
            frames = [
                (self._sends, _seq(departure.message), corrupted(departure), departure.t_release_ns)
                for _, departure in sent
                if departure.drop_reason is None and not is_control(departure.message)
            ]
            _capture(self._capture, frames, self._journal)
        if isinstance(self._folder, RemoteFolder):
            self._folder.settle()

    def received(self, arrivals: Sequence[Arrival]) -> None:
        """Record messages that arrived.

        Raises:
            LocalError: the disk is full; none of them is on record then.
        """
        if not arrivals:
            return
        self._log.append(arrivals)
        if self._capture is not None:
            frames = [a for a in arrivals if a.fate is not None]
            _capture(
                self._capture, [(self._receives, _seq(a.data), a.data, a.t_received_ns) for a in frames], self._log
            )

    def delivered(
        self, t_received_ns: Sequence[int], sent: Sequence[bytes], heads: ReportHeads, late: Sequence[int]
    ) -> None:
        """Record frames of one report each that were delivered; see `ReceiveLog.append_delivered`.

        Raises:
            LocalError: the disk is full; none of them is on record then.
        """
        assert self._capture is None, "the cloud captures nothing"
        self._log.append_delivered(t_received_ns, sent, heads, late)

    def links(self, connections: Sequence[ConnectionCount], events: Sequence[LinkEvent]) -> None:
        """Record connections that ended, and connection events."""
        if connections:
            self._connections.extend([tuple(count) for count in connections])
        if events:
            self._events.extend([tuple(event) for event in events])

    def clock(self, clock: Clock) -> None:
        """Record which clock this end reads: two ends with the same clock need no offset."""
        self.event(clock.now_ns(), "clock", clock.name)

    def event(self, t_ns: int, kind: str, detail: str, bs: int | None = None) -> None:
        """Record an event at this end that concerns no connection.

        Args:
            t_ns: time of the event [ns].
            kind: "clock" (which clock this end reads), "registration" (a BS was refused), "fusion" (reports gave no
                fix), "excluded" (the reports of a BS could not be used for a fix), or "left out" (a link sent more
                messages than are logged).
            detail: description for the user.
            bs: the base station concerned, if it is a single one.

        Raises:
            LocalError: the disk is full.
        """
        self._events.append(t_ns, kind, self._name, detail, bs)

    def close(self) -> None:
        """Mark the streams' ends; closing twice is fine.

        Raises:
            LocalError: the disk is full; the streams stay readable, and are closed.
        """
        self._streams.close()  # closes each of them, even if the disk is full
        if isinstance(self._folder, RemoteFolder):
            self._folder.settle()


def _capture(capture: CaptureWriter, frames: list[Captured], stream: SendJournal | ReceiveLog) -> None:
    """Capture frames that have just been added to a stream, or take them back from there.

    Raises:
        LocalError: the disk is full.
    """
    try:
        capture.write(frames)
    except LocalError:
        stream.take_back()
        raise


def _seq(data: bytes) -> int:
    claimed = claim(data)
    return 0 if claimed is None else claimed.seq

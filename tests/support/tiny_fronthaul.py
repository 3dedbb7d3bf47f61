"""A fronthaul in miniature: journals and receive logs written, then read back and joined."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from whole_ledger import close_ledger

from fronthaul.account.used import UsedReports
from fronthaul.log.received import Arrival, Received, ReceiveLog
from fronthaul.log.sent import Departure, Journal, SendJournal, corrupted
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Control, Direction, Frame, Payload, Report, ReportKey
from fronthaul.message.wire import encode
from fronthaul.transport.zmtp import ZMTP_NULL


def frame(seq: int, *snapshots: int, bs: int = 0, epoch: int = 0) -> Frame:
    """Return a frame of reports of 11 payload bits and 4 B of side information."""
    payload = Payload(b"\xab\xc0", 11)
    return Frame(seq, tuple(Report(ReportKey(bs, epoch, snapshot), payload, b"gain") for snapshot in snapshots))


def key(snapshot: int, bs: int = 0, epoch: int = 0) -> ReportKey:
    """Return the key of a report in round 0."""
    return ReportKey(bs, epoch, snapshot)


class Run:
    """A run of it."""

    def __init__(self, folder: Path) -> None:
        """Keep the files in `folder`."""
        self.folder = folder
        self.journals = {
            way: SendJournal(folder / f"sent-{way}", direction=way, transport=ZMTP_NULL) for way in Direction
        }
        self.logs = {way: ReceiveLog(folder / f"received-{way}", direction=way) for way in Direction}
        self.time_ns = 0

    def send(
        self,
        sent: Frame | Control,
        way: Direction = Direction.UP,
        *,
        bs: int | None = None,
        drop_reason: str | None = None,
        flipped: tuple[int, ...] = (),
    ) -> bytes:
        """Journal a message, and return the bytes that go onto the wire."""
        self.time_ns += 10
        departure = Departure(encode(sent), self.time_ns, self.time_ns + 5, drop_reason, flipped)
        owner = bs if bs is not None else sent.bs if isinstance(sent, Frame) else 0
        self.journals[way].append(owner, [departure])
        return corrupted(departure)

    def receive(
        self,
        data: bytes,
        fate: FrameFate | None = FrameFate.DELIVERED,
        way: Direction = Direction.UP,
        *,
        bs: int | None = 0,
        reason: str | None = None,
        late: int = 0,
    ) -> None:
        """Log an arrival."""
        self.time_ns += 1
        self.logs[way].append([Arrival(bs, data, self.time_ns, fate, reason, late)])

    def corrupt(self, data: bytes, bs: int | None = 0) -> None:
        """Log the arrival of what has a wrong checksum."""
        self.receive(data, FrameFate.CORRUPT, bs=bs, reason="checksum")

    def ledger(self, used: Sequence[ReportKey] = ()) -> pa.Table:
        """Close everything and join it."""
        streams: list[SendJournal | ReceiveLog] = [*self.journals.values(), *self.logs.values()]
        for stream in streams:
            stream.close()
        # Frames that go up come first, whatever their journals are called.
        journals = sorted(map(Journal, self.folder.glob("sent-*")), key=lambda journal: journal.direction, reverse=True)
        logs = [Received(path) for path in sorted(self.folder.glob("received-*"))]
        return close_ledger(journals, logs, of_keys(used))


def of_keys(keys: Sequence[ReportKey]) -> UsedReports:
    """Return reports as used in fixes, one of each snapshot."""
    snapshots = sorted({key.snapshot for key in keys})
    return UsedReports.of_fixes((number, [key for key in keys if key.snapshot == number]) for number in snapshots)

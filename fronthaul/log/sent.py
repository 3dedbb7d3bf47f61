"""The journal of a sender, which survives kill -9: one row per message, written before the message is sent.

Control messages are journaled like frames. Copies that the link model makes and frames that it drops have their own
rows (docs/fronthaul.md, "Links"). A BS writes one journal per epoch, direction "up"; the cloud writes one for all
links, direction "down".
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fronthaul.errors import LocalError
from fronthaul.log.arrow_batches import StreamFile
from fronthaul.log.arrow_stream import RowStream
from fronthaul.log.remote import StreamPath
from fronthaul.message.messages import Direction
from fronthaul.transport.transport_costs import TransportCosts, recorded_costs

if TYPE_CHECKING:
    import pyarrow as pa


TRANSPORT_FULL = "transport"
"""Drop reason: the transport's send queue at this end was full ("queue" is the link model's queue)."""

DISCONNECTED = "disconnected"
"""Drop reason: the transport at this end had no connection."""


class Departure(NamedTuple):
    """An outgoing message.

    Attributes:
        message: the standard form before any corruption, with its CRC.
        t_sent_ns: when it is sent [ns].
        t_release_ns: when the link model lets it onto the wire [ns]; `t_sent_ns` without a model.
        drop_reason: why it never gets onto the wire; None if it does.
        flipped: bits that the link model inverts, counted from the most significant bit of byte 0 on the wire.
        packed: its form on the wire, if that is not `message`; no journal holds it, since it follows.
    """

    message: bytes
    t_sent_ns: int
    t_release_ns: int
    drop_reason: str | None = None
    flipped: tuple[int, ...] = ()
    packed: bytes | None = None


def corrupted(departure: Departure) -> bytes:
    """Return the bytes that go onto the wire: the message in its form there, with its flipped bits.

    Raises:
        LocalError: a bit to flip lies outside the message.
    """
    data = departure.message if departure.packed is None else departure.packed
    return flip(data, departure.flipped) if departure.flipped else data


def flip(message: bytes, bits: Sequence[int]) -> bytes:
    """Return `message` with bits inverted, counted from the most significant bit of byte 0.

    Raises:
        LocalError: a bit lies outside the message.
    """
    data = bytearray(message)
    for bit in bits:
        if not 0 <= bit < 8 * len(data):
            raise LocalError(f"bit {bit} lies outside of a message of {len(data)} B")
        data[bit >> 3] ^= 0x80 >> (bit & 7)
    return bytes(data)


@functools.cache
def journal_schema() -> pa.Schema:
    """Return the columns of a journal's file; direction and transport are in its metadata."""
    import pyarrow as pa

    return pa.schema(
        [
            ("bs", pa.uint16()),
            ("t_sent_ns", pa.int64()),
            ("t_release_ns", pa.int64()),
            ("drop_reason", pa.string()),
            ("flipped", pa.list_(pa.uint32())),
            ("message", pa.binary()),
        ]
    )


class SendJournal:
    """The journal of one sender, for one direction."""

    def __init__(self, path: StreamPath, *, direction: Direction, transport: TransportCosts) -> None:
        """Create the journal.

        Args:
            path: file to create.
            direction: direction of the messages.
            transport: the overhead of the links for each message.

        Raises:
            LocalError: `path` already exists, or the disk is full.
        """
        metadata = {"direction": direction.value, "transport": transport.to_text()}
        self._rows = RowStream(path, journal_schema(), metadata)

    def append(self, bs: int, departures: Sequence[Departure]) -> None:
        """Record messages of one link, in one write; call this before they are sent.

        A later row with the same message and a drop reason amends the earlier row: the transport could not take the
        message after it was journaled.

        Args:
            bs: base station at the link's edge.
            departures: the messages; may be empty.

        Raises:
            LocalError: the journal is closed, a value does not fit its column, or the disk is full.
        """
        self.append_all([(bs, departure) for departure in departures])

    def append_all(self, sent: Sequence[tuple[int, Departure]]) -> None:
        """Record messages of any links, each with its BS, in one write, such as a state that is sent to all.

        Raises:
            LocalError: as `append`.
        """
        if not sent:
            return
        stations, departures = zip(*sent, strict=True)
        messages, t_sent_ns, t_release_ns, drop_reasons, flipped, _ = zip(*departures, strict=True)
        self._rows.extend_columns(
            len(sent),
            (
                stations,
                t_sent_ns,
                t_release_ns,
                None if drop_reasons.count(None) == len(sent) else drop_reasons,
                [bits or None for bits in flipped] if any(flipped) else None,
                messages,
            ),
        )

    def take_back(self) -> None:
        """Remove the rows of the last call again: their messages will not be sent."""
        self._rows.take_back()

    def close(self) -> None:
        """Mark the journal's end; closing twice is fine."""
        self._rows.close()


class Journal:
    """A journal on disk, even of a writer that was killed.

    Attributes:
        direction: direction of its messages.
        transport: the overhead of its links for each message.
    """

    def __init__(self, path: Path) -> None:
        """Read what the journal says of itself.

        Raises:
            FileNotFoundError: there is no such file.
            LocalError: the file is not a journal.
        """
        self._stream = StreamFile(path)
        metadata = self._stream.schema.metadata or {}
        direction = metadata.get(b"direction", b"").decode(errors="replace")
        if self._stream.schema != journal_schema() or direction not in set(Direction):
            raise LocalError(f"{path} is not a send journal")
        self.direction = Direction(direction)
        try:
            self.transport = recorded_costs(metadata.get(b"transport", b"").decode(errors="replace"))
        except LocalError as error:
            raise LocalError(f"{path} is not a send journal: {error}") from error

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield its rows, `journal_schema()`, in order."""
        return self._stream.batches()


def read_journal(path: Path) -> pa.Table:
    """Return the rows of a journal, `journal_schema()`, even if its writer was killed.

    Raises:
        FileNotFoundError: there is no such file.
        LocalError: the file is not a journal.
    """
    import pyarrow as pa

    return pa.Table.from_batches(Journal(path).batches(), journal_schema()).combine_chunks()


def amended(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of one journal, with amending rows merged into the rows that they amend.

    Args:
        rows: with `bs`, `message` and `drop_reason`; messages are only compared.
    """
    kept: list[dict[str, Any]] = []
    sent: dict[tuple[object, object], list[dict[str, Any]]] = {}
    for row in rows:
        same = sent.setdefault((row["bs"], row["message"]), [])
        if row["drop_reason"] is not None and same:
            same.pop()["drop_reason"] = row["drop_reason"]
            continue
        if row["drop_reason"] is None:
            same.append(row)
        kept.append(row)
    return kept

"""Prepares what one end of a link sends: numbers, bundles, and applies the link model. Pure: nothing is sent here.

    reports -> frames (seq, bundle) -> link model (loss, copies, flips, release time) -> departures

A copy made by the link model and a frame dropped by it are frames of their own, each with its own seq (accounting,
"Fates").
"""

from __future__ import annotations

from collections.abc import Sequence

from fronthaul.errors import QueueFull, RemoteError, TransportError
from fronthaul.link.link_model import LinkModel, Passage
from fronthaul.log.sent import DISCONNECTED, TRANSPORT_FULL, Departure
from fronthaul.message.compact import pack
from fronthaul.message.messages import Abort, Control, Frame, Report
from fronthaul.message.wire import decode, encode
from fronthaul.transport.transport_costs import TransportCosts


class Outbox:
    """Turns what one end sends in one epoch and direction into departures.

    Attributes:
        frames_made: seq of the next frame; counts the frames so far, those before `first_seq` included.
    """

    def __init__(
        self, model: LinkModel | None = None, *, transport: TransportCosts, bundle: int = 1, first_seq: int = 0
    ) -> None:
        """Start numbering frames at `first_seq`.

        Args:
            model: link model of this direction; None passes everything at once.
            transport: bytes that the transport adds to each message, which take time on the link, and whether frames
                go in their compact form.
            bundle: maximum number of reports per frame, 1..64.
            first_seq: seq of the first frame.
        """
        self._model = model
        self._stream_bytes, self._compact = transport.stream_bytes, transport.compact
        self._bundle = bundle
        self.frames_made = first_seq

    def frames(self, reports: Sequence[Report], now_ns: int) -> list[Departure]:
        """Return the frames of `reports` sent at `now_ns` [ns], with the link model's copies and dropped frames."""
        departures = []
        for begin in range(0, len(reports), self._bundle):
            bundled = tuple(reports[begin : begin + self._bundle])
            departure = self._departure(bundled, now_ns)
            if self._model is None:
                departures.append(departure)
                continue
            passage = self._model.frame(self.frames_made - 1, *self._size(departure), now_ns)
            departures.append(_passing(departure, passage))
            if passage.duplicate:
                departure = self._departure(bundled, now_ns)
                passage = self._model.copy(self.frames_made - 1, *self._size(departure), now_ns)
                departures.append(_passing(departure, passage))
        return departures

    def control(self, message: Control, now_ns: int) -> Departure:
        """Return the departure of a control message sent at `now_ns` [ns]; the link model may delay it, not drop it."""
        data = encode(message)
        if self._model is None:
            return Departure(data, now_ns, now_ns)
        return Departure(data, now_ns, self._model.control(self._stream_bytes(len(data)), now_ns))

    def _departure(self, reports: tuple[Report, ...], now_ns: int) -> Departure:
        data = encode(Frame(self.frames_made, reports))
        self.frames_made += 1
        return Departure(data, now_ns, now_ns, packed=pack(data) if self._compact else None)

    def _size(self, departure: Departure) -> tuple[int, int]:
        """Return the length of a message on the stream [B], and its own [bit]."""
        data_bytes = len(departure.message if departure.packed is None else departure.packed)
        return self._stream_bytes(data_bytes), 8 * data_bytes


def _passing(departure: Departure, passage: Passage) -> Departure:
    """Return a departure as the link model lets it pass."""
    return departure._replace(
        t_release_ns=passage.t_release_ns, drop_reason=passage.drop_reason, flipped=passage.flipped
    )


def drop_reason(error: TransportError) -> str:
    """Return the drop reason that the journal records for a transport error."""
    return TRANSPORT_FULL if isinstance(error, QueueFull) else DISCONNECTED


def amendment(error: TransportError, now_ns: int) -> tuple[int, Departure] | None:
    """Return the BS and the journal row of a message that was lost after the transport had held it back.

    None for an abort, which names no BS, and for a message that does not decode: the link model flipped some of its
    bits, or it is in its compact form. No row is needed then: a journaled frame that never arrived counts as dropped
    anyway.

    Raises:
        TransportError: `error` itself, if it is not about such a message.
    """
    if error.undelivered is None:
        raise error
    try:
        message = decode(error.undelivered)
    except RemoteError:
        return None
    if isinstance(message, Abort):  # names no base station
        return None
    return message.bs, Departure(error.undelivered, now_ns, now_ns, drop_reason(error))

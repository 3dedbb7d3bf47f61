"""Sending at either end: a message is journaled first, then passed to the transport; a failure amends the journal.

    departures -> journal -> transport
                     ^           | queue full, or not connected
                     +-----------+ the same message again, with the reason

So the journal contains every message that may be on its way, even if the process dies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fronthaul.clock import Clock
from fronthaul.errors import QueueFull, TransportError
from fronthaul.log.recorder import Recorder
from fronthaul.log.sent import DISCONNECTED, Departure, corrupted
from fronthaul.sender.outbox import amendment, drop_reason

QUEUE_PAUSE_NS = 1_000_000
"""Interval between attempts to send to a full queue [ns]."""

Put = Callable[[int, bytes, int], None]
"""Passes a message to or from a BS to the transport, with its time of release [ns]."""
OnGone = Callable[[int | None, TransportError], None]
"""Called when the other end cannot be reached, with the BS if it is known; may raise."""


class Sender:
    """Journals and sends the departures of one end.

    Attributes:
        patience_ns: how long a full queue may block this end [ns]; 0 drops at once what does not fit.
    """

    def __init__(self, recorder: Recorder, clock: Clock, put: Put, on_gone: OnGone) -> None:
        """Store the parts.

        Args:
            recorder: journals what is sent.
            clock: gives the time stamps of amendments.
            put: passes a message to the transport.
            on_gone: called when the transport cannot reach the other end; not for a full queue.
        """
        self._recorder = recorder
        self._clock = clock
        self._put = put
        self._on_gone = on_gone
        self.patience_ns = 0

    def send(self, bs: int, departures: Sequence[Departure]) -> None:
        """Journal the messages, then send them; a message that cannot be sent is journaled again, with the reason.

        Raises:
            LocalError: the disk is full; nothing is sent without a journal entry.
            TransportError: what `on_gone` raises.
        """
        self.send_all([(bs, departure) for departure in departures])

    def send_all(self, departures: Sequence[tuple[int, Departure]]) -> None:
        """Do the same as `send` over several links, each message with its BS, and journal all in one write.

        Raises:
            LocalError: the disk is full; nothing is sent without a journal entry.
            TransportError: what `on_gone` raises.
        """
        self._recorder.sent_all(departures)
        waiting = [(bs, departure) for bs, departure in departures if departure.drop_reason is None]
        failed = []
        try:
            while waiting:
                reason = self._reason_not_sent(*waiting[0])
                bs, departure = waiting.pop(0)
                if reason is not None:
                    failed.append((bs, departure._replace(drop_reason=reason)))
        finally:  # what is still waiting after an error was not sent either
            failed += [(bs, departure._replace(drop_reason=DISCONNECTED)) for bs, departure in waiting]
            if failed:
                self._recorder.sent_all(failed)

    def note_lost(self, error: TransportError) -> None:
        """Journal that a message was lost after it had been held back.

        Raises:
            TransportError: `error` is not about a message, or what `on_gone` raises.
        """
        amended = amendment(error, self._clock.now_ns())
        if not isinstance(error, QueueFull):
            self._on_gone(None if amended is None else amended[0], error)
        if amended is not None:
            bs, departure = amended
            self._recorder.sent(bs, [departure])

    def _reason_not_sent(self, bs: int, departure: Departure) -> str | None:
        until_ns: int | None = None
        while True:
            try:
                self._put(bs, corrupted(departure), departure.t_release_ns)
                return None
            except TransportError as error:
                if error.undelivered is not None:
                    self.note_lost(error)
                    continue
                if not isinstance(error, QueueFull):
                    self._on_gone(bs, error)
                    return drop_reason(error)
                if not self.patience_ns:
                    return drop_reason(error)
                now_ns = self._clock.now_ns()
                until_ns = now_ns + self.patience_ns if until_ns is None else until_ns
                if now_ns >= until_ns:
                    return drop_reason(error)
                self._clock.sleep_until(now_ns + QUEUE_PAUSE_NS)

"""Sending at either end: a message is journaled first, then passed to the transport; a failure amends the journal.

    departures -> journal -> transport
                     ^           | queue full, or not connected
                     +-----------+ the same message again, with the reason

So the journal contains every message that may be on its way, even if the process dies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from fronthaul.clock import Clock
from fronthaul.errors import QueueFull, TransportError
from fronthaul.log.recorder import Recorder
from fronthaul.log.sent import DISCONNECTED, TRANSPORT_FULL, Departure, corrupted
from fronthaul.sender.outbox import amendment, drop_reason

QUEUE_PAUSE_NS = 1_000_000
"""Interval between attempts to send to a full queue [ns]."""
PATIENCE_S = 30.0
"""How long a full queue may hold up an end in closed loop [s]."""

Put = Callable[[int, bytes, int], None]
"""Passes a message to or from a BS to the transport, with its time of release [ns]."""
OnGone = Callable[[int | None, TransportError], None]
"""Called when the other end cannot be reached, with the BS if it is known; may raise."""


class Sender:
    """Journals and sends the departures of one end.

    Attributes:
        patience_ns: how long a message waits for room in a full queue [ns]; 0 drops at once what does not fit.
    """

    def __init__(self, recorder: Recorder, clock: Clock, put: Put, on_gone: OnGone, *, goes_on: bool = False) -> None:
        """Store the parts.

        Args:
            recorder: journals what is sent.
            clock: gives the time stamps of amendments.
            put: passes a message to the transport.
            on_gone: called when the transport cannot reach the other end; not for a full queue.
            goes_on: whether a message waits for room here until `resume` sends it, and the caller goes on; otherwise
                the caller waits. An end with several links must go on: it may have to receive before there is room.
        """
        self._recorder = recorder
        self._clock = clock
        self._put = put
        self._on_gone = on_gone
        self._goes_on = goes_on
        self._waiting: dict[int, deque[tuple[Departure, int]]] = {}  # by BS, each with the end of its patience [ns]
        self.patience_ns = 0

    @property
    def waits(self) -> bool:
        """Whether messages wait here for room in a queue."""
        return bool(self._waiting)

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

    def resume(self, *, last: bool = False) -> None:
        """Send what waits for room, each link in its order; what has waited for too long is journaled as lost.

        Args:
            last: whether nothing waits any longer.

        Raises:
            LocalError: the disk is full.
            TransportError: what `on_gone` raises.
        """
        failed = []
        for bs, line in list(self._waiting.items()):
            while line:
                departure, until_ns = line[0]
                reason = self._attempt(bs, departure)
                if reason == TRANSPORT_FULL and not last and self._clock.now_ns() < until_ns:
                    break
                line.popleft()
                if reason is not None:
                    failed.append((bs, departure._replace(drop_reason=reason)))
            if not line:
                del self._waiting[bs]
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
        """Send a message; return why it cannot be, or None if it is sent or waits for room."""
        reason = TRANSPORT_FULL if bs in self._waiting else self._attempt(bs, departure)
        if reason != TRANSPORT_FULL or not self.patience_ns:
            return reason
        until_ns = self._clock.now_ns() + self.patience_ns
        if self._goes_on:
            self._waiting.setdefault(bs, deque()).append((departure, until_ns))
            return None
        while reason == TRANSPORT_FULL and (now_ns := self._clock.now_ns()) < until_ns:
            self._clock.sleep_until(now_ns + QUEUE_PAUSE_NS)
            reason = self._attempt(bs, departure)
        return reason

    def _attempt(self, bs: int, departure: Departure) -> str | None:
        """Pass a message to the transport; return why it does not take it, None if it does."""
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

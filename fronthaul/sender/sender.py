"""How either end sends: written down first, then given to the transport; what that does not take is amended.

    departures -> journal -> transport
                     ^           | a queue is full, or nobody is there
                     +-----------+ the same message again, with the reason

So the journal names every message that may be on its way, whenever a process dies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fronthaul.clock import Clock
from fronthaul.errors import QueueFull, TransportError
from fronthaul.log.recorder import Recorder
from fronthaul.log.sent import Departure, corrupted
from fronthaul.sender.outbox import amendment, drop_reason

QUEUE_PAUSE_NS = 1_000_000
"""Between two looks at a full queue [ns]."""

Put = Callable[[int, bytes, int], None]
"""Gives the transport a message for or of a BS, with its time of release [ns]."""
OnGone = Callable[[int | None, TransportError], None]
"""Told that the other end is not there, by BS where that is known; may raise."""


class Sender:
    """What one end does with its departures.

    Attributes:
        patience_ns: how long a full queue may hold this end up [ns]; 0 drops what does not fit.
    """

    def __init__(self, recorder: Recorder, clock: Clock, put: Put, on_gone: OnGone) -> None:
        """Wire it up.

        Args:
            recorder: writes down what is sent.
            clock: stamps what is amended.
            put: gives a message to the transport.
            on_gone: told that the transport found nobody; a full queue is none of its business.
        """
        self._recorder = recorder
        self._clock = clock
        self._put = put
        self._on_gone = on_gone
        self.patience_ns = 0

    def send(self, bs: int, departures: Sequence[Departure]) -> None:
        """Write down, then send; what cannot be sent is written down again, with the reason.

        Raises:
            LocalError: the disk is full; nothing is sent that is not written down.
            TransportError: what `on_gone` raises.
        """
        self.send_all([(bs, departure) for departure in departures])

    def send_all(self, departures: Sequence[tuple[int, Departure]]) -> None:
        """Do the same over several links, each message with its BS: one write, however many base stations there are.

        Raises:
            LocalError: the disk is full; nothing is sent that is not written down.
            TransportError: what `on_gone` raises.
        """
        self._recorder.sent_all(departures)
        failed = []
        for bs, departure in departures:
            if departure.drop_reason is not None:
                continue
            reason = self._reason_not_sent(bs, departure)
            if reason is not None:
                failed.append((bs, departure._replace(drop_reason=reason)))
        if failed:
            self._recorder.sent_all(failed)

    def note_lost(self, error: TransportError) -> None:
        """Write down that a message was lost after it had been held back.

        Raises:
            TransportError: it is not about a message, or what `on_gone` raises.
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

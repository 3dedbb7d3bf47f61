"""What the cloud sends: one outbox per base station, with frame numbers continued across restarts of the cloud."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fronthaul.clock import Clock
from fronthaul.link.link_config import LinkConfig
from fronthaul.link.link_model import LinkModel
from fronthaul.log.sent import Departure
from fronthaul.message.messages import Control, Direction, Goodbye, Payload, Pong, Report, ReportKey
from fronthaul.message.wire import encode
from fronthaul.sender.outbox import Outbox
from fronthaul.sender.sender import Sender
from fronthaul.transport.transport_costs import TransportCosts


class Downlink:
    """Addresses the cloud's messages to base stations and passes them to the sender."""

    def __init__(
        self,
        sender: Sender,
        clock: Clock,
        links: Mapping[int, LinkConfig],
        *,
        seed: int,
        transport: TransportCosts,
        next_seq: Mapping[tuple[int, int], int],
    ) -> None:
        """Start without base stations.

        Args:
            sender: journals and sends messages.
            clock: gives the time stamps.
            links: link models by BS; a BS without one has a perfect link.
            seed: of the link models' random draws.
            transport: bytes that the transport adds to each message.
            next_seq: seq of the next frame, by BS and epoch, if earlier incarnations have sent some.
        """
        self._sender = sender
        self._clock = clock
        self._links = links
        self._seed = seed
        self._transport = transport
        self._next_seq = next_seq
        self._t0_ns = 0
        self._epochs: dict[int, int] = {}
        self._outboxes: dict[int, Outbox] = {}

    def open(self, bs: int, epoch: int) -> None:
        """Address this epoch of `bs` from now on; no effect if it is the current one already."""
        if self._epochs.get(bs) != epoch:
            self._epochs[bs] = epoch
            self._outboxes[bs] = self._outbox(bs, epoch, self._next_seq.get((bs, epoch), 0))

    def start(self, t0_ns: int) -> None:
        """Set time zero [ns], from which the link models' outages are counted."""
        self._t0_ns = t0_ns
        for bs, epoch in self._epochs.items():
            self._outboxes[bs] = self._outbox(bs, epoch, self._outboxes[bs].frames_made)

    def control(self, bs: int, message: Control) -> None:
        """Send a control message; a BS that has not registered gets it without a link model."""
        now_ns = self._clock.now_ns()
        if isinstance(message, Pong):  # stamped as late as possible: processing time must not count as travel time
            message = replace(message, t_answered_ns=now_ns)
        outbox = self._outboxes.get(bs)
        departure = Departure(encode(message), now_ns, now_ns) if outbox is None else outbox.control(message, now_ns)
        self._sender.send(bs, [departure])

    def broadcast(self, stations: Iterable[int], snapshot: int, round_: int, state: Payload, now_ns: int) -> None:
        """Send the state of a round to registered base stations at `now_ns` [ns]."""
        departures = [
            (bs, departure)
            for bs in stations
            for departure in self._outboxes[bs].frames(
                [Report(ReportKey(bs, self._epochs[bs], snapshot, round_), state)], now_ns
            )
        ]
        self._sender.send_all(departures)

    def farewell(self, bs: int) -> Goodbye:
        """Return the goodbye message, which states the number of frames sent to `bs`."""
        outbox = self._outboxes.get(bs)
        return Goodbye(bs, self._epochs.get(bs, 0), 0 if outbox is None else outbox.frames_made)

    def _outbox(self, bs: int, epoch: int, first_seq: int) -> Outbox:
        config = self._links.get(bs)
        model = None
        if config is not None:
            model = LinkModel(
                config,
                seed=self._seed,
                bs=bs,
                direction=Direction.DOWN,
                epoch=epoch,
                t0_ns=self._t0_ns,
                ip_header_bytes=self._transport.ip_header_bytes,
            )
        return Outbox(model, transport=self._transport, first_seq=first_seq)

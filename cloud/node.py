"""The cloud's loop: what arrives is judged, written down, collected and fused.

    transport -> decode -> collector (verdicts) -> receive log
                               | closed gatherings
                               v
                          fusion centre -> fixes -> fix log
                               | states (schemes with several rounds)
                               v
                          outboxes -> journal -> transport

The same object runs over memory links on a simulated clock and over sockets on the wall clock: its caller decides how
long `poll` may wait. Only `ask` may be called from another thread. All that it knows is on disk before anything
follows from it: a cloud that is started again goes on from there.
"""

from __future__ import annotations

import contextlib
import queue
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from cloud.center import LAST_ROUND, FusionCenter, OpenExchange
from cloud.collector import Collector, CollectorRules, Gathered
from cloud.fixlog import FixLog, FixRecord
from cloud.fusion.scheme import CloudSetup, Fix, FusionBuilder
from cloud.history import FIXES, life_name, read_past
from fronthaul.clock import Clock
from fronthaul.errors import QueueFull, RemoteError, TransportError
from fronthaul.fates import FrameFate
from fronthaul.journal import Departure, corrupted
from fronthaul.link import LinkConfig, LinkModel
from fronthaul.messages import (
    MAX_TEXT_BYTES,
    Abort,
    Control,
    Direction,
    Frame,
    Goodbye,
    Payload,
    Ping,
    Pong,
    Registration,
    Report,
    ReportKey,
    Welcome,
)
from fronthaul.outbox import Outbox, amendment, drop_reason
from fronthaul.received import Arrival
from fronthaul.recorder import Recorder
from fronthaul.transport import CloudTransport, Received
from fronthaul.wire import decode, encode

FRAMES_PER_POLL = 256
"""So many waiting messages are taken before deadlines are looked at again."""
HOUSEKEEPING_NS = 100_000_000
"""Between two looks at connections and silent base stations [ns]."""
LINGER_S = 3.0
"""How long a cloud that was started again stays when all is done [s]: base stations may have said goodbye to its
earlier life, and say it again until they are answered."""


@dataclass(frozen=True)
class CloudParts:
    """What a cloud is made of; crosses to the actor that runs it. Holds no position of any user.

    Attributes:
        scheme: its name, which registrations must match.
        build: makes the fusion rule from `setup`.
        setup: see `CloudSetup`.
        rules: of the collector.
        batch: snapshots fused at once; 1 keeps a fix independent of what else is ready.
        rehearsal: reports of one snapshot, to try the rule on before anything counts.
        down: link models by BS; a BS that is missing has a perfect link.
        seed: of their draws.
        curve: whether the links are encrypted.
        silence_ns: a BS of which nothing is heard for so long is not waited for [ns]; 0 waits for ever.
    """

    scheme: str
    build: FusionBuilder
    setup: CloudSetup
    rules: CollectorRules
    batch: int = 1
    rehearsal: tuple[Report, ...] = ()
    down: Mapping[int, LinkConfig] = field(default_factory=dict)
    seed: int = 0
    curve: bool = False
    silence_ns: int = 0


@dataclass(frozen=True)
class CloudOutcome:
    """What a life of the cloud leaves beside its streams.

    Attributes:
        registered: BSs that came.
        missing: BSs that were waited for until the end.
    """

    registered: frozenset[int] = frozenset()
    missing: frozenset[int] = frozenset()


Request = tuple[Literal["start", "gone"], int]


def _clipped(reason: str) -> str:
    """Return as much of a reason, which may quote what a peer sent, as an `Abort` can hold."""
    return reason.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")


class CloudNode:
    """Transport, collector, fusion centre, streams and clock, wired together."""

    def __init__(
        self, parts: CloudParts, transport: CloudTransport, folder: Path, clock: Clock, *, life: int = 0
    ) -> None:
        """Build the fusion rule; nothing is received before `poll`.

        Args:
            parts: what the cloud is made of.
            transport: its end of all links.
            folder: of its streams.
            clock: stamps what arrives, and says when deadlines are over.
            life: how many times the cloud started before; it goes on from what those lives left in `folder`.

        Raises:
            LocalError: streams of this life are there already.
        """
        self._parts = parts
        self._transport = transport
        self._clock = clock
        past = read_past(folder, life)
        self._next_seq = past.next_seq
        self._recorder = Recorder(folder, life_name(life), sends=Direction.DOWN, curve=parts.curve)
        self._recorder.clock(clock)
        self._fix_log = FixLog(folder / f"{life_name(life)}{FIXES}")
        self._collector = Collector(parts.rules, past.history)
        self._center = FusionCenter(parts.build(parts.setup))
        self._outboxes: dict[int, Outbox] = {}
        self._epochs: dict[int, int] = {}
        self._t0_ns: int | None = None
        for registration in past.history.registrations:
            self._open_outbox(registration.bs, registration.epoch)
        self._pending: list[Gathered] = []
        self._exchanges: dict[int, OpenExchange] = {}
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._heard_ns: dict[int, int] = {}
        self._housekept_ns = 0
        self._fixes_made = 0
        self._missing: frozenset[int] = frozenset()
        self._lingers = life > 0
        self._over = False
        self._closed = False

    @property
    def registered(self) -> frozenset[int]:
        """BSs that have registered."""
        return self._collector.registered

    @property
    def next_deadline_ns(self) -> int | None:
        """When the next gathering closes at the latest [ns]; None without open ones or deadlines."""
        return self._collector.next_deadline_ns

    @property
    def finished(self) -> bool:
        """Whether all BSs have sent everything, and everything is fused."""
        return self._t0_ns is not None and self._collector.finished and not self._pending

    @property
    def closed_snapshots(self) -> int:
        """Snapshots that are done or in their rounds."""
        return self._collector.closed_snapshots

    @property
    def fixes_made(self) -> int:
        """Fixes of this life."""
        return self._fixes_made

    def ask(self, request: Request) -> None:
        """Have the next `poll` do something; safe from another thread.

        Args:
            request: ("start", t0 [ns]) sets time zero of snapshot 0; ("gone", bs) stops waiting for a BS.
        """
        self._requests.put(request)

    def rehearse(self) -> None:
        """Receive and fuse the rehearsal for nothing, so that the first fix finds all libraries loaded."""
        if not self._parts.rehearsal:
            return
        reports = self._parts.rehearsal
        with torch.inference_mode():
            if self._center.has_rounds:
                self._center.advance(self._center.open(0), Gathered(0, 0, reports, 0, reports[-1].key.bs))
            else:
                self._center.fixes([reports])
        with tempfile.TemporaryDirectory() as folder:
            recorder = Recorder(Path(folder), "rehearsal", sends=Direction.DOWN)
            recorder.received([Arrival(0, encode(Frame(0, (reports[0],))), 0, FrameFate.DELIVERED)])
            recorder.close()

    def poll(self, timeout_s: float) -> bool:
        """Take what has arrived, close what is due, and fuse what is ready.

        Args:
            timeout_s: wait so long where nothing has arrived [s], but not past a deadline.

        Returns:
            Whether anything arrived.
        """
        self._do_requests()
        wait_s = self._timeout_s(timeout_s)
        arrivals: list[Arrival] = []
        answers: list[tuple[int, Control]] = []
        for _ in range(FRAMES_PER_POLL):
            received = self._receive(0.0 if arrivals else wait_s)
            if received is None:
                break
            arrivals.append(self._judge(received, answers))
        self._recorder.received(arrivals)
        for bs, answer in answers:
            self._send_control(bs, answer)
        now_ns = self._clock.now_ns()
        self._collector.advance(now_ns)
        self._housekeep(now_ns)
        self._fuse_ready(hold=bool(arrivals))
        return bool(arrivals)

    def run(self, idle_timeout_s: float) -> None:
        """Poll until finished, or until nothing has arrived for `idle_timeout_s` [s] after the start."""
        last_ns = self._clock.now_ns()
        while not self.finished:
            if self.poll(0.1) or self._t0_ns is None:
                last_ns = self._clock.now_ns()
            elif self._clock.now_ns() - last_ns > idle_timeout_s * 1e9:
                break
        self.finish()
        until_ns = self._clock.now_ns() + round(LINGER_S * 1e9)
        while self._lingers and self._clock.now_ns() < until_ns:
            self.poll(0.1)

    def finish(self) -> None:
        """Fuse what is there, whoever is missing, and send base stations home that wait for it."""
        self._missing = self._collector.missing
        self._over = True
        self._collector.close_all()
        self._fuse_ready(hold=False)
        for snapshot in list(self._exchanges):
            self._conclude(snapshot)
        if self._center.has_rounds:
            for bs in sorted(self._collector.present):
                self._send_control(bs, self._farewell(bs))

    def outcome(self) -> CloudOutcome:
        """Return what this life leaves beside its streams."""
        return CloudOutcome(registered=self.registered, missing=self._missing)

    def close(self) -> None:
        """Let go of the links and close the streams; closing twice is fine.

        Raises:
            LocalError: the disk is full; the streams can be read, and are closed.
        """
        if self._closed:
            return
        self._closed = True
        with contextlib.ExitStack() as each:  # the others too where the disk is full
            each.callback(self._fix_log.close)
            each.callback(self._recorder.close)
            self._transport.close()
            self._recorder.links(self._transport.take_connections(), self._transport.take_events())

    def _do_requests(self) -> None:
        while not self._requests.empty():
            kind, number = self._requests.get()
            if kind == "start":
                self._t0_ns = number
                self._collector.start(number)
                self._outboxes.clear()  # link models count outages from time zero
                for bs, epoch in self._epochs.items():
                    self._open_outbox(bs, epoch)
            else:
                self._collector.leave(number, self._clock.now_ns())

    def _timeout_s(self, timeout_s: float) -> float:
        if self._pending:
            return 0.0
        deadline_ns = self._collector.next_deadline_ns
        if deadline_ns is None:
            return timeout_s
        return min(timeout_s, max(0.0, (deadline_ns - self._clock.now_ns()) / 1e9))

    # -- what arrives

    def _receive(self, timeout_s: float) -> Received | None:
        while True:
            try:
                return self._transport.receive(timeout_s)
            except TransportError as error:
                self._note_lost(error)

    def _judge(self, received: Received, answers: list[tuple[int, Control]]) -> Arrival:
        """Decide what becomes of a message; control messages are acted upon, their answers put into `answers`."""
        owner, data = received.owner, received.data
        now_ns = self._transport.t_received_ns
        try:
            message = decode(data)
        except RemoteError as error:
            return Arrival(owner, data, now_ns, FrameFate.CORRUPT, error.reason)
        if owner is not None:
            self._heard_ns[owner] = now_ns
            self._collector.heard(owner)
        if isinstance(message, Frame):
            verdict = self._collector.frame(message, owner, now_ns)
            return Arrival(owner, data, now_ns, verdict.fate, verdict.reason, verdict.late)
        if owner is not None:
            answer = self._answer(message, owner, now_ns)
            if answer is not None:
                answers.append((owner, answer))
        return Arrival(owner, data, now_ns, None)

    def _answer(self, message: Control, owner: int, now_ns: int) -> Control | None:
        match message:
            case Registration():
                refusal = self._refusal(message, owner)
                if refusal:
                    return Abort(_clipped(refusal))
                if self._epochs.get(owner) != message.epoch:
                    self._open_outbox(owner, message.epoch)
                return Welcome(message.bs, message.epoch)
            case Goodbye() if message.bs == owner:
                self._collector.goodbye(message, now_ns)
                return None if self._center.has_rounds and not self._over else self._farewell(owner)
            case Ping() if message.bs == owner:
                return Pong(owner, message.epoch, message.t_sent_ns, now_ns, now_ns)
            case Abort():
                self._collector.leave(owner, now_ns)
        return None

    def _refusal(self, registration: Registration, owner: int) -> str | None:
        if registration.bs != owner:
            return f"BS {registration.bs} does not own this connection"
        if registration.scheme != self._parts.scheme:
            return f"the cloud fuses {self._parts.scheme!r}, not {registration.scheme!r}"
        if (registration.answer is not None) != self._center.has_rounds:
            rounds = "several rounds" if self._center.has_rounds else "one round"
            return f"the cloud's {self._parts.scheme!r} takes {rounds}"
        return self._collector.register(registration)

    def _farewell(self, bs: int) -> Goodbye:
        outbox = self._outboxes.get(bs)
        return Goodbye(bs, self._epochs.get(bs, 0), 0 if outbox is None else outbox.frames_made)

    def _housekeep(self, now_ns: int) -> None:
        if now_ns - self._housekept_ns < HOUSEKEEPING_NS:
            return
        self._housekept_ns = now_ns
        self._recorder.links(self._transport.take_connections(), self._transport.take_events())
        silence_ns = self._parts.silence_ns
        if silence_ns and self._t0_ns is not None and now_ns > self._t0_ns:
            for bs in self._collector.present:
                # Nobody has to say anything between registering and the start.
                heard_ns = max(self._heard_ns.setdefault(bs, now_ns), self._t0_ns)
                if now_ns - heard_ns > silence_ns:
                    self._collector.leave(bs, now_ns, silent=True)

    # -- what is sent

    def _open_outbox(self, bs: int, epoch: int) -> None:
        config = self._parts.down.get(bs)
        model = None
        if config is not None:
            t0_ns = self._t0_ns or 0
            model = LinkModel(
                config, seed=self._parts.seed, bs=bs, direction=Direction.DOWN, epoch=epoch, t0_ns=t0_ns
            )
        first = self._next_seq.get((bs, epoch), 0)
        known = self._outboxes.get(bs)
        if known is not None and self._epochs.get(bs) == epoch:
            first = known.frames_made
        self._epochs[bs] = epoch
        self._outboxes[bs] = Outbox(model, curve=self._parts.curve, first_seq=first)

    def _send_control(self, bs: int, message: Control) -> None:
        now_ns = self._clock.now_ns()
        if isinstance(message, Pong):  # as late as can be: what was done since it came is no time on the way
            message = replace(message, t_answered_ns=now_ns)
        outbox = self._outboxes.get(bs)
        departure = Departure(encode(message), now_ns, now_ns) if outbox is None else outbox.control(message, now_ns)
        self._send(bs, [departure])

    def _send(self, bs: int, departures: list[Departure]) -> None:
        """Write down, then send; what cannot be sent is written down again, with the reason."""
        self._recorder.sent(bs, departures)
        failed = []
        for departure in departures:
            if departure.drop_reason is not None:
                continue
            reason = self._reason_not_sent(bs, departure)
            if reason is not None:
                failed.append(departure._replace(drop_reason=reason))
        if failed:
            self._recorder.sent(bs, failed)

    def _reason_not_sent(self, bs: int, departure: Departure) -> str | None:
        while True:
            try:
                self._transport.send(bs, corrupted(departure), departure.t_release_ns)
                return None
            except TransportError as error:
                if error.undelivered is None:
                    return self._blame(bs, error)
                self._note_lost(error)

    def _note_lost(self, error: TransportError) -> None:
        """Write down that a message was lost after it had been held back.

        Raises:
            TransportError: it is not about a message.
        """
        amended = amendment(error, self._clock.now_ns())
        if amended is not None:
            bs, departure = amended
            self._blame(bs, error)
            self._recorder.sent(bs, [departure])

    def _blame(self, bs: int, error: TransportError) -> str:
        """Return why a message for `bs` did not get onto its way."""
        if not isinstance(error, QueueFull):  # it has gone meanwhile; if it comes back, it asks again
            self._collector.leave(bs, self._clock.now_ns(), silent=True)
        return drop_reason(error)

    # -- fusion

    def _fuse_ready(self, *, hold: bool) -> None:
        """Fuse what is ready; `hold` has part of a batch wait for what is still to be received."""
        ready = self._collector.take_ready()
        for snapshot in self._collector.take_failed():
            if snapshot in self._exchanges:
                self._conclude(snapshot)
        if self._center.has_rounds:
            while ready:
                for gathered in ready:
                    self._advance(gathered)
                ready = self._collector.take_ready()
            return
        self._pending.extend(ready)
        while len(self._pending) >= self._parts.batch or (self._pending and not hold):
            self._fuse(self._pending[: self._parts.batch])
            del self._pending[: self._parts.batch]

    def _fuse(self, ready: list[Gathered]) -> None:
        t_fuse_ns = self._clock.now_ns()
        with torch.inference_mode():
            fixes = self._center.fixes([gathered.reports for gathered in ready])
        t_fix_ns = self._clock.now_ns()
        self._made(
            [
                FixRecord(
                    snapshot=gathered.snapshot,
                    used=tuple(report.key for report in gathered.reports),
                    position=fix.position,
                    covariance=fix.covariance,
                    last_bs=gathered.last_bs,
                    t_last_received_ns=gathered.t_last_received_ns,
                    t_fuse_ns=t_fuse_ns,
                    t_fix_ns=t_fix_ns,
                    fuse_ns=self._center.fuse_ns,
                )
                for gathered, fix in zip(ready, fixes, strict=True)
            ]
        )

    def _advance(self, gathered: Gathered) -> None:
        """Take the answers of a round: broadcast the next state, or write down the fix."""
        snapshot = gathered.snapshot
        state = self._exchanges.get(snapshot)
        if state is None:
            state = self._exchanges[snapshot] = self._center.open(snapshot)
        t_fuse_ns = self._clock.now_ns()
        with torch.inference_mode():
            answer = self._center.advance(state, gathered)
        if isinstance(answer, Fix):
            self._end_rounds(snapshot, state, answer, t_fuse_ns)
        elif gathered.round >= LAST_ROUND or self._over or self._is_due(snapshot):
            self._conclude(snapshot)
        else:
            self._broadcast(snapshot, answer)

    def _is_due(self, snapshot: int) -> bool:
        rules = self._parts.rules
        if not rules.interval_ns or self._t0_ns is None:
            return False
        return self._clock.now_ns() >= self._t0_ns + snapshot * rules.interval_ns + rules.deadline_ns

    def _broadcast(self, snapshot: int, payload: Payload) -> None:
        stations = sorted(self._collector.present)
        now_ns = self._clock.now_ns()
        round_ = self._collector.ask(snapshot, stations, now_ns)
        for bs in stations:
            key = ReportKey(bs, self._epochs[bs], snapshot, round_)
            self._send(bs, self._outboxes[bs].frames([Report(key, payload)], now_ns))

    def _conclude(self, snapshot: int) -> None:
        """End the rounds of a snapshot with the best that there is."""
        state = self._exchanges[snapshot]
        fix = state.exchange.conclude()
        if fix is None:
            self._collector.conclude(snapshot)
            del self._exchanges[snapshot]
        else:
            self._end_rounds(snapshot, state, fix, self._clock.now_ns())

    def _end_rounds(self, snapshot: int, state: OpenExchange, fix: Fix, t_fuse_ns: int) -> None:
        last = state.last
        assert last is not None, "there is no fix before the first report"
        del self._exchanges[snapshot]
        self._collector.conclude(snapshot)
        self._made(
            [
                FixRecord(
                    snapshot=snapshot,
                    used=tuple(state.used),
                    position=fix.position,
                    covariance=fix.covariance,
                    last_bs=last.last_bs,
                    t_last_received_ns=last.t_last_received_ns,
                    t_fuse_ns=t_fuse_ns,
                    t_fix_ns=self._clock.now_ns(),
                    fuse_ns=state.fuse_ns,
                    rounds=last.round + 1,
                )
            ]
        )

    def _made(self, fixes: list[FixRecord]) -> None:
        self._fix_log.append(fixes)
        self._fixes_made += len(fixes)

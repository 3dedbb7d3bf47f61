"""The cloud's main loop: messages that arrive are checked, logged, collected and fused.

    transport -> decode -> collector (verdicts) -> receive log
                               | closed gatherings
                               v
                          fusion centre -> fixes -> fix log
                               | states (schemes with several rounds)
                               v
                          outboxes -> journal -> transport

The same object runs over memory links on a simulated clock and over sockets on the wall clock: its caller decides how
long `poll` may wait. Only `ask` may be called from another thread. Every message is logged to disk before anything is
sent or fused because of it, so that a restarted cloud can continue from the logs.
"""

from __future__ import annotations

import contextlib
import queue
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from cloud.admission import Admission
from cloud.allowance import Allowance
from cloud.center import FusionCenter
from cloud.cloud_spec import CloudOutcome, CloudSpec
from cloud.collector import Collector, Gathered
from cloud.downlink import Downlink
from cloud.fixlog import FixLog, FixRecord
from cloud.history import read_past
from cloud.intake import take_new_reports
from cloud.rounds import Rounds
from fronthaul.clock import Clock
from fronthaul.errors import RegistrationError, RemoteError, TransportError
from fronthaul.log.received import Arrival
from fronthaul.log.recorder import Recorder
from fronthaul.log.stream_names import FIXES, incarnation_name
from fronthaul.message.compact import Expander, Reference
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import (
    MAX_TEXT_BYTES,
    Abort,
    Control,
    Direction,
    Frame,
    Goodbye,
    Ping,
    Pong,
    Registration,
    Welcome,
)
from fronthaul.message.wire import decode, encode
from fronthaul.sender.sender import PATIENCE_S, QUEUE_PAUSE_NS, Sender
from fronthaul.transport.transport import Arrived, CloudTransport

FRAMES_PER_POLL = 256
"""Messages taken per poll before deadlines are checked again; at least one per base station, since a socket takes turns
among its connections: whoever has something waiting is heard."""
HOUSEKEEPING_NS = 100_000_000
"""Interval between checks of connections and of silent base stations [ns]."""
LINGER_S = 3.0
"""How long a restarted cloud stays after the run is done [s]: base stations may have said goodbye to an earlier
incarnation, and repeat it until they are answered."""

Request = tuple[Literal["start", "gone"], int]


class CloudNode:
    """The cloud: transport, collector, fusion centre, streams and clock, wired together."""

    def __init__(
        self, parts: CloudSpec, transport: CloudTransport, folder: Path, clock: Clock, *, incarnation: int = 0
    ) -> None:
        """Build the fusion rule; nothing is received before `poll`.

        Args:
            parts: specification of the cloud.
            transport: the cloud's end of all links.
            folder: of its streams.
            clock: gives arrival times, and decides when deadlines are over.
            incarnation: how many times the cloud started before; it continues from their streams in `folder`.

        Raises:
            LocalError: streams of this incarnation exist already.
        """
        self._parts = parts
        self._transport = transport
        self._clock = clock
        past = read_past(folder, incarnation)
        self._center = FusionCenter(parts.build(parts.setup))
        name = incarnation_name(incarnation)
        with contextlib.ExitStack() as opened:  # closes the recorder if the other stream cannot be created
            self._recorder = Recorder(folder, name, sends=Direction.DOWN, transport=transport.costs)
            opened.callback(self._recorder.close)
            self._recorder.clock(clock)
            self._fix_log = FixLog(folder / f"{name}{FIXES}")
            opened.pop_all()
        self._collector = Collector(parts.rules, past.history)
        self._batch = 1 if self._center.asks else parts.batch  # base stations wait for the states
        self._expander = Expander() if parts.compact else None
        self._allowance = Allowance(parts.rules.stations)
        self._admission = Admission(parts, self._collector, past.history.registrations)
        self._sender = Sender(self._recorder, clock, transport.send, self._on_gone, goes_on=True)
        self._sender.patience_ns = round(PATIENCE_S * 1e9) if parts.closed_loop else 0
        self._downlink = Downlink(
            self._sender, clock, parts.down, seed=parts.seed, transport=transport.costs, next_seq=past.next_seq
        )
        for registration in past.history.registrations:
            self._open(registration, past.last.get((registration.bs, registration.epoch)))
        self._rounds = Rounds(self._center, self._collector, parts.rules, self._downlink, clock)
        self._t0_ns: int | None = None
        self._pending: list[Gathered] = []
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._heard_ns: dict[int, int] = {}
        self._housekept_ns = 0
        # Everything that arrived before this time is taken; later arrivals may still wait for us.
        self._taken_until_ns = 0
        self._fixes_made = 0
        self._missing: frozenset[int] = frozenset()
        self._lingers = incarnation > 0
        self._over = False
        self._closed = False

    @property
    def registered(self) -> frozenset[int]:
        """BSs that have registered."""
        return self._collector.registered

    @property
    def t0_ns(self) -> int | None:
        """Time zero of snapshot 0 [ns]; None before the start."""
        return self._t0_ns

    @property
    def next_deadline_ns(self) -> int | None:
        """Earliest deadline of the open gatherings [ns]; None if there is none."""
        return self._collector.next_deadline_ns

    @property
    def finished(self) -> bool:
        """Whether the run has started, no BS has more to send, and everything is fused."""
        return self._t0_ns is not None and self._collector.finished and not self._pending

    @property
    def closed_snapshots(self) -> int:
        """Number of snapshots whose round 0 is closed."""
        return self._collector.closed_snapshots

    @property
    def waiting(self) -> int:
        """Number of rounds that wait for reports, and of those that wait for fusion."""
        return self._collector.open_gatherings + len(self._pending)

    @property
    def fixes_made(self) -> int:
        """Number of fixes of this incarnation."""
        return self._fixes_made

    def ask(self, request: Request) -> None:
        """Queue a request for the next `poll`; safe from another thread.

        Args:
            request: ("start", t0 [ns]) sets time zero of snapshot 0; ("gone", bs) stops waiting for a BS.
        """
        self._requests.put(request)

    def rehearse(self) -> None:
        """Log and fuse the rehearsal and discard the result, so that all libraries are loaded before the first fix."""
        if not self._parts.rehearsal:
            return
        reports = self._parts.rehearsal
        with torch.inference_mode():
            self._center.advance([(self._center.open(0), Gathered(0, 0, reports, 0, reports[-1].key.bs))])
        with tempfile.TemporaryDirectory() as folder:
            recorder = Recorder(Path(folder), "rehearsal", sends=Direction.DOWN, transport=self._transport.costs)
            recorder.received([Arrival(0, encode(Frame(0, (reports[0],))), 0, FrameFate.DELIVERED)])
            recorder.close()

    def poll(self, timeout_s: float) -> bool:
        """Process messages that have arrived, close gatherings that are due, and fuse those that are ready.

        Args:
            timeout_s: longest wait while nothing arrives [s]; it ends at the next deadline.

        Returns:
            Whether anything arrived.

        Raises:
            FusionError: the fusion rule failed; every message that arrived is logged.
            LocalError: the disk is full.
        """
        self._do_requests()
        self._sender.resume()
        wait_s = self._timeout_s(timeout_s)
        came = self._receive(wait_s)
        self._judge_all(came)
        self._collector.advance(self._taken_until_ns)  # what was in time is in time, however late it is taken
        self._housekeep(self._clock.now_ns())
        self._fuse_ready(hold=bool(came))
        return bool(came)

    def run(self, idle_timeout_s: float) -> None:
        """Poll until finished, or until the BSs still missing were silent for `idle_timeout_s` [s]; then `finish`."""
        last_ns = self._clock.now_ns()
        while not self.finished:
            self.poll(0.1)
            now_ns = self._taken_until_ns
            if self._t0_ns is None:
                last_ns = now_ns
            elif now_ns - last_ns > idle_timeout_s * 1e9:
                # BSs that said goodbye may go on pinging, which is no reason to wait for others; open rounds are.
                lively = self.registered if self._rounds.snapshots else self._collector.missing
                last_ns = max([last_ns, *(self._heard_ns.get(bs, 0) for bs in lively)])
                if now_ns - last_ns > idle_timeout_s * 1e9:
                    break
        self.finish()
        until_ns = self._clock.now_ns() + round(LINGER_S * 1e9)
        while self._sender.waits or (self._lingers and self._clock.now_ns() < until_ns):
            self.poll(0.1)

    def finish(self) -> None:
        """Fuse what has arrived, even if BSs are missing, and send a goodbye to base stations that wait for one."""
        self._missing = self._collector.missing
        self._over = True
        self._rounds.end()
        self._collector.close_all()
        self._fuse_ready(hold=False)
        for snapshot in self._rounds.snapshots:
            self._made([self._rounds.conclude(snapshot)])
        if self._center.asks:
            for bs in sorted(self._collector.present):
                self._downlink.control(bs, self._downlink.farewell(bs))

    def outcome(self) -> CloudOutcome:
        """Return what this incarnation leaves besides its streams."""
        return CloudOutcome(registered=self.registered, missing=self._missing)

    def close(self) -> None:
        """Close the links and the streams; closing twice is fine.

        Raises:
            LocalError: the disk is full; the streams are closed nevertheless and can be read.
        """
        if self._closed:
            return
        self._closed = True
        with contextlib.ExitStack() as each:  # close the others too if the disk is full
            each.callback(self._fix_log.close)
            each.callback(self._recorder.close)
            try:
                self._sender.resume(last=True)
            finally:
                self._transport.close()
            self._note_left_out(self._clock.now_ns())
            self._recorder.links(self._transport.take_connections(), self._transport.take_events())

    def _do_requests(self) -> None:
        while not self._requests.empty():
            kind, number = self._requests.get()
            if kind == "start":
                self._t0_ns = number
                self._collector.start(number)
                self._rounds.t0_ns = number
                self._downlink.start(number)
            else:
                self._collector.leave(number, self._taken_until_ns)

    def _timeout_s(self, timeout_s: float) -> float:
        if self._pending:
            return 0.0
        if self._sender.waits:
            timeout_s = min(timeout_s, QUEUE_PAUSE_NS / 1e9)
        deadline_ns = self._collector.next_deadline_ns
        if deadline_ns is None:
            return timeout_s
        return min(timeout_s, max(0.0, (deadline_ns - self._clock.now_ns()) / 1e9))

    # -- receiving

    def _receive(self, timeout_s: float) -> list[Arrived]:
        """Wait for a message, and return it with those that have arrived behind it."""
        most = max(FRAMES_PER_POLL, len(self._parts.rules.stations))
        while True:
            try:
                first = self._transport.receive(timeout_s)
                break
            except TransportError as error:
                self._sender.note_lost(error)
        came: list[Arrived] = []
        if first is not None:
            came = [(*first, self._transport.t_received_ns), *self._transport.receive_waiting(most - 1)]
        self._taken_until_ns = came[-1][2] if len(came) == most else self._clock.now_ns()
        return came

    def _judge_all(self, came: Sequence[Arrived]) -> None:
        """Judge messages, log them, and answer them."""
        heads = None if self._expander is not None else take_new_reports(came, self._collector, self._recorder)
        if heads is None:
            self._judge_each(came)
            return
        for bs, count in Counter(heads.stations).items():
            self._allowance.delivered(bs, came[0][2], count)
        self._heard_ns |= {bs: t_received_ns for bs, _, t_received_ns in came if bs is not None}

    def _judge_each(self, came: Sequence[Arrived]) -> None:
        answers: list[tuple[int, Control]] = []
        arrivals = [arrival for each in came if (arrival := self._judge(each, answers)) is not None]
        self._recorder.received(arrivals)
        for bs, answer in answers:
            self._downlink.control(bs, answer)

    def _judge(self, arrived: Arrived, answers: list[tuple[int, Control]]) -> Arrival | None:
        """Decide the fate of a message; act upon a control message, and append the answer to `answers`.

        Returns:
            What is logged; None if the link has used up its allowance.
        """
        owner, data, now_ns = arrived
        size = len(data)
        if self._expander is not None:
            data = self._expander.expand(owner, data)
        try:
            message = decode(data)
        except RemoteError as error:
            if not self._allowance.admits(owner, size, now_ns):
                return None
            if isinstance(error, RegistrationError) and owner is not None:  # it would wait for an answer in vain
                answers.append((owner, self._refused(owner, error.detail, now_ns)))
            return Arrival(owner, data, now_ns, FrameFate.CORRUPT, error.reason)
        if owner is not None:
            self._heard_ns[owner] = now_ns
            self._collector.heard(owner)
        if isinstance(message, Frame):
            if self._expander is not None and message.bs == owner:
                self._expander.note(message)
            verdict = self._collector.frame(message, owner, now_ns)
            if verdict.fate is FrameFate.DELIVERED:
                self._allowance.delivered(owner, now_ns)
            elif not self._allowance.admits(owner, size, now_ns):
                return None
            return Arrival(owner, data, now_ns, verdict.fate, verdict.reason, verdict.late, size)
        if not self._allowance.admits(owner, size, now_ns):
            return None
        if owner is not None:
            answer = self._answer(message, owner, now_ns)
            if answer is not None:
                answers.append((owner, answer))
        return Arrival(owner, data, now_ns, None)

    def _answer(self, message: Control, owner: int, now_ns: int) -> Control | None:
        match message:
            case Registration():
                refusal = self._admission.refusal(message, owner)
                if refusal:
                    return self._refused(owner, refusal, now_ns)
                self._open(message)
                return Welcome(message.bs, message.epoch)
            case Goodbye() if message.bs == owner:
                self._collector.goodbye(message, now_ns)
                return None if self._center.asks and not self._over else self._downlink.farewell(owner)
            case Ping() if message.bs == owner:
                return Pong(owner, message.epoch, message.t_sent_ns, now_ns, now_ns)
            case Abort():
                self._collector.leave(owner, now_ns)
        return None

    def _open(self, registration: Registration, last: Reference | None = None) -> None:
        """Open the link of a base station that has registered.

        `last`: its last frame that arrived at an earlier incarnation of the cloud.
        """
        self._downlink.open(registration.bs, registration.epoch)
        if self._expander is not None:
            self._expander.open(registration.bs, registration.epoch, registration.report.side_bytes, last)

    def _refused(self, owner: int, reason: str, now_ns: int) -> Abort:
        """Log that a registration is refused, and return the answer; the reason is cut to the length of an `Abort`."""
        told = reason.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")  # it may quote what a peer sent
        self._recorder.event(now_ns, "registration", told, owner)
        return Abort(told)

    def _on_gone(self, bs: int | None, error: TransportError) -> None:
        """Stop waiting for a base station that the transport cannot reach, until it is heard again."""
        if bs is not None:
            self._collector.leave(bs, self._taken_until_ns, silent=True)

    def _housekeep(self, now_ns: int) -> None:
        if now_ns - self._housekept_ns < HOUSEKEEPING_NS:
            return
        self._housekept_ns = now_ns
        self._recorder.links(self._transport.take_connections(), self._transport.take_events())
        self._note_left_out(now_ns)
        silence_ns, until_ns = self._parts.silence_ns, self._taken_until_ns
        if silence_ns and self._t0_ns is not None and until_ns > self._t0_ns:
            for bs in self._collector.present:
                # Between registration and start, base stations may be silent.
                heard_ns = max(self._heard_ns.setdefault(bs, until_ns), self._t0_ns)
                if until_ns - heard_ns > silence_ns:
                    self._collector.leave(bs, until_ns, silent=True)

    def _note_left_out(self, now_ns: int) -> None:
        for bs, detail in self._allowance.take_left_out().items():
            self._recorder.event(now_ns, "left out", detail, bs)

    # -- fusion

    def _fuse_ready(self, *, hold: bool) -> None:
        """Fuse what is ready; with `hold`, an incomplete batch waits for further reports."""
        self._take_closed()
        while len(self._pending) >= self._batch or (self._pending and not hold):
            self._made(self._rounds.advance(self._pending[: self._batch]))
            del self._pending[: self._batch]
            self._take_closed()  # a round that no BS can answer closes at once

    def _take_closed(self) -> None:
        """Have the rounds wait for fusion that closed with enough reports; end those of the other snapshots."""
        self._pending.extend(self._collector.take_ready())
        for snapshot in self._collector.take_failed():
            self._made([self._rounds.conclude(snapshot)])

    def _made(self, found: Sequence[FixRecord | None]) -> None:
        """Log fixes. A fix that is not finite is logged as an event instead, and its reports stay unused.

        Reports of excluded base stations stay unused too.
        """
        fixes = []
        for fix in found:
            if fix is None:
                continue
            for bs, reason in fix.excluded.items():
                self._recorder.event(fix.t_fix_ns, "excluded", f"snapshot {fix.snapshot}: {reason}", bs)
            if fix.finite:
                fixes.append(fix)
            else:
                shared = set(fix.excluded.values())
                why = f": every base station {shared.pop()}" if not fix.used and len(shared) == 1 else ""
                detail = f"snapshot {fix.snapshot} came to no finite position{why}"
                self._recorder.event(fix.t_fix_ns, "fusion", detail)
        if fixes:
            self._fix_log.append(fixes)
            self._fixes_made += len(fixes)

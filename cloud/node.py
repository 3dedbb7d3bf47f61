"""The cloud's loop: what arrives is judged, written down, collected and fused.

    transport -> decode -> collector (fates) -> receive log
                               | ready snapshots
                               v
                          fusion centre -> fixes

The same object runs over memory links on a simulated clock and over sockets on the wall clock: its caller
decides how long `poll` may wait. Only `ask` may be called from another thread.
"""

from __future__ import annotations

import queue
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from cloud.center import FusionCenter
from cloud.collector import Collector, CollectorRules, ReadySnapshot
from cloud.fusion.scheme import CloudSetup, Fusion
from fronthaul.accounting import zmtp_frame_bytes
from fronthaul.clock import Clock
from fronthaul.errors import RemoteError, TransportError
from fronthaul.fates import FrameFate, ReportFate
from fronthaul.ledger import ReceiveLog
from fronthaul.messages import Abort, Control, Frame, Goodbye, Registration, Report, ReportKey, Welcome
from fronthaul.transport import CloudTransport, bs_of
from fronthaul.wire import decode, encode

FRAMES_PER_POLL = 256
"""So many waiting messages are taken before deadlines are looked at again."""


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
    """

    scheme: str
    build: Callable[[CloudSetup], Fusion]
    setup: CloudSetup
    rules: CollectorRules
    batch: int = 1
    rehearsal: tuple[Report, ...] = ()


@dataclass(frozen=True, slots=True)
class FixRecord:
    """One fix and how it came about; times on the run's clock [ns].

    Attributes:
        snapshot: which one.
        used: the reports in the fix, ordered by BS.
        position: estimate [m].
        covariance: (3, 3) [m^2], or None.
        last_bs: whose report came last.
        t_last_received_ns: when.
        t_fuse_ns: when fusion began.
        t_fix_ns: when the fix was there.
        fuse_ns: what fusion took, measured even where the run's clock is simulated.
    """

    snapshot: int
    used: tuple[ReportKey, ...]
    position: tuple[float, float, float]
    covariance: npt.NDArray[np.float64] | None
    last_bs: int
    t_last_received_ns: int
    t_fuse_ns: int
    t_fix_ns: int
    fuse_ns: int


@dataclass(frozen=True, slots=True)
class ControlBytes:
    """Control messages that one end of a connection sent and received, with their ZMTP headers [B]."""

    sent: int = 0
    received: int = 0


@dataclass(frozen=True)
class CloudOutcome:
    """What a run leaves at the cloud.

    Attributes:
        fixes: in the order in which they were made.
        report_fates: of all delivered reports.
        control: by BS; messages from connections that are no BS's count under None.
        registered: BSs that came.
        missing: BSs that were waited for until the end.
    """

    fixes: list[FixRecord] = field(default_factory=list)
    report_fates: dict[ReportKey, ReportFate] = field(default_factory=dict)
    control: dict[int | None, ControlBytes] = field(default_factory=dict)
    registered: frozenset[int] = frozenset()
    missing: frozenset[int] = frozenset()


Request = tuple[Literal["start", "gone"], int]


class CloudNode:
    """Transport, collector, fusion centre, receive log and clock, wired together."""

    def __init__(self, parts: CloudParts, transport: CloudTransport, log: ReceiveLog, clock: Clock) -> None:
        """Build the fusion rule; nothing is received before `poll`."""
        self._parts = parts
        self._transport = transport
        self._log = log
        self._clock = clock
        self._collector = Collector(parts.rules)
        self._center = FusionCenter(parts.build(parts.setup))
        self._pending: list[ReadySnapshot] = []
        self._fixes: list[FixRecord] = []
        self._control: dict[int | None, ControlBytes] = {}
        self._missing: frozenset[int] = frozenset()
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._started = False

    @property
    def address(self) -> str:
        """Where base stations connect to."""
        return self._transport.address

    @property
    def registered(self) -> frozenset[int]:
        """BSs that have registered."""
        return self._collector.registered

    @property
    def next_deadline_ns(self) -> int | None:
        """When an open snapshot closes at the latest [ns]."""
        return self._collector.next_deadline_ns

    @property
    def finished(self) -> bool:
        """Whether all BSs have left, and everything that can be fused is."""
        return self._collector.finished and not self._pending

    @property
    def closed_snapshots(self) -> int:
        """Snapshots that are done, with a fix or without."""
        return self._collector.closed_snapshots

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
        self._center.fixes([self._parts.rehearsal])
        with tempfile.TemporaryDirectory() as folder:
            log = ReceiveLog(Path(folder) / "rehearsal.arrow")
            log.append(b"", encode(Frame(0, self._parts.rehearsal[0])), 0, FrameFate.DELIVERED)
            log.close()

    def poll(self, timeout_s: float) -> bool:
        """Take what has arrived, close what is due, and fuse what is ready.

        Args:
            timeout_s: wait so long where nothing has arrived [s], but not past a deadline.

        Returns:
            Whether anything arrived.
        """
        self._do_requests()
        wait_s = self._timeout_s(timeout_s)
        arrived = False
        for _ in range(FRAMES_PER_POLL):
            received = self._transport.receive(0.0 if arrived else wait_s)
            if received is None:
                break
            arrived = True
            self._take(*received)
        self._collector.advance(self._clock.now_ns())
        self._pending.extend(self._collector.take_ready())
        # Part of a batch waits for more as long as there is something to receive.
        while len(self._pending) >= self._parts.batch or (self._pending and not arrived):
            self._fuse(self._pending[: self._parts.batch])
            del self._pending[: self._parts.batch]
        return arrived

    def run(self, idle_timeout_s: float) -> None:
        """Poll until finished, or until nothing has arrived for `idle_timeout_s` [s] after the start."""
        last_ns = self._clock.now_ns()
        while not self.finished:
            if self.poll(0.1) or not self._started:
                last_ns = self._clock.now_ns()
            elif self._clock.now_ns() - last_ns > idle_timeout_s * 1e9:
                break
        self.finish()

    def finish(self) -> None:
        """Fuse what is there, whoever is missing, and close the receive log."""
        self._missing = self._collector.waited_for
        self._collector.close_all()
        self._pending.extend(self._collector.take_ready())
        for begin in range(0, len(self._pending), self._parts.batch):
            self._fuse(self._pending[begin : begin + self._parts.batch])
        self._pending.clear()
        self._log.close()

    def outcome(self) -> CloudOutcome:
        """Return what the run leaves here."""
        return CloudOutcome(
            fixes=list(self._fixes),
            report_fates=dict(self._collector.report_fates),
            control=dict(self._control),
            registered=self.registered,
            missing=self._missing,
        )

    def close(self) -> None:
        """Let go of the links."""
        self._log.close()
        self._transport.close()

    def _do_requests(self) -> None:
        while not self._requests.empty():
            kind, number = self._requests.get()
            if kind == "start":
                self._collector.start(number)
                self._started = True
            else:
                self._collector.leave(number, self._clock.now_ns())

    def _timeout_s(self, timeout_s: float) -> float:
        if self._pending:
            return 0.0
        deadline_ns = self._collector.next_deadline_ns
        if deadline_ns is None:
            return timeout_s
        return min(timeout_s, max(0.0, (deadline_ns - self._clock.now_ns()) / 1e9))

    def _take(self, peer: bytes, data: bytes) -> None:
        now_ns = self._clock.now_ns()
        bs = bs_of(peer)
        try:
            message = decode(data)
        except RemoteError as error:
            self._log.append(peer, data, now_ns, FrameFate.CORRUPT, error.reason)
            return
        if isinstance(message, Frame):
            verdict = self._collector.frame(message, bs, now_ns)
            self._log.append(peer, data, now_ns, verdict.fate, verdict.reason)
            return
        self._count(bs, received=zmtp_frame_bytes(len(data)))
        answer = self._answer(message, bs, now_ns)
        if answer is not None:
            self._send(peer, answer)

    def _answer(self, message: Control, bs: int | None, now_ns: int) -> Control | None:
        match message:
            case Registration():
                refusal = self._refusal(message, bs)
                return Abort(refusal) if refusal else Welcome(message.bs, message.epoch)
            case Goodbye() if message.bs == bs:
                self._collector.goodbye(message, now_ns)
            case Abort() if bs is not None:
                self._collector.leave(bs, now_ns)
        return None

    def _refusal(self, registration: Registration, bs: int | None) -> str | None:
        if registration.bs != bs:
            return f"BS {registration.bs} does not own this connection"
        if registration.scheme != self._parts.scheme:
            return f"the cloud fuses {self._parts.scheme!r}, not {registration.scheme!r}"
        return self._collector.register(registration)

    def _send(self, peer: bytes, message: Control) -> None:
        data = encode(message)
        try:
            self._transport.send(peer, data)
        except TransportError:
            return  # it has gone between asking and our answer; if it comes back, it asks again
        self._count(bs_of(peer), sent=zmtp_frame_bytes(len(data)))

    def _count(self, bs: int | None, *, sent: int = 0, received: int = 0) -> None:
        so_far = self._control.get(bs, ControlBytes())
        self._control[bs] = replace(so_far, sent=so_far.sent + sent, received=so_far.received + received)

    def _fuse(self, ready: list[ReadySnapshot]) -> None:
        t_fuse_ns = self._clock.now_ns()
        with torch.inference_mode():
            fixes = self._center.fixes([snapshot.reports for snapshot in ready])
        t_fix_ns = self._clock.now_ns()
        for snapshot, fix in zip(ready, fixes, strict=True):
            self._fixes.append(
                FixRecord(
                    snapshot=snapshot.snapshot,
                    used=tuple(report.key for report in snapshot.reports),
                    position=fix.position,
                    covariance=fix.covariance,
                    last_bs=snapshot.last_bs,
                    t_last_received_ns=snapshot.t_last_received_ns,
                    t_fuse_ns=t_fuse_ns,
                    t_fix_ns=t_fix_ns,
                    fuse_ns=self._center.fuse_ns,
                )
            )

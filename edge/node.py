"""A base station on its link: it registers, paces itself from the schedule, writes down and sends.

The same object runs over memory links on a simulated clock and over sockets on the wall clock:

    register -> await_welcome -> (prepare -> transmit) a batch at a time -> leave

`prepare` makes what the antennas receive, which takes time that no real base station needs: it runs ahead of
time zero, so that latencies hold the base station's own work only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from edge.base_station import BaseStation, StationParts
from fronthaul.accounting import zmtp_frame_bytes
from fronthaul.clock import Clock
from fronthaul.errors import FronthaulError, TransportError
from fronthaul.journal import SendJournal
from fronthaul.messages import Abort, Control, Frame, Goodbye, Registration, Welcome
from fronthaul.transport import EdgeTransport
from fronthaul.wire import decode, encode

Vector = tuple[float, float, float]


class Radio(Protocol):
    """A site's air interface."""

    def observe(self, snapshot: int) -> Tensor:
        """Return received pilots (slot, antenna, tone) complex64 [sqrt(W)] of a snapshot."""


class Refused(FronthaulError):
    """The cloud turned this base station away, in its own words."""


@dataclass(frozen=True)
class SiteParts:
    """Everything that stands at one site; crosses to the actor that runs it. Holds no position of any user.

    Attributes:
        station: what the base station is made of.
        radio: what its antennas receive.
        position: of the array's centre [m].
        orientation: yaw, pitch, roll [rad].
    """

    station: StationParts
    radio: Radio
    position: Vector
    orientation: Vector

    def node(self, transport: EdgeTransport, journal: SendJournal, clock: Clock) -> EdgeNode:
        """Assemble the base station and wire it to its link."""
        return EdgeNode(
            self.station.assemble(),
            self.radio,
            transport,
            journal,
            clock,
            position=self.position,
            orientation=self.orientation,
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """When which snapshot is due.

    Attributes:
        t0_ns: time zero of snapshot 0 [ns].
        interval_ns: between two snapshots [ns]; 0 runs as fast as it goes.
        snapshots: how many.
        batch: how many at a time; a batch is due with its last snapshot.
    """

    t0_ns: int
    interval_ns: int
    snapshots: int
    batch: int = 1

    def time_zero_ns(self, snapshot: int) -> int:
        """Return when a snapshot is measured [ns]."""
        return self.t0_ns + snapshot * self.interval_ns

    def batches(self) -> Iterator[range]:
        """Yield the snapshots, a batch at a time."""
        for first in range(0, self.snapshots, self.batch):
            yield range(first, min(first + self.batch, self.snapshots))


class StageRow(NamedTuple):
    """Stage times of one report [ns]; `t_start_ns` on the run's clock, the others measured."""

    snapshot: int
    t_start_ns: int
    estimate_ns: int
    encode_ns: int
    pack_ns: int


@dataclass(frozen=True)
class EdgeOutcome:
    """What a run leaves at a base station, beside its journal.

    Attributes:
        bs: base station.
        epoch: of this start.
        frames: how many were sent.
        control_sent: control messages with their ZMTP headers [B].
        control_received: the same, from the cloud [B].
        stages: one row a report.
    """

    bs: int
    epoch: int
    frames: int
    control_sent: int
    control_received: int
    stages: list[StageRow]


class EdgeNode:
    """A base station wired to radio, link, journal and clock."""

    def __init__(
        self,
        station: BaseStation,
        radio: Radio,
        transport: EdgeTransport,
        journal: SendJournal,
        clock: Clock,
        *,
        position: Vector,
        orientation: Vector,
    ) -> None:
        """Wire it up; nothing is sent before `register`.

        Args:
            station: signal processing.
            radio: what its antennas receive.
            transport: its end of its link.
            journal: of this link and epoch.
            clock: paces it, and stamps its frames.
            position: of the array's centre [m].
            orientation: yaw, pitch, roll [rad].
        """
        self.station = station
        self._radio = radio
        self._transport = transport
        self._journal = journal
        self._clock = clock
        self._position = position
        self._orientation = orientation
        self._prepared: Tensor | None = None
        self._frames = 0
        self._control_sent = 0
        self._control_received = 0
        self._stages: list[StageRow] = []

    def register(self) -> None:
        """Announce the base station and its codec."""
        scheme = self.station.scheme
        self._send_control(
            Registration(
                bs=self.station.bs,
                epoch=self.station.epoch,
                scheme=scheme.name,
                bits=scheme.bits,
                coefficients=scheme.coefficients,
                side_bytes=scheme.side_bytes,
                position=self._position,
                orientation=self._orientation,
            )
        )

    def await_welcome(self, timeout_s: float) -> None:
        """Wait for the cloud's answer, at most `timeout_s` [s].

        Raises:
            Refused: the cloud says no.
            TransportError: it says nothing.
            RemoteError: it says what nobody understands.
        """
        data = self._transport.receive(timeout_s)
        if data is None:
            raise TransportError(f"the cloud did not answer BS {self.station.bs} within {timeout_s:g} s")
        self._control_received += zmtp_frame_bytes(len(data))
        message = decode(data)
        if isinstance(message, Abort):
            raise Refused(message.reason)
        if message != Welcome(self.station.bs, self.station.epoch):
            raise TransportError(f"the cloud answered BS {self.station.bs} with {type(message).__name__}")

    def rehearse(self) -> None:
        """Process one snapshot for nothing, so that the first that counts finds all libraries loaded.

        The journal matters most: its first row loads what may take half a second.
        """
        (report,) = self.station.reports([0], self._radio.observe(0)[None])
        with tempfile.TemporaryDirectory() as folder:
            journal = SendJournal(Path(folder) / "rehearsal.arrow", self.station.bs)
            journal.append(Frame(0, report), 0)
            journal.close()

    def prepare(self, snapshots: Sequence[int]) -> None:
        """Make what the antennas receive in the next batch."""
        self._prepared = torch.stack([self._radio.observe(snapshot) for snapshot in snapshots])

    def transmit(self, snapshots: Sequence[int], due_ns: int) -> None:
        """Wait for `due_ns` [ns], then turn the prepared batch into frames: journal first, then send.

        Raises:
            TransportError: the link could not take a frame; its row in the journal stays.
        """
        assert self._prepared is not None, "prepare comes first"
        self._clock.sleep_until(due_ns)
        t_start_ns = self._clock.now_ns()
        reports = self.station.reports(snapshots, self._prepared)
        self._prepared = None
        times = self.station.stage_ns
        for report in reports:
            self._stages.append(
                StageRow(report.key.snapshot, t_start_ns, times.estimate_ns, times.encode_ns, times.pack_ns)
            )
            frame = Frame(self._frames, report)
            self._journal.append(frame, self._clock.now_ns())
            self._frames += 1
            self._transport.send(encode(frame))

    def leave(self) -> None:
        """Say goodbye: everything is sent."""
        self._send_control(Goodbye(self.station.bs, self.station.epoch, self._frames))

    def outcome(self) -> EdgeOutcome:
        """Return what the run leaves here."""
        return EdgeOutcome(
            bs=self.station.bs,
            epoch=self.station.epoch,
            frames=self._frames,
            control_sent=self._control_sent,
            control_received=self._control_received,
            stages=list(self._stages),
        )

    def close(self) -> None:
        """Close journal and link; what is queued is still sent."""
        self._journal.close()
        self._transport.close()

    def _send_control(self, message: Control) -> None:
        data = encode(message)
        self._transport.send(data)
        self._control_sent += zmtp_frame_bytes(len(data))


def run_batch(nodes: Sequence[EdgeNode], snapshots: range, schedule: Schedule) -> None:
    """Run one batch at all base stations that share a process, one after the other."""
    due_ns = schedule.time_zero_ns(snapshots[-1])
    for node in nodes:
        node.prepare(snapshots)
    for node in nodes:
        node.transmit(snapshots, due_ns)


def run_schedule(nodes: Sequence[EdgeNode], schedule: Schedule) -> None:
    """Run a whole schedule at all base stations that share a process, and say goodbye."""
    for snapshots in schedule.batches():
        run_batch(nodes, snapshots, schedule)
    for node in nodes:
        node.leave()

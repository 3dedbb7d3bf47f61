"""A base station on its link: it registers, follows the schedule, journals and sends reports, and answers the cloud.

The same object runs over memory links on a simulated clock and over sockets on the wall clock:

    register -> await_welcome -> (prepare -> wait -> transmit) a batch at a time -> leave -> await_end

`prepare` simulates what the antennas receive. A real base station spends no time on that, so it runs ahead of time
zero, and latencies cover the base station's own work only. While it waits, the node receives and answers the cloud's
messages and sends heartbeats.
"""

from __future__ import annotations

import contextlib
import queue
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from edge.base_station import BaseStation, StageTimes, reports_together
from edge.site import Radio, SiteSpec
from edge.stages import StageLog, StageRow
from fronthaul.clock import Clock
from fronthaul.errors import FronthaulError, RemoteError, TransportError
from fronthaul.link.link_model import LinkModel
from fronthaul.log.received import Arrival
from fronthaul.log.recorder import Recorder
from fronthaul.log.remote import Folder
from fronthaul.log.sent import Departure
from fronthaul.log.stream_names import edge_name
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import (
    Abort,
    Control,
    Direction,
    Frame,
    Goodbye,
    Ping,
    Registration,
    Report,
    ReportKey,
    Welcome,
)
from fronthaul.message.wire import decode, encode
from fronthaul.sender.outbox import Outbox
from fronthaul.sender.sender import Sender
from fronthaul.transport.transport import EdgeTransport

REPEAT_S = 2.0
"""Interval at which an unanswered registration or goodbye is resent [s]: the cloud may have been restarted."""


UNANSWERED = 10
"""Heartbeats without any message of the cloud after which a base station connects again; twice as many the next time,
since over a slow link answers take longer."""


TOGETHER = 8
"""Batches of one process's base stations whose reports are made together: more need more memory, and gain little."""


class Refused(FronthaulError):
    """The cloud refused this base station; the message is the cloud's."""


def prepare_together(nodes: Sequence[EdgeNode], *batches: Sequence[int]) -> None:
    """Simulate what the antennas of one process's base stations receive in the next batches of snapshots.

    Each base station gets the snapshots that it measures.
    """
    own = [[node.measured(snapshots) for snapshots in batches] for node in nodes]
    asked = [
        (node.radio, [snapshot for batch in of_node for snapshot in batch])
        for node, of_node in zip(nodes, own, strict=True)
    ]
    for node, of_node, pilots in zip(nodes, own, nodes[0].radio.observe_together(asked), strict=True):
        for snapshots, received in zip(of_node, pilots.split([*map(len, of_node)]), strict=True):
            node.hold(snapshots, received)


def transmit_together(nodes: Sequence[EdgeNode], due_ns: int) -> None:
    """Do `EdgeNode.transmit` for one process's base stations, some at a time; one that comes twice, for two batches.

    Raises:
        FronthaulError: as `EdgeNode.transmit`.
    """
    for begin in range(0, len(nodes), TOGETHER):
        some = nodes[begin : begin + TOGETHER]
        held = [node.due(due_ns) for node in some]
        asked = [(node.station, *own) for node, own in zip(some, held, strict=True) if own[0]]
        made = iter(reports_together(asked) if asked else ())
        for node, (snapshots, _) in zip(some, held, strict=True):
            if snapshots:
                node.send(*next(made))


class EdgeNode:
    """A base station with its radio, link, streams and clock."""

    def __init__(self, site: SiteSpec, transport: EdgeTransport, folder: Folder, clock: Clock) -> None:
        """Assemble the node; nothing is sent before `register`.

        Args:
            site: description of the site.
            transport: the base station's end of the link.
            folder: folder of its streams.
            clock: paces the node and timestamps its messages.

        Raises:
            LocalError: streams of this start exist already.
        """
        self.station: BaseStation = site.station.assemble()
        self._site = site
        self._transport = transport
        self._clock = clock
        bs, epoch = self.station.bs, self.station.epoch
        name = edge_name(bs, epoch)
        capture_bs = bs if site.capture else None
        costs = replace(transport.costs, compact=site.compact)
        with contextlib.ExitStack() as opened:  # closes the recorder if the other stream cannot be created
            self._recorder = Recorder(folder, name, sends=Direction.UP, transport=costs, capture_bs=capture_bs)
            opened.callback(self._recorder.close)
            self._recorder.clock(clock)
            self._stages = StageLog(folder, name)
            opened.pop_all()
        self._sender = Sender(self._recorder, clock, self._put, self._on_gone)
        self._model = None
        if site.up is not None:
            self._model = LinkModel(
                site.up,
                seed=site.seed,
                bs=bs,
                direction=Direction.UP,
                epoch=epoch,
                ip_header_bytes=costs.ip_header_bytes,
            )
        self._outbox = Outbox(self._model, transport=costs, bundle=site.bundle)
        self._prepared: deque[tuple[Sequence[int], Tensor]] = deque()  # snapshots of a batch, and the pilots of each
        self._welcome: Control | None = None
        self._ended = False
        self._answered: set[ReportKey] = set()
        self._next_ping_ns: int | None = None
        self._unanswered = 0
        self._patience = UNANSWERED
        self._cuts: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._closed = False
        self._line_ns = self._t_start_ns = 0

    def register(self) -> None:
        """Send the registration: base station, scheme, payload formats and site."""
        self._send_control(
            Registration(
                bs=self.station.bs,
                epoch=self.station.epoch,
                scheme=self.station.scheme.name,
                report=self.station.format,
                answer=self.station.answer_format,
                position=self._site.position,
                orientation=self._site.orientation,
            )
        )

    def await_welcome(self, timeout_s: float) -> None:
        """Wait for the cloud's answer, at most `timeout_s` [s].

        Raises:
            Refused: the cloud refuses the base station.
            TransportError: the cloud does not answer in time.
        """
        until_ns = self._clock.now_ns() + round(timeout_s * 1e9)
        again_ns = self._clock.now_ns() + round(REPEAT_S * 1e9)
        while self._welcome != Welcome(self.station.bs, self.station.epoch):
            now_ns = self._clock.now_ns()
            if not self._take((min(until_ns, again_ns) - now_ns) / 1e9) and now_ns >= until_ns:
                raise TransportError(f"the cloud did not answer BS {self.station.bs} within {timeout_s:g} s")
            if self._clock.now_ns() >= again_ns:
                again_ns += round(REPEAT_S * 1e9)
                self.register()

    @property
    def line_ns(self) -> int:
        """When the last message so far leaves this end's link model [ns]: nobody can answer it before."""
        return self._line_ns

    @property
    def ended(self) -> bool:
        """Whether the cloud has said goodbye."""
        return self._ended

    @property
    def states(self) -> int:
        """Number of the cloud's states that were answered."""
        return len(self._answered)

    def start(self, t0_ns: int, *, patience_s: float = 0.0) -> None:
        """Begin the run.

        Args:
            t0_ns: time at which snapshot 0 is due [ns]; outages of the link model are relative to it.
            patience_s: how long a full queue may block the base station [s]. Use 0 in open loop, where messages that
                do not fit are dropped; in closed loop the full queue paces the base station.
        """
        self._sender.patience_ns = round(patience_s * 1e9)
        if self._model is not None:
            self._model.t0_ns = t0_ns
        if self._site.ping_ns:
            # Heartbeats are staggered: the first is delayed by a share of the interval that depends on the BS.
            self._next_ping_ns = self._clock.now_ns() + (self.station.bs * 7919 % 100) * self._site.ping_ns // 100

    def rehearse(self) -> None:
        """Process one snapshot and discard the result, so that all libraries are loaded before the first real one.

        The journal matters most: loading what its first row needs may take half a second.
        """
        (report,) = self.station.reports([0], self._site.radio.observe(0)[None])
        with tempfile.TemporaryDirectory() as folder:
            recorder = Recorder(
                Path(folder),
                "rehearsal",
                sends=Direction.UP,
                transport=self._transport.costs,
                capture_bs=self.station.bs,
            )
            recorder.sent(self.station.bs, [Departure(encode(Frame(0, (report,))), 0, 0)])
            recorder.close()
            stages = StageLog(Path(folder), "rehearsal")
            stages.append([StageRow(0, 0, 0, 0, 0, 0)])
            stages.close()

    def prepare(self, *batches: Sequence[int]) -> None:
        """Do `prepare_together` for this base station alone."""
        prepare_together([self], *batches)

    @property
    def radio(self) -> Radio:
        """What simulates its antennas."""
        return self._site.radio

    def measured(self, snapshots: Sequence[int]) -> Sequence[int]:
        """Return those of `snapshots` that this base station measures."""
        return snapshots if self._site.roster is None else [each for each in snapshots if self._site.measures(each)]

    def hold(self, snapshots: Sequence[int], received: Tensor) -> None:
        """Keep for `transmit` what the antennas receive (B, slot, antenna, tone) in a batch of B snapshots."""
        self._prepared.append((snapshots, received))

    def transmit(self, due_ns: int, batches: int = 1) -> None:
        """Wait for `due_ns` [ns], then turn the first prepared batches into frames: journal first, then send.

        Raises:
            Refused: the cloud has refused the base station meanwhile.
            LocalError: the disk is full; nothing is sent that is not journaled.
        """
        transmit_together(batches * [self], due_ns)

    def due(self, due_ns: int) -> tuple[Sequence[int], Tensor]:
        """Wait for `due_ns` [ns], and return what `hold` kept first."""
        assert self._prepared, "prepare comes first"
        self.wait(due_ns)
        self._t_start_ns = self._clock.now_ns()
        return self._prepared.popleft()

    def send(self, reports: Sequence[Report], times: StageTimes) -> None:
        """Journal and send the reports of the snapshots that were `due`, and note their stage times."""
        self._send_reports(reports)
        self._note_stages(reports, self._t_start_ns, times)

    def wait(self, until_ns: int) -> None:
        """Receive and answer the cloud's messages until `until_ns` [ns]; return at once if that is past."""
        while self._clock.now_ns() < until_ns:
            self._upkeep()
            next_ns = until_ns if self._next_ping_ns is None else min(until_ns, self._next_ping_ns)
            remaining_ns = next_ns - self._clock.now_ns()
            if remaining_ns < 1_000_000:  # the transport waits in whole milliseconds
                self._clock.sleep_until(next_ns)
            else:
                self._take(remaining_ns // 1_000_000 / 1e3)
        self.pump()

    def pump(self) -> bool:
        """Receive and answer all pending messages; return whether there were any."""
        self._upkeep()
        found = False
        while self._take(0.0):
            found = True
        return found

    def is_cut_off(self, seconds: float) -> bool:
        """Return whether the link model is in an outage that lasts another `seconds` [s] or longer."""
        now_ns = self._clock.now_ns()
        end_ns = None if self._model is None else self._model.outage_end_ns(now_ns)
        return end_ns is not None and end_ns - now_ns >= seconds * 1e9

    def leave(self) -> None:
        """Say goodbye to the cloud: all reports of round 0 are sent."""
        self._send_control(Goodbye(self.station.bs, self.station.epoch, self._outbox.frames_made))

    def await_end(self, timeout_s: float) -> bool:
        """Answer the cloud until it says goodbye, or until it has sent no state for `timeout_s` [s].

        The time counts from when our own messages have left our line.

        Returns:
            Whether the cloud said goodbye.
        """
        begin_ns = max(self._clock.now_ns(), self._line_ns)
        until_ns = begin_ns + round(timeout_s * 1e9)
        again_ns = begin_ns + round(REPEAT_S * 1e9)
        while not self._ended and (now_ns := self._clock.now_ns()) < until_ns:
            self._upkeep()
            next_ns = min(until_ns, again_ns, self._next_ping_ns or until_ns)
            states = self.states
            self._take((next_ns - now_ns) / 1e9)
            if self.states > states:  # only states extend the wait, answers to heartbeats do not
                until_ns = max(self._clock.now_ns(), self._line_ns) + round(timeout_s * 1e9)
            if self._clock.now_ns() >= again_ns and not self._ended:
                again_ns += round(REPEAT_S * 1e9)
                self.leave()
        return self._ended

    def cut(self, seconds: float) -> None:
        """Cut the link for `seconds` [s] (fault injection); may be called from another thread."""
        self._cuts.put(seconds)

    def close(self) -> None:
        """Close link and streams; queued messages are still sent. Closing twice is fine.

        Raises:
            LocalError: the disk is full; the streams are closed and can be read all the same.
        """
        if self._closed:
            return
        self._closed = True
        with contextlib.ExitStack() as each:  # closes all of them even if the disk is full
            each.callback(self._recorder.close)  # the last, since it waits for what is kept on another machine
            each.callback(self._stages.close)
            self._transport.close()
            self._recorder.links(self._transport.take_connections(), self._transport.take_events())

    # -- what arrives

    def _take(self, timeout_s: float) -> bool:
        """Receive and handle one message of the cloud; return whether there was one."""
        try:
            data = self._transport.receive(max(0.0, timeout_s))
        except TransportError as error:
            self._sender.note_lost(error)
            return False
        if data is None:
            return False
        self._unanswered = 0
        now_ns = self._transport.t_received_ns
        bs = self.station.bs
        try:
            message = decode(data)
        except RemoteError as error:
            self._recorder.received([Arrival(bs, data, now_ns, FrameFate.CORRUPT, error.reason)])
            return True
        if isinstance(message, Frame):
            self._take_frame(message, data, now_ns)
            return True
        self._recorder.received([Arrival(bs, data, now_ns, None)])
        match message:
            case Welcome():
                self._welcome = message
            case Goodbye():
                self._ended = True
            case Abort():
                raise Refused(message.reason)
        return True

    def _take_frame(self, frame: Frame, data: bytes, now_ns: int) -> None:
        """Determine a frame's fate, journal it and answer it; one that the scheme cannot answer is rejected whole."""
        answers: list[tuple[Report, StageTimes]] = []
        fate, reason = self._judge(frame)
        if fate is FrameFate.DELIVERED:
            try:
                answers = self._answers(frame)
            except (RemoteError, ValueError) as error:
                fate, reason = FrameFate.REJECTED, f"the scheme cannot answer: {error}"
            else:
                self._answered.update(state.key for state in frame.reports)
        self._recorder.received([Arrival(self.station.bs, data, now_ns, fate, reason)])
        for answer, times in answers:
            self._send_reports([answer])
            self._note_stages([answer], now_ns, times)

    def _judge(self, frame: Frame) -> tuple[FrameFate, str | None]:
        if (frame.bs, frame.epoch) != (self.station.bs, self.station.epoch):
            return FrameFate.REJECTED, f"it is for BS {frame.bs} in epoch {frame.epoch}"
        if self.station.answer_format is None:
            return FrameFate.REJECTED, "the scheme has one round"
        if any(report.key in self._answered for report in frame.reports):
            return FrameFate.DUPLICATE, None
        return FrameFate.DELIVERED, None

    def _answers(self, frame: Frame) -> list[tuple[Report, StageTimes]]:
        """Make the answers to the states of a frame; states of snapshots that the base station does not hold get none.

        Raises:
            RemoteError: a state does not have the size that the scheme expects.
            ValueError: a state is not of this scheme.
        """
        answers = []
        for state in frame.reports:
            answer = self.station.answer(state.key.snapshot, state.key.round, state.payload)
            if answer is not None:
                answers.append((answer, self.station.stage_ns))
        return answers

    # -- what is sent

    def _upkeep(self) -> None:
        """Cut the link if requested, send a heartbeat if one is due, and connect again if none is answered."""
        while not self._cuts.empty():
            self._transport.cut(self._cuts.get())
        now_ns = self._clock.now_ns()
        if self._next_ping_ns is not None and now_ns >= self._next_ping_ns:
            self._next_ping_ns = now_ns + self._site.ping_ns
            while self._take(0.0):  # answers may have been waiting for us
                pass
            if self._unanswered >= self._patience:
                self._unanswered, self._patience = 0, 2 * self._patience
                self._transport.renew()
            self._unanswered += 1
            self._send_control(Ping(self.station.bs, self.station.epoch, self._clock.now_ns()))
            self._recorder.links(self._transport.take_connections(), self._transport.take_events())

    def _send_reports(self, reports: Sequence[Report]) -> None:
        self._send(self._outbox.frames(reports, self._clock.now_ns()))

    def _send_control(self, message: Control) -> None:
        self._send([self._outbox.control(message, self._clock.now_ns())])

    def _send(self, departures: Sequence[Departure]) -> None:
        self._line_ns = max([self._line_ns, *(departure.t_release_ns for departure in departures)])
        self._sender.send(self.station.bs, departures)

    def _put(self, bs: int, data: bytes, t_release_ns: int) -> None:
        self._transport.send(data, t_release_ns)

    def _on_gone(self, bs: int | None, error: TransportError) -> None:
        """End the base station: its only link is gone."""
        raise error

    def _note_stages(self, reports: Sequence[Report], t_start_ns: int, times: StageTimes) -> None:
        self._stages.append(
            [
                StageRow(
                    report.key.snapshot, report.key.round, t_start_ns, times.estimate_ns, times.encode_ns, times.pack_ns
                )
                for report in reports
            ]
        )

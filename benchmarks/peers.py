"""Processes of the benchmark `fronthaul`: a receiver or a sender, over our fronthaul and over bare pyzmq.

    python -m benchmarks.peers receiver FOLDER            orders on stdin, answers on stdout, one JSON value per line
    python -m benchmarks.peers sender FOLDER OURS BARE BS...

"Ours" is everything that base stations and cloud do with a report beside computing: Outbox, journal and DealerTransport
at the sender; RouterTransport, decode, Collector and receive log at the receiver. "Bare" is a minimal program with
pyzmq's DEALER and ROUTER sockets and the same messages.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from benchmarks.samples import STATIONS, frame, reports
from cloud.collector import Collector, CollectorRules
from cloud.intake import take_new_reports
from fronthaul.clock import real_ns
from fronthaul.errors import QueueFull, TransportError
from fronthaul.log.received import Arrival
from fronthaul.log.recorder import Recorder
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction, Frame, Payload, PayloadFormat, Registration, Report, ReportKey
from fronthaul.message.wire import decode, encode
from fronthaul.sender.outbox import Outbox
from fronthaul.transport.identity import identity
from fronthaul.transport.transport import CloudTransport, EdgeTransport
from fronthaul.transport.zeromq import QUEUE_MESSAGES, DealerTransport, RouterTransport

BATCH = 16
"""Number of reports that a base station makes, journals and sends at once."""
MESSAGES_PER_POLL = 256
"""Maximum number of messages per poll, as `FRAMES_PER_POLL` of `cloud.node`."""
TIMEOUT_S = 30.0
STATE = Payload(bytes(48), 384)
"""The state that the cloud sends in a round: 12 numbers of 32 bits."""
PAUSE_S = 0.001
"""Pause when a queue is full [s]."""


@dataclass(frozen=True, slots=True)
class Order:
    """One measurement to run.

    Attributes:
        what: "rate": senders send as fast as they can; "round": the receiver queries all senders, which answer.
        side: "ours" or "bare".
        count: number of reports of each base station, or of rounds.
        bundle: number of reports in a message.
        number: sequence number of the order.
    """

    what: str
    side: str
    count: int
    bundle: int
    number: int


def main() -> None:
    """Execute orders until stdin ends."""
    role, folder, *rest = sys.argv[1:]
    if role == "receiver":
        receiver = Receiver(Path(folder))
        _say({"ours": receiver.ours.address, "bare": receiver.bare_address})
        take: Callable[[Order], object] = receiver.obey
    else:
        ours, bare, *stations = rest
        take = Sender(Path(folder), list(map(int, stations)), ours, bare).obey
        _say("ready")
    for line in sys.stdin:
        _say(take(Order(**json.loads(line))))


def _freeze() -> None:
    """Exempt existing objects from garbage collection, as the actors of a run do."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


class Sender:
    """Base stations that share a process, each with our transport and a bare socket."""

    def __init__(self, folder: Path, stations: Sequence[int], ours: str, bare: str) -> None:
        """Connect to both receivers."""
        self._folder = folder
        self._ours = {bs: DealerTransport(ours, bs) for bs in stations}
        self._bare: dict[int, zmq.Socket[bytes]] = {}
        for bs in stations:
            socket = self._bare[bs] = zmq.Context().socket(zmq.DEALER)
            socket.setsockopt(zmq.SNDHWM, QUEUE_MESSAGES)
            socket.setsockopt(zmq.RCVHWM, QUEUE_MESSAGES)
            socket.setsockopt(zmq.IDENTITY, identity(bs))
            socket.connect(bare)
            # One report over each transport announces us to both receivers.
            self._ours[bs].send(encode(frame()))
            socket.send(encode(frame()))

    def obey(self, order: Order) -> str:
        """Execute an order and return "done"."""
        made = {bs: reports(order.count, bs=bs, first=0) for bs in self._ours}
        _freeze()
        if order.side == "bare":
            self._obey_bare(order, made)
        else:
            stations = [_Station(self._folder, bs, link, order) for bs, link in self._ours.items()]
            work = _push if order.what == "rate" else _answer
            work(stations, made)
            for station in stations:
                station.recorder.close()
        return "done"

    def _obey_bare(self, order: Order, made: Mapping[int, Sequence[Report]]) -> None:
        # Made beforehand and of the right size; their values do not matter.
        messages = {
            bs: [encode(Frame(n, tuple(mine[n : n + order.bundle]))) for n in range(0, len(mine), order.bundle)]
            for bs, mine in made.items()
        }
        step = max(1, BATCH // order.bundle) if order.what == "rate" else 1
        for begin in range(0, -(-order.count // order.bundle), step):
            for bs, socket in self._bare.items():
                if order.what == "round":
                    socket.recv()
                for message in messages[bs][begin : begin + step]:
                    socket.send(message)


class _Station:
    """Outbox and recorder of one of our base stations for one order."""

    def __init__(self, folder: Path, bs: int, transport: EdgeTransport, order: Order) -> None:
        self.bs, self.transport = bs, transport
        self.outbox = Outbox(transport=transport.costs, bundle=order.bundle)
        self.recorder = Recorder(folder, f"bs-{bs}-{order.number}", sends=Direction.UP, transport=transport.costs)

    def send(self, made: Sequence[Report]) -> None:
        """Journal and send reports, as `EdgeNode` does."""
        departures = self.outbox.frames(made, real_ns())
        self.recorder.sent(self.bs, departures)
        for departure in departures:
            while True:
                try:
                    self.transport.send(departure.message, departure.t_release_ns)
                    break
                except QueueFull:
                    time.sleep(PAUSE_S)


def _push(stations: Sequence[_Station], made: Mapping[int, Sequence[Report]]) -> None:
    """Send all reports, a batch at a time."""
    for begin in range(0, len(made[stations[0].bs]), BATCH):
        for station in stations:
            station.send(made[station.bs][begin : begin + BATCH])


def _answer(stations: Sequence[_Station], made: Mapping[int, Sequence[Report]]) -> None:
    """Answer each state with a report."""
    for snapshot in range(len(made[stations[0].bs])):
        for station in stations:
            data = station.transport.receive(TIMEOUT_S)
            if data is None:
                raise TransportError("the receiver fell silent")
            message = decode(data)
            assert isinstance(message, Frame)
            t_received_ns = station.transport.t_received_ns
            station.recorder.received([Arrival(station.bs, data, t_received_ns, FrameFate.DELIVERED)])
            station.send([made[station.bs][snapshot]])


class Receiver:
    """The cloud, with our transport and a bare socket."""

    def __init__(self, folder: Path) -> None:
        """Listen at two ports, for `STATIONS` senders each."""
        self._folder = folder
        self.ours = RouterTransport()
        self._bare = zmq.Context().socket(zmq.ROUTER)
        self._bare.setsockopt(zmq.RCVTIMEO, round(TIMEOUT_S * 1000))
        self._bare.setsockopt(zmq.RCVHWM, QUEUE_MESSAGES)
        self._bare.setsockopt(zmq.SNDHWM, QUEUE_MESSAGES)
        port = self._bare.bind_to_random_port("tcp://127.0.0.1")
        self.bare_address = f"tcp://127.0.0.1:{port}"
        self._greeted = False

    def obey(self, order: Order) -> float:
        """Execute an order; return the time from the first message to the last, or the mean time of a round [s]."""
        if not self._greeted:
            self._greeted = True
            for _ in range(STATIONS):
                self._bare.recv_multipart()
                if self.ours.receive(TIMEOUT_S) is None:
                    raise TransportError("a sender did not come")
        if order.side == "bare":
            return self._bare_rate(order) if order.what == "rate" else self._bare_rounds(order)
        _freeze()
        recorder = Recorder(self._folder, f"cloud-{order.number}", sends=Direction.DOWN, transport=self.ours.costs)
        collector = registered_collector(order.count)
        work = _rate if order.what == "rate" else _rounds
        seconds = work(self.ours, collector, recorder, order.count)
        recorder.close()
        return seconds

    def _bare_rate(self, order: Order) -> float:
        messages = STATIONS * -(-order.count // order.bundle)
        self._bare.recv_multipart()
        begin_s = time.perf_counter()
        for _ in range(messages - 1):
            self._bare.recv_multipart()
        return time.perf_counter() - begin_s

    def _bare_rounds(self, order: Order) -> float:
        peers = [identity(bs) for bs in range(STATIONS)]
        state = encode(Frame(0, (Report(ReportKey(0, 0, 0, 1), STATE),)))
        begin_s = time.perf_counter()
        for _ in range(order.count):
            for peer in peers:
                self._bare.send_multipart([peer, state])
            for _ in peers:
                self._bare.recv_multipart()
        return (time.perf_counter() - begin_s) / order.count


def registered_collector(snapshots: int) -> Collector:
    """Make a collector with all stations registered, in closed loop."""
    (report,) = frame().reports
    stations = frozenset(range(STATIONS))
    collector = Collector(CollectorRules(stations=stations, snapshots=snapshots, interval_ns=0, deadline_ns=1))
    declared = PayloadFormat(report.payload.bits, len(report.side))
    for bs in stations:
        here = (0.0, 0.0, 0.0)
        collector.register(Registration(bs, 0, "benchmark", declared, None, here, here))
    collector.start(0)
    return collector


def _rate(transport: CloudTransport, collector: Collector, recorder: Recorder, count: int) -> float:
    """Receive `count` snapshots of all stations as `CloudNode.poll` does: judge, log, collect; return the time [s]."""
    begin_s = None
    gathered = 0
    while gathered < count:
        poll(transport, collector, recorder)
        begin_s = begin_s or time.perf_counter()
        gathered += len(collector.take_ready())
    assert begin_s is not None
    return time.perf_counter() - begin_s


def poll(transport: CloudTransport, collector: Collector, recorder: Recorder, most: int = MESSAGES_PER_POLL) -> None:
    """Receive, judge, collect and log up to `most` messages as `CloudNode.poll` does."""
    first = transport.receive(TIMEOUT_S)
    if first is None:
        raise TransportError("a sender fell silent")
    came = [(*first, transport.t_received_ns), *transport.receive_waiting(most - 1)]
    if take_new_reports(came, collector, recorder) is not None:
        return
    arrivals = []
    for owner, data, now_ns in came:
        message = decode(data)
        assert isinstance(message, Frame)
        verdict = collector.frame(message, owner, now_ns)
        arrivals.append(Arrival(owner, data, now_ns, verdict.fate, verdict.reason, verdict.late))
    recorder.received(arrivals)


def _rounds(transport: CloudTransport, collector: Collector, recorder: Recorder, count: int) -> float:
    """Query all stations and wait for all answers, `count` times; return the mean time of a round [s]."""
    outboxes = [Outbox(transport=transport.costs) for _ in range(STATIONS)]
    begin_s = time.perf_counter()
    for snapshot in range(count):
        now_ns = real_ns()
        departures = [
            (bs, departure)
            for bs, outbox in enumerate(outboxes)
            for departure in outbox.frames([Report(ReportKey(bs, 0, snapshot, 1), STATE)], now_ns)
        ]
        recorder.sent_all(departures)
        for bs, departure in departures:
            transport.send(bs, departure.message, departure.t_release_ns)
        while not collector.take_ready():
            poll(transport, collector, recorder)
    return (time.perf_counter() - begin_s) / count


if __name__ == "__main__":
    main()

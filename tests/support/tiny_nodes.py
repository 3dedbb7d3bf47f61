"""Base stations and cloud of two fake schemes, on memory links and a simulated clock."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cloud.cloud_spec import CloudSpec
from cloud.collector import CollectorRules
from cloud.fusion.scheme import CloudSetup, Fix
from cloud.node import CloudNode
from edge.base_station import StationSpec
from edge.node import EdgeNode
from edge.scheme import EdgeSetup, Encoded
from edge.site import SiteSpec
from fronthaul.clock import Clock, SimulatedClock
from fronthaul.codec.bitstream import pack
from fronthaul.log.arrow_stream import RowStream
from fronthaul.message.messages import Control, Frame, Message, Payload, PayloadFormat, Registration, Report, ReportKey
from fronthaul.message.wire import decode, encode
from fronthaul.payload.choice import PayloadChoice
from fronthaul.transport.memory import MemoryNetwork
from fronthaul.transport.transport import EdgeTransport
from sim.emulate.in_process import World

SHAPE = SLOTS, ANTENNAS, TONES = 1, 1, 2
REPORT = PayloadFormat.uniform(8, 1, 1)
ANSWER = PayloadFormat.uniform(16, 1, 0)
LAST = 3
"""Rounds after round 0 until the fake exchange has a fix."""
MS = 1_000_000


class OneRound:
    """Sends the snapshot's number modulo 256, which is what the fake radio receives."""

    name = "one"
    format = REPORT

    def encode(self, channel: Tensor) -> Encoded:
        number = channel.real[:, 0, 0, :1].round().numpy().astype(np.uint32) % 256
        return Encoded([pack(row, 8) for row in number], [b"s"] * len(number))


class SeveralRounds(OneRound):
    """Answers a state with 256 times its value and the snapshot's number."""

    name = "several"
    answer_format = ANSWER

    def encode(self, channel: Tensor) -> Encoded:
        encoded = super().encode(channel)
        return replace(encoded, context=[payload.data[0] for payload in encoded.payloads])

    def answer(self, context: Any, snapshot: int, round_: int, state: Payload) -> tuple[Payload, bytes]:
        return Payload(bytes([state.data[0], context]), 16), b""


class FakeRadio:
    """Receives the snapshot's number, and has no noise."""

    def observe(self, snapshot: int) -> Tensor:
        return torch.full(SHAPE, snapshot, dtype=torch.complex64)

    @staticmethod
    def observe_together(asked: Sequence[tuple["FakeRadio", Sequence[int]]]) -> list[Tensor]:
        return [
            torch.stack([radio.observe(n) for n in snapshots]) if snapshots else torch.empty(0)
            for radio, snapshots in asked
        ]


class FakeFusion:
    """A fix says how many reports it was made of, and of which snapshot they spoke."""

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        return [Fix((float(len(group)), float(group[0].payload.data[0]), 0.0)) for group in groups]


@dataclass
class FakeExchange:
    """Asks `LAST` times; a fix says in how many reports of how many rounds."""

    reports: int = 0
    rounds: int = 0

    def advance(self, reports: Sequence[Report]) -> Payload | Fix:
        self.reports += len(reports)
        self.rounds += 1
        return self.fix() if self.rounds > LAST else Payload(bytes([self.rounds]), 8)

    def conclude(self) -> Fix | None:
        return self.fix() if self.rounds > 1 else None

    def fix(self) -> Fix:
        return Fix((float(self.reports), float(self.rounds), 0.0))


class FakeRoundFusion:
    def open(self, snapshot: int) -> FakeExchange:
        return FakeExchange()


def build_one(setup: object) -> Any:
    return OneRound() if isinstance(setup, EdgeSetup) else FakeFusion()


def build_several(setup: object) -> Any:
    return SeveralRounds() if isinstance(setup, EdgeSetup) else FakeRoundFusion()


def place(bs: int) -> tuple[float, float, float]:
    """Where a base station stands [m]."""
    return 1.0 + bs, 2.0, 3.0


def site(bs: int, epoch: int = 0, *, rounds: bool = False, **changes: Any) -> SiteSpec:
    station = StationSpec(
        bs=bs,
        epoch=epoch,
        build=build_several if rounds else build_one,
        setup=EdgeSetup(bs, PayloadChoice(), {}, {}),
        covariance=torch.eye(ANTENNAS, dtype=torch.complex64).expand(TONES, -1, -1),
        noise_w=0.0,
        power_w=1.0,
        pilots=torch.ones(TONES, dtype=torch.complex64),
    )
    return SiteSpec(station, FakeRadio(), place(bs), (0.1, 0.2, 0.0), **changes)


def cloud_parts(
    stations: int = 2,
    *,
    rounds: bool = False,
    snapshots: int = 8,
    interval_ms: int = 100,
    deadline_ms: int = 50,
    round_ms: int = 0,
    minimum: int = 1,
    **changes: Any,
) -> CloudSpec:
    rules = CollectorRules(
        stations=frozenset(range(stations)),
        snapshots=snapshots,
        interval_ns=interval_ms * MS,
        deadline_ns=deadline_ms * MS,
        round_ns=round_ms * MS,
        minimum_bs=minimum,
    )
    setup = CloudSetup({bs: place(bs) for bs in range(stations)}, PayloadChoice(), {}, {})
    if rounds:
        return CloudSpec("several", build_several, setup, rules, **({"answer": ANSWER} | changes))
    return CloudSpec("one", build_one, setup, rules, **changes)


def registration(bs: int, epoch: int = 0, *, rounds: bool = False, scheme: str | None = None) -> Registration:
    name = scheme or ("several" if rounds else "one")
    answer = ANSWER if rounds else None
    return Registration(bs, epoch, name, REPORT, answer, position=place(bs), orientation=(0.0, 0.0, 0.0))


def frame(bs: int, snapshot: int, *, seq: int = 0, epoch: int = 0, round: int = 0) -> Frame:
    payload, side = (Payload(bytes(2), 16), b"") if round else (Payload(bytes([snapshot]), 8), b"s")
    return Frame(seq, (Report(ReportKey(bs, epoch, snapshot, round), payload, side),))


class Peer:
    """A base station's end of its link in the hands of a test."""

    def __init__(self, network: MemoryNetwork, bs: int) -> None:
        self.bs = bs
        self.transport: EdgeTransport = network.edge(bs)

    def say(self, *messages: Message | bytes) -> None:
        for message in messages:
            self.transport.send(message if isinstance(message, bytes) else encode(message))

    def hear(self) -> list[Message]:
        heard = []
        while (data := self.transport.receive(0.0)) is not None:
            heard.append(decode(data))
        return heard


@dataclass
class Office:
    """A cloud, its clock, and peers."""

    node: CloudNode
    network: MemoryNetwork
    clock: SimulatedClock
    folder: Path
    peers: list[Peer] = field(default_factory=list)

    def settle(self) -> None:
        while self.node.poll(0.0):
            pass

    def at(self, t_ns: int) -> None:
        """Move time, as the simulated driver does."""
        self.clock.sleep_until(t_ns)
        self.settle()


@contextmanager
def office(
    folder: Path, parts: CloudSpec, *, incarnation: int = 0, t0_ns: int | None = 1000 * MS, peers: int | None = None
) -> Iterator[Office]:
    """Yield a cloud with `peers` registered base stations (None: all), and started unless `t0_ns` is None."""
    clock = SimulatedClock()
    network = MemoryNetwork(clock)
    node = CloudNode(parts, network.cloud(), folder, clock, incarnation=incarnation)
    made = Office(node, network, clock, folder)
    count = len(parts.rules.stations) if peers is None else peers
    made.peers = [Peer(network, bs) for bs in range(count)]
    for peer in made.peers:
        peer.say(registration(peer.bs, rounds=parts.scheme == "several"))
    made.settle()
    for peer in made.peers:
        peer.hear()
    if t0_ns is not None:
        node.ask(("start", t0_ns))
        made.at(t0_ns)
    try:
        yield made
    finally:
        node.close()


@contextmanager
def world(folder: Path, parts: CloudSpec, sites: Sequence[SiteSpec]) -> Iterator[World]:
    """Yield everybody, registered and welcomed."""
    clock = SimulatedClock()
    network = MemoryNetwork(clock)
    cloud = CloudNode(parts, network.cloud(), folder, clock)
    edges = [EdgeNode(one, network.edge(one.station.bs), folder, clock) for one in sites]
    made = World(edges, cloud, network, clock)
    for edge in edges:
        edge.register()
    made.settle()
    made.advance(None)
    for edge in edges:
        edge.await_welcome(0.0)
    try:
        yield made
    finally:
        for edge in edges:
            edge.close()
        cloud.close()


class WaitingEdge:
    """A base station's end of a memory link that takes its time: a `receive` which waits lets the world go on."""

    def __init__(self, inner: EdgeTransport, office: Office) -> None:
        self._inner = inner
        self._office = office

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def receive(self, timeout_s: float) -> bytes | None:
        until_ns = self._office.clock.now_ns() + round(timeout_s * 1e9)
        while (data := self._inner.receive(0.0)) is None and self._office.clock.now_ns() < until_ns:
            self._office.at(min(until_ns, self._office.clock.now_ns() + MS))
        return data


class LivelyClock:
    """The simulated clock of an office, which goes on with its work while somebody sleeps."""

    name = "simulated"

    def __init__(self, office: Office) -> None:
        self._office = office

    def now_ns(self) -> int:
        return self._office.clock.now_ns()

    def sleep_until(self, t_ns: int) -> None:
        self._office.at(t_ns)


def waiting_node(office: Office, parts: SiteSpec, clock: Clock | None = None) -> EdgeNode:
    inner = office.network.edge(parts.station.bs)
    return EdgeNode(parts, WaitingEdge(inner, office), office.folder, clock or office.clock)


class FullDisk:
    """A file on a disk without room."""

    closed = False

    def write(self, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def truncate(self, size: int) -> None:
        pass

    def seek(self, offset: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def fill(*streams: RowStream) -> None:
    """Have a disk be full from now on, as far as these streams are concerned."""
    for stream in streams:
        stream._file.close()
        stream._file = FullDisk()  # type: ignore[assignment]


def controls(messages: Sequence[Message]) -> list[Control]:
    return [message for message in messages if not isinstance(message, Frame)]


def states(messages: Sequence[Message]) -> list[tuple[int, int]]:
    """Snapshot and round of what the cloud broadcast."""
    frames = [message for message in messages if isinstance(message, Frame)]
    return [(report.key.snapshot, report.key.round) for frame in frames for report in frame.reports]

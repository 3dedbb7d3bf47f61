"""A transport made here alone carries base stations and cloud, and the books that it declares balance."""

from collections import Counter, defaultdict, deque
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_nodes import MS, cloud_parts, site

from cloud.node import CloudNode
from edge.node import EdgeNode
from edge.schedule import Schedule
from fronthaul.clock import SimulatedClock
from fronthaul.errors import TransportError
from fronthaul.message.messages import Direction
from fronthaul.transport.identity import bs_of, identity
from fronthaul.transport.transport import Arrived, ConnectionCount, LinkEvent, Received
from fronthaul.transport.transport_costs import TransportCosts, recorded_costs
from sim.emulate.in_process import World, drive
from sim.records.books import close
from sim.records.folder import RunFolder
from sim.records.links import read_ledgers
from sim.records.stream_bytes import byte_problems

LENGTH_BYTES = 4
TOY = TransportCosts("toy", header_bytes=LENGTH_BYTES, handshake_up_bytes=2, handshake_down_bytes=5, names_station=True)


class Pipe:
    """One direction of a link: messages behind their lengths, and what crossed in all [B]."""

    def __init__(self, handshake: bytes) -> None:
        self.crossed_bytes = len(handshake)
        self._waiting: deque[bytes] = deque()

    def put(self, data: bytes) -> None:
        framed = len(data).to_bytes(LENGTH_BYTES, "big") + data
        self.crossed_bytes += len(framed)
        self._waiting.append(framed)

    def get(self) -> bytes | None:
        if not self._waiting:
            return None
        framed = self._waiting.popleft()
        size = int.from_bytes(framed[:LENGTH_BYTES], "big")
        assert size == len(framed) - LENGTH_BYTES
        return framed[LENGTH_BYTES:]


class ToyEnd:
    """What both ends have in common: no connection that a kernel counts, no news, no time on the way."""

    costs = TOY
    t_received_ns = 0

    def take_connections(self) -> list[ConnectionCount]:
        return []

    def take_events(self) -> list[LinkEvent]:
        return []

    def close(self) -> None:
        pass


class ToyEdge(ToyEnd):
    def __init__(self, up: Pipe, down: Pipe) -> None:
        self._up, self._down = up, down

    def send(self, data: bytes, t_release_ns: int = 0) -> None:
        self._up.put(data)

    def receive(self, timeout_s: float) -> bytes | None:
        return self._down.get()

    def cut(self, seconds: float) -> None:
        raise NotImplementedError

    def renew(self) -> None:
        raise NotImplementedError


class ToyCloud(ToyEnd):
    address = "toy://here"

    def __init__(self, up: dict[bytes, Pipe], down: dict[bytes, Pipe]) -> None:
        self._up, self._down = up, down

    def send(self, bs: int, data: bytes, t_release_ns: int = 0) -> None:
        if identity(bs) not in self._down:
            raise TransportError(f"BS {bs} is not connected")
        self._down[identity(bs)].put(data)

    def receive(self, timeout_s: float) -> Received | None:
        for peer, pipe in self._up.items():
            if (data := pipe.get()) is not None:
                return Received(bs_of(peer), data)
        return None

    def receive_waiting(self, most: int) -> list[Arrived]:
        return [(*received, 0) for _ in range(most) if (received := self.receive(0.0)) is not None]


class ToyNetwork:
    next_release_ns = None  # nothing is held back

    def __init__(self) -> None:
        self.up: dict[bytes, Pipe] = {}
        self.down: dict[bytes, Pipe] = {}

    def cloud(self) -> ToyCloud:
        return ToyCloud(self.up, self.down)

    def edge(self, bs: int) -> ToyEdge:
        peer = identity(bs)
        self.up[peer], self.down[peer] = Pipe(b"I " + peer), Pipe(b"hello")
        return ToyEdge(self.up[peer], self.down[peer])


def run(folder: RunFolder, stations: int, *, rounds: bool, bundle: int) -> ToyNetwork:
    folder.links.mkdir(parents=True)
    clock, network = SimulatedClock(), ToyNetwork()
    parts = cloud_parts(stations, rounds=rounds, batch=2 if bundle > 1 else 1)
    cloud = CloudNode(parts, network.cloud(), folder.links, clock)
    edges = [
        EdgeNode(site(bs, rounds=rounds, bundle=bundle, ping_ns=150 * MS), network.edge(bs), folder.links, clock)
        for bs in range(stations)
    ]
    schedule = Schedule(0, 100 * MS, parts.rules.snapshots, batch=bundle)
    drive(World(edges, cloud, network, clock), schedule, lambda _: None)  # type: ignore[arg-type]
    for node in (*edges, cloud):
        node.close()
    return network


@pytest.mark.parametrize(("rounds", "bundle"), [(False, 1), (False, 2), (True, 1)])
def test_the_books_of_another_transport_balance(tmp_path: Path, rounds: bool, bundle: int) -> None:
    stations = 3
    folder = RunFolder(tmp_path / "run.part")
    network = run(folder, stations, rounds=rounds, bundle=bundle)
    books = close(folder, range(stations))

    assert len(books.fixes) == 8
    assert books.conservation().problems == ()
    assert byte_problems(books.connections) == []

    crossed: dict[Direction, Counter[int]] = defaultdict(Counter)
    for direction, pipes in ((Direction.UP, network.up), (Direction.DOWN, network.down)):
        for peer, pipe in pipes.items():
            crossed[direction][bs_of(peer) or 0] = pipe.crossed_bytes
    for link in books.connections:
        assert link.connections == 0  # no kernel counted any
        assert (link.up.least, link.up.most) == (crossed[Direction.UP][link.bs],) * 2
        assert (link.down.least, link.down.most) == (crossed[Direction.DOWN][link.bs],) * 2
        assert (link.up.handshake, link.down.handshake) == (2 + len("bs-000"), 5)
        assert link.up.heartbeat > 0

    ledger = pa.concat_tables(read_ledgers(folder).values())
    rows = zip(*(ledger[name].to_pylist() for name in ("part", "zmtp_bytes", "curve_bytes")), strict=True)
    assert {(part, framing, encryption) for part, framing, encryption in rows} == (
        {(0, LENGTH_BYTES, 0), (1, 0, 0)} if bundle > 1 else {(0, LENGTH_BYTES, 0)}
    )
    metadata = pq.read_schema(folder.connections).metadata
    assert recorded_costs(metadata[b"transport"].decode()) == TOY

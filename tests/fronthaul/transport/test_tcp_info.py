"""Accounting, "Equality": what we predict, what the kernel counts and what a capture shows, to the byte."""

import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import astuple
from pathlib import Path

import needed
import pytest

from fronthaul.message.messages import Frame, Payload, Report, ReportKey
from fronthaul.message.wire import encode
from fronthaul.transport import zeromq
from fronthaul.transport.keys import KeyRing
from fronthaul.transport.new_keys import ephemeral
from fronthaul.transport.tcp_connections import ConnectionBook, Limits
from fronthaul.transport.transport import ConnectionCount
from fronthaul.transport.zeromq import DealerTransport, RouterTransport
from fronthaul.transport.zmtp import ZMTP_CURVE, ZMTP_NULL

SOON_S = 30.0
ROOT = Path(__file__).resolve().parents[3]
"""Longer than anything takes; nothing waits for it unless a test fails."""
pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="needs Linux")


def exchange(
    cloud: RouterTransport, bs: int, keys: KeyRing | None, up: Sequence[bytes], down: Sequence[bytes]
) -> tuple[ConnectionCount, ConnectionCount]:
    """Open a connection, send both ways and close it; return its counts at the edge and at the cloud."""
    edge = DealerTransport(cloud.address, bs, keys=keys.edges[bs] if keys else None)
    for data in up:
        edge.send(data)
    for data in up:
        received = cloud.receive(SOON_S)
        assert received is not None and (received.owner, received.data) == (bs, data)
    for data in down:
        cloud.send(bs, data)
    assert [edge.receive(SOON_S) for _ in down] == list(down)
    edge.close()
    (at_edge,) = edge.take_connections()
    at_cloud: list[ConnectionCount] = []
    deadline = time.monotonic() + SOON_S
    while not at_cloud and time.monotonic() < deadline:
        assert cloud.receive(0.01) is None
        at_cloud += cloud.take_connections()
    return at_edge, at_cloud[0]


def predicted(bs: int, up: Sequence[int], down: Sequence[int], *, curve: bool) -> tuple[int, int]:
    """Return the stream's bytes (up, down) for messages of the given sizes [B]."""
    costs = ZMTP_CURVE if curve else ZMTP_NULL
    up_bytes, down_bytes = costs.handshake_bytes(bs)
    return up_bytes + sum(map(costs.stream_bytes, up)), down_bytes + sum(map(costs.stream_bytes, down))


@pytest.mark.parametrize("curve", [False, True], ids=["null", "curve"])
def test_predicted_equals_counted_at_both_ends(curve: bool) -> None:
    """One connection for each size, so that no two mistakes can cancel out."""
    names = [0, 999, 12345]  # two lengths of identity
    sizes = [0, 1, 188, 189, 221, 222, 223, 224, 254, 255, 256, 257, 5000, 300_000]
    ring = ephemeral(1) if curve else None
    if ring is not None:
        ring = KeyRing(ring.cloud, dict.fromkeys(names, ring.edges[0]))
    cloud = RouterTransport(keys=ring.cloud if ring else None)
    for index, size in enumerate(sizes):
        bs = 0 if curve else names[index % len(names)]
        up, down = [size, 7, size], [sizes[-1 - index]]
        at_edge, at_cloud = exchange(cloud, bs, ring, [bytes(n) for n in up], [bytes(n) for n in down])
        expected = predicted(bs, up, down, curve=curve)
        assert (at_edge.sent_bytes, at_edge.received_bytes) == expected
        assert (at_cloud.received_bytes, at_cloud.sent_bytes) == expected
        assert (at_edge.local, at_edge.remote) == (at_cloud.remote, at_cloud.local)
        assert at_edge.bs == at_cloud.bs == bs
        assert at_edge.t_opened_ns <= at_edge.t_closed_ns
        assert not at_edge.cut and at_cloud.cut  # the edge closed first, which the cloud cannot tell from a fault
    cloud.close()
    assert cloud.take_connections() == []


CLOSES_AT_ONCE = """
import sys
from fronthaul.transport.keys import EdgeKeys
from fronthaul.transport.zeromq import DealerTransport

address, *keys = sys.argv[1:]
edge = DealerTransport(address, 0, keys=EdgeKeys(*map(str.encode, keys)) if keys else None)
for _ in range(500):
    edge.send(bytes(384))
edge.close()
for count in edge.take_connections():
    print(count.sent_bytes, count.received_bytes)
print(*(event.detail for event in edge.take_events()))
"""


@pytest.mark.parametrize("curve", [False, True], ids=["null", "curve"])
def test_whoever_closes_at_once_is_counted_too(curve: bool) -> None:
    """The connection may stand only after `close` was called; then what it carried still counts, or it is said."""
    ring = ephemeral(1) if curve else None
    expected = predicted(0, [384] * 500, [], curve=curve)
    for _ in range(20):
        with closing(RouterTransport(keys=ring.cloud if ring else None)) as cloud:
            keys = [key.decode() for key in astuple(ring.edges[0])] if ring else []
            command = [sys.executable, "-c", CLOSES_AT_ONCE, cloud.address, *keys]
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as edge:
                for _ in range(500):
                    assert cloud.receive(SOON_S) is not None
                said = edge.communicate()[0]
        at_cloud, events = cloud.take_connections(), [event.detail for event in cloud.take_events()]
        if at_cloud and "was not counted" not in said:
            break
        assert at_cloud or "was not counted" in " ".join(events)
    (count,) = at_cloud
    assert (count.received_bytes, count.sent_bytes) == expected
    assert said.splitlines()[0] == "{} {}".format(*expected)


def test_the_cloud_closing_first_counts_the_same() -> None:
    cloud = RouterTransport()
    edge = DealerTransport(cloud.address, 3)
    edge.send(bytes(300))
    assert cloud.receive(SOON_S) is not None
    cloud.send(3, bytes(30))
    edge.take_events()  # looks, for a connection that comes and goes between two looks is not counted
    cloud.close()
    assert edge.receive(SOON_S) == bytes(30)
    edge.close()
    (at_cloud,), (at_edge,) = cloud.take_connections(), edge.take_connections()
    expected = predicted(3, [300], [30], curve=False)
    assert (at_cloud.received_bytes, at_cloud.sent_bytes) == expected
    assert (at_edge.sent_bytes, at_edge.received_bytes) == expected
    assert not at_cloud.cut


@contextmanager
def holding(book: ConnectionBook, connections: int) -> Iterator[list[socket.socket]]:
    """Let the owner of so many connections read 8192 B of each, and hand over none of them."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        book.port = str(listening.getsockname()[1])
        owners = []
        for _ in range(connections):
            peer = stack.enter_context(socket.create_connection(listening.getsockname()))
            owners.append(stack.enter_context(listening.accept()[0]))
            book.opened(owners[-1].fileno())
            peer.sendall(bytes(8192))
            assert len(owners[-1].recv(8192, socket.MSG_WAITALL)) == 8192
        yield owners


def limited() -> ConnectionBook:
    """Return a book in which a base station, or strangers, may hold 12 488 B."""
    limits = Limits(
        queue_messages=1, message_bytes=100, handshake_bytes=0, stations=frozenset({0}), strangers=9, per_station=2
    )
    return ConnectionBook(connecting=False, limits=limits)


def refusals(book: ConnectionBook, descriptors: Sequence[int]) -> list[str]:
    """Apply the limits, report the ends of connections, and return why some were ended."""
    book.enforce()
    for descriptor in descriptors:
        book.ended(descriptor)
    book.settle()
    return [event.detail for event in book.take_events() if event.kind == "refused"]


@pytest.mark.parametrize("closed", [False, True])
def test_what_the_socket_has_closed_holds_nothing(closed: bool) -> None:
    """The monitor tells the end of a connection with a delay; until then it must not cost another its place."""
    book = limited()
    with holding(book, 2) as owners:
        descriptors = [owner.fileno() for owner in owners]
        if closed:
            owners[0].close()
        assert refusals(book, descriptors) == ([] if closed else ["it holds 8192 B and no message of them"])


def test_a_base_station_may_come_again_while_its_old_connection_stands() -> None:
    """A connection that is nobody's yet may hold what ZeroMQ reads at once, also if all base stations are there."""
    book = limited()
    with holding(book, 2) as owners:
        descriptors = [owner.fileno() for owner in owners]
        book.taken.append((descriptors[0], 0, 8192))
        book.settle()
        assert refusals(book, descriptors) == []


def test_a_connection_is_counted_from_its_first_message_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that was busy finds the message there already, and need not wait for it and meet the monitor's event."""
    with closing(RouterTransport()) as cloud:
        monkeypatch.setattr(zeromq, "EVENTS_INTERVAL_S", 3600.0)
        for _ in range(2):  # the second connection has the first one's descriptor
            cloud.take_connections()
            edge = DealerTransport(cloud.address, 3)
            edge.send(bytes(300))
            time.sleep(0.2)
            assert cloud.receive(0.0) is not None
            cloud.send(3, bytes(30))
            time.sleep(0.2)
            assert edge.receive(0.0) is not None
            edge.close()
            assert cloud.receive(0.2) is None
            (at_cloud,), (at_edge,) = cloud.take_connections(), edge.take_connections()
            assert (at_cloud.received_bytes, at_cloud.sent_bytes) == (at_edge.sent_bytes, at_edge.received_bytes)
            assert at_cloud.bs == 3


def test_a_connection_is_counted_once_where_its_descriptor_was_an_earlier_ones() -> None:
    """The monitor tells of both when the earlier one has ended, and the descriptor is the later one's already."""
    book = ConnectionBook(connecting=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        book.port = str(server.getsockname()[1])
        with socket.create_connection(server.getsockname()) as peer, server.accept()[0] as owner:
            for report in (book.opened, book.ended, book.opened, book.ended):
                report(owner.fileno())
            book.settle()
            (counted,) = book.take_connections()
            assert counted.remote.endswith(f":{peer.getsockname()[1]}")
    assert sum("was not counted" in event.detail for event in book.take_events()) == 1


class Capture:
    """A running tshark on loopback; `spans` are the bytes of each TCP direction by sequence numbers."""

    def __init__(self, ports: Sequence[int]) -> None:
        tshark = needed.program("tshark")
        self._probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._probe.bind(("127.0.0.1", 0))  # what is sent to itself is seen once by the capture
        probe_port = self._probe.getsockname()[1]
        chosen = " or ".join(f"tcp port {port}" for port in ports)
        fields = ("udp.length", "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.len", "tcp.flags.syn")
        command = [tshark, "-i", "lo", "-l", "-s", "128", "-f", f"{chosen} or udp port {probe_port}", "-T", "fields"]
        command += [word for field in fields for word in ("-e", field)]
        self._tshark = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.spans: dict[tuple[int, int], int] = {}
        self._first: dict[tuple[int, int], int] = {}

    def _read(self) -> None:
        assert self._tshark.stdout is not None
        for line in self._tshark.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def catch_up(self, mark: int) -> None:
        """Take in all packets up to a probe of `mark` B, which is sent until it is seen."""
        deadline = time.monotonic() + 30.0  # tshark takes a second or two to start, more on a loaded machine
        while time.monotonic() < deadline:
            self._probe.sendto(bytes(mark), self._probe.getsockname())
            try:
                while (line := self._lines.get(timeout=0.1)) is not None:
                    if self._take(line) == mark:
                        return
            except queue.Empty:
                continue
            break
        self._tshark.kill()
        assert self._tshark.stderr is not None
        said = " ".join(self._tshark.stderr.read()[-500:].split())
        pytest.fail(f"tshark cannot capture on loopback: .ci/network and the tests take root ({said})", pytrace=False)

    def _take(self, line: str) -> int | None:
        length, *numbers, syn = line.rstrip("\n").split("\t")
        if length:
            return int(length) - 8  # without its header
        source, destination, sequence, size = map(int, numbers)
        way = source, destination
        if syn in ("1", "True"):
            self._first[way] = sequence + 1
        # Where the stream has got to, from its first byte: what is sent again does not count again.
        reached = (sequence + size - self._first[way]) % 2**32
        self.spans[way] = max(self.spans.get(way, 0), reached if size else 0)
        return None

    def close(self) -> None:
        self._tshark.terminate()
        self._reader.join()
        self._tshark.wait()
        assert self._tshark.stdout is not None and self._tshark.stderr is not None
        self._tshark.stdout.close()
        self._tshark.stderr.close()
        self._probe.close()


@contextmanager
def capturing(ports: Sequence[int]) -> Iterator[Capture]:
    capture = Capture(ports)
    try:
        capture.catch_up(mark=1)
        yield capture
    finally:
        capture.close()


def ecc_frame(bs: int, seq: int, bits: int) -> Frame:
    """Return a report as the ECC scheme sends it: 768 coefficients of `bits` bit, and 23 B around them."""
    payload = Payload(bytes(96 * bits), 768 * bits)
    return Frame(seq, (Report(ReportKey(bs, 0, seq), payload, bytes(4)),))


def test_predicted_equals_counted_equals_captured() -> None:
    """The ledger's columns, the kernel's counters and sequence numbers, for every payload size of ECC."""
    ring = ephemeral(8)
    with ExitStack() as stack:
        clouds = {
            curve: stack.enter_context(closing(RouterTransport(keys=ring.cloud if curve else None)))
            for curve in (False, True)
        }
        ports = {curve: int(cloud.address.rsplit(":", 1)[1]) for curve, cloud in clouds.items()}
        capture = stack.enter_context(capturing(list(ports.values())))
        rows = []
        for curve, cloud in clouds.items():
            for bits in range(1, 9):
                bs = bits - 1
                frames = [ecc_frame(bs, seq, bits) for seq in range(3)]
                assert len(encode(frames[0])) == 96 * bits + 23
                messages = [encode(frame) for frame in frames]
                at_edge, at_cloud = exchange(cloud, bs, ring if curve else None, messages, [bytes(20)])
                up, down = cloud.costs.handshake_bytes(bs)
                up += sum(cloud.costs.stream_bytes(len(encode(frame))) for frame in frames)
                down += cloud.costs.stream_bytes(20)
                rows.append((curve, bits, (up, down), at_edge, at_cloud))
        capture.catch_up(mark=2)
    for curve, bits, expected, at_edge, at_cloud in rows:
        port = int(at_edge.local.rsplit(":", 1)[1])
        captured = capture.spans[port, ports[curve]], capture.spans[ports[curve], port]
        counted = at_edge.sent_bytes, at_edge.received_bytes
        assert counted == (at_cloud.received_bytes, at_cloud.sent_bytes)
        assert expected == counted == captured, (curve, bits)
    assert len(capture.spans) == 2 * len(rows)  # nothing else was on these ports

"""Messages held back until their time of release, by a thread that owns the socket."""

import statistics
import threading
import time
from contextlib import ExitStack, closing, suppress

import pytest

from fronthaul.errors import LocalError, QueueFull, TransportError
from fronthaul.transport.delay_line import DelayedCloud, DelayedEdge
from fronthaul.transport.transport import Received
from fronthaul.transport.zeromq import DealerTransport, RouterTransport

SOON_S = 30.0
"""Longer than anything takes; nothing waits for it unless a test fails."""
MILLISECOND_NS = 1_000_000


class Recorder(DealerTransport):
    """Notes when each message reaches the socket."""

    def __init__(self, address: str) -> None:
        super().__init__(address, 1)
        self.released: list[tuple[bytes, int]] = []

    def send(self, data: bytes, t_release_ns: int = 0) -> None:
        self.released.append((data, time.time_ns()))
        super().send(data, t_release_ns)


class Pair:
    """A cloud without a delay line, and an edge behind one."""

    def __init__(self) -> None:
        self.cloud = RouterTransport()
        self.edge = DelayedEdge(self._make)

    def _make(self) -> Recorder:
        self.recorder = Recorder(self.cloud.address)
        return self.recorder

    def close(self) -> None:
        self.edge.close()
        self.cloud.close()


def test_releases_are_on_time() -> None:
    """Median of 200 releases within 5 % of 5 ms, and none early; on a machine with a moment to spare."""
    with closing(Pair()) as pair:
        medians = []
        for _ in range(5):
            due = []
            for number in range(200):
                now_ns = time.time_ns()
                due.append(now_ns + 5 * MILLISECOND_NS)
                pair.edge.send(b"%d" % number, due[-1])
                time.sleep(0.0015)
            for _ in due:
                assert pair.cloud.receive(SOON_S) is not None
            late = [t_ns - d for (_, t_ns), d in zip(pair.recorder.released, due, strict=True)]
            assert min(late) >= 0
            pair.recorder.released.clear()
            medians.append(statistics.median(late))
            if medians[-1] < 0.05 * 5 * MILLISECOND_NS:
                return
        pytest.fail(f"releases came late by {medians} ns (medians of five rounds)")


def test_the_order_is_that_of_release_then_of_sending() -> None:
    with closing(Pair()) as pair:
        base_ns = time.time_ns() + 50 * MILLISECOND_NS
        for data, offset_ms in ((b"e", 20), (b"c", 10), (b"f", 20), (b"b", 0), (b"d", 10)):
            pair.edge.send(data, base_ns + offset_ms * MILLISECOND_NS)
        pair.edge.send(b"a")  # at once
        received = [pair.cloud.receive(SOON_S) for _ in range(6)]
        assert received == [Received(1, data) for data in (b"a", b"b", b"c", b"d", b"e", b"f")]
        held = [t_ns for data, t_ns in pair.recorder.released if data in b"ef"]
        assert min(held) >= base_ns + 20 * MILLISECOND_NS


def test_an_earlier_release_wakes_a_line_that_waits_for_a_later_one() -> None:
    with closing(Pair()) as pair:
        pair.edge.send(b"late", time.time_ns() + 1500 * MILLISECOND_NS)
        pair.edge.send(b"early", time.time_ns() + 5 * MILLISECOND_NS)
        assert [item.data for _ in range(2) if (item := pair.cloud.receive(SOON_S))] == [b"early", b"late"]


def test_closing_releases_what_is_held() -> None:
    with closing(Pair()) as pair:
        due_ns = time.time_ns() + 30 * MILLISECOND_NS
        pair.edge.send(b"goodbye", due_ns)
        pair.edge.send(b"years later", due_ns + 10**18)
        pair.edge.close()
        received = pair.cloud.receive(SOON_S)
        assert received is not None and received.data == b"goodbye"
        assert [data for data, _ in pair.recorder.released] == [b"goodbye"]
        assert pair.recorder.released[0][1] >= due_ns
        (count,) = pair.edge.take_connections()
        assert count.sent_bytes == 124 + 2 + 7 and not count.cut


def test_arrivals_keep_their_time() -> None:
    with closing(Pair()) as pair:
        pair.edge.send(b"hello")
        assert pair.cloud.receive(SOON_S) is not None
        pair.cloud.send(1, b"answer")
        time.sleep(0.1)
        asked_ns = time.time_ns()
        assert pair.edge.receive(SOON_S) == b"answer"
        assert pair.cloud.t_received_ns <= pair.edge.t_received_ns < asked_ns


def test_the_cloud_may_hold_back_too() -> None:
    cloud = DelayedCloud(RouterTransport)
    edges = [DealerTransport(cloud.address, bs) for bs in range(2)]
    for edge in edges:
        edge.send(b"here")
        assert cloud.receive(SOON_S) is not None
    due_ns = time.time_ns() + 40 * MILLISECOND_NS
    cloud.send(0, b"slow", due_ns)
    cloud.send(1, b"quick")
    assert edges[1].receive(SOON_S) == b"quick"
    assert edges[0].receive(SOON_S) == b"slow"
    assert time.time_ns() >= due_ns
    assert [event.kind for event in cloud.take_events()] == ["connected", "connected"]
    for edge in edges:
        edge.close()
    cloud.close()
    assert {count.bs for count in cloud.take_connections()} == {0, 1}


def test_a_release_that_fails_comes_out_at_the_next_call() -> None:
    with closing(DelayedCloud(RouterTransport)) as cloud:
        cloud.send(3, b"to nobody")
        with pytest.raises(TransportError, match="BS 3") as caught:
            cloud.receive(SOON_S)
        assert caught.value.undelivered == b"to nobody"
        assert cloud.receive(0.02) is None
        cloud.send(3, b"again", time.time_ns() + MILLISECOND_NS)
        with pytest.raises(TransportError, match="BS 3"):
            for _ in range(1000):
                cloud.send(4, b"later", time.time_ns() + 10**18)
                time.sleep(0.005)
        assert cloud.receive(0.02) is None


def test_a_release_that_fails_loses_nothing_of_what_has_arrived() -> None:
    """The caller has taken the first message of a poll already when it asks for the rest."""
    with closing(DelayedCloud(RouterTransport)) as cloud, closing(DealerTransport(cloud.address, 1)) as edge:
        edge.send(b"first")
        assert cloud.receive(SOON_S) == Received(1, b"first")
        cloud.send(3, b"to nobody")
        until_s = time.monotonic() + SOON_S
        while not cloud._errors and time.monotonic() < until_s:
            time.sleep(0.005)
        edge.send(b"second")
        while not (came := cloud.receive_waiting(5)) and time.monotonic() < until_s:
            time.sleep(0.005)
        assert [(bs, data) for bs, data, _ in came] == [(1, b"second")]
        with pytest.raises(TransportError, match="BS 3"):
            cloud.receive(SOON_S)


def test_a_full_queue_comes_out_at_the_next_call() -> None:
    edge = DelayedEdge(lambda: DealerTransport("tcp://127.0.0.1:9", 1, queue_messages=3))
    for number in range(4):
        edge.send(b"%d" % number)
    with pytest.raises(QueueFull) as caught:
        edge.receive(SOON_S)
    assert caught.value.undelivered == b"3"
    edge.cut(0.0)  # nothing waits now, so closing need not
    edge.close()


def test_in_closed_loop_a_full_queue_holds_the_sender_up_and_loses_nothing() -> None:
    with closing(RouterTransport()) as nobody:
        port = int(nobody.address.rsplit(":", 1)[1])
    with closing(
        DelayedEdge(lambda: DealerTransport(f"tcp://127.0.0.1:{port}", 1, queue_messages=3), patience_s=SOON_S)
    ) as edge:
        sent = []
        until = time.monotonic() + SOON_S
        while time.monotonic() < until:
            try:
                edge.send(b"%d" % len(sent))
            except QueueFull:
                break
            sent.append(b"%d" % len(sent))
            time.sleep(0.01)
        assert 3 < len(sent) < 10
        with closing(RouterTransport(port=port)) as cloud:
            heard = [cloud.receive(SOON_S) for _ in sent]
            assert [message.data for message in heard if message is not None] == sent
            while True:
                with suppress(QueueFull):
                    edge.send(b"more")
                    break
                time.sleep(0.01)
            assert (last := cloud.receive(SOON_S)) is not None and last.data == b"more"
            assert edge.receive(0.0) is None  # no message was lost


def test_what_waits_for_room_keeps_its_order_however_late_the_thread_is() -> None:
    class Late(DealerTransport):
        """Has no room for the first message at first, and is held up after that until the second one is due as well."""

        refused = False

        def send(self, data: bytes, t_release_ns: int = 0) -> None:
            if data == b"first" and not self.refused:
                self.refused = True
                raise QueueFull("no room yet")
            super().send(data)

        def receive(self, timeout_s: float) -> bytes | None:
            if self.refused:
                time.sleep(0.05)
            return super().receive(timeout_s)

    with (
        closing(RouterTransport()) as cloud,
        closing(DelayedEdge(lambda: Late(cloud.address, 1), patience_s=SOON_S)) as edge,
    ):
        due_ns = time.time_ns() + 20 * MILLISECOND_NS
        edge.send(b"first", due_ns)
        edge.send(b"second", due_ns + MILLISECOND_NS // 2)
        assert [cloud.receive(SOON_S) for _ in range(2)] == [Received(1, b"first"), Received(1, b"second")]


def test_in_closed_loop_a_full_link_of_the_cloud_loses_nothing_and_holds_no_other_up() -> None:
    """No base station reads before the cloud is held up; what waits beyond queues and kernel has 100 kB each."""
    with ExitStack() as stack:
        cloud = stack.enter_context(closing(DelayedCloud(lambda: RouterTransport(queue_messages=5), patience_s=SOON_S)))
        edges = [stack.enter_context(closing(DealerTransport(cloud.address, bs, queue_messages=5))) for bs in range(2)]
        for edge in edges:
            edge.send(b"here")
            assert cloud.receive(SOON_S) is not None
        sent = 0
        until = time.monotonic() + SOON_S
        while time.monotonic() < until:
            try:
                cloud.send(0, b"%06d" % sent + bytes(100_000), time.time_ns() + MILLISECOND_NS)
            except QueueFull:
                break
            sent += 1
            time.sleep(0.001)
        assert sent > 5 and time.monotonic() < until
        cloud.send(1, b"to the other")
        assert edges[1].receive(SOON_S) == b"to the other"
        heard = [edges[0].receive(SOON_S) for _ in range(sent)]
        assert [int(message[:6]) for message in heard if message is not None] == list(range(sent))
        cloud.send(0, b"more")
        assert edges[0].receive(SOON_S) == b"more"
        assert cloud.receive(0.0) is None  # no message was lost


def test_a_line_with_a_full_queue_closes() -> None:
    edge = DelayedEdge(lambda: DealerTransport("tcp://127.0.0.1:9", 1, queue_messages=1), patience_s=SOON_S)
    for number in range(2):
        edge.send(b"%d" % number)
    begin = time.monotonic()
    edge.close()
    assert time.monotonic() - begin < SOON_S


def test_what_the_factory_raises_comes_out_at_once() -> None:
    with pytest.raises(LocalError, match="cannot connect"):
        DelayedEdge(lambda: DealerTransport("nowhere", 1))
    with pytest.raises(LocalError, match="cannot listen"):
        DelayedCloud(lambda: RouterTransport("192.0.2.1"))


def test_a_thread_that_breaks_down_is_told() -> None:
    class Broken(DealerTransport):
        def receive(self, timeout_s: float) -> bytes | None:
            raise ZeroDivisionError

    with closing(RouterTransport()) as cloud:
        edge = DelayedEdge(lambda: Broken(cloud.address, 1))
        for _ in range(2):
            with pytest.raises(TransportError, match="broke down") as caught:
                edge.receive(SOON_S)
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(TransportError, match="broke down"):
            edge.send(b"")
        edge.close()


def test_a_cut_loses_what_is_held() -> None:
    with closing(Pair()) as pair:
        pair.edge.send(b"first")
        assert pair.cloud.receive(SOON_S) is not None
        pair.edge.send(b"held", time.time_ns() + 20 * MILLISECOND_NS)
        pair.edge.cut(0.01)
        pair.edge.send(b"after", time.time_ns() + 40 * MILLISECOND_NS)
        received = pair.cloud.receive(SOON_S)
        assert received is not None and received.data == b"after"
        assert [event.kind for event in pair.edge.take_events()] == ["connected", "disconnected", "connected"]
    first, second = pair.edge.take_connections()
    assert first.cut and not second.cut


def test_no_thread_stays() -> None:
    before = threading.active_count()
    for _ in range(5):
        with closing(Pair()):
            assert threading.active_count() == before + 2  # the line, and the guard of the cloud's socket
    assert threading.active_count() == before

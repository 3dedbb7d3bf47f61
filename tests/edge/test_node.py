"""A base station on its link: memory links, a simulated clock, and the cloud in the hands of a test or at work."""

from pathlib import Path
from typing import Any

import pytest
from linked_node import NAME, Linked, frames, linked, state
from tiny_nodes import ANSWER, MS, REPORT, cloud_parts, fill, office, place, site, waiting_node

from edge.node import REPEAT_S, UNANSWERED, Refused
from edge.stages import StageRow, read_stages
from fronthaul.clock import SimulatedClock
from fronthaul.errors import LocalError, QueueFull, TransportError
from fronthaul.link.link_config import LinkConfig
from fronthaul.log.received import read_received
from fronthaul.log.sent import TRANSPORT_FULL, amended, read_journal
from fronthaul.message.messages import Abort, Goodbye, Ping, Pong, Registration, ReportKey, Welcome
from fronthaul.message.wire import decode, encode, is_control
from fronthaul.roster import Roster
from fronthaul.transport.transport import EdgeTransport

# Registration


@pytest.mark.parametrize("rounds", [False, True])
def test_it_registers_with_its_codecs_and_place(tmp_path: Path, rounds: bool) -> None:
    with linked(tmp_path, rounds=rounds) as made:
        made.node.register()
        assert made.heard() == [
            Registration(
                bs=5,
                epoch=2,
                scheme="several" if rounds else "one",
                report=REPORT,
                answer=ANSWER if rounds else None,
                position=place(5),
                orientation=(0.1, 0.2, 0.0),
            )
        ]
        made.say(Welcome(5, 2))
        made.node.await_welcome(0.0)


def test_refusal_silence_and_a_welcome_for_another_are_told_apart(tmp_path: Path) -> None:
    with linked(tmp_path) as made:
        with pytest.raises(TransportError, match="did not answer BS 5 within 0 s"):
            made.node.await_welcome(0.0)
        made.say(Abort("not today"))
        with pytest.raises(Refused, match="not today"):
            made.node.await_welcome(0.0)
        made.say(Welcome(5, 1))
        with pytest.raises(TransportError, match="did not answer"):
            made.node.await_welcome(0.0)


def test_an_unanswered_registration_is_said_again(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(), peers=0, t0_ns=None) as cloud:
        node = waiting_node(cloud, site(1))
        node.await_welcome(3 * REPEAT_S)  # the first one was lost
        assert cloud.clock.now_ns() == pytest.approx(REPEAT_S * 1e9, abs=2 * MS)
        assert cloud.node.registered == {1}
        node.close()


# Sending


def test_it_journals_then_sends_at_the_time_that_is_due(tmp_path: Path) -> None:
    with linked(tmp_path) as made:
        made.node.start(1000)
        made.node.prepare([3, 4])
        made.node.transmit(1100)
        made.node.leave()
        *reports, goodbye = made.heard()
        assert [(f.seq, f.reports[0].key) for f in frames(reports)] == [
            (0, ReportKey(5, 2, 3)),
            (1, ReportKey(5, 2, 4)),
        ]
        assert goodbye == Goodbye(5, 2, 2)
    rows = made.sent()
    assert [(row["t_sent_ns"], row["t_release_ns"]) for row in rows] == 3 * [(1100, 1100)]
    assert [decode(row["message"]) for row in rows] == [*reports, goodbye]
    stages = [StageRow(**row) for row in read_stages(tmp_path / f"{NAME}-stages.arrow").to_pylist()]
    assert [(row.snapshot, row.round, row.t_start_ns) for row in stages] == [(3, 0, 1100), (4, 0, 1100)]
    assert (tmp_path / f"{NAME}.pcapng").stat().st_size > 0


def test_it_measures_and_sends_in_its_own_snapshots_alone(tmp_path: Path) -> None:
    roster = Roster(3, 8, 3)
    mine = [snapshot for snapshot in range(8) if 5 in roster.of(snapshot)]
    assert 0 < len(mine) < 6
    with linked(tmp_path, roster=roster, bundle=8) as made:
        made.node.prepare(range(8))
        made.node.transmit(60)
        (sent,) = frames(made.heard())
        assert [(report.key.snapshot, report.payload.data[0]) for report in sent.reports] == [(n, n) for n in mine]
        made.node.prepare([next(snapshot for snapshot in range(8) if snapshot not in mine)])
        made.node.transmit(90)
        assert made.heard() == [] and made.clock.now_ns() == 90  # silent, and yet in step
    assert read_stages(tmp_path / f"{NAME}-stages.arrow")["snapshot"].to_pylist() == mine


def test_it_writes_down_before_it_sends(tmp_path: Path) -> None:
    with linked(tmp_path) as made:
        made.node.prepare([0])
        made.transport.on_send = [TransportError("the cloud refuses our key")]
        with pytest.raises(TransportError, match="refuses"):
            made.node.transmit(0)
        assert made.heard() == []
    assert len(made.sent()) == 1


def test_reports_share_frames(tmp_path: Path) -> None:
    with linked(tmp_path, bundle=2) as made:
        made.node.prepare([0, 1, 2])
        made.node.transmit(0)
        assert [len(frame.reports) for frame in frames(made.heard())] == [2, 1]


def test_copies_and_losses_of_the_link_model_are_journaled(tmp_path: Path) -> None:
    with linked(tmp_path, up=LinkConfig(duplicate=1.0, corrupt=1.0)) as made:
        made.node.prepare([0])
        made.node.transmit(0)
        received = [made.cloud.receive(0.0), made.cloud.receive(0.0)]
        assert made.cloud.receive(0.0) is None
    rows = made.sent()
    assert [decode(row["message"]).seq for row in rows] == [0, 1]  # type: ignore[union-attr]
    assert all(row["flipped"] for row in rows)
    assert [one.data for one in received if one] != [row["message"] for row in rows]


def test_a_full_queue_drops_in_open_loop_and_paces_in_closed_loop(tmp_path: Path) -> None:
    for patience_s, reasons in ((0.0, [TRANSPORT_FULL]), (1.0, [None])):
        folder = tmp_path / str(patience_s)
        folder.mkdir()
        with linked(folder) as made:
            made.node.start(0, patience_s=patience_s)
            made.node.prepare([0])
            made.transport.on_send = [QueueFull("full")] * 3
            made.node.transmit(0)
            assert len(frames(made.heard())) == (patience_s > 0)
            assert made.clock.now_ns() == 50 + (3 * MS if patience_s else 0)
        assert [row["drop_reason"] for row in made.sent()] == reasons


@pytest.mark.parametrize("where", ["on_send", "on_receive"])
def test_what_was_lost_after_being_held_back_is_amended_and_nothing_else(tmp_path: Path, where: str) -> None:
    with linked(tmp_path) as made:
        made.node.prepare([0])
        made.node.transmit(0)
        (first,) = made.heard()
        lost, corrupt = QueueFull("of an earlier one"), QueueFull("of one with flipped bits")
        lost.undelivered, corrupt.undelivered = encode(first), encode(first)[:-1] + b"?"
        made.node.prepare([1])
        setattr(made.transport, where, [lost, corrupt])
        made.node.transmit(0)
        made.node.pump()
        made.node.pump()
        assert len(frames(made.heard())) == 1
    assert [row["drop_reason"] for row in made.sent()] == [TRANSPORT_FULL, None]


@pytest.mark.parametrize("undelivered", [None, b"anything"])
def test_a_link_that_is_no_more_ends_the_base_station(tmp_path: Path, undelivered: bytes | None) -> None:
    with linked(tmp_path) as made:
        error = TransportError("the cloud refuses our key")
        error.undelivered = undelivered
        made.transport.on_receive = [error]
        with pytest.raises(TransportError, match="refuses"):
            made.node.pump()


def test_a_full_disk_stops_it_before_it_sends_and_leaves_what_was_written(tmp_path: Path) -> None:
    with linked(tmp_path) as made:
        made.node.prepare([0])
        made.node.transmit(0)
        fill(made.node._recorder._journal._rows)
        made.node.prepare([1])
        with pytest.raises(LocalError, match="the disk is full"):
            made.node.transmit(0)
        with pytest.raises(LocalError, match="the disk is full"):
            made.node.close()
        assert len(frames(made.heard())) == 1
    assert len(made.sent()) == 1 and made.received() == []
    assert len(read_stages(tmp_path / f"{NAME}-stages.arrow")) == 1


def test_a_rehearsal_leaves_no_trace(tmp_path: Path) -> None:
    for rounds in (False, True):
        folder = tmp_path / str(rounds)
        folder.mkdir()
        with linked(folder, rounds=rounds) as made:
            made.node.rehearse()
            assert made.heard() == []
        assert made.sent() == [] and len(read_stages(folder / f"{NAME}-stages.arrow")) == 0


def test_streams_of_a_start_are_never_written_over(tmp_path: Path) -> None:
    with linked(tmp_path):
        pass
    with pytest.raises(LocalError, match="exists already"):
        Linked(tmp_path)


# What the cloud says


def test_an_abort_in_the_middle_ends_the_run_here(tmp_path: Path) -> None:
    with linked(tmp_path) as made:
        made.node.prepare([0])
        made.say(Abort("too late"))
        with pytest.raises(Refused, match="too late"):
            made.node.transmit(0)
        assert made.heard() == []
    assert len(made.received()) == 1


def test_it_says_that_it_is_alive_while_it_waits(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(), t0_ns=None) as cloud:
        node = waiting_node(cloud, site(1, 1, ping_ns=40 * MS))
        node.register()
        node.await_welcome(1.0)
        cloud.node.ask(("start", 1000 * MS))
        cloud.settle()
        node.start(1000 * MS)
        begin_ns = cloud.clock.now_ns()
        node.wait(100 * MS)
        assert cloud.clock.now_ns() == 100 * MS
        node.close()
    rows = read_received(tmp_path / "bs-001-epoch-1-received.arrow").to_pylist()
    pongs = [message for row in rows if isinstance(message := decode(row["data"]), Pong)]
    own = begin_ns + 7919 % 100 * 40 * MS // 100  # its own share of the interval
    assert [pong.t_sent_ns for pong in pongs] == [own, own + 40 * MS, own + 80 * MS]
    assert all(pong.t_sent_ns <= pong.t_received_ns <= pong.t_answered_ns for pong in pongs)


class Mute:
    """A base station's end of a memory link over which nothing comes back, until it is made anew `heals` times."""

    def __init__(self, inner: EdgeTransport, clock: SimulatedClock, heals: int) -> None:
        self.inner = inner
        self.clock = clock
        self.heals = heals
        self.renewed_ns: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def receive(self, timeout_s: float) -> bytes | None:
        data = self.inner.receive(0.0) if len(self.renewed_ns) >= self.heals else None
        if data is None:
            self.clock.sleep_until(self.clock.now_ns() + round(timeout_s * 1e9))
        return data

    def renew(self) -> None:
        self.renewed_ns.append(self.clock.now_ns())


def test_it_connects_again_where_nothing_answers_and_waits_longer_each_time(tmp_path: Path) -> None:
    """Without it, one whose connection is taken or forgotten somewhere on the way would be mute for ever."""
    with linked(tmp_path, ping_ns=100 * MS) as made:
        mute = Mute(made.transport.inner, made.clock, heals=2)
        made.transport.inner = mute  # type: ignore[assignment]
        made.node.start(0)
        made.node.wait(4000 * MS)
        first_ns, second_ns = mute.renewed_ns
        assert first_ns == pytest.approx(UNANSWERED * 100 * MS, abs=150 * MS)
        assert second_ns - first_ns == 2 * UNANSWERED * 100 * MS
        made.say(Pong(5, 2, 0, 0, 0))  # it heals, and answers
        made.node.wait(5500 * MS)
        made.say(Pong(5, 2, 0, 0, 0))
        made.node.wait(7000 * MS)
    assert len(mute.renewed_ns) == 2


# Ends


def test_a_goodbye_is_said_again_until_it_is_answered_and_pings_go_on(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(rounds=True)) as cloud:
        node = waiting_node(cloud, site(1, rounds=True, ping_ns=500 * MS))
        node.start(1000 * MS)
        begin_ns = cloud.clock.now_ns()
        assert not node.await_end(5.0)
        # That the cloud answers pings does not make it wait for ever.
        assert cloud.clock.now_ns() - begin_ns == pytest.approx(5e9, abs=5 * MS)
        cloud.node.finish()
        assert node.await_end(2 * REPEAT_S)
        node.close()
    sent = [decode(row["message"]) for row in amended(read_journal(tmp_path / "bs-001-epoch-0-sent.arrow").to_pylist())]
    assert sum(isinstance(message, Goodbye) for message in sent) >= 2
    assert sum(isinstance(message, Ping) for message in sent) >= 9


def test_it_waits_on_as_long_as_the_cloud_asks(tmp_path: Path) -> None:
    with linked(tmp_path, rounds=True) as made:
        made.node.prepare([0])
        made.node.transmit(0)

        class Asking:
            """A cloud that asks every 0.6 s, three times, by another clock than anybody's."""

            times = 0

            def __getattr__(self, name: str) -> Any:
                return getattr(made.transport, name)

            def receive(self, timeout_s: float) -> bytes | None:
                self.times += 1
                made.clock.sleep_until(made.clock.now_ns() + round(min(timeout_s, 0.6) * 1e9))
                return encode(state(0, self.times)) if self.times <= 3 else None

        made.node._transport = Asking()  # type: ignore[assignment]
        assert not made.node.await_end(1.0)
        assert made.clock.now_ns() == 50 + round(2.8e9)
        made.node._transport = made.transport


def test_a_cut_is_done_by_the_nodes_own_thread(tmp_path: Path) -> None:
    with linked(tmp_path) as made:
        made.say(Welcome(5, 2))
        made.node.cut(0.5)
        assert not made.node.pump()  # what was on its way is lost
        made.node.leave()
        assert made.heard() == []
        made.clock.sleep_until(50 + 500 * MS)
        assert made.heard() == [Goodbye(5, 2, 0)]
    assert all(is_control(row["message"]) for row in made.sent())

"""Schedules, and base stations that share a process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_nodes import MS, LivelyClock, cloud_parts, office, site, waiting_node

from cloud.fixlog import read_fixes
from edge.node import REPEAT_S, EdgeNode, prepare_together
from edge.pacing import GOODBYE_S, PATIENCE_S, run_schedule, wait_together
from edge.schedule import Schedule
from fronthaul.link.link_config import LinkConfig
from fronthaul.log.sent import amended, read_journal
from fronthaul.message.messages import Frame, Goodbye
from fronthaul.message.wire import decode

T0 = 1000 * MS


@given(st.integers(0, 40), st.integers(1, 7), st.integers(0, 45))
def test_batches_are_whole_and_begin_where_told(snapshots: int, batch: int, first: int) -> None:
    schedule = Schedule(T0, 10, snapshots, batch)
    batches = list(schedule.batches(first))
    assert [n for one in batches for n in one] == [n for n in range(snapshots) if n // batch * batch >= first]
    assert all(one[0] % batch == 0 and len(one) <= batch for one in batches)


@given(st.integers(-100, 1000), st.integers(1, 50))
def test_the_next_snapshot_is_the_first_that_is_not_past(passed: int, interval: int) -> None:
    schedule = Schedule(T0, interval, 100)
    found = schedule.next_snapshot(T0 + passed)
    assert schedule.time_zero_ns(found) >= T0 + passed
    assert found == 0 or schedule.time_zero_ns(found - 1) < T0 + passed


def test_in_closed_loop_nothing_is_past() -> None:
    assert Schedule(T0, 0, 10).next_snapshot(T0 + 1000) == 0
    assert Schedule(T0, 0, 10).time_zero_ns(7) == T0


def run(
    folder: Path, count: int, schedule: Schedule, *, rounds: bool = False, end_s: float = 10.0, **changes: Any
) -> Any:
    """Run a schedule against a cloud at work; return (its end, journaled messages by BS, fixes)."""
    parts = cloud_parts(count, rounds=rounds, snapshots=schedule.snapshots, interval_ms=schedule.interval_ns // MS)
    with office(folder, parts, peers=0, t0_ns=None) as cloud:
        clock = LivelyClock(cloud)
        nodes = [waiting_node(cloud, site(bs, rounds=rounds, **changes), clock) for bs in range(count)]
        for node in nodes:
            node.register()
        for node in nodes:
            node.await_welcome(1.0)
        cloud.node.ask(("start", schedule.t0_ns))
        cloud.settle()
        if rounds:  # as `CloudNode.run` does

            def settle() -> None:
                while cloud.node.poll(0.0):
                    pass
                if cloud.node.finished and not cloud.node._over:
                    cloud.node.finish()

            cloud.settle = settle  # type: ignore[method-assign]
        end = run_schedule(nodes, schedule, clock, first_snapshot=0, end_s=end_s)
        for node in nodes:
            node.close()
    sent = [amended(read_journal(folder / f"bs-{bs:03d}-epoch-0-sent.arrow").to_pylist()) for bs in range(count)]
    return end, sent, read_fixes(folder / "cloud-0-fixes.arrow")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("rounds", [False, True])
def test_a_schedule_is_run_to_its_end(tmp_path: Path, count: int, rounds: bool) -> None:
    end, sent, fixes = run(tmp_path, count, Schedule(T0, 20 * MS, 6, batch=2), rounds=rounds)
    assert end == ([], [])
    for rows in sent:
        times = {
            message.reports[0].key.snapshot: row["t_sent_ns"]
            for row in rows
            if isinstance(message := decode(row["message"]), Frame) and message.reports[0].key.round == 0
        }
        assert times == {n: T0 + (n // 2 * 2 + 1) * 20 * MS for n in range(6)}  # a batch is due with its last
        assert sum(isinstance(decode(row["message"]), Goodbye) for row in rows) == 1
    assert sorted(fix.snapshot for fix in fixes) == list(range(6))
    assert {len(fix.used) for fix in fixes} == {count * (4 if rounds else 1)}


@pytest.mark.parametrize(("interval_ms", "at_once"), [(0, [16, 3]), (20, [1] * 19)])
def test_what_antennas_receive_is_simulated_far_ahead_in_closed_loop_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval_ms: int, at_once: list[int]
) -> None:
    prepared: list[int] = []

    def prepare(nodes: Sequence[EdgeNode], *batches: Sequence[int]) -> None:
        prepared.append(len(batches))
        prepare_together(nodes, *batches)

    monkeypatch.setattr("edge.pacing.prepare_together", prepare)
    end, _, fixes = run(tmp_path, 2, Schedule(T0, interval_ms * MS, 37, batch=2))
    assert end == ([], []) and prepared == at_once
    assert [(fix.snapshot, len(fix.used)) for fix in fixes] == [(n, 2) for n in range(37)]


@pytest.mark.parametrize(("took_ms", "made"), [(0, [1, 7, 8, 2]), (30, [1, 3, 3, 1, 3, 3, 2, 2]), (200, 18 * [1])])
def test_in_closed_loop_reports_are_made_together_unless_that_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took_ms: int, made: list[int]
) -> None:
    """Batches of 8 snapshots, 8 ahead, the last two of which are left; each is fused as if made alone."""
    seen: list[int] = []
    transmit = EdgeNode.transmit

    def slow(node: EdgeNode, due_ns: int, batches: int = 1) -> None:
        seen.append(batches)
        transmit(node, due_ns, batches)
        node._clock.sleep_until(node._clock.now_ns() + batches * took_ms * MS)

    monkeypatch.setattr(EdgeNode, "transmit", slow)
    end, _, fixes = run(tmp_path, 1, Schedule(T0, 0, 18 * 8 - 3, batch=8))
    assert end == ([], []) and seen == made
    assert sorted((fix.snapshot, len(fix.used)) for fix in fixes) == [(n, 1) for n in range(18 * 8 - 3)]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("ping_ms", [0, 100])
def test_without_the_clouds_goodbye_it_stops_after_a_while_and_says_so(
    tmp_path: Path, count: int, ping_ms: int
) -> None:
    """Answers to heartbeats are no reason to wait for longer."""
    parts = cloud_parts(count + 1, rounds=True)
    with office(tmp_path, parts, peers=0, t0_ns=None) as cloud:
        clock = LivelyClock(cloud)
        nodes = [waiting_node(cloud, site(bs, rounds=True, ping_ns=ping_ms * MS), clock) for bs in range(count)]
        for node in nodes:
            node.register()
            node.await_welcome(1.0)
        cloud.node.ask(("start", T0))
        schedule = Schedule(T0, 0, 0)
        assert run_schedule(nodes, schedule, clock, first_snapshot=0, end_s=5.0) == (list(range(count)), [])
        for node in nodes:
            node.close()
    for bs in range(count):
        rows = amended(read_journal(tmp_path / f"bs-{bs:03d}-epoch-0-sent.arrow").to_pylist())
        goodbyes = [row["t_sent_ns"] for row in rows if isinstance(decode(row["message"]), Goodbye)]
        assert [round((t - goodbyes[0]) / 1e9, 2) for t in goodbyes] == [0.0, REPEAT_S, 2 * REPEAT_S]


@pytest.mark.parametrize("count", [1, 3])
def test_on_a_line_slower_than_what_it_is_given_the_end_waits_for_the_line(tmp_path: Path, count: int) -> None:
    slow = LinkConfig(rate_bps=4000.0)
    end, sent, _ = run(tmp_path, count, Schedule(T0, 20 * MS, 60), end_s=1.0, up=slow)
    assert end == ([], [])
    for rows in sent:
        (goodbye,) = (row for row in rows if isinstance(decode(row["message"]), Goodbye))
        assert goodbye["t_release_ns"] - goodbye["t_sent_ns"] > 5_000 * MS


@pytest.mark.parametrize("count", [1, 3])
def test_whose_link_is_down_at_the_end_waits_for_no_answer(tmp_path: Path, count: int) -> None:
    with office(tmp_path, cloud_parts(count), peers=0, t0_ns=None) as cloud:
        clock = LivelyClock(cloud)
        down = LinkConfig(outages=((0.05, 0.05 + 2 * GOODBYE_S),))
        nodes = [waiting_node(cloud, site(bs, up=None if bs else down), clock) for bs in range(count)]
        for node in nodes:
            node.register()
            node.await_welcome(1.0)
        cloud.node.ask(("start", T0))
        cloud.settle()
        assert run_schedule(nodes, Schedule(T0, 20 * MS, 6), clock, first_snapshot=0, end_s=60.0) == ([], [0])
        assert clock.now_ns() < T0 + 10_000 * MS and cloud.node._collector.missing == {0}
        cloud.node.ask(("gone", 0))  # as the driver does
        cloud.settle()
        assert cloud.node.finished
        for node in nodes:
            node.close()
    used = [len(fix.used) for fix in read_fixes(tmp_path / "cloud-0-fixes.arrow")]
    assert used == [count, count, count, *([count - 1] * 3 if count > 1 else [])]


def test_a_link_that_comes_back_soon_is_waited_for(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(1), peers=0, t0_ns=None) as cloud:
        clock = LivelyClock(cloud)
        node = waiting_node(cloud, site(0, up=LinkConfig(outages=((0.05, 3.0),))), clock)
        node.register()
        node.await_welcome(1.0)
        cloud.node.ask(("start", T0))
        assert run_schedule([node], Schedule(T0, 20 * MS, 6), clock, first_snapshot=0, end_s=60.0) == ([], [])
        assert cloud.node.finished and clock.now_ns() >= T0 + 3000 * MS
        node.close()


def test_waiting_together_ends_in_time_and_answers_meanwhile(tmp_path: Path) -> None:
    with office(tmp_path, cloud_parts(2), peers=0, t0_ns=None) as cloud:
        clock = LivelyClock(cloud)
        nodes = [waiting_node(cloud, site(bs, ping_ns=10 * MS), clock) for bs in range(2)]
        for node in nodes:
            node.register()
            node.start(T0)
        wait_together(nodes, 95 * MS + 1, clock)
        assert clock.now_ns() == 95 * MS + 1
        for node in nodes:
            node.close()
    for bs in range(2):
        assert len(read_journal(tmp_path / f"bs-{bs:03d}-epoch-0-sent.arrow")) >= 9


def test_only_in_closed_loop_a_full_queue_holds_up(tmp_path: Path) -> None:
    for interval_ns, patience_s in ((0, PATIENCE_S), (MS, 0.0)):
        folder = tmp_path / str(interval_ns)
        folder.mkdir()
        seen = []

        class Watched:
            ended, line_ns = True, 0

            def start(self, t0_ns: int, *, patience_s: float, seen: list[float] = seen) -> None:
                seen.append(patience_s)

            def leave(self) -> None:
                pass

            def is_cut_off(self, seconds: float) -> bool:
                return False

        with office(folder, cloud_parts(1), peers=0) as cloud:
            run_schedule([Watched()], Schedule(T0, interval_ns, 0), cloud.clock, first_snapshot=0, end_s=0.0)  # type: ignore[list-item]
        assert seen == [patience_s]

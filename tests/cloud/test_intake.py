"""Polls of new reports, which are taken in all at once, leave what they would leave one by one."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cloud_streams import T0, fates, fixes
from hypothesis import given
from hypothesis import strategies as st
from tiny_nodes import MS, cloud_parts, frame, office, registration

from cloud.collector import Collector
from fronthaul.log.received import read_received
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Frame, Goodbye, Message, Ping
from fronthaul.message.wire import encode

STATIONS, SNAPSHOTS = 3, 6
Said = tuple[str, int, int]

# What is said, by which base station, of which snapshot: mostly what is taken all at once.
reports = st.tuples(st.just("report"), st.integers(0, STATIONS - 1), st.integers(0, SNAPSHOTS - 1))
others = st.tuples(
    st.sampled_from(["corrupt", "ping", "goodbye", "restart", "epoch", "round", "stranger", "pair"]),
    st.integers(0, STATIONS - 1),
    st.integers(0, SNAPSHOTS),
)
several = st.lists(reports, max_size=6) | st.lists(reports | others, max_size=6)
polls = st.lists(st.tuples(several, st.integers(0, 120)), max_size=8)  # and the time that passes [ms]


def said(what: str, bs: int, snapshot: int) -> Message | bytes:
    match what:
        case "corrupt":
            return encode(frame(bs, snapshot))[:-1] + b"?"
        case "ping":
            return Ping(bs, 0, 1)
        case "goodbye":
            return Goodbye(bs, 0, 1)
        case "restart":
            return registration(bs, 1)
        case "epoch":
            return frame(bs, snapshot, epoch=1)
        case "round":
            return frame(bs, snapshot, round=1)
        case "stranger":
            return frame((bs + 1) % STATIONS, snapshot)
        case "pair":
            return Frame(0, (*frame(bs, snapshot).reports, *frame(bs, snapshot + 1).reports))
        case _:
            return frame(bs, snapshot)


def left(folder: Path, polls: Sequence[tuple[Sequence[Said], int]], interval_ms: int) -> list[Any]:
    """Return what a cloud leaves that heard `polls`, after each of which so much time passes [ms]."""
    folder.mkdir()
    parts = cloud_parts(STATIONS, snapshots=SNAPSHOTS, interval_ms=interval_ms, minimum=2, silence_ns=200 * MS)
    with office(folder, parts) as made:
        for messages, passed_ms in polls:
            for what, bs, snapshot in messages:
                made.peers[bs].say(said(what, bs, snapshot))
            made.at(made.clock.now_ns() + passed_ms * MS)
        made.node.finish()
        heard = [peer.hear() for peer in made.peers]
        allowance = made.node._allowance._links
        found = [heard, made.node.outcome(), {bs: (link.delivered, link.logged) for bs, link in allowance.items()}]
    found += [(f.snapshot, f.used, f.position, f.last_bs, f.t_last_received_ns, f.t_fix_ns) for f in fixes(folder)]
    return [*found, (folder / "cloud-0-received.arrow").read_bytes()]


@given(polls, st.sampled_from([0, 40]))
def test_all_at_once_leaves_what_one_by_one_leaves(
    tmp_path_factory: pytest.TempPathFactory, polls: list[tuple[list[Said], int]], interval_ms: int
) -> None:
    folder = tmp_path_factory.mktemp("intake")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cloud.intake.FEW", 1)
        at_once = left(folder / "at once", polls, interval_ms)
        patched.setattr("cloud.node.take_new_reports", lambda *_: None)
        assert left(folder / "one by one", polls, interval_ms) == at_once


def test_new_reports_are_taken_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In time or late; what else came in the same poll is judged by the rules that explain, and it alone differs."""
    with office(tmp_path, cloud_parts(2)) as made:
        with monkeypatch.context() as patched:
            patched.delattr(Collector, "frame")
            for peer in made.peers:
                peer.say(frame(peer.bs, 0), frame(peer.bs, 1))
            made.settle()
            made.clock.sleep_until(T0 + 260 * MS)
            made.peers[0].say(*[frame(0, snapshot) for snapshot in (2, 3, 4, 5)])
            made.settle()
        made.peers[0].say(frame(0, 6), frame(0, 6), frame(0, 7), frame(1, 7))
        made.settle()
    rows = read_received(tmp_path / "cloud-0-received.arrow").to_pylist()
    assert [row["late"] for row in rows if row["head"] is not None] == 4 * [0] + [1, 0, 0, 0] + 3 * [0]
    assert Counter(fates(tmp_path)) == {FrameFate.DELIVERED: 10, FrameFate.DUPLICATE: 1, FrameFate.REJECTED: 1}
    assert [fix.snapshot for fix in fixes(tmp_path)] == [0, 1]

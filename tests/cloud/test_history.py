"""A cloud that was killed and started again goes on where it was."""

from collections import Counter
from pathlib import Path

import pytest
from tiny_nodes import MS, Office, Peer, cloud_parts, frame, office, registration, states

from cloud.collector import History
from cloud.fixlog import read_fixes
from cloud.history import read_past
from fronthaul.log.received import read_received
from fronthaul.log.recorder import Recorder
from fronthaul.log.sent import Departure
from fronthaul.log.stream_names import incarnation_name
from fronthaul.message.compact import pack
from fronthaul.message.messages import Direction, Frame, Goodbye, Registration, ReportKey, Welcome
from fronthaul.message.wire import encode
from fronthaul.transport.zmtp import ZMTP_NULL

T0 = 1000 * MS


def begun(folder: Path, incarnation: int, parts: object) -> Office:
    """Start an incarnation that nobody will close: killed, as far as its files are concerned."""
    context = office(folder, parts, incarnation=incarnation, peers=0)  # type: ignore[arg-type]
    made = context.__enter__()
    KILLED.append((context, made))
    return made


KILLED: list[object] = []


@pytest.fixture(autouse=True)
def _bury() -> object:
    """Close the files of the killed, after the test."""
    yield
    while KILLED:
        context, _ = KILLED.pop()  # type: ignore[misc]
        context.__exit__(None, None, None)


def peers(made: Office, *, rounds: bool, register: bool) -> list[Peer]:
    found = [Peer(made.network, bs) for bs in range(2)]
    for peer in found:
        if register:
            peer.say(registration(peer.bs, rounds=rounds))
    made.settle()
    for peer in found:
        peer.hear()
    return found


def test_the_first_incarnation_has_no_past(tmp_path: Path) -> None:
    assert read_past(tmp_path, 0).history == History()
    assert read_past(tmp_path, 3).next_seq == {}  # incarnations that never began


@pytest.mark.parametrize("rounds", [False, True])
def test_a_second_incarnation_fixes_nothing_twice_and_goes_on(tmp_path: Path, rounds: bool) -> None:
    parts = cloud_parts(rounds=rounds)
    first = begun(tmp_path, 0, parts)
    one, two = peers(first, rounds=rounds, register=True)
    for snapshot in range(2):
        one.say(frame(0, snapshot))
        two.say(frame(1, snapshot))
        first.settle()
        for round_ in range(1, 4 if rounds and snapshot == 0 else 1):
            for peer in (one, two):
                assert (0, round_) in states(peer.hear())
                peer.say(frame(peer.bs, 0, round=round_))
            first.settle()
    one.say(frame(0, 2))  # begun, and never fixed
    first.settle()
    assert first.node.fixes_made == (1 if rounds else 2)

    second = begun(tmp_path, 1, parts)
    one, two = peers(second, rounds=rounds, register=False)
    assert second.node.registered == {0, 1}
    one.say(frame(0, 0), frame(0, 1), frame(0, 3))
    two.say(frame(1, 0), frame(1, 2), frame(1, 3))
    second.settle()
    if rounds:
        for round_ in range(1, 4):
            for peer in (one, two):
                assert states(peer.hear()) == [(3, round_)]
                peer.say(frame(peer.bs, 3, round=round_))
            second.settle()
    for peer in (one, two):
        peer.say(Goodbye(peer.bs, 0, 9))
    second.settle()
    assert second.node.finished
    fixes = [fix for incarnation in range(2) for fix in read_fixes(tmp_path / f"cloud-{incarnation}-fixes.arrow")]
    assert max(Counter(fix.snapshot for fix in fixes).values()) == 1
    assert {fix.snapshot for fix in fixes} == ({0, 3} if rounds else {0, 1, 3})
    rows = read_received(tmp_path / "cloud-1-received.arrow").to_pylist()
    found = [(row["frame_fate"], row["late"]) for row in rows if row["frame_fate"]]
    assert Counter(found)["duplicate", 0] == 3
    assert ("delivered", 1) in found  # of snapshot 2, which was over with the first incarnation


def test_compact_frames_are_read_on(tmp_path: Path) -> None:
    """The next incarnation knows which frames the low bits refer to: here more than it would try."""
    parts = cloud_parts(compact=True, snapshots=250)
    first = begun(tmp_path, 0, parts)
    one, _ = peers(first, rounds=False, register=True)
    one.say(frame(0, 200, seq=5000))
    first.settle()
    second = begun(tmp_path, 1, parts)
    one, _ = peers(second, rounds=False, register=False)
    one.say(pack(encode(frame(0, 201, seq=5001))))
    second.settle()
    (row,) = read_received(tmp_path / "cloud-1-received.arrow").to_pylist()
    assert (row["frame_fate"], row["seq"], row["bytes"]) == ("delivered", 5001, 8)


def test_frames_down_are_numbered_on(tmp_path: Path) -> None:
    parts = cloud_parts(rounds=True)
    seqs: list[int] = []
    for incarnation in range(3):
        made = begun(tmp_path, incarnation, parts)
        one, two = peers(made, rounds=True, register=incarnation == 0)
        one.say(frame(0, incarnation))
        two.say(frame(1, incarnation))
        made.settle()
        two.hear()
        seqs += [message.seq for message in one.hear() if isinstance(message, Frame)]
    assert seqs == [0, 1, 2]
    assert read_past(tmp_path, 3).next_seq == {(0, 0): 3, (1, 0): 3}


def test_a_row_that_amends_an_earlier_one_does_not_take_the_numbers_back(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, incarnation_name(0), sends=Direction.DOWN, transport=ZMTP_NULL)
    departures = [Departure(encode(frame(0, 1, seq=seq)), 5, 5) for seq in (6, 7)]
    recorder.sent(0, departures)
    recorder.sent(0, [departures[0]._replace(drop_reason="transport")])
    recorder.close()
    assert read_past(tmp_path, 1).next_seq == {(0, 0): 8}


def test_who_had_said_goodbye_has_and_who_came_back_has_not(tmp_path: Path) -> None:
    made = begun(tmp_path, 0, cloud_parts())
    one, two = peers(made, rounds=False, register=True)
    one.say(Goodbye(0, 0, 0))
    two.say(Goodbye(1, 0, 0), registration(1, 1), Goodbye(1, 0, 0))
    made.settle()
    history = read_past(tmp_path, 1).history
    assert history.done == {0}
    assert [(known.bs, known.epoch) for known in history.registrations] == [(0, 0), (1, 1)]


def test_what_was_refused_is_no_history(tmp_path: Path) -> None:
    """Or whoever was turned away by one incarnation would be let in by the next, in anybody's name."""
    made = begun(tmp_path, 0, cloud_parts(3))
    one, two = peers(made, rounds=False, register=True)
    impostor, stranger, other = registration(0, 9), registration(7), registration(2, scheme="two")
    two.say(impostor, Goodbye(0, 0, 0))
    Peer(made.network, 7).say(stranger)
    Peer(made.network, 2).say(other)
    one.say(frame(0, 0))
    made.settle()
    history = read_past(tmp_path, 1).history
    assert [(known.bs, known.epoch) for known in history.registrations] == [(0, 0), (1, 0)]
    assert history.done == frozenset() and history.delivered == {ReportKey(0, 0, 0)}


def test_a_registration_that_was_never_answered_is_no_history(tmp_path: Path) -> None:
    """The base station says it again."""
    made = begun(tmp_path, 0, cloud_parts())
    said: Registration = registration(0)
    made.node._downlink.control = lambda bs, message: None  # type: ignore[method-assign]
    Peer(made.network, 0).say(said)
    made.settle()
    assert read_past(tmp_path, 1).history == History()


def test_streams_cut_anywhere_can_be_read(tmp_path: Path) -> None:
    made = begun(tmp_path, 0, cloud_parts())
    one, _ = peers(made, rounds=False, register=True)
    one.say(*(frame(0, snapshot) for snapshot in range(4)))
    made.settle()
    for end in ("sent", "received", "fixes"):
        data = (tmp_path / f"cloud-0-{end}.arrow").read_bytes()
        for length in range(0, len(data), 97):
            folder = tmp_path / f"{end}-{length}"
            folder.mkdir()
            for name in ("sent", "received", "fixes"):
                source = tmp_path / f"cloud-0-{name}.arrow"
                (folder / source.name).write_bytes(data[:length] if name == end else source.read_bytes())
            past = read_past(folder, 1)
            assert past.history.registrations in ((), *[tuple(map(registration, range(n))) for n in (1, 2)])
            assert len(past.history.delivered) in (0, 4)


def test_a_second_incarnation_welcomes_again_and_answers_late_goodbyes(tmp_path: Path) -> None:
    made = begun(tmp_path, 0, cloud_parts(rounds=True))
    both = peers(made, rounds=True, register=True)
    for peer in both:
        peer.say(Goodbye(peer.bs, 0, 0))
    made.settle()
    second = begun(tmp_path, 1, cloud_parts(rounds=True))
    both = peers(second, rounds=True, register=False)
    assert second.node.finished  # nothing is left to do
    second.node.finish()
    for peer in both:
        peer.hear()
        peer.say(Goodbye(peer.bs, 0, 0), registration(peer.bs, rounds=True))
    second.settle()
    assert [peer.hear() for peer in both] == [[Goodbye(bs, 0, 0), Welcome(bs, 0)] for bs in range(2)]

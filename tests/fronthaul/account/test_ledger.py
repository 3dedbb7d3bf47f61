"""Ledgers that add up: journals and receive logs, written by a run in miniature, joined."""

from pathlib import Path

import pyarrow.compute as pc
import pytest
from tiny_fronthaul import Run, frame, key

from fronthaul.account.conservation import conservation
from fronthaul.account.ledger import ledger_schema
from fronthaul.account.used import UsedReports
from fronthaul.errors import LocalError, RemoteError
from fronthaul.log.sent import Departure, flip
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction, Goodbye, Ping, Welcome
from fronthaul.message.wire import HEADER_BYTES, decode, encode


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return an empty run."""
    return Run(tmp_path)


def test_the_columns_are_those_of_the_contract(run: Run) -> None:
    run.receive(run.send(frame(0, 5)))
    ledger = run.ledger([key(5)])
    assert ledger.column_names == [
        *("bs", "epoch", "snapshot", "round", "seq", "part", "direction"),
        *("t_sent_ns", "t_release_ns", "t_received_ns"),
        *("payload_bits", "side_bits", "header_bytes", "padding_bits", "zmtp_bytes", "curve_bytes"),
        *("frame_fate", "report_fate", "crc32", "side", "payload", "reason"),
    ]
    assert ledger.schema == ledger_schema()
    assert ledger.to_pylist() == [
        {"bs": 0, "epoch": 0, "snapshot": 5, "round": 0, "seq": 0, "part": 0, "direction": "up"}
        | {"t_sent_ns": 10, "t_release_ns": 15, "t_received_ns": 11, "payload_bits": 11, "side_bits": 32}
        | {"header_bytes": 19, "padding_bits": 5, "zmtp_bytes": 2, "curve_bytes": 0, "frame_fate": "delivered"}
        | {"report_fate": "used", "crc32": int.from_bytes(encode(frame(0, 5))[-4:], "big")}
        | {"side": b"gain", "payload": b"\xab\xc0", "reason": None}
    ]


def test_an_empty_run_has_an_empty_ledger(run: Run) -> None:
    ledger = run.ledger()
    assert (ledger.schema, ledger.num_rows) == (ledger_schema(), 0)
    assert conservation([ledger], UsedReports.of_fixes([])).ok


def test_a_script_with_every_fate_is_conserved(run: Run) -> None:
    run.receive(run.send(frame(0, 0)))  # used
    run.receive(run.send(frame(1, 0)), FrameFate.DUPLICATE)
    run.send(frame(2, 1), drop_reason="loss")  # lost
    run.corrupt(run.send(frame(3, 2), flipped=(130,)))  # lost
    run.receive(run.send(frame(4, 3)), late=1)  # late
    run.receive(run.send(frame(5, 4)))  # unused
    run.receive(run.send(frame(6, 5)), FrameFate.REJECTED, reason="epoch")  # lost
    run.send(frame(7, 6))  # lost: its sender died
    run.receive(run.send(frame(0, 0), Direction.DOWN), way=Direction.DOWN)
    ledger = run.ledger([key(0)])
    result = conservation([ledger], UsedReports.of_fixes([(0, [key(0)])]))
    assert result.problems == ()
    assert result.ok
    assert result.frames_journaled == 9 == sum(result.frames.values())
    assert result.frames == {"delivered": 4, "duplicate": 1, "corrupt": 1, "rejected": 1, "dropped": 2}
    assert sum(result.strays.values()) == 0
    assert result.reports_journaled == 7 == sum(result.reports.values())
    assert result.reports == {"used": 1, "unused": 1, "late": 1, "lost": 4}
    up = ledger.filter(pc.equal(ledger["direction"], "up"))
    assert up["reason"].to_pylist() == [None, None, "loss", "checksum", None, None, "epoch", None]
    down = ledger.filter(pc.equal(ledger["direction"], "down"))
    assert down["report_fate"].to_pylist() == [None]


def test_reports_of_a_bundle_have_fates_of_their_own(run: Run) -> None:
    run.receive(run.send(frame(0, 1, 2, 3)), late=0b100)
    run.send(frame(1, 4, 5), drop_reason="queue")
    run.receive(run.send(frame(0, 1, 2), Direction.DOWN), way=Direction.DOWN)
    ledger = run.ledger([key(1)])
    assert ledger["part"].to_pylist() == [0, 1, 2, 0, 1, 0, 1]
    assert ledger["frame_fate"].to_pylist() == ["delivered"] * 3 + ["dropped"] * 2 + ["delivered"] * 2
    assert ledger["report_fate"].to_pylist() == ["used", "unused", "late", "lost", "lost", None, None]
    assert ledger["reason"].to_pylist() == [None] * 3 + ["queue"] * 2 + [None] * 2
    assert ledger["zmtp_bytes"].to_pylist() == [2, 0, 0, 2, 0, 2, 0]
    result = conservation([ledger], UsedReports.of_fixes([(1, [key(1)])]))
    assert result.problems == ()
    assert (result.frames_journaled, result.reports_journaled) == (3, 5)
    assert result.frames[FrameFate.DELIVERED] == 2


def test_a_late_copy_does_not_make_a_report_late(run: Run) -> None:
    run.receive(run.send(frame(0, 1)))
    run.receive(run.send(frame(1, 1)), FrameFate.DUPLICATE, late=1)
    run.send(frame(2, 1), drop_reason="loss")
    assert run.ledger()["report_fate"].to_pylist() == ["unused"] * 3


@pytest.mark.parametrize("bit", range(0, 8 * len(encode(frame(0, 0))), 3))
@pytest.mark.parametrize("journaled", [False, True])
def test_a_frame_with_any_bit_flipped_is_found_again(run: Run, bit: int, journaled: bool) -> None:
    """By its very bytes where the link model flipped it, by what it says of itself where the world did."""
    data = [run.send(frame(seq, seq), flipped=(bit,) if journaled and seq == 1 else ()) for seq in range(3)]
    run.receive(data[0])
    run.corrupt(data[1] if journaled else flip(data[1], [bit]))
    run.receive(data[2])
    ledger = run.ledger([key(0), key(2)])
    assert ledger["frame_fate"].to_pylist() == ["delivered", "corrupt", "delivered"]
    assert conservation([ledger]).ok


def test_a_frame_flipped_beyond_recognition_is_found_by_its_bytes(run: Run) -> None:
    size = 8 * len(encode(frame(0, 0, 1)))
    for seq in (0, 1):
        run.corrupt(run.send(frame(seq, 2 * seq, 2 * seq + 1), flipped=tuple(range(seq, size, 2))))
    assert run.ledger()["frame_fate"].to_pylist() == ["corrupt"] * 4


def test_bytes_of_the_link_model_come_before_claims(run: Run) -> None:
    """What frame 0 became claims to be frame 1, whose own remains claim nothing of the sort."""
    one = encode(frame(1, 1))
    zero = encode(frame(0, 0))
    into_one = tuple(bit for bit in range(8 * len(zero)) if (zero[bit // 8] ^ one[bit // 8]) & 0x80 >> bit % 8)
    posing = run.send(frame(0, 0), flipped=(*into_one, 8 * 20))
    broken = run.send(frame(1, 1), flipped=(8 * 21,))
    run.corrupt(posing)
    run.corrupt(broken)
    ledger = run.ledger()
    assert ledger["frame_fate"].to_pylist() == ["corrupt", "corrupt"]
    assert ledger["t_received_ns"].to_pylist() == [21, 22]


def test_a_cut_frame_is_found_again_and_a_stump_is_a_stray(run: Run) -> None:
    data = [run.send(frame(seq, seq)) for seq in range(2)]
    run.corrupt(data[0][:-3])
    run.corrupt(data[1][:HEADER_BYTES])
    ledger = run.ledger()
    assert ledger["frame_fate"].to_pylist() == ["corrupt", "dropped", "corrupt"]
    stray = ledger.to_pylist()[2]
    assert {name for name, value in stray.items() if value is not None} == {
        *("bs", "part", "direction", "t_received_ns", "frame_fate", "reason")
    }
    result = conservation([ledger])
    assert result.ok
    assert result.strays[FrameFate.CORRUPT] == 1


def test_an_impostor_does_not_touch_the_link_it_names(run: Run) -> None:
    genuine = run.send(frame(0, 0, bs=2))
    run.receive(genuine, FrameFate.REJECTED, bs=1, reason="wrong BS")
    run.receive(genuine, FrameFate.REJECTED, bs=None, reason="wrong BS")
    run.receive(genuine, bs=2)
    ledger = run.ledger([key(0, bs=2)])
    assert ledger["bs"].to_pylist() == [2, 1, None]
    assert ledger["frame_fate"].to_pylist() == ["delivered", "rejected", "rejected"]
    result = conservation([ledger])
    assert result.ok
    assert (result.frames_journaled, result.strays[FrameFate.REJECTED]) == (1, 2)


def test_a_frame_that_was_never_sent_cannot_have_arrived_corrupt(run: Run) -> None:
    data = run.send(frame(0, 0), drop_reason="outage")
    for bit in (0, 8 * len(data) - 1):
        run.corrupt(flip(data, [bit]))
    assert run.ledger()["frame_fate"].to_pylist() == ["dropped", "corrupt", "corrupt"]


def test_other_bytes_under_a_journaled_seq_are_a_stray(run: Run) -> None:
    run.send(frame(0, 0))
    run.receive(encode(frame(0, 1)), FrameFate.REJECTED, reason="forged")
    assert run.ledger()["frame_fate"].to_pylist() == ["dropped", "rejected"]


def test_a_corrupt_frame_does_not_take_the_place_of_one_that_arrives_later(run: Run) -> None:
    zero, one = (run.send(frame(seq, seq)) for seq in range(2))
    seq_lowest_bit, crc_bit = 8 * (HEADER_BYTES - 1) - 1, 8 * len(zero) - 1
    run.corrupt(flip(zero, [seq_lowest_bit, crc_bit]))
    run.receive(one)
    ledger = run.ledger([key(1)])
    assert ledger["frame_fate"].to_pylist() == ["dropped", "delivered", "corrupt"]
    assert conservation([ledger]).ok


def test_epochs_and_links_are_kept_apart(run: Run) -> None:
    for bs in (0, 1):
        for epoch in (0, 1):
            data = run.send(frame(0, 0, bs=bs, epoch=epoch))
            if bs != epoch:
                run.receive(data, bs=bs)
    ledger = run.ledger([key(0, 0, 1), key(0, 1, 0)])
    assert ledger["frame_fate"].to_pylist() == ["dropped", "delivered", "delivered", "dropped"]
    assert conservation([ledger]).ok


def test_control_messages_are_no_frames(run: Run) -> None:
    run.receive(run.send(Welcome(0, 0)), None)
    run.receive(run.send(Ping(0, 0, 5)), None)
    run.receive(run.send(Goodbye(0, 0, 0)), FrameFate.REJECTED, reason="epoch")
    assert run.ledger().num_rows == 0


def test_a_frame_that_the_queue_refused_after_journaling_was_dropped(run: Run) -> None:
    run.receive(run.send(frame(0, 0)))
    run.send(frame(1, 1))
    run.send(frame(1, 1), drop_reason="queue")
    ledger = run.ledger([key(0)])
    assert ledger["frame_fate"].to_pylist() == ["delivered", "dropped"]
    assert ledger["reason"].to_pylist() == [None, "queue"]
    assert ledger["t_sent_ns"].to_pylist() == [10, 21]
    assert conservation([ledger]).ok


def test_a_journal_that_cannot_be_is_refused(run: Run) -> None:
    run.send(frame(0, 0, bs=1), bs=2)
    with pytest.raises(LocalError, match="BS 1 does not belong in the journal of BS 2"):
        run.ledger()


def test_a_journal_of_something_else_than_messages_is_refused(run: Run) -> None:
    run.journals[Direction.UP].append(0, [Departure(b"garbage", 0, 0)])
    with pytest.raises(LocalError, match="none that this version writes"):
        run.ledger()


def test_a_logged_reason_is_the_one_decoding_gave(run: Run) -> None:
    data = run.send(frame(0, 0), flipped=(9,))
    with pytest.raises(RemoteError) as caught:
        decode(data)
    run.receive(data, FrameFate.CORRUPT, reason=caught.value.reason)
    assert run.ledger()["reason"].to_pylist() == ["checksum"]

"""A base station answers the states of the cloud: judged, written down, once."""

from pathlib import Path
from typing import Any

import pytest
from linked_node import NAME, frames, linked, state
from tiny_nodes import SeveralRounds
from whole_ledger import close_ledger

from edge.stages import StageRow, read_stages
from fronthaul.account.used import UsedReports
from fronthaul.codec.bitstream import unpack
from fronthaul.errors import LocalError
from fronthaul.log.received import Received
from fronthaul.log.sent import Departure, Journal, SendJournal
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction, Frame, Payload, Report, ReportKey
from fronthaul.message.wire import encode
from fronthaul.transport.zmtp import ZMTP_NULL


def test_states_are_judged_written_down_and_answered_once(tmp_path: Path) -> None:
    with linked(tmp_path, rounds=True) as made:
        made.node.prepare([0, 1])
        made.node.transmit(0)
        made.heard()
        good = encode(state(1, 1))
        made.say(good, good, good[:-1] + b"?", state(1, 1, bs=4), state(1, 2, epoch=1), state(7, 1))
        made.clock.sleep_until(80)
        assert made.node.pump()
        (answer,) = frames(made.heard())
        assert answer == Frame(2, (Report(ReportKey(5, 2, 1, 1), Payload(bytes([9, 1]), 16)),))
    delivered, rejected = FrameFate.DELIVERED, FrameFate.REJECTED
    assert [(row["frame_fate"], row["reason"]) for row in made.received()] == [
        (delivered, None),
        (FrameFate.DUPLICATE, None),
        (FrameFate.CORRUPT, "checksum"),
        (rejected, "it is for BS 4 in epoch 2"),
        (rejected, "it is for BS 5 in epoch 1"),
        (delivered, None),  # was never measured, so there is nothing to answer
    ]
    stages = [StageRow(**row) for row in read_stages(tmp_path / f"{NAME}-stages.arrow").to_pylist()]
    assert [(row.snapshot, row.round) for row in stages] == [(0, 0), (1, 0), (1, 1)]
    assert stages[-1].t_start_ns == 50  # when the state was there, and not when it was looked at


class Picky(SeveralRounds):
    """Knows states of 8 bits alone, and no answer to what is above 100."""

    def answer(self, context: Any, snapshot: int, round_: int, state: Payload) -> tuple[Payload, bytes]:
        (value,) = unpack(state, 8, 1)
        if value > 100:
            raise ValueError(f"{value} is no state of mine")
        return super().answer(context, snapshot, round_, state)


def test_states_that_the_scheme_cannot_answer_are_rejected_and_it_goes_on(tmp_path: Path) -> None:
    with linked(tmp_path, rounds=True, build=lambda _: Picky()) as made:
        made.node.prepare([0, 1])
        made.node.transmit(0)
        made.heard()
        odd = Frame(7, (Report(ReportKey(5, 2, 0, 1), Payload(bytes(2), 16)),))
        mixed = Frame(8, tuple(Report(ReportKey(5, 2, n, 1), Payload(bytes([99 + 2 * n]), 8)) for n in range(2)))
        made.say(odd, state(0, 1, value=200), mixed, state(0, 1, value=7), state(0, 1, value=200))
        made.node.pump()
        assert [frame.reports[0].payload.data for frame in frames(made.heard())] == [bytes([7, 0])]
    rejected = FrameFate.REJECTED
    assert [(row["frame_fate"], row["reason"]) for row in made.received()] == [
        (rejected, "the scheme cannot answer: 1 indices of 8 bits take 8 bits, the payload has 16 [length]"),
        (rejected, "the scheme cannot answer: 200 is no state of mine"),
        (rejected, "the scheme cannot answer: 101 is no state of mine"),  # and nothing of the frame is answered
        (FrameFate.DELIVERED, None),
        (FrameFate.DUPLICATE, None),
    ]
    stages = [StageRow(**row) for row in read_stages(tmp_path / f"{NAME}-stages.arrow").to_pylist()]
    assert [(row.snapshot, row.round) for row in stages] == [(0, 0), (1, 0), (0, 1)]


def test_a_state_that_is_rejected_is_so_in_the_ledger(tmp_path: Path) -> None:
    cloud = SendJournal(tmp_path / "cloud-0-sent.arrow", direction=Direction.DOWN, transport=ZMTP_NULL)
    with linked(tmp_path, rounds=True, build=lambda _: Picky()) as made:
        made.node.prepare([0])
        made.node.transmit(0)
        for seq, value in enumerate((200, 7)):
            departure = Departure(encode(state(0, 1, value=value, seq=seq)), 60, 60)
            cloud.append(5, [departure])
            made.say(departure.message)
        made.node.pump()
    cloud.close()
    ledger = close_ledger(
        [Journal(tmp_path / "cloud-0-sent.arrow")],
        [Received(tmp_path / f"{NAME}-received.arrow")],
        UsedReports.of_fixes([]),
    )
    rows = [(row["seq"], row["frame_fate"], row["report_fate"]) for row in ledger.to_pylist()]
    assert rows == [(0, "rejected", None), (1, "delivered", None)]


def test_an_answer_of_the_wrong_size_is_its_own_fault_and_ends_it(tmp_path: Path) -> None:
    class Careless(SeveralRounds):
        def answer(self, context: Any, snapshot: int, round_: int, state: Payload) -> tuple[Payload, bytes]:
            return Payload(b"\1\2\3", 24), b""

    with linked(tmp_path, rounds=True, build=lambda _: Careless()) as made:
        made.node.prepare([0])
        made.node.transmit(0)
        made.say(state(0, 1))
        with pytest.raises(LocalError, match="declares answers"):
            made.node.pump()


def test_a_scheme_of_one_round_answers_nothing(tmp_path: Path) -> None:
    with linked(tmp_path) as made:
        made.say(state(0, 1))
        made.node.pump()
        assert made.heard() == []
    assert [row["reason"] for row in made.received()] == ["the scheme has one round"]

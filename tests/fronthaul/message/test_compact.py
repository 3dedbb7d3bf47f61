"""The compact form of frames: golden bytes, what it stands for, and the fates of frames in either form."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from any_message import frames
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.collector import Collector, CollectorRules
from fronthaul.errors import RemoteError
from fronthaul.log.sent import flip
from fronthaul.message.compact import FULL_EVERY, GAP_FRAMES, MAX_STANDARD_BYTES, Expander, Reference, is_compact, pack
from fronthaul.message.messages import Frame, Payload, PayloadFormat, Registration, Report, ReportKey
from fronthaul.message.wire import decode, encode

BITS, SIDE = 11, b"gain"


def report(snapshot: int, *, epoch: int = 1, round_: int = 0, bits: int = BITS) -> Report:
    """Return a report of BS 3 whose payload is ones."""
    payload = ((1 << bits) - 1 << -bits % 8).to_bytes(-(-bits // 8), "big")
    return Report(ReportKey(3, epoch, snapshot, round_), Payload(payload, bits), SIDE)


def message(seq: int, *snapshots: int, epoch: int = 1) -> bytes:
    """Return the standard form of a frame of BS 3."""
    return encode(Frame(seq, tuple(report(snapshot, epoch=epoch) for snapshot in snapshots)))


def expander(*epochs: int) -> Expander:
    """Return an expander that knows these starts of BS 3."""
    made = Expander()
    for epoch in epochs:
        made.open(3, epoch, len(SIDE))
    return made


GOLDEN = {
    "one report": (Frame(7, (report(9),)), "a879 6761696e ffe0 d5b8fa1d"),
    "low bits alone": (Frame(128 + 7, (report(32 + 9),)), "a879 6761696e ffe0"),
    "bundle": (Frame(7, (report(9), report(10))), "e8700902"),
    "bundle of several lengths": (Frame(7, (report(9), report(10, bits=200))), "c0700982 0b c801"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes(name: str) -> None:
    frame, expected = GOLDEN[name]
    assert pack(encode(frame)).hex().startswith(expected.replace(" ", ""))
    assert pack(encode(frame))[-4:] == encode(frame)[-4:]  # the checksum of the standard form


def test_a_report_of_up_to_249_bytes_costs_8_bytes_on_the_stream() -> None:
    from fronthaul.transport.zmtp import ZMTP_NULL

    for size in (0, 8, 249):
        data = pack(encode(Frame(0, (Report(ReportKey(3, 0, 0), Payload(bytes(size), 8 * size)),))))
        assert ZMTP_NULL.stream_bytes(len(data)) == size + 8


@given(frames())
def test_what_has_a_compact_form_comes_back_from_it(frame: Frame) -> None:
    data = encode(frame)
    packed = pack(data)
    if packed == data:
        return
    assert is_compact(packed) and not is_compact(data) and len(packed) < len(data)
    made = Expander()
    snapshot, _ = frame.head.parts[0]
    made.open(frame.bs, frame.epoch, frame.head.side_bytes, Reference(frame.seq - 1, snapshot))
    assert made.expand(frame.bs, packed) == data


@given(st.binary(max_size=80), st.booleans())
def test_what_is_no_compact_form_comes_back_as_it_is(data: bytes, with_crc: bool) -> None:
    data = bytes([data[0] | 0x80]) + data[1:] if data else b""
    if with_crc:  # of any message, so that the rest of it is looked at
        data += message(0, 0)[-4:]
    assert expander(1).expand(3, data) == data
    assert Expander().expand(3, pack(message(0, 0))) == pack(message(0, 0))  # nobody has registered


@pytest.mark.parametrize(
    "frame",
    [
        Frame(FULL_EVERY - 1, (report(9),)),
        Frame(7, (report(9, round_=1),)),
        Frame(7, (report(9), report(11))),
        Frame(7, (report(9), report(10, round_=1))),
        Frame(7, (report(9, bits=8 * MAX_STANDARD_BYTES),)),
    ],
)
def test_what_keeps_its_standard_form(frame: Frame) -> None:
    assert pack(encode(frame)) == encode(frame)


@pytest.mark.parametrize(("gap", "size"), [(1, 1), (90, 1), (GAP_FRAMES, 1), (GAP_FRAMES, 16), (GAP_FRAMES, 64)])
def test_frames_after_a_gap_are_read(gap: int, size: int) -> None:
    made = expander(1)
    for seq in (0, gap):
        data = message(seq, *range(seq * size, (seq + 1) * size))
        assert made.expand(3, pack(data)) == data
        made.note(decode(data))  # type: ignore[arg-type]


def test_after_a_longer_gap_the_next_whole_frame_goes_on() -> None:
    made = expander(1)
    seq = 20 * FULL_EVERY
    assert made.expand(3, pack(message(seq, seq))) == pack(message(seq, seq))
    whole = message(seq + FULL_EVERY - 1, seq + FULL_EVERY - 1)
    made.note(decode(made.expand(3, pack(whole))))  # type: ignore[arg-type]
    after = message(seq + FULL_EVERY, seq + FULL_EVERY)
    assert made.expand(3, pack(after)) == after


def test_an_unreadable_flood_costs_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corrupt frame is held against many numbers, but not each of a flood of them."""
    from fronthaul.message import compact

    made, tried = expander(1), []
    real = compact._standard_head
    monkeypatch.setattr(compact, "_standard_head", lambda *a: tried.append(a) or real(*a))
    bad = flip(pack(message(1, 1)), [40])
    for _ in range(1000):
        made.expand(3, bad)
    assert len(tried) < 64 * 1000 + 1000 * 3
    good = message(2, 2)
    assert made.expand(3, pack(good)) == good


# One word a frame: how far its snapshot is ahead of the one before, and what becomes of it.
FATES = ("arrives", "lost", "copied", "corrupt", "overtaken")
steps = st.lists(
    st.tuples(st.sampled_from(FATES), st.integers(0, 4), st.integers(1, 3), st.integers(0, 10_000)), max_size=40
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, min_size=1, max_size=3), st.integers(0, 300), st.booleans(), st.booleans())
def test_any_fault_has_the_same_fates_in_either_form(
    starts: list[list[tuple[str, int, int, int]]], lost: int, reconnects: bool, overlap: bool
) -> None:
    """Losses, copies, flips, late frames, restarts, starts that overlap, reconnections and bundles."""
    sent: list[Sent] = []
    snapshot, late = 0, list[bytes]()
    for epoch, script in enumerate(starts):
        seq, mine = 0, list[Sent]()
        for word, ahead, size, bit in script:
            snapshot += ahead
            data = message(seq, *range(snapshot, snapshot + size), epoch=epoch)
            if word == "copied":
                seq += 1
                mine.append(Sent(message(seq, *range(snapshot, snapshot + size), epoch=epoch)))
            if word == "overtaken":
                late.append(data)
            elif word != "lost":
                mine.append(Sent(data, bit if word == "corrupt" else None))
            snapshot, seq = snapshot + size, seq + 1
        seq, snapshot = seq + lost, snapshot + lost  # an outage
        mine.append(Sent(message(seq, snapshot, epoch=epoch)))
        snapshot += 1
        if not overlap or epoch == len(starts) - 1:  # else they come after the next start has registered
            mine, late = [*mine, *map(Sent, late)], []
        elif epoch:
            mine, late = [*mine, *map(Sent, late[: len(late) // 2])], late[len(late) // 2 :]
        again = range(0, len(mine), 5 if reconnects else len(mine))
        sent += [one._replace(registers=epoch) if at in again else one for at, one in enumerate(mine)]
    assert judged(sent, compact=True) == judged(sent, compact=False)


class Sent(NamedTuple):
    """A message in its standard form, a bit of it that flips, and the epoch that registers before it."""

    data: bytes
    flipped: int | None = None
    registers: int | None = None


def judged(sent: Sequence[Sent], *, compact: bool) -> list[tuple[str, object]]:
    """Return what a cloud makes of messages that it receives in either form."""
    rules = CollectorRules(stations=frozenset([3]), snapshots=10_000, interval_ns=0, deadline_ns=10**12)
    collector, made, found = Collector(rules), Expander(), list[tuple[str, object]]()
    collector.start(0)
    reports = PayloadFormat(BITS, len(SIDE))
    for data, bit, registers in sent:
        if registers is not None:
            collector.register(Registration(3, registers, "toy", reports, None, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)))
            made.open(3, registers, len(SIDE))
        wire = pack(data) if compact else data
        wire = wire if bit is None else flip(wire, [bit % (8 * len(wire))])
        try:
            frame = decode(made.expand(3, wire))
        except RemoteError as error:
            found.append(("corrupt", error.reason))
            continue
        assert isinstance(frame, Frame)
        made.note(frame)
        found.append(("judged", collector.frame(frame, 3, 0)))
    return found

"""Frames in bulk say what the decoder says of each."""

import pyarrow as pa
import pytest
from any_message import controls, frames
from hypothesis import given, settings
from hypothesis import strategies as st

from fronthaul.errors import LocalError
from fronthaul.message.columns import FrameColumns, frame_columns, is_control
from fronthaul.message.messages import Frame, Message, Payload, Report, ReportKey
from fronthaul.message.wire import encode

FRAME = encode(Frame(7, (Report(ReportKey(3, 1, 9, 2), Payload(b"\xab\xc0", 11), b"gain"),)))
BUNDLE = encode(Frame(7, tuple(Report(ReportKey(3, 1, n), Payload(b"\xab\xc0", 11), b"gain") for n in range(3))))
MIXED = encode(Frame(7, tuple(Report(ReportKey(3, 1, n), Payload(bytes(n), 8 * n)) for n in range(3))))


def again(found: FrameColumns) -> list[Frame]:
    """Return the frames that columns describe."""
    sides, payloads = found.sides.to_pylist(), found.payloads.to_pylist()
    made = []
    for at, seq in enumerate(found.seq.tolist()):
        parts = [n for n, frame in enumerate(found.frame.tolist()) if frame == at]
        assert [found.part[n] for n in parts] == list(range(found.count[at]))
        start = int(found.bs[at]), int(found.epoch[at])
        reports = [
            Report(
                ReportKey(*start, int(found.snapshot[n]), int(found.round[n])),
                Payload(payloads[n], int(found.payload_bits[n])),
                sides[n],
            )
            for n in parts
        ]
        made.append(Frame(seq, tuple(reports)))
    return made


@settings(deadline=None)
@given(st.lists(frames() | controls, max_size=8))
def test_columns_are_the_frames_that_were_encoded(sent: list[Message]) -> None:
    data = [encode(message) for message in sent]
    column = pa.array([b"before", *data], pa.binary()).slice(1)  # offsets that do not begin at 0
    found = frame_columns(column)
    wanted = [message for message in sent if isinstance(message, Frame)]
    assert again(found) == wanted
    assert [sent[at] for at in found.message.tolist()] == wanted
    whole = [data[at] for at in found.message.tolist()]
    assert found.crc32.tolist() == [int.from_bytes(message[-4:], "big") for message in whole]
    assert found.size.tolist() == list(map(len, whole))
    assert is_control(column).tolist() == [not isinstance(message, Frame) for message in sent]


@pytest.mark.parametrize("message", [FRAME, BUNDLE, MIXED])
def test_a_frame_of_another_length_than_it_states_is_refused(message: bytes) -> None:
    for size in range(len(message)):
        cut = message[:size]
        try:
            found = again(frame_columns(pa.array([FRAME, cut])))
        except LocalError:
            continue
        # Without its checksum a frame of one report is one of a shorter payload.
        assert found[0].seq == 7 and message is FRAME and size >= 19 + 4
    for odd in (b"", b"\x11" + FRAME[1:], b"\x25", b"\x23" + bytes(40)):
        with pytest.raises(LocalError):
            frame_columns(pa.array([odd]))

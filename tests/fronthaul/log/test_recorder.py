"""What one end writes down: all streams together."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_nodes import fill, frame

from fronthaul.clock import SimulatedClock
from fronthaul.errors import LocalError
from fronthaul.log.arrow_stream import read_stream
from fronthaul.log.received import Arrival, Received, read_received
from fronthaul.log.recorder import Recorder
from fronthaul.log.sent import Departure, Journal, read_journal
from fronthaul.log.stream_names import CONNECTIONS, EVENTS, RECEIVED, SENT
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction, Goodbye
from fronthaul.message.wire import encode
from fronthaul.transport.transport import ConnectionCount, LinkEvent
from fronthaul.transport.zmtp import ZMTP_CURVE, ZMTP_NULL

COUNT = ConnectionCount(3, "127.0.0.1:1", "127.0.0.1:2", 10, 20, 1 << 40, 5, True)
EVENTS_MADE = [
    LinkEvent(10, "connected", "127.0.0.1:2", "", 3),
    LinkEvent(11, "refused", "127.0.0.1", "its key belongs to no base station"),
]


def test_every_stream_holds_what_it_was_given(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "end", sends=Direction.UP, transport=ZMTP_CURVE)
    good, goodbye = encode(frame(3, 0)), encode(Goodbye(3, 0, 1))
    recorder.clock(SimulatedClock(4))
    recorder.sent(3, [Departure(good, 1, 2), Departure(goodbye, 1, 3)])
    recorder.received([])
    recorder.received([Arrival(3, good, 5, FrameFate.DELIVERED), Arrival(3, goodbye, 6, None)])
    recorder.links([COUNT], EVENTS_MADE)
    recorder.links([], [])
    for _ in range(2):
        sent, received = read_journal(tmp_path / f"end{SENT}"), read_received(tmp_path / f"end{RECEIVED}")
        assert sent["message"].to_pylist() == [good, goodbye]
        assert Journal(tmp_path / f"end{SENT}").direction is Direction.UP
        assert Journal(tmp_path / f"end{SENT}").transport == ZMTP_CURVE
        assert received["frame_fate"].to_pylist() == ["delivered", None]
        assert Received(tmp_path / f"end{RECEIVED}").direction is Direction.DOWN
        assert [tuple(row.values()) for row in read_stream(tmp_path / f"end{CONNECTIONS}").to_pylist()] == [COUNT]
        events = [tuple(row.values()) for row in read_stream(tmp_path / f"end{EVENTS}").to_pylist()]
        assert events == [(4, "clock", "end", "simulated", None), *EVENTS_MADE]
        recorder.close()  # and again
    assert not list(tmp_path.glob("*.pcapng")) and not list(tmp_path.glob(".*.part"))


def captured(path: Path) -> bytes:
    return path.read_bytes()


def test_the_capture_holds_the_frames_that_crossed_the_link(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "end", sends=Direction.UP, transport=ZMTP_NULL, capture_bs=3)
    path = tmp_path / "end.pcapng"
    one, two, three, down = (encode(frame(3, snapshot)) for snapshot in range(4))
    recorder.sent(
        3,
        [
            Departure(one, 1, 2),
            Departure(two, 1, 2, "loss"),
            Departure(three, 1, 2, None, (20,)),
            Departure(encode(Goodbye(3, 0, 1)), 1, 2),
        ],
    )
    recorder.received(
        [
            Arrival(3, down, 5, FrameFate.DELIVERED),
            Arrival(3, b"", 5, FrameFate.CORRUPT, "truncated"),
            Arrival(3, encode(Goodbye(3, 0, 2)), 5, None),
        ]
    )
    data = captured(path)
    assert one in data and down in data
    assert two not in data and three not in data  # lost, and bent on its way
    assert three[:2] in data and b"goodbye" not in data
    assert data.count(b"down") == 2
    recorder.close()


@pytest.mark.parametrize("ending", [SENT, RECEIVED, CONNECTIONS, EVENTS, ".pcapng"])
def test_nothing_is_written_over(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"end{ending}").write_bytes(b"")
    with pytest.raises(LocalError, match="exists already"):
        Recorder(tmp_path, "end", sends=Direction.DOWN, transport=ZMTP_NULL, capture_bs=3)


def test_a_full_disk_closes_all_streams_and_leaves_them_readable(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "end", sends=Direction.UP, transport=ZMTP_NULL, capture_bs=3)
    good = encode(frame(3, 0))
    recorder.sent(3, [Departure(good, 1, 2)])
    recorder.received([Arrival(3, good, 5, FrameFate.DELIVERED)])
    fill(recorder._journal._rows, recorder._connections)
    with pytest.raises(LocalError, match="the disk is full"):
        recorder.sent(3, [Departure(good, 1, 2)])
    with pytest.raises(LocalError, match="the disk is full"):
        recorder.close()
    with pytest.raises(LocalError, match="closed"):
        recorder.received([Arrival(3, good, 5, FrameFate.DELIVERED)])
    recorder.close()
    assert len(read_journal(tmp_path / f"end{SENT}")) == len(read_received(tmp_path / f"end{RECEIVED}")) == 1


FULL_CAPTURE = """
import resource, sys
from pathlib import Path
from fronthaul.errors import LocalError
from fronthaul.log.received import Arrival
from fronthaul.log.recorder import Recorder
from fronthaul.log.sent import Departure
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction, Frame, Payload, Report, ReportKey
from fronthaul.message.wire import encode
from fronthaul.transport.zmtp import ZMTP_NULL

recorder = Recorder(Path(sys.argv[1]), "end", sends=Direction.UP, transport=ZMTP_NULL, capture_bs=3)
one, long = (encode(Frame(0, (Report(ReportKey(3, 0, 0), Payload(bytes(n), 8 * n)),))) for n in (1, 3000))
recorder.sent(3, [Departure(one, 1, 2)])
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
for count in range(100):  # a receive log holds less of a frame than a capture does
    try:
        recorder.received([Arrival(3, long, 5, FrameFate.DELIVERED)])
    except LocalError:
        break
try:
    recorder.sent(3, [Departure(long, 3, 4)])
except LocalError as error:
    print(count, error)
"""


def test_what_a_full_disk_keeps_out_of_the_capture_is_not_on_record_at_all(tmp_path: Path) -> None:
    """Or a frame that was never sent would count as sent."""
    command = [sys.executable, "-c", FULL_CAPTURE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, told = done.stdout.split(maxsplit=1)
    assert "end.pcapng" in told
    assert len(read_journal(tmp_path / f"end{SENT}")) == 1
    assert len(read_received(tmp_path / f"end{RECEIVED}")) == int(count) > 1

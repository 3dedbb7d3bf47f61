"""Send journals and receive logs: what is written is what is read, and tells its direction."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fronthaul
from fronthaul.errors import LocalError
from fronthaul.log.arrow_stream import read_stream
from fronthaul.log.received import (
    EVIDENCE_BYTES,
    Arrival,
    Received,
    ReceiveLog,
    _columns_of_good_frames,
    _row,
    read_received,
    received_schema,
)
from fronthaul.log.sent import (
    Departure,
    Journal,
    SendJournal,
    amended,
    corrupted,
    flip,
    journal_schema,
    read_journal,
)
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction, Frame, Payload, Report, ReportKey, Welcome
from fronthaul.message.wire import HEADER_BYTES, encode, report_heads
from fronthaul.transport.zmtp import ZMTP_CURVE, ZMTP_NULL

D, DUP = FrameFate.DELIVERED, FrameFate.DUPLICATE
DATA = encode(Frame(77, (Report(ReportKey(3, 2, 0), Payload(b"\xab", 8)),)))
CRC32 = int.from_bytes(DATA[-4:], "big")
NO_CLAIM = {"epoch": None, "seq": None, "crc32": None}
CLAIM = {"epoch": 2, "seq": 77, "crc32": CRC32}


def test_a_journal_comes_back_with_its_direction(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = SendJournal(path, direction=Direction.UP, transport=ZMTP_CURVE)
    journal.append(3, [Departure(DATA, 10, 12), Departure(DATA, 11, 13, "loss"), Departure(DATA, 12, 14, None, (0, 9))])
    journal.append(3, [])
    journal.append(65535, [Departure(b"", -1, -2)])
    journal.close()
    table = read_journal(path)
    assert (Journal(path).direction, Journal(path).transport) == (Direction.UP, ZMTP_CURVE)
    sent: dict[str, Any] = {"bs": 3, "drop_reason": None, "flipped": None, "message": DATA}
    assert table.to_pylist() == [
        sent | {"t_sent_ns": 10, "t_release_ns": 12},
        sent | {"t_sent_ns": 11, "t_release_ns": 13, "drop_reason": "loss"},
        sent | {"t_sent_ns": 12, "t_release_ns": 14, "flipped": [0, 9]},
        sent | {"bs": 65535, "t_sent_ns": -1, "t_release_ns": -2, "message": b""},
    ]
    assert read_stream(path).schema == journal_schema()


def test_messages_of_several_links_are_written_in_one_go(tmp_path: Path) -> None:
    sent = [
        (0, Departure(DATA, 10, 12)),
        (7, Departure(DATA, 10, 13, "loss", (3,))),
        (65535, Departure(b"", 11, 11, "")),
    ]
    journal = SendJournal(tmp_path / "journal", direction=Direction.DOWN, transport=ZMTP_NULL)
    sizes = [(tmp_path / "journal").stat().st_size]
    journal.append_all([])
    sizes.append((tmp_path / "journal").stat().st_size)
    journal.append_all(sent)
    journal.close()
    assert sizes[0] == sizes[1]
    with pa.ipc.open_stream((tmp_path / "journal").read_bytes()) as reader:
        (batch,) = reader
    assert batch.to_pylist() == [
        {
            "bs": bs,
            "t_sent_ns": departure.t_sent_ns,
            "t_release_ns": departure.t_release_ns,
            "drop_reason": departure.drop_reason,
            "flipped": list(departure.flipped) or None,
            "message": departure.message,
        }
        for bs, departure in sent
    ]


def test_what_does_not_fit_a_journal_is_refused(tmp_path: Path) -> None:
    journal = SendJournal(tmp_path / "journal", direction=Direction.DOWN, transport=ZMTP_NULL)
    for departure in (Departure(DATA, 1 << 63, 0), Departure(DATA, 0, 0, None, (-1,))):
        with pytest.raises(LocalError, match="does not fit"):
            journal.append(0, [departure])
    with pytest.raises(LocalError, match="does not fit"):
        journal.append(1 << 16, [Departure(DATA, 0, 0)])
    journal.close()
    with pytest.raises(LocalError, match="closed"):
        journal.append(0, [Departure(DATA, 0, 0)])
    with pytest.raises(LocalError, match="exists already"):
        SendJournal(tmp_path / "journal", direction=Direction.DOWN, transport=ZMTP_NULL)
    assert read_journal(tmp_path / "journal").num_rows == 0


def test_a_later_row_with_a_reason_amends_the_last_of_its_message(tmp_path: Path) -> None:
    journal = SendJournal(tmp_path / "journal", direction=Direction.DOWN, transport=ZMTP_NULL)
    welcome, other = encode(Welcome(3, 0)), encode(Welcome(3, 1))
    journal.append(3, [Departure(welcome, 0, 0), Departure(other, 1, 1), Departure(welcome, 2, 2)])
    journal.append(4, [Departure(welcome, 3, 3)])
    journal.append(3, [Departure(welcome, 4, 4, "queue")])
    journal.append(3, [Departure(DATA, 5, 5, "loss"), Departure(DATA, 6, 6, "queue")])
    journal.close()
    rows = [
        (row["bs"], row["t_sent_ns"], row["drop_reason"])
        for row in amended(read_journal(tmp_path / "journal").to_pylist())
    ]
    assert rows == [(3, 0, None), (3, 1, None), (3, 2, "queue"), (4, 3, None), (3, 5, "loss"), (3, 6, "queue")]


def test_flipped_bits_count_from_the_most_significant_of_the_first_byte() -> None:
    assert corrupted(Departure(b"\0\0", 0, 0)) == b"\0\0"
    assert corrupted(Departure(b"\0\0", 0, 0, None, (0, 9, 15))) == b"\x80\x41"
    for bit in (-1, 16):
        with pytest.raises(LocalError, match="outside"):
            flip(b"\0\0", [bit])


@given(st.binary(min_size=1, max_size=20), st.data())
def test_flipping_twice_changes_nothing(data: bytes, draw: st.DataObject) -> None:
    bits = draw.draw(st.lists(st.integers(0, 8 * len(data) - 1), unique=True))
    assert flip(flip(data, bits), bits) == data
    assert sum((a ^ b).bit_count() for a, b in zip(flip(data, bits), data, strict=True)) == len(bits)


def test_a_log_keeps_whole_what_its_sender_cannot_vouch_for(tmp_path: Path) -> None:
    path = tmp_path / "log"
    welcome = encode(Welcome(3, 0))
    log = ReceiveLog(path, direction=Direction.DOWN)
    log.append(
        [
            Arrival(3, DATA, 1, FrameFate.DELIVERED, late=1),
            Arrival(3, DATA, 2, FrameFate.DUPLICATE, late=(1 << 64) - 1),
            Arrival(3, DATA, 3, FrameFate.CORRUPT, "checksum"),
            Arrival(None, DATA, 4, FrameFate.REJECTED, "epoch"),
            Arrival(3, welcome, 5, None),
            Arrival(3, welcome, 6, FrameFate.REJECTED, "epoch"),
        ]
    )
    log.append([])
    log.append([Arrival(None, b"", 7, FrameFate.CORRUPT, "truncated")])
    log.append([Arrival(None, b"", 8, FrameFate.REJECTED, "empty")])
    log.append([Arrival(3, bytes(1000), 9, FrameFate.CORRUPT, "checksum")])
    log.close()
    table = read_received(path)
    assert Received(path).direction is Direction.DOWN
    assert read_stream(path).schema == received_schema()
    good: dict[str, Any] = {"bs": 3, "reason": None, "late": 0, "bytes": len(DATA), **CLAIM}
    good |= {"head": DATA[:HEADER_BYTES], "data": None}
    bad = good | {"head": None, "data": DATA}
    control = bad | {"bytes": len(welcome), "data": welcome, **NO_CLAIM}
    long = bad | {"bytes": 1000, "data": bytes(EVIDENCE_BYTES), "epoch": 0, "seq": 0, "crc32": 0}
    nothing = bad | {"bs": None, "bytes": 0, "data": b"", **NO_CLAIM}
    assert table.to_pylist() == [
        good | {"t_received_ns": 1, "frame_fate": "delivered", "late": 1},
        good | {"t_received_ns": 2, "frame_fate": "duplicate", "late": (1 << 64) - 1},
        bad | {"t_received_ns": 3, "frame_fate": "corrupt", "reason": "checksum"},
        bad | {"bs": None, "t_received_ns": 4, "frame_fate": "rejected", "reason": "epoch"},
        control | {"t_received_ns": 5, "frame_fate": None},
        control | {"t_received_ns": 6, "frame_fate": "rejected", "reason": "epoch"},
        nothing | {"t_received_ns": 7, "frame_fate": "corrupt", "reason": "truncated"},
        nothing | {"t_received_ns": 8, "frame_fate": "rejected", "reason": "empty"},
        long | {"t_received_ns": 9, "frame_fate": "corrupt", "reason": "checksum"},  # its first bytes alone
    ]


@pytest.mark.parametrize("bundle", [False, True])
@pytest.mark.parametrize("fates", [[D], [DUP], [D, D], [D, DUP]])
def test_good_frames_are_logged_by_columns_as_by_rows(fates: list[FrameFate], bundle: bool, tmp_path: Path) -> None:
    made = tuple(Report(ReportKey(3, 2, snapshot), Payload(b"\xab", 8)) for snapshot in range(1 + bundle))
    arrivals = [Arrival(3, DATA, 1, fate, late=1) for fate in fates]
    arrivals.append(Arrival(None, encode(Frame(1, made)), 2, fates[0]))
    columns = _columns_of_good_frames(arrivals)
    assert (columns is None) == (len(set(fates)) > 1)  # else the rows themselves are written
    logs = {way: ReceiveLog(tmp_path / way, direction=Direction.UP) for way in ("appended", "rows")}
    logs["appended"].append(arrivals)
    logs["rows"]._rows.extend([_row(arrival) for arrival in arrivals])
    for log in logs.values():
        log.close()
    assert (tmp_path / "appended").read_bytes() == (tmp_path / "rows").read_bytes()


def test_new_reports_are_logged_as_one_by_one(tmp_path: Path) -> None:
    reports = [Report(ReportKey(bs, 2, 7 + bs), Payload(b"\xab" * bs, 8 * bs)) for bs in range(3)]
    data = [encode(Frame(5 + number, (report,))) for number, report in enumerate(reports)]
    heads = report_heads(data)
    assert heads is not None
    logs = {way: ReceiveLog(tmp_path / way, direction=Direction.UP) for way in ("together", "rows")}
    logs["together"].append_delivered([10, 11, 12], data, heads, [0, 1, 0])
    logs["rows"].append([Arrival(bs, data[bs], 10 + bs, D, late=bs % 2) for bs in range(3)])
    for log in logs.values():
        log.close()
    assert (tmp_path / "together").read_bytes() == (tmp_path / "rows").read_bytes()


@pytest.mark.parametrize(
    "arrival",
    [
        Arrival(0, DATA, 0, FrameFate.DROPPED),
        Arrival(0, DATA, 0, FrameFate.DELIVERED, "why not"),
        Arrival(0, DATA, 0, FrameFate.DUPLICATE, "why not"),
        Arrival(0, DATA, 0, FrameFate.CORRUPT),
        Arrival(0, DATA, 0, FrameFate.REJECTED),
        Arrival(0, DATA, 0, FrameFate.DELIVERED, late=1 << 64),
        Arrival(1 << 16, DATA, 0, FrameFate.DELIVERED),
    ],
)
def test_fates_that_nothing_which_arrived_can_have_are_refused(tmp_path: Path, arrival: Arrival) -> None:
    log = ReceiveLog(tmp_path / "log", direction=Direction.UP)
    with pytest.raises(LocalError):
        log.append([Arrival(0, DATA, 0, FrameFate.DELIVERED), arrival])
    log.close()
    assert read_received(tmp_path / "log").num_rows == 0


def test_journals_and_logs_are_not_taken_for_each_other(tmp_path: Path) -> None:
    SendJournal(tmp_path / "journal", direction=Direction.UP, transport=ZMTP_NULL).close()
    ReceiveLog(tmp_path / "log", direction=Direction.UP).close()
    with pytest.raises(LocalError, match="not a send journal"):
        read_journal(tmp_path / "log")
    with pytest.raises(LocalError, match="not a receive log"):
        read_received(tmp_path / "journal")


def test_both_survive_kill_9(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from fronthaul.message.fates import FrameFate
from fronthaul.log.sent import Departure, SendJournal
from fronthaul.message.messages import Direction
from fronthaul.log.received import Arrival, ReceiveLog
from fronthaul.transport.zmtp import ZMTP_NULL
folder = Path({str(tmp_path)!r})
journal = SendJournal(folder / "journal", direction=Direction.UP, transport=ZMTP_NULL)
log = ReceiveLog(folder / "log", direction=Direction.DOWN)
for t in range(5):
    journal.append(0, [Departure(bytes(40), t, t), Departure(bytes(50), t, t)])
    log.append([Arrival(0, bytes(40), t, FrameFate.DELIVERED)])
os.kill(os.getpid(), signal.SIGKILL)
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=Path(fronthaul.__file__).parent.parent)
    assert ran.returncode == -signal.SIGKILL
    assert read_journal(tmp_path / "journal")["t_sent_ns"].to_pylist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert read_received(tmp_path / "log")["t_received_ns"].to_pylist() == [0, 1, 2, 3, 4]

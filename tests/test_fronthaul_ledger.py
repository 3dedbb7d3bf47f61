"""Journals that survive their writer, and ledgers that add up."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fronthaul
from fronthaul.errors import LocalError, RemoteError
from fronthaul.fates import FrameFate, ReportFate
from fronthaul.journal import SendJournal, journal_schema, read_stream
from fronthaul.ledger import (
    ReceiveLog,
    close_ledger,
    conservation,
    ledger_schema,
    receive_schema,
    write_parquet,
)
from fronthaul.messages import Direction, Frame, Payload, Report, ReportKey
from fronthaul.transport import identity
from fronthaul.wire import HEADER_BYTES, decode, encode


def frame(seq: int, snapshot: int, *, bs: int = 0, epoch: int = 0) -> Frame:
    """Return a frame of 11 payload bits and 4 B of side information."""
    return Frame(seq, Report(ReportKey(bs, epoch, snapshot), Payload(b"\xab\xc0", 11), b"gain"))


def flipped(data: bytes, bit: int) -> bytes:
    """Return `data` with one bit flipped."""
    corrupt = bytearray(data)
    corrupt[bit // 8] ^= 0x80 >> bit % 8
    return bytes(corrupt)


class Run:
    """A run in miniature: journals and receive logs written, then read back."""

    def __init__(self, folder: Path) -> None:
        """Keep the files in `folder`."""
        self.folder = folder
        self.journals: dict[tuple[int, Direction], SendJournal] = {}
        self.logs = {way: ReceiveLog(folder / f"received-{way}.arrows", direction=way) for way in Direction}
        self.time_ns = 0

    def send(self, sent: Frame, way: Direction = Direction.UP, *, drop_reason: str | None = None) -> bytes:
        """Journal a frame, and return its bytes."""
        bs = sent.report.key.bs
        if (bs, way) not in self.journals:
            self.journals[bs, way] = SendJournal(self.folder / f"sent-{bs}-{way}.arrows", bs, direction=way)
        self.time_ns += 10
        self.journals[bs, way].append(sent, self.time_ns, drop_reason=drop_reason)
        return encode(sent)

    def receive(
        self,
        data: bytes,
        fate: FrameFate = FrameFate.DELIVERED,
        way: Direction = Direction.UP,
        *,
        peer: bytes = identity(0),
        reason: str | None = None,
    ) -> None:
        """Log an arrival."""
        self.time_ns += 1
        self.logs[way].append(peer, data, self.time_ns, fate, reason)

    def ledger(self, fates: dict[ReportKey, ReportFate]) -> pa.Table:
        """Close everything and join it."""
        for journal in self.journals.values():
            journal.close()
        for log in self.logs.values():
            log.close()
        sent = [read_stream(path) for path in sorted(self.folder.glob("sent-*"))]
        received = [read_stream(path) for path in sorted(self.folder.glob("received-*"))]
        return close_ledger(
            pa.concat_tables([journal_schema().empty_table(), *sent]), pa.concat_tables(received), fates
        )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return an empty run."""
    return Run(tmp_path)


def test_the_columns_are_those_of_the_design(run: Run) -> None:
    run.receive(run.send(frame(0, 5)))
    ledger = run.ledger({ReportKey(0, 0, 5): ReportFate.USED})
    assert ledger.column_names == [
        *("bs", "epoch", "snapshot", "round", "seq", "direction", "t_sent_ns", "t_received_ns"),
        *("payload_bits", "side_bits", "header_bytes", "padding_bits", "zmtp_bytes", "curve_bytes"),
        *("frame_fate", "report_fate", "crc32", "side", "payload", "reason"),
    ]
    assert ledger.schema == ledger_schema()
    assert ledger.to_pylist() == [
        {"bs": 0, "epoch": 0, "snapshot": 5, "round": 0, "seq": 0, "direction": "up"}
        | {"t_sent_ns": 10, "t_received_ns": 11, "payload_bits": 11, "side_bits": 32, "header_bytes": 19}
        | {"padding_bits": 5, "zmtp_bytes": 2, "curve_bytes": 0, "frame_fate": "delivered"}
        | {"report_fate": "used", "crc32": int.from_bytes(encode(frame(0, 5))[-4:], "big")}
        | {"side": b"gain", "payload": b"\xab\xc0", "reason": None}
    ]


def test_a_script_with_every_fate_is_conserved(run: Run) -> None:
    run.receive(run.send(frame(0, 0)))  # used
    copy = run.send(frame(1, 0))
    run.receive(copy, FrameFate.DUPLICATE)
    run.send(frame(2, 1), drop_reason="loss")  # lost
    run.receive(flipped(run.send(frame(3, 2)), 130), FrameFate.CORRUPT, reason="checksum")  # lost
    run.receive(run.send(frame(4, 3)))  # late
    run.receive(run.send(frame(5, 4)))  # unused
    run.receive(run.send(frame(6, 5)), FrameFate.REJECTED, reason="epoch")  # lost
    run.send(frame(7, 6))  # lost: its sender died
    run.receive(run.send(frame(0, 0), Direction.DOWN), way=Direction.DOWN)
    fates = {
        ReportKey(0, 0, 0): ReportFate.USED,
        ReportKey(0, 0, 3): ReportFate.LATE,
        ReportKey(0, 0, 4): ReportFate.UNUSED,
    }
    ledger = run.ledger(fates)
    result = conservation(ledger, [(0, [ReportKey(0, 0, 0)])])
    assert result.problems == ()
    assert result.ok
    assert result.frames_journaled == 9 == sum(result.frames.values())
    assert result.frames == {"delivered": 4, "duplicate": 1, "corrupt": 1, "rejected": 1, "dropped": 2}
    assert sum(result.strays.values()) == 0
    assert result.reports_journaled == 7 == sum(result.reports.values())
    assert result.reports == {"used": 1, "unused": 1, "late": 1, "lost": 4}
    up = ledger.filter(pa.compute.equal(ledger["direction"], "up"))
    assert up["reason"].to_pylist() == [None, None, "loss", "checksum", None, None, "epoch", None]
    down = ledger.filter(pa.compute.equal(ledger["direction"], "down"))
    assert down["report_fate"].to_pylist() == [None]


@pytest.mark.parametrize("bit", range(0, 8 * len(encode(frame(0, 0))), 3))
def test_a_frame_with_any_bit_flipped_is_found_again(run: Run, bit: int) -> None:
    data = [run.send(frame(seq, seq)) for seq in range(3)]
    run.receive(data[0])
    run.receive(flipped(data[1], bit), FrameFate.CORRUPT, reason="checksum")
    run.receive(data[2])
    ledger = run.ledger({ReportKey(0, 0, snapshot): ReportFate.USED for snapshot in (0, 2)})
    assert ledger["frame_fate"].to_pylist() == ["delivered", "corrupt", "delivered"]
    assert conservation(ledger).ok


def test_a_cut_frame_is_found_again_and_a_stump_is_a_stray(run: Run) -> None:
    data = [run.send(frame(seq, seq)) for seq in range(2)]
    run.receive(data[0][:-3], FrameFate.CORRUPT, reason="checksum")
    run.receive(data[1][:HEADER_BYTES], FrameFate.CORRUPT, reason="checksum")
    ledger = run.ledger({})
    assert ledger["frame_fate"].to_pylist() == ["corrupt", "dropped", "corrupt"]
    stray = ledger.to_pylist()[2]
    assert {name for name, value in stray.items() if value is not None} == {
        *("bs", "direction", "t_received_ns", "frame_fate", "reason")
    }
    result = conservation(ledger)
    assert result.ok
    assert result.strays[FrameFate.CORRUPT] == 1


def test_an_impostor_does_not_touch_the_link_it_names(run: Run) -> None:
    genuine = run.send(frame(0, 0, bs=2))
    run.receive(genuine, FrameFate.REJECTED, peer=identity(1), reason="wrong BS")
    run.receive(genuine, FrameFate.REJECTED, peer=b"\0anon", reason="wrong BS")
    run.receive(genuine, peer=identity(2))
    ledger = run.ledger({ReportKey(2, 0, 0): ReportFate.USED})
    assert ledger["bs"].to_pylist() == [2, 1, None]
    assert ledger["frame_fate"].to_pylist() == ["delivered", "rejected", "rejected"]
    result = conservation(ledger)
    assert result.ok
    assert (result.frames_journaled, result.strays[FrameFate.REJECTED]) == (1, 2)


def test_a_frame_that_was_never_sent_cannot_have_arrived_corrupt(run: Run) -> None:
    data = run.send(frame(0, 0), drop_reason="outage")
    for bit in (0, 8 * len(data) - 1):
        run.receive(flipped(data, bit), FrameFate.CORRUPT, reason="checksum")
    assert run.ledger({})["frame_fate"].to_pylist() == ["dropped", "corrupt", "corrupt"]


def test_other_bytes_under_a_journaled_seq_are_a_stray(run: Run) -> None:
    run.send(frame(0, 0))
    run.receive(encode(frame(0, 1)), FrameFate.REJECTED, reason="forged")
    assert run.ledger({})["frame_fate"].to_pylist() == ["dropped", "rejected"]


def test_a_corrupt_frame_does_not_take_the_place_of_one_that_arrives_later(run: Run) -> None:
    zero, one = (run.send(frame(seq, seq)) for seq in range(2))
    seq_lowest_bit, crc_bit = 8 * (HEADER_BYTES - 1) - 1, 8 * len(zero) - 1
    posing_as_one = flipped(flipped(zero, seq_lowest_bit), crc_bit)
    run.receive(posing_as_one, FrameFate.CORRUPT, reason="checksum")
    run.receive(one)
    ledger = run.ledger({ReportKey(0, 0, 1): ReportFate.USED})
    assert ledger["frame_fate"].to_pylist() == ["dropped", "delivered", "corrupt"]
    assert conservation(ledger).ok


def test_epochs_and_links_are_kept_apart(run: Run) -> None:
    for bs in (0, 1):
        for epoch in (0, 1):
            data = run.send(frame(0, 0, bs=bs, epoch=epoch))
            if bs != epoch:
                run.receive(data, peer=identity(bs))
    ledger = run.ledger({ReportKey(0, 1, 0): ReportFate.USED, ReportKey(1, 0, 0): ReportFate.USED})
    assert ledger["frame_fate"].to_pylist() == ["dropped", "delivered", "delivered", "dropped"]
    assert conservation(ledger).ok


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (lambda run: run.receive(encode(frame(0, 0))), "authentic frames that nobody journaled"),
        (lambda run: [run.receive(run.send(frame(seq, 0))) for seq in (0, 1)], "delivered more than once"),
        (lambda run: [run.receive(run.send(frame(seq, seq))) for seq in (0, 2)], "gaps in seq"),
        (lambda run: [run.receive(run.send(frame(0, snapshot))) for snapshot in (0, 1)], "a seq twice"),
        (lambda run: run.receive(run.send(frame(0, 9))), "reports without a fate"),
        (lambda run: run.send(frame(0, 0)), "lost but delivered, or the reverse"),
        (lambda run: run.receive(run.send(frame(0, 0), drop_reason="loss")), "the link model dropped"),
    ],
)
def test_what_does_not_add_up_is_named(run: Run, script: Any, problem: str) -> None:
    script(run)
    result = conservation(run.ledger({ReportKey(0, 0, s): ReportFate.USED for s in range(3)}))
    assert not result.ok
    assert any(problem in sentence for sentence in result.problems), result.problems


@pytest.mark.parametrize(
    ("fixes", "problem"),
    [
        ([], "used reports that no fix lists"),
        ([(0, [ReportKey(0, 0, 0)]), (0, [])], "snapshots fused twice"),
        ([(0, [ReportKey(0, 0, 0)]), (1, [ReportKey(0, 0, 0)])], "reports that several fixes list"),
        ([(1, [ReportKey(0, 0, 0)])], "a report of another snapshot"),
        ([(0, [ReportKey(0, 0, 0), ReportKey(1, 0, 0)])], "reports in a fix that are not used"),
    ],
)
def test_fixes_that_do_not_fit_are_named(
    run: Run, fixes: list[tuple[int, list[ReportKey]]], problem: str
) -> None:
    run.receive(run.send(frame(0, 0)))
    ledger = run.ledger({ReportKey(0, 0, 0): ReportFate.USED})
    assert conservation(ledger, [(0, [ReportKey(0, 0, 0)])]).ok
    assert any(problem in sentence for sentence in conservation(ledger, fixes).problems)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 5),
            st.sampled_from(["arrive", "drop", "flip"]),
            st.integers(0, 199),
        ),
        max_size=12,
    )
)
def test_any_script_is_conserved(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[int, int, str, int]]
) -> None:
    run = Run(tmp_path_factory.mktemp("run"))
    sequence = {0: 0, 1: 0}
    seen: set[ReportKey] = set()
    expected = dict.fromkeys(FrameFate, 0)
    for bs, snapshot, event, bit in script:
        sent = frame(sequence[bs], snapshot, bs=bs)
        sequence[bs] += 1
        data = run.send(sent, drop_reason="loss" if event == "drop" else None)
        if event == "drop":
            fate = FrameFate.DROPPED
        elif event == "flip":
            fate = FrameFate.CORRUPT
            run.receive(flipped(data, bit), fate, peer=identity(bs), reason="checksum")
        else:
            fate = FrameFate.DUPLICATE if sent.report.key in seen else FrameFate.DELIVERED
            seen.add(sent.report.key)
            run.receive(data, fate, peer=identity(bs))
        expected[fate] += 1
    result = conservation(run.ledger(dict.fromkeys(seen, ReportFate.USED)))
    assert result.problems == ()
    assert result.frames == expected
    assert sum(result.strays.values()) == 0


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[int]]:
    """Return a journal of three rows, and how long the file was before each and at the end."""
    path = tmp_path_factory.mktemp("stream") / "journal.arrows"
    journal = SendJournal(path, 0)
    ends = []
    for seq in range(3):
        ends.append(path.stat().st_size)
        journal.append(frame(seq, seq), seq)
    ends.append(path.stat().st_size)
    journal.close()
    return path.read_bytes(), ends


def test_a_cut_tail_loses_the_cut_row_alone(stream: tuple[bytes, list[int]], tmp_path: Path) -> None:
    data, ends = stream
    path = tmp_path / "cut.arrows"
    for length in range(ends[0], len(data) + 1, 7):
        path.write_bytes(data[:length])
        assert read_stream(path)["seq"].to_pylist() == [seq for seq in range(3) if ends[seq + 1] <= length]


def test_a_file_that_is_no_stream_is_refused(stream: tuple[bytes, list[int]], tmp_path: Path) -> None:
    path = tmp_path / "other"
    for data in (b"", b"hello", stream[0][:40]):
        path.write_bytes(data)
        with pytest.raises(LocalError, match="not an Arrow stream"):
            read_stream(path)


def test_rows_survive_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.arrows"
    script = f"""
import os, signal
from pathlib import Path
from fronthaul.journal import SendJournal
from fronthaul.messages import Frame, Payload, Report, ReportKey
journal = SendJournal(Path({str(path)!r}), 0)
for seq in range(5):
    journal.append(Frame(seq, Report(ReportKey(0, 0, seq), Payload(b"", 0))), seq)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=Path(fronthaul.__file__).parent.parent)
    assert ran.returncode == -signal.SIGKILL
    assert read_stream(path)["seq"].to_pylist() == [0, 1, 2, 3, 4]


def test_streams_are_never_written_over_or_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "journal.arrows"
    journal = SendJournal(path, 0)
    with pytest.raises(LocalError, match="exists already"):
        SendJournal(path, 0)
    journal.close()
    journal.close()
    with pytest.raises(LocalError, match="closed"):
        journal.append(frame(0, 0), 0)
    assert read_stream(path).schema == journal_schema()
    assert list(tmp_path.iterdir()) == [path]


def test_a_journal_is_of_one_link(tmp_path: Path) -> None:
    journal = SendJournal(tmp_path / "journal.arrows", 0)
    with pytest.raises(LocalError, match="BS 1"):
        journal.append(frame(0, 0, bs=1), 0)
    journal.close()


def test_encryption_is_journaled(tmp_path: Path) -> None:
    journal = SendJournal(tmp_path / "journal.arrows", 0, curve=True)
    journal.append(frame(0, 0), 0)
    journal.close()
    assert read_stream(tmp_path / "journal.arrows")["curve_bytes"].to_pylist() == [33]


def test_fates_that_nothing_which_arrived_can_have_are_refused(tmp_path: Path) -> None:
    log = ReceiveLog(tmp_path / "received.arrows")
    with pytest.raises(LocalError):
        log.append(identity(0), b"", 0, FrameFate.DROPPED)
    with pytest.raises(LocalError):
        log.append(identity(0), encode(frame(0, 0)), 0, FrameFate.DELIVERED, "why not")
    log.close()
    assert read_stream(tmp_path / "received.arrows").schema == receive_schema()


def test_a_logged_reason_is_the_one_decoding_gave(run: Run) -> None:
    data = flipped(run.send(frame(0, 0)), 9)
    with pytest.raises(RemoteError) as caught:
        decode(data)
    run.receive(data, FrameFate.CORRUPT, reason=caught.value.reason)
    assert run.ledger({})["reason"].to_pylist() == ["checksum"]


def test_parquet_is_whole_or_absent(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run.receive(run.send(frame(0, 0)))
    ledger = run.ledger({ReportKey(0, 0, 0): ReportFate.USED})
    path = tmp_path / "bs-000.parquet"
    write_parquet(ledger, path)
    assert pq.read_table(path).equals(ledger)
    write_parquet(ledger_schema().empty_table(), path)
    assert pq.read_table(path).num_rows == 0

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_parquet(ledger, path)
    assert pq.read_table(path).num_rows == 0

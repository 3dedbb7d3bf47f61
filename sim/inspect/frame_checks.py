"""Checks of an audit on the frames of the ledgers: bytes, costs, lengths, order, times, and the link model's draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from fronthaul.account.conservation import Problems, codes
from fronthaul.account.costs import COSTS, header_columns
from fronthaul.account.streams import Array
from fronthaul.log.stream_names import CAPTURE
from fronthaul.message.compact import pack
from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.messages import Direction, PayloadFormat
from fronthaul.message.wire import CRC_BYTES
from sim.inspect.captures import Comparison, Expected, compare, read_capture
from sim.inspect.draws import drawn_problems
from sim.inspect.finding import Finding, finding
from sim.inspect.ledger_frames import BUILT_FROM, LedgerFrames, ledger_frames
from sim.inspect.run_tables import RunTables
from sim.plan.settings import EmulateSettings
from sim.records.links import numbers, valid


def check_bytes(run: RunTables) -> list[Finding]:
    """Put all frames together again, and hold them against their checksums and the captures."""
    problems, count = Problems(), 0
    captures: list[Comparison] = []
    odd: list[str] = []
    for bs in run.stations:
        expected = _expected(run, bs, problems)
        if run.configuration.settings.capture:
            odd += _capture(run, bs, expected, captures)
        count += sum(1 for _ in expected)  # what the comparison has not taken
    count += sum(one.expected for one in captures)
    told = f"{count} frames encode again to their checksums"
    found = [finding("CRC-32", problems.sentences(), told)]
    if not run.configuration.settings.capture:
        return [*found, Finding("captures", "left out", "the run was made without")]
    size, cut = sum(one.size for one in captures), sum(one.cut for one in captures)
    told = f"{sum(one.frames for one in captures)} frames of {size} B, as in the ledgers"
    return [*found, finding("captures", odd, told + (f"; {cut} died with their process" if cut else ""))]


_CAPTURED = ("crc32", "t_release_ns", "t_received_ns", "frame_fate", "reason")


def _expected(run: RunTables, bs: int, problems: Problems) -> Iterator[Expected]:
    """Yield a link's frames as a capture has them; note those whose checksum is not that of their bytes."""
    for frames in ledger_frames(run.ledgers, bs, (*BUILT_FROM, *_CAPTURED)) if bs in run.ledgers else ():
        yield from _encoded(frames, problems, compact=run.transport.compact)


def _encoded(frames: LedgerFrames, problems: Problems, *, compact: bool) -> Iterator[Expected]:
    rows, begins = frames.rows, frames.begins
    crc32 = numbers(rows, "crc32")
    ends = [*begins[1:].tolist(), len(rows)]
    columns = [rows[name].take(begins).to_pylist() for name in ("epoch", "seq", *_CAPTURED[1:])]
    told = zip(begins.tolist(), ends, frames.directions(), frames.messages(), *columns, strict=True)
    for begin, end, direction, data, epoch, seq, *rest in told:
        if isinstance(data, str):
            problems.add("frames that cannot be encoded again", f"{frames.name(begin)} ({data})")
            continue
        if (crc32[begin:end] != int.from_bytes(data[-CRC_BYTES:], "big")).any():
            problems.add("frames whose CRC-32 is not that of their bytes", frames.name(begin))
        yield Expected(direction, epoch, seq, pack(data) if compact and direction is Direction.UP else data, *rest)


def _capture(run: RunTables, bs: int, expected: Iterator[Expected], found: list[Comparison]) -> list[str]:
    """Compare a link's capture with its ledger, and append the result; return what is wrong."""
    whole = run.folder.capture(bs)
    paths = [whole] if whole.exists() else run.folder.streams(CAPTURE, bs)
    epochs = np.unique(numbers(run.ledgers.table(bs, ["epoch"]), "epoch")).tolist() if bs in run.ledgers else []
    if not paths:
        return [f"there is no capture of BS {bs}"] if epochs else []
    last = max([run.last_epochs.get(bs, 0), *epochs])
    out = run.was_cut or bs in ((run.summary or {}).get("missing_bs") or ())
    died = {epoch: out or epoch < last for epoch in epochs}
    messages = (message for path in paths for message in read_capture(path))
    found.append(compare(messages, expected, _strays_down(run, bs), died))
    return [f"BS {bs}: {problem}" for problem in found[-1].problems]


def _strays_down(run: RunTables, bs: int) -> int:
    if bs not in run.ledgers:
        return 0
    rows = run.ledgers.table(bs, ("direction", "t_sent_ns"))
    return int(np.count_nonzero((codes(rows["direction"], [Direction.DOWN]) == 0) & ~valid(rows, "t_sent_ns")))


def check_costs(run: RunTables) -> list[Finding]:
    """Compute what each frame costs, and compare with its rows."""
    problems, total, count = Problems(), 0, 0
    for frames in _all_frames(run, (*COSTS, "snapshot", "round")):
        frame, rows = frames.frame, frames.rows
        first = np.zeros(len(rows), np.bool_)
        first[frames.begins] = True
        bits, side = numbers(rows, "payload_bits"), numbers(rows, "side_bits") // 8
        up = codes(rows["direction"], [Direction.UP])[frames.begins] == 0
        header = header_columns(
            np.bincount(frame), numbers(rows, "seq")[frames.begins], numbers(rows, "snapshot"), numbers(rows, "round"),
            bits, side, compact=up & run.transport.compact,
        )  # fmt: skip
        size = np.bincount(frame, header + side + (bits + 7) // 8).astype(np.int64)
        framing = np.array([run.transport.framing_bytes(one) for one in size.tolist()], np.int64)
        costs = {
            "side_bits": 8 * side,
            "header_bytes": header,
            "padding_bits": -bits % 8,
            "zmtp_bytes": np.where(first, framing[frame], 0),
            "curve_bytes": np.where(first, run.transport.encryption_bytes, 0),
        }
        for name, cost in costs.items():
            wrong = numbers(rows, name) != cost
            problems.add_where(f"rows with another {name} than their frame costs", wrong, frames.name)
        count += len(size)
        total += int(size.sum() + framing.sum()) + run.transport.encryption_bytes * len(size)
    told = f"{count} frames cost the {total} B that their ledgers say, drops included"
    return [finding("bytes of frames", problems.sentences(), told)]


def check_formats(run: RunTables) -> list[Finding]:
    """Compare the lengths of all reports with the declared formats."""
    problems, count = Problems(), 0
    first, later = run.configuration.format, run.configuration.answer_format
    for frames in _all_frames(run, ("round", "payload_bits", "side_bits")):
        rows = frames.rows
        up = codes(rows["direction"], [Direction.UP]) == 0
        bits, side, answer = numbers(rows, "payload_bits"), numbers(rows, "side_bits"), numbers(rows, "round") > 0
        count += int(np.count_nonzero(up))
        for declared, mine in ((first, up & ~answer), (later, up & answer)):
            if declared is None:
                problems.add_where("answers in a run of one round", mine, frames.name)
                continue
            wrong = mine & ((bits < declared.min_bits) | (bits > declared.max_bits))
            problems.add_where(f"reports of other than {_bits(declared)}", wrong, frames.name)
            wrong = mine & ~wrong & (side != 8 * declared.side_bytes)
            problems.add_where(f"reports of other than {declared.side_bytes} B of side information", wrong, frames.name)
    answers = f", answers {_bits(later)}" if later else ""
    told = f"{count} reports carry the codec's {_bits(first)} and {first.side_bytes} B beside{answers}"
    return [finding("payload", problems.sentences(), told)]


def _bits(declared: PayloadFormat) -> str:
    return f"{'' if declared.fixed else 'up to '}{declared.max_bits} bit"


def check_order(run: RunTables) -> list[Finding]:
    """Check the order of rows and of times, as far as one clock tells them."""
    problems, count = Problems(), 0
    settings = run.configuration.settings
    t0_ns = None if run.summary is None else run.record.t0_ns
    last: dict[tuple[int, int, bool], tuple[int, int]] = {}  # by start and direction: seq and time of the last frame
    one_clock = run.was_cut or all(clock is None for clock in run.books.clocks.values())
    columns = ("snapshot", "round", "t_release_ns", "t_received_ns", "frame_fate", "report_fate", "reason")
    for frames in _all_frames(run, columns):
        rows, begins = frames.rows, frames.begins
        count += len(begins)
        part = numbers(rows, "part")
        expected = np.arange(len(part)) - begins[frames.frame]
        problems.add_where("rows that are not in the order of their frames", part != expected, frames.name)
        down = codes(rows["direction"], [Direction.DOWN]) == 0
        t_sent_ns, t_release_ns, t_received_ns = (
            numbers(rows, name) for name in ("t_sent_ns", "t_release_ns", "t_received_ns")
        )
        came = valid(rows, "t_received_ns")
        _check_sequence(frames, down, t_sent_ns, last, problems)
        problems.add_where("frames released before they were sent", t_release_ns < t_sent_ns, frames.name)
        if one_clock:
            early = came & (t_received_ns < t_release_ns)
            problems.add_where("frames that arrived before they were released", early, frames.name)
        if t0_ns is None or not settings.interval_ns:
            continue
        fate = codes(rows["report_fate"], [ReportFate.USED, ReportFate.UNUSED])
        delivered = (codes(rows["frame_fate"], [FrameFate.DELIVERED]) == 0) & (fate >= 0) & ~down
        deadline_ns = t0_ns + numbers(rows, "snapshot") * settings.interval_ns + settings.deadline_ns
        late = delivered & (t_received_ns >= deadline_ns)
        problems.add_where("reports on time that arrived after their deadline", late, frames.name)
        due_ns = t0_ns + _due(numbers(rows, "snapshot"), settings) * settings.interval_ns
        soon = ~down & (numbers(rows, "round") == 0) & (t_sent_ns < due_ns)
        problems.add_where("reports sent before they were due", soon, frames.name)
        if run.fixes is not None:
            _check_last(frames, delivered & (fate == 0), t_received_ns, run.fixes, problems)
    return [finding("order", problems.sentences(), f"{count} frames in the order and at times that can be")]


def _due(snapshot: Array, settings: EmulateSettings) -> Array:
    """Return the last snapshot of each snapshot's batch, with which it is due."""
    due: Array = np.minimum((snapshot // settings.batch + 1) * settings.batch, settings.snapshots) - 1
    return due


def _check_sequence(
    frames: LedgerFrames,
    down: Array,
    t_sent_ns: Array,
    last: dict[tuple[int, int, bool], tuple[int, int]],
    problems: Problems,
) -> None:
    """Check that frames of a start follow each other by number and time, from batch to batch."""
    begins = frames.begins
    bs, epoch, seq = (numbers(frames.rows, name)[begins] for name in ("bs", "epoch", "seq"))
    group = (bs << 17 | epoch << 1 | down[begins]).astype(np.int64)
    for one in np.unique(group).tolist():
        mine = np.flatnonzero(group == one)
        key = (one >> 17, one >> 1 & 0xFFFF, bool(one & 1))
        before_seq, before_ns = last.get(key, (-1, -(1 << 62)))
        at_ns = t_sent_ns[begins[mine]]
        wrong = (np.diff(seq[mine], prepend=before_seq) <= 0) | (np.diff(at_ns, prepend=before_ns) < 0)
        rows = np.zeros(len(frames.rows), np.bool_)
        rows[begins[mine[wrong]]] = True
        problems.add_where("frames that were sent before an earlier one", rows, frames.name)
        last[key] = int(seq[mine[-1]]), int(at_ns[-1])


def _check_last(
    frames: LedgerFrames,
    used: Array,
    t_received_ns: Array,
    fixes: pa.Table,
    problems: Problems,
) -> None:
    """Check used reports of the last round of a fix against when the fix says that the last of them arrived."""
    snapshots = numbers(frames.rows, "snapshot")
    chosen = np.flatnonzero(used)
    if not len(chosen) or not len(fixes):
        return
    fixed = numbers(fixes, "snapshot")
    order = np.argsort(fixed, kind="stable")
    at = np.minimum(np.searchsorted(fixed[order], snapshots[chosen]), len(fixed) - 1)
    chosen, fix = chosen[fixed[order[at]] == snapshots[chosen]], order[at][fixed[order[at]] == snapshots[chosen]]
    last_ns, came_ns = numbers(fixes, "t_last_received_ns")[fix], t_received_ns[chosen]
    in_last = numbers(frames.rows, "round")[chosen] == numbers(fixes, "rounds")[fix] - 1
    of_last = numbers(frames.rows, "bs")[chosen] == numbers(fixes, "last_bs")[fix]
    wrong = np.zeros(len(used), np.bool_)
    wrong[chosen[in_last & ((came_ns > last_ns) | of_last & (came_ns != last_ns))]] = True
    problems.add_where("used reports that arrived after the last of their fix", wrong, frames.name)


def check_links(run: RunTables) -> list[Finding]:
    """Draw the fates of frames on impaired links again."""
    settings = run.configuration.settings
    asked = [(bs, way) for bs in run.stations for way in Direction if settings.links.config(bs, way) is not None]
    if settings.netns or not asked:
        why = "the kernel shaped the links" if settings.netns else "no link was impaired"
        return [Finding("link model", "left out", why)]
    if run.summary is None:
        return [Finding("link model", "left out", "the run was cut, its time zero is not on disk")]
    problems, count = [], 0
    for bs, way in asked:
        config = settings.links.config(bs, way)
        if bs in run.ledgers and config is not None:
            header = run.transport.ip_header_bytes
            found, frames = drawn_problems(run.ledgers, bs, config, way, settings.seed, run.record.t0_ns, header)
            problems += [f"BS {bs} {way}: {problem}" for problem in found]
            count += frames
    told = f"{count} frames on {len(asked)} links were lost, copied and corrupted as drawn"
    return [finding("link model", problems, told)]


def _all_frames(run: RunTables, columns: Iterable[str]) -> Iterator[LedgerFrames]:
    for bs in run.ledgers.stations:
        yield from ledger_frames(run.ledgers, bs, tuple(columns))

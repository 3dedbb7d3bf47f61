"""Audit of a run's folder: every check that is possible without running again, with one finding per check.

The tables of a run hold the same facts several times: a ledger has a frame's bytes and their costs, connections have
the sums and the kernels' counts, captures have the frames again, the summary has the printed figures. An audit computes
each from another and reports where they differ. A run that was cut is audited on the ledgers that `inspect --recover`
closed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fronthaul.account.conservation import conservation
from fronthaul.account.costs import FrameCost, frame_costs
from fronthaul.account.ledger import close_ledger
from fronthaul.errors import LocalError
from fronthaul.log.stream_names import CAPTURE
from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.messages import Direction, Frame, PayloadFormat
from fronthaul.message.wire import CRC_BYTES, encode
from sim.inspect.captures import Expected, compare, read_capture
from sim.inspect.frames import frame_of
from sim.inspect.run_tables import Row, RunTables, of_table
from sim.records.folder import RunFolder
from sim.records.links import read_streams, read_table
from sim.records.stream_bytes import Connection, byte_problems

if TYPE_CHECKING:
    import pyarrow as pa

_COSTS = tuple(field.name for field in dataclasses.fields(FrameCost))


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        name: what was checked.
        state: "holds", "fails", or "left out" if the run has nothing to check.
        detail: figures, or what is wrong, in one line.
    """

    name: str
    state: Literal["holds", "fails", "left out"]
    detail: str


@dataclass(frozen=True)
class Audit:
    """All checks of a run.

    Attributes:
        findings: in the order in which they were made.
    """

    findings: tuple[Finding, ...]

    @property
    def failed(self) -> int:
        """Number of checks that fail."""
        return sum(finding.state == "fails" for finding in self.findings)

    @property
    def ok(self) -> bool:
        """Whether no check fails."""
        return self.failed == 0


def audit(folder: Path) -> Audit:
    """Check a run's folder.

    Raises:
        UserError: the folder is not a run's, it has no ledgers, or a table cannot be read.
    """
    run = RunTables(RunFolder(folder))
    return Audit(tuple(check(run) for check in _CHECKS))


def _fates(run: RunTables) -> Finding:
    checked = conservation(run.ledger, run.fixed)
    missing = [f"there is no ledger of BS {bs}" for bs in run.stations if bs not in run.ledgers]
    frames = ", ".join(f"{count} {fate}" for fate, count in checked.frames.items() if count)
    reports = ", ".join(f"{count} {fate}" for fate, count in checked.reports.items() if count)
    told = f"{checked.frames_journaled} frames ({frames}); {checked.reports_journaled} reports ({reports})"
    return _finding("fates", [*missing, *checked.problems], told)


def _fixes(run: RunTables) -> Finding:
    listed = sum(len(keys) for _, keys in run.fixed)
    told = f"{len(run.fixed)} fixes of {run.configuration.settings.snapshots} snapshots list {listed} reports"
    problems = _Cases()
    for snapshot, _ in run.fixed:
        if snapshot >= run.configuration.settings.snapshots:
            problems.add("snapshots that the run does not have", str(snapshot))
    if run.fixes is None:
        return _finding("fixes", problems.sentences(), f"{told}; the run was cut, errors are not on disk")
    table = run.fixes
    for snapshot, wrong in zip(table["snapshot"].to_pylist(), _wrong_errors(table), strict=True):
        if wrong:
            problems.add("errors that are not the distance of estimate and truth", f"snapshot {snapshot}")
    return _finding("fixes", problems.sentences(), told)


def _wrong_errors(table: pa.Table) -> Iterable[bool]:
    def difference() -> list[bool]:
        step = np.stack([table[f"{axis}_m"].to_numpy() - table[f"true_{axis}_m"].to_numpy() for axis in "xyz"])
        lengths = {
            "error_3d_m": np.linalg.norm(step, axis=0),
            "error_2d_m": np.linalg.norm(step[:2], axis=0),
            "error_vertical_m": np.abs(step[2]),
        }
        close = [np.isclose(table[name].to_numpy(), length, rtol=1e-9, atol=1e-9) for name, length in lengths.items()]
        return [not fine for fine in np.all(close, axis=0).tolist()]

    return of_table("fixes.parquet", difference)


def _checksums(run: RunTables) -> Finding:
    problems = _Cases()
    for rows in run.frames:
        frame = _frame(rows)
        if isinstance(frame, str):
            problems.add("frames that cannot be encoded again", f"{_name(rows[0])} ({frame})")
        elif {row["crc32"] for row in rows} != {int.from_bytes(encode(frame)[-CRC_BYTES:], "big")}:
            problems.add("frames whose CRC-32 is not that of their bytes", _name(rows[0]))
    return _finding("CRC-32", problems.sentences(), f"{len(run.frames)} frames encode again to their checksums")


def _costs(run: RunTables) -> Finding:
    problems = _Cases()
    total = 0
    for rows in run.frames:
        frame = _frame(rows)
        if isinstance(frame, str):
            continue  # reported by `_checksums`
        ordered = sorted(rows, key=lambda row: row["part"])
        for row, cost in zip(ordered, frame_costs(frame, run.transport), strict=True):
            total += cost.stream_bytes
            for name in _COSTS:
                if row[name] != getattr(cost, name):
                    problems.add(f"rows with another {name} than their frame costs", _name(row))
    told = f"{len(run.frames)} frames cost the {total} B that their ledgers say, drops included"
    return _finding("bytes of frames", problems.sentences(), told)


def _formats(run: RunTables) -> Finding:
    problems = _Cases()
    first, later = run.configuration.format, run.configuration.answer_format
    count = 0
    for rows in run.frames:
        for row in rows:
            if row["direction"] != Direction.UP:
                continue
            count += 1
            declared = later if row["round"] else first
            if declared is None:
                problems.add("answers in a run of one round", _name(row))
            elif not declared.min_bits <= row["payload_bits"] <= declared.max_bits:
                problems.add(f"reports of other than {_bits(declared)}", _name(row))
            elif row["side_bits"] != 8 * declared.side_bytes:
                problems.add(f"reports of other than {declared.side_bytes} B of side information", _name(row))
    answers = f", answers {_bits(later)}" if later else ""
    told = f"{count} reports carry the codec's {_bits(first)} and {first.side_bytes} B beside{answers}"
    return _finding("payload", problems.sentences(), told)


def _bits(declared: PayloadFormat) -> str:
    return f"{'' if declared.fixed else 'up to '}{declared.max_bits} bit"


def _sums(run: RunTables) -> Finding:
    problems = _Cases()
    data = {(link.bs, link.direction): link.stream_bytes for link in run.links}
    known = {connection.bs for connection in run.connections}
    for bs in run.stations:
        if bs not in known:
            problems.add("links without a row in connections.parquet", f"BS {bs}")
    for connection in run.connections:
        openings = run.transport.handshake_bytes(connection.bs)
        for way, direction, opening in zip((connection.up, connection.down), Direction, openings, strict=True):
            name = f"BS {connection.bs} {direction}"
            if way.data != data.get((connection.bs, direction), 0):
                problems.add("links whose frames are not what their ledger adds up to", name)
            if way.most != way.handshake + way.control + way.heartbeat + way.data or not 0 <= way.least <= way.most:
                problems.add("links whose parts do not add up to the prediction", name)
            # Links in memory count as one connection, if anybody used them.
            counts = {connection.connections} if connection.connections else {0, 1}
            if way.handshake not in {count * opening for count in counts}:
                problems.add("links with other handshakes than their connections make", name)
    total = sum(data.values())
    return _finding(
        "sums of links", problems.sentences(), f"{total} B of frames on {len(known)} links, as in the ledgers"
    )


def _kernels(run: RunTables) -> Finding:
    opened = [connection for connection in run.connections if connection.connections]
    if not opened:
        why = "no kernel noted a connection" if run.transport.kernel_counts else "which no kernel counts"
        return Finding("kernel", "left out", f"links over {run.transport.name}: {why}")
    problems = byte_problems(opened)
    problems += _socket_problems(run, opened)
    ways = [way for connection in opened for way in (connection.up, connection.down)]
    least, most = sum(way.least for way in ways), sum(way.most for way in ways)
    exact = sum(connection.exact for connection in opened)
    predicted = f"{most} B" if least == most else f"{least} to {most} B"
    cut = sum(connection.cut for connection in opened)
    told = f"{predicted} predicted on {len(opened)} links, {exact} of them counted to the byte, {cut} connections cut"
    return _finding("kernel", problems, told)


def _socket_problems(run: RunTables, opened: list[Connection]) -> list[str]:
    """Check the kernels' counts of links against the sums over their TCP connections."""
    rows = of_table(
        "sockets.parquet",
        lambda: [
            (row["end"], row["bs"], row["local"], row["remote"], row["sent_bytes"], row["received_bytes"])
            for row in read_table(run.folder.links / "sockets.parquet").to_pylist()
        ],
    )
    problems = _Cases()
    for connection in opened:
        edge = [row for row in rows if row[0] == "edge" and row[1] == connection.bs]
        ends = {(local, remote) for _, _, local, remote, _, _ in edge}
        cloud = [row for row in rows if row[0] == "cloud" and (row[1] == connection.bs or (row[3], row[2]) in ends)]
        for counted, sums, column in (
            (connection.up.kernel_sent, edge, 4),
            (connection.down.kernel_received, edge, 5),
            (connection.down.kernel_sent, cloud, 4),
            (connection.up.kernel_received, cloud, 5),
        ):
            if counted is not None and counted != sum(row[column] for row in sums):
                problems.add("links with another count than their sockets add up to", f"BS {connection.bs}")
    return problems.sentences()


def _captures(run: RunTables) -> Finding:
    if not run.configuration.settings.capture:
        return Finding("captures", "left out", "the run was made without")
    problems: list[str] = []
    frames = size = cut = 0
    for bs in run.stations:
        expected = list(_expected(run, bs))
        whole = run.folder.capture(bs)
        paths = [whole] if whole.exists() else run.folder.streams(CAPTURE, bs)
        if not paths:
            if expected:
                problems.append(f"there is no capture of BS {bs}")
            continue
        last = max([run.last_epoch(bs), *(frame.epoch for frame in expected)])
        out = run.was_cut or bs in ((run.summary or {}).get("missing_bs") or ())
        died = {frame.epoch: out or frame.epoch < last for frame in expected}
        messages = [message for path in paths for message in read_capture(path)]
        found = compare(messages, expected, _strays_down(run, bs), died)
        frames, size, cut = frames + found.frames, size + found.size, cut + found.cut
        problems += [f"BS {bs}: {problem}" for problem in found.problems]
    told = f"{frames} frames of {size} B, as in the ledgers without what the transport added"
    return _finding("captures", problems, told + (f"; {cut} died with their process" if cut else ""))


def _expected(run: RunTables, bs: int) -> Iterator[Expected]:
    for rows in run.frames_of.get(bs, []):
        row, frame = rows[0], _frame(rows)
        if isinstance(frame, Frame):
            times = (row["t_sent_ns"], row["t_received_ns"])
            fate = (row["frame_fate"], row["reason"])
            yield Expected(Direction(row["direction"]), row["epoch"], frame.seq, encode(frame), *times, *fate)


def _strays_down(run: RunTables, bs: int) -> int:
    ledger = run.ledgers.get(bs)
    if ledger is None:
        return 0
    rows = zip(ledger["direction"].to_pylist(), ledger["t_sent_ns"].to_pylist(), strict=True)
    return sum(direction == Direction.DOWN and t_ns is None for direction, t_ns in rows)


def _summary(run: RunTables) -> Finding:
    summary = run.summary
    if summary is None:
        return Finding("summary", "left out", "the run was cut before it")
    links, connections = run.links, run.connections
    totals: dict[str, Any] = {
        "fixes": len(run.fixed),
        "frames": {fate.value: sum(link.frames[fate] for link in links) for fate in FrameFate},
        "reports": {fate.value: sum(link.reports.get(fate, 0) for link in links) for fate in ReportFate},
        "bytes": {
            **{
                name: sum(getattr(link, f"{name}_bits") for link in links) / 8
                for name in ("payload", "side", "padding")
            },
            **{name: sum(getattr(link, f"{name}_bytes") for link in links) for name in ("header", "zmtp", "curve")},
            **{
                name: sum(getattr(way, name) for connection in connections for way in (connection.up, connection.down))
                for name in ("handshake", "heartbeat", "control")
            },
        },
    }
    problems = [
        f"{key} are {summary.get(key)}, in the tables {value}"
        for key, value in totals.items()
        if summary.get(key) != value
    ]
    mean = None if run.fixes is None or not len(run.fixes) else float(run.fixes["error_3d_m"].to_numpy().mean())
    said = (summary.get("error_3d_m") or {}).get("mean")
    if (mean is None) != (said is None) or not math.isclose(mean or 0.0, said or 0.0, rel_tol=1e-9):
        problems.append(f"the mean 3D error is {said} m, in the table of fixes {mean} m")
    return _finding(
        "summary", problems, f"fixes, fates, bytes and mean error ({_metres(mean)}) are those of the tables"
    )


def _journals(run: RunTables) -> Finding:
    if not run.was_cut:
        return Finding("journals", "left out", "the run ended well and keeps none")
    streams = read_streams(run.folder)
    used = {key for _, keys in run.fixed for key in keys}
    problems = []
    for bs, ledger in run.ledgers.items():
        link = streams.of(bs)
        if not close_ledger(link.journal, link.received, used).equals(ledger):
            problems.append(f"the ledger of {'unknown connections' if bs is None else f'BS {bs}'} is another one")
    return _finding("journals", problems, f"{len(run.ledgers)} ledgers are what journals and receive logs add up to")


_CHECKS: tuple[Callable[[RunTables], Finding], ...] = (
    _fates,
    _fixes,
    _checksums,
    _costs,
    _formats,
    _sums,
    _kernels,
    _captures,
    _summary,
    _journals,
)


class _Cases:
    """Cases grouped by the rule that they break, so that many cases give one sentence."""

    def __init__(self) -> None:
        self._cases: dict[str, list[str]] = {}

    def add(self, rule: str, case: str) -> None:
        self._cases.setdefault(rule, []).append(case)

    def sentences(self) -> list[str]:
        return [f"{rule}: {len(cases)}, first {cases[0]}" for rule, cases in self._cases.items()]


def _finding(name: str, problems: Iterable[str], told: str) -> Finding:
    problems = list(problems)
    return Finding(name, "fails", "; ".join(problems)) if problems else Finding(name, "holds", told)


def _frame(rows: list[Row]) -> Frame | str:
    """Return the frame of `rows`, or why it cannot be put together."""
    try:
        return frame_of(rows)
    except (LocalError, TypeError, ValueError) as error:
        return str(error)


def _name(row: Row) -> str:
    return f"BS {row['bs']} epoch {row['epoch']} {row['direction']} seq {row['seq']}"


def _metres(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f} m"

"""Audit of a run's folder: every check that is possible without running again, with one finding per check.

A run's tables hold what was recorded (ledgers, fixes, stage times, pings, sockets, events) and what follows from it
(costs, sums, errors, latencies, the summary). An audit computes what follows once more, by the code that wrote it, and
reports where the two differ; holds what was recorded against the captures, the kernels' counts, the link model's draws
and the test set; and checks the files against the manifest that the run ended with. A run that was cut is audited on
the ledgers that `inspect --recover` closed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fronthaul.account.conservation import CHECKED, Problems, codes, conservation
from fronthaul.account.costs import COSTS
from fronthaul.account.ledger import Closing
from fronthaul.account.streams import Array
from fronthaul.errors import LocalError
from fronthaul.log.stream_names import CAPTURE
from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.messages import Direction, PayloadFormat
from fronthaul.message.wire import BUNDLE_HEADER_BYTES, BUNDLE_KEY_BYTES, CRC_BYTES, HEADER_BYTES, MIXED_KEY_BYTES
from sim.errors import UserError
from sim.inspect.captures import Comparison, Expected, compare, read_capture
from sim.inspect.draws import drawn_problems
from sim.inspect.ledger_frames import BUILT_FROM, LedgerFrames, ledger_frames
from sim.inspect.run_tables import RunTables
from sim.plan.plan import load_test_set
from sim.plan.settings import EmulateSettings
from sim.records.fix_table import STAGES, UNCERTAINTY, distance_to_training, errors_of, fix_latencies
from sim.records.folder import RunConfiguration, RunFolder, truth_digest
from sim.records.links import numbers, read_streams, valid
from sim.records.manifest import Manifest
from sim.records.stream_bytes import Connection, byte_problems, read_socket_tables
from sim.records.summary import configured, measured
from sim.world.store import load_training_positions


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


def audit(folder: Path, key: bytes | None = None) -> Audit:
    """Check a run's folder.

    Args:
        folder: folder of the run.
        key: secret with which the manifest was signed; None leaves the signature out.

    Raises:
        UserError: the folder is not a run's, or it has no ledgers.
    """
    run = RunTables(RunFolder(folder))
    findings = [_checked("files", lambda: [_files(run, key)])]
    for name, check in _CHECKS:
        findings.append(_checked(name, functools.partial(check, run)))
    return Audit(tuple(finding for found in findings for finding in found))


def _checked(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Return what a check finds; a table that it cannot read is a finding, too."""
    try:
        return check()
    except UserError as error:
        return [Finding(name, "fails", str(error))]


def _files(run: RunTables, key: bytes | None) -> Finding:
    manifest = Manifest(run.folder.path)
    if run.was_cut:
        return Finding("files", "left out", "the run was cut before its manifest")
    return _finding("files", *manifest.problems(key))


def _fates(run: RunTables) -> list[Finding]:
    checked = conservation((run.ledgers.table(bs, CHECKED) for bs in run.ledgers), run.used)
    missing = [f"there is no ledger of BS {bs}" for bs in run.stations if bs not in run.ledgers]
    frames = ", ".join(f"{count} {fate}" for fate, count in checked.frames.items() if count)
    reports = ", ".join(f"{count} {fate}" for fate, count in checked.reports.items() if count)
    told = f"{checked.frames_journaled} frames ({frames}); {checked.reports_journaled} reports ({reports})"
    return [_finding("fates", [*missing, *checked.problems], told)]


def _fixes(run: RunTables) -> list[Finding]:
    settings, table = run.configuration.settings, run.fixes
    told = f"{len(run.used.snapshots)} fixes of {settings.snapshots} snapshots list {len(run.used.bs)} reports"
    problems = Problems()

    def add(rule: str, broken: Array) -> None:
        problems.add_where(rule, broken, lambda at: f"snapshot {run.used.snapshots[at]}")

    add("snapshots that the run does not have", run.used.snapshots >= settings.snapshots)
    if table is None:
        return [_finding("fixes", problems.sentences(), f"{told}; the run was cut, errors are not on disk")]
    add("fixes that are not in the order of their snapshots", np.diff(run.used.snapshots, prepend=-1) <= 0)
    with _reading("fixes.parquet"):
        step = np.stack([_floats(table, f"{axis}_m") - _floats(table, f"true_{axis}_m") for axis in "xyz"], 1)
        for name, length in errors_of(step).items():
            wrong = ~np.isclose(_floats(table, name), length, rtol=1e-9, atol=1e-9)
            add(f"{name} that is not the distance of estimate and truth", wrong)
        t_zero_ns = run.record.t0_ns + run.used.snapshots * settings.interval_ns
        add("time zeros that are not on schedule", numbers(table, "t_zero_ns") != t_zero_ns)
        for name in ("t_last_received_ns", "t_fuse_ns"):
            add(f"{name} after the fix", numbers(table, name) > numbers(table, "t_fix_ns"))
        again = fix_latencies(run.books, table, t_zero_ns, open_loop=settings.interval_ns > 0)
        for name in (*STAGES, UNCERTAINTY):
            same = np.asarray(pc.fill_null(pc.equal(table[f"{name}_ns"], again[name]), False))
            both_null = ~valid(table, f"{name}_ns") & np.asarray(again[name].is_null())
            add(f"{name} times that do not follow from the tables", ~(same | both_null))
    return [_finding("fixes", problems.sentences(), f"{told}, with their errors and latencies")]


def _truth(run: RunTables) -> list[Finding]:
    """Hold the true positions against those of the test set, which the configuration names by their digest."""
    configuration, table = run.configuration, run.fixes
    if table is None or configuration.truth_digest is None:
        return [Finding("truth", "left out", "there is none on disk" if table is None else "the run kept no digest")]
    problems = Problems()
    with _reading("fixes.parquet"):
        sample = numbers(table, "sample")
        truth = np.stack([_floats(table, f"true_{axis}_m") for axis in "xyz"], 1)
    whose = run.used.snapshots % max(1, configuration.users) == sample
    problems.add_where("fixes of another user than their snapshot's", ~whose, lambda at: f"fix {at}")
    position = _positions(run)
    if position is None:
        position = np.full((configuration.users, 3), np.nan)
        position[sample[whose]] = truth[whose]
        if np.isnan(position).any():
            return [
                _finding("truth", problems.sentences(), "")
                if problems.sentences()
                else Finding("truth", "left out", "the test set is not here, and not all of its users have a fix")
            ]
        if truth_digest(position) != configuration.truth_digest:
            problems.add("test sets of another digest than the run's", "the true positions")
    wrong = whose & (position[sample * whose] != truth).any(axis=1)
    problems.add_where("true positions that are not the test set's", wrong, lambda at: f"fix {at}")
    training = load_training_positions(configuration.scenario, configuration.settings.test)
    if training is not None:
        far = pa.array(distance_to_training(training, truth), pa.float64())
        off = ~np.isclose(_floats(table, "training_distance_m"), np.asarray(far), rtol=1e-9, equal_nan=True)
        problems.add_where("distances to other training positions", off, lambda at: f"fix {at}")
    return [_finding("truth", problems.sentences(), f"the positions of {configuration.users} test users, by digest")]


def _positions(run: RunTables) -> npt.NDArray[np.float64] | None:
    """Return the positions of the run's test users; None if its test set is not on this machine."""
    configuration = run.configuration
    try:
        _, paths = load_test_set(configuration.scenario, configuration.settings)
    except UserError:
        return None
    position = paths.position[: configuration.users]
    return position if truth_digest(position) == configuration.truth_digest else None


def _bytes(run: RunTables) -> list[Finding]:
    """Put all frames together again, for their checksums and for the captures."""
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
    found = [_finding("CRC-32", problems.sentences(), told)]
    if not run.configuration.settings.capture:
        return [*found, Finding("captures", "left out", "the run was made without")]
    size, cut = sum(one.size for one in captures), sum(one.cut for one in captures)
    told = f"{sum(one.frames for one in captures)} frames of {size} B, as in the ledgers"
    return [*found, _finding("captures", odd, told + (f"; {cut} died with their process" if cut else ""))]


_CAPTURED = ("crc32", "t_release_ns", "t_received_ns", "frame_fate", "reason")


def _expected(run: RunTables, bs: int, problems: Problems) -> Iterator[Expected]:
    """Yield a link's frames as a capture has them; note those whose checksum is not that of their bytes."""
    for frames in ledger_frames(run.ledgers, bs, (*BUILT_FROM, *_CAPTURED)) if bs in run.ledgers else ():
        yield from _encoded(frames, problems)


def _encoded(frames: LedgerFrames, problems: Problems) -> Iterator[Expected]:
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
        yield Expected(direction, epoch, seq, data, *rest)


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


def _costs(run: RunTables) -> list[Finding]:
    problems, total, count = Problems(), 0, 0
    for frames in _all_frames(run, COSTS):
        frame, rows = frames.frame, frames.rows
        first = np.zeros(len(rows), np.bool_)
        first[frames.begins] = True
        parts = np.bincount(frame)[frame]
        bits, side = numbers(rows, "payload_bits"), numbers(rows, "side_bits") // 8
        low, high = np.minimum.reduceat(bits, frames.begins), np.maximum.reduceat(bits, frames.begins)
        own = np.where(parts == 1, 0, np.where((low == high)[frame], BUNDLE_KEY_BYTES, MIXED_KEY_BYTES))
        shared = np.where(parts == 1, HEADER_BYTES, BUNDLE_HEADER_BYTES) + CRC_BYTES
        header = own + np.where(first, shared, 0)
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
    return [_finding("bytes of frames", problems.sentences(), told)]


def _formats(run: RunTables) -> list[Finding]:
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
    return [_finding("payload", problems.sentences(), told)]


def _bits(declared: PayloadFormat) -> str:
    return f"{'' if declared.fixed else 'up to '}{declared.max_bits} bit"


def _order(run: RunTables) -> list[Finding]:
    """Check the order of rows and of times, as far as one clock tells them."""
    problems, count = Problems(), 0
    settings = run.configuration.settings
    t0_ns = None if run.summary is None else run.record.t0_ns
    last: dict[tuple[int, int, bool], tuple[int, int]] = {}  # by start and direction: seq and time of the last frame
    one_clock = run.was_cut or all(clock is None for clock in run.books.clocks.values())
    fixed = dict(zip(run.used.snapshots.tolist(), range(len(run.used.snapshots)), strict=True))
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
            _check_last(frames, delivered & (fate == 0), t_received_ns, run.fixes, fixed, problems)
    return [_finding("order", problems.sentences(), f"{count} frames in the order and at times that can be")]


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
    fixed: dict[int, int],
    problems: Problems,
) -> None:
    """Check used reports of the last round of a fix against when the fix says that the last of them arrived."""
    snapshots = numbers(frames.rows, "snapshot")
    chosen = np.flatnonzero(used)
    fix = np.array([fixed.get(snapshot, -1) for snapshot in snapshots[chosen].tolist()], np.int64)
    chosen, fix = chosen[fix >= 0], fix[fix >= 0]
    last_ns, came_ns = numbers(fixes, "t_last_received_ns")[fix], t_received_ns[chosen]
    in_last = numbers(frames.rows, "round")[chosen] == numbers(fixes, "rounds")[fix] - 1
    of_last = numbers(frames.rows, "bs")[chosen] == numbers(fixes, "last_bs")[fix]
    wrong = np.zeros(len(used), np.bool_)
    wrong[chosen[in_last & ((came_ns > last_ns) | of_last & (came_ns != last_ns))]] = True
    problems.add_where("used reports that arrived after the last of their fix", wrong, frames.name)


def _links(run: RunTables) -> list[Finding]:
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
            found, frames = drawn_problems(run.ledgers, bs, config, way, settings.seed, run.record.t0_ns)
            problems += [f"BS {bs} {way}: {problem}" for problem in found]
            count += frames
    told = f"{count} frames on {len(asked)} links were lost, copied and corrupted as drawn"
    return [_finding("link model", problems, told)]


def _sums(run: RunTables) -> list[Finding]:
    problems = Problems()
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
            parts = way.handshake + way.control + way.heartbeat + way.data + way.stray
            if way.most != parts or not 0 <= way.least <= way.most:
                problems.add("links whose parts do not add up to the prediction", name)
            # Links in memory count as one connection, if anybody used them.
            counts = {connection.connections} if connection.connections else {0, 1}
            if way.handshake not in {count * opening for count in counts}:
                problems.add("links with other handshakes than their connections make", name)
    told = f"{sum(data.values())} B of frames on {len(known)} links, as in the ledgers"
    return [_finding("sums of links", problems.sentences(), told)]


def _kernels(run: RunTables) -> list[Finding]:
    opened = [connection for connection in run.connections if connection.connections]
    if not opened:
        why = "no kernel noted a connection" if run.transport.kernel_counts else "which no kernel counts"
        return [Finding("kernel", "left out", f"links over {run.transport.name}: {why}")]
    problems = [*byte_problems(opened), *_socket_problems(run, opened)]
    ways = [way for connection in opened for way in (connection.up, connection.down)]
    least, most = sum(way.least for way in ways), sum(way.most for way in ways)
    exact = sum(connection.exact for connection in opened)
    predicted = f"{most} B" if least == most else f"{least} to {most} B"
    cut = sum(connection.cut for connection in opened)
    told = f"{predicted} predicted on {len(opened)} links, {exact} of them counted to the byte, {cut} connections cut"
    return [_finding("kernel", problems, told)]


def _socket_problems(run: RunTables, opened: list[Connection]) -> tuple[str, ...]:
    """Check the kernels' counts of links against the sums over their TCP connections."""
    sockets = read_socket_tables(run.folder)
    edges, clouds = sockets.edge.to_pylist(), sockets.cloud.to_pylist()
    problems = Problems()
    for connection in opened:
        edge = [row for row in edges if row["bs"] == connection.bs]
        ends = {(row["local"], row["remote"]) for row in edge}
        cloud = [row for row in clouds if row["bs"] == connection.bs or (row["remote"], row["local"]) in ends]
        for counted, sums, column in (
            (connection.up.kernel_sent, edge, "sent_bytes"),
            (connection.down.kernel_received, edge, "received_bytes"),
            (connection.down.kernel_sent, cloud, "sent_bytes"),
            (connection.up.kernel_received, cloud, "received_bytes"),
        ):
            if counted is not None and counted != sum(row[column] for row in sums):
                problems.add("links with another count than their sockets add up to", f"BS {connection.bs}")
    return problems.sentences()


def _summary(run: RunTables) -> list[Finding]:
    """Compute the summary once more from configuration and tables."""
    if run.summary is None or run.fixes is None:
        return [Finding("summary", "left out", "the run was cut before it")]
    configuration, books = run.configuration, run.books
    checked = books.conservation()
    again = {
        **configured(configuration),
        "scenario": configuration.scenario.name,
        "scheme": configuration.settings.scheme,
        **measured(configuration, run.record, run.fixes, books, checked),
    }
    problems = [
        difference
        for name, value in json.loads(json.dumps(again)).items()
        if (difference := _difference(name, run.summary.get(name), value)) is not None
    ]
    problems += _unfit_format(configuration)
    return [_finding("summary", problems, f"{len(again)} entries are what configuration and tables give")]


def _difference(name: str, said: Any, computed: Any) -> str | None:
    """Return a sentence on the first difference between two values of a summary; None if there is none."""
    if isinstance(said, dict) and isinstance(computed, dict):
        names = [*computed, *(key for key in said if key not in computed)]
        found = (_difference(f"{name}.{key}", said.get(key), computed.get(key)) for key in names)
        return next((one for one in found if one is not None), None)
    if isinstance(said, list) and isinstance(computed, list) and len(said) == len(computed):
        found = (_difference(f"{name}[{n}]", *pair) for n, pair in enumerate(zip(said, computed, strict=True)))
        return next((one for one in found if one is not None), None)
    same = said == computed and type(said) is type(computed)
    if isinstance(said, float) and isinstance(computed, int | float):  # sums may be taken in another order
        same = bool(np.isclose(said, computed, rtol=1e-9, atol=0.0))
    return None if same else f"{name} is {said}, by configuration and tables {computed}"


def _unfit_format(configuration: RunConfiguration) -> list[str]:
    """Return what is wrong with the recorded payload format, given the settings; schemes of unfixed bits have none."""
    bits, declared = configuration.settings.bits, configuration.format
    if bits is None or not declared.fixed or declared.width in (1, bits):
        return []
    return [f"run.toml declares indices of {declared.width} bit, but B = {bits}"]


def _journals(run: RunTables) -> list[Finding]:
    if not run.was_cut:
        return [Finding("journals", "left out", "the run ended well and keeps none")]
    streams, problems = read_streams(run.folder), []
    again = {bs: run.ledgers.batches(bs) for bs in run.ledgers}
    rest: dict[int | None, pa.Table] = {}
    odd: set[int | None] = set()
    try:
        for bs, rows in Closing(streams.journals, streams.logs, run.used).rows():
            if bs in odd or not _continues(bs, rows, again, rest):
                odd.add(bs)
    except LocalError as error:
        problems.append(str(error))
    odd |= {bs for bs in again if bs not in odd and (len(rest.get(bs, ())) or any(map(len, again[bs])))}
    problems += [f"the ledger of {'unknown connections' if bs is None else f'BS {bs}'} is another one" for bs in odd]
    told = f"{len(run.ledgers)} ledgers are what journals and receive logs add up to"
    return [_finding("journals", problems, told)]


def _continues(
    bs: int | None,
    rows: pa.RecordBatch,
    ledgers: dict[int | None, Iterator[pa.RecordBatch]],
    rest: dict[int | None, pa.Table],
) -> bool:
    """Return whether a ledger goes on with these rows; what was read beyond them is left in `rest`."""
    if bs not in ledgers:
        return False
    have = rest.get(bs, pa.Table.from_batches([], rows.schema))
    while len(have) < len(rows) and (more := next(ledgers[bs], None)) is not None:
        have = pa.concat_tables([have, pa.Table.from_batches([more])])
    rest[bs] = have.slice(len(rows))
    same: bool = have.slice(0, len(rows)).equals(pa.Table.from_batches([rows]))
    return same


_CHECKS: tuple[tuple[str, Callable[[RunTables], list[Finding]]], ...] = (
    ("fates", _fates),
    ("fixes", _fixes),
    ("truth", _truth),
    ("CRC-32", _bytes),
    ("bytes of frames", _costs),
    ("payload", _formats),
    ("order", _order),
    ("link model", _links),
    ("sums of links", _sums),
    ("kernel", _kernels),
    ("summary", _summary),
    ("journals", _journals),
)


def _all_frames(run: RunTables, columns: Iterable[str]) -> Iterator[LedgerFrames]:
    for bs in run.ledgers.stations:
        yield from ledger_frames(run.ledgers, bs, tuple(columns))


def _floats(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    return np.asarray(table[name].cast(pa.float64()).fill_null(np.nan))


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Name the table whose columns are missing or of another kind.

    Raises:
        UserError: they are.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{name} is damaged: {error}.") from error


def _finding(name: str, problems: Iterable[str], told: str) -> Finding:
    problems = list(problems)
    return Finding(name, "fails", "; ".join(problems)) if problems else Finding(name, "holds", told)

"""Checks of an audit on whole tables: fates, fixes, truth, sums, kernel counts, summary, journals of a cut run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fronthaul.account.conservation import CHECKED, Problems, codes, conservation
from fronthaul.account.ledger import Closing
from fronthaul.account.streams import Array
from fronthaul.errors import LocalError
from fronthaul.message.messages import Direction
from sim.inspect.finding import Finding, finding, floats, reading
from sim.inspect.run_tables import RunTables
from sim.records.fix_table import (
    STAGES,
    UNCERTAINTY,
    dilution_of,
    distance_to_training,
    errors_of,
    fix_latencies,
    true_positions,
)
from sim.records.folder import RunConfiguration, truth_digest
from sim.records.links import numbers, read_streams, read_table, report_keys, valid
from sim.records.position_table import position_table
from sim.records.stream_bytes import Connection, byte_problems, read_socket_tables
from sim.records.summary import configured, measured
from sim.world.store import load_training_positions


def check_fates(run: RunTables) -> list[Finding]:
    """Check that the ledgers add up, with each other and with the fixes."""
    checked = conservation((run.ledgers.table(bs, CHECKED) for bs in run.ledgers), run.used)
    missing = [f"there is no ledger of BS {bs}" for bs in run.stations if bs not in run.ledgers]
    frames = ", ".join(f"{count} {fate}" for fate, count in checked.frames.items() if count)
    reports = ", ".join(f"{count} {fate}" for fate, count in checked.reports.items() if count)
    told = f"{checked.frames_journaled} frames ({frames}); {checked.reports_journaled} reports ({reports})"
    return [finding("fates", [*missing, *checked.problems], told)]


def check_fixes(run: RunTables) -> list[Finding]:
    """Compute errors and latencies of all fixes again."""
    settings, table = run.configuration.settings, run.fixes
    told = f"{len(run.used.snapshots)} fixes of {settings.snapshots} snapshots list {len(run.used.bs)} reports"
    problems = Problems()

    def add(rule: str, broken: Array) -> None:
        problems.add_where(rule, broken, lambda at: f"snapshot {run.used.snapshots[at]}")

    add("snapshots that the run does not have", run.used.snapshots >= settings.snapshots)
    if table is None:
        return [finding("fixes", problems.sentences(), f"{told}; the run was cut, errors are not on disk")]
    add("fixes that are not in the order of their snapshots", np.diff(run.used.snapshots, prepend=-1) <= 0)
    least = np.ones(len(run.used.snapshots), np.int64)  # a rule may exclude all reports of its last round
    np.maximum.at(least, run.used.fix, run.used.round.astype(np.int64) + 1)
    with reading("fixes.parquet"):
        step = np.stack([floats(table, f"{axis}_m") - floats(table, f"true_{axis}_m") for axis in "xyz"], 1)
        for name, length in errors_of(step).items():
            wrong = ~np.isclose(floats(table, name), length, rtol=1e-9, atol=1e-9)
            add(f"{name} that is not the distance of estimate and truth", wrong)
        t_zero_ns = run.record.t0_ns + run.used.snapshots * settings.interval_ns
        add("time zeros that are not on schedule", numbers(table, "t_zero_ns") != t_zero_ns)
        gdop = pa.table({"gdop": dilution_of(run.configuration.scenario, true_positions(table), run.used)})
        same = np.isclose(floats(table, "gdop"), floats(gdop, "gdop"), rtol=1e-9, equal_nan=True)
        add("gdop that does not follow from sites and truth", ~same)
        rounds, one_round = numbers(table, "rounds"), run.configuration.answer_format is None
        add("rounds that contradict the used reports", (rounds < least) | (one_round & (rounds != 1)))
        for name in ("t_last_received_ns", "t_fuse_ns"):
            add(f"{name} after the fix", numbers(table, name) > numbers(table, "t_fix_ns"))
        again = fix_latencies(run.books, table, t_zero_ns, open_loop=settings.interval_ns > 0)
        for name in (*STAGES, UNCERTAINTY):
            same = np.asarray(pc.fill_null(pc.equal(table[f"{name}_ns"], again[name]), False))
            both_null = ~valid(table, f"{name}_ns") & np.asarray(again[name].is_null())
            add(f"{name} times that do not follow from the tables", ~(same | both_null))
    return [finding("fixes", problems.sentences(), f"{told}, with their errors and latencies")]


def check_stages(run: RunTables) -> list[Finding]:
    """Hold stage times against the reports that were sent: one row of each, unless a process died between the two."""
    path, summary = run.folder.stages, run.summary
    if summary is None or not path.exists():
        return [Finding("stages", "left out", "the run was cut" if summary is None else "there are none")]
    problems, table = Problems(), read_table(path)
    with reading(path.name):
        bs, keys = numbers(table, "bs"), report_keys(table)
    order = np.lexsort((keys, bs))
    bs, keys = bs[order], keys[order]

    def add(rule: str, which: Array) -> None:
        problems.add_where(rule, which, lambda at: f"BS {bs[at]} snapshot {keys[at] >> 8 & 0xFFFFFFFF}")

    add("stage times given twice", np.append(False, (np.diff(bs) == 0) & (np.diff(keys) == 0))[: len(keys)])
    if not (summary.get("restarts") or summary.get("missing_bs")):
        add("stage times of no link", ~np.isin(bs, run.ledgers.stations))
        for station in run.ledgers.stations:
            mine = keys[np.searchsorted(bs, station) : np.searchsorted(bs, station, "right")]
            sent = _reports_sent(run, station)
            for rule, known in (
                ("stage times of no report", np.isin(mine, sent)),
                ("reports without stage times", np.isin(sent, mine)),
            ):
                if not known.all():
                    problems.add(rule, f"BS {station}", int(np.count_nonzero(~known)))
    return [finding("stages", problems.sentences(), f"{len(table)} stage times of reports, none of them twice")]


def _reports_sent(run: RunTables, bs: int) -> Array:
    """Return the keys of the reports in a base station's journal."""
    found = [np.zeros(0, np.int64)]
    for rows in run.ledgers.batches(bs, ("epoch", "snapshot", "round", "direction", "t_sent_ns")):
        mine = (codes(rows["direction"], [Direction.UP]) == 0) & valid(rows, "t_sent_ns")
        found.append(np.unique(report_keys(rows)[mine]))
    return np.concatenate(found)


def check_truth(run: RunTables) -> list[Finding]:
    """Hold the true positions against those of the test set, which the configuration names by their digest."""
    configuration, table = run.configuration, run.fixes
    if table is None or configuration.truth_digest is None:
        return [Finding("truth", "left out", "there is none on disk" if table is None else "the run kept no digest")]
    problems = Problems()
    with reading("fixes.parquet"):
        sample = numbers(table, "sample")
        truth = np.stack([floats(table, f"true_{axis}_m") for axis in "xyz"], 1)
    whose = run.used.snapshots % max(1, configuration.users) == sample
    problems.add_where("fixes of another user than their snapshot's", ~whose, lambda at: f"fix {at}")
    position = None if run.test_paths is None else run.test_paths.position
    if position is None:
        position = np.full((configuration.users, 3), np.nan)
        position[sample[whose]] = truth[whose]
        if np.isnan(position).any():
            return [
                finding("truth", problems.sentences(), "")
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
        off = ~np.isclose(floats(table, "training_distance_m"), np.asarray(far), rtol=1e-9, equal_nan=True)
        problems.add_where("distances to other training positions", off, lambda at: f"fix {at}")
    return [finding("truth", problems.sentences(), f"the positions of {configuration.users} test users, by digest")]


def check_positions(run: RunTables) -> list[Finding]:
    """Compute what the world says about each test position again, from the paths of the test set."""
    path, paths = run.folder.positions, run.test_paths
    if not path.exists() or paths is None:
        return [Finding("positions", "left out", "the test set is not here" if path.exists() else "there are none")]
    problems, table = Problems(), read_table(path)
    again = position_table(run.configuration.scenario, paths, run.stations)
    if len(table) != len(again):
        problems.add("numbers of rows that are not users times sites", str(len(table)))
    else:
        with reading(path.name):
            for name in again.column_names:
                same = np.isclose(floats(table, name), floats(again, name), rtol=1e-9, equal_nan=True)
                problems.add_where(f"{name} that does not follow from the test set", ~same, lambda at: f"row {at}")
    return [finding("positions", problems.sentences(), f"{len(again)} links of test positions, from their paths")]


def check_sums(run: RunTables) -> list[Finding]:
    """Add up the predicted bytes of each link again."""
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
    return [finding("sums of links", problems.sentences(), told)]


def check_kernels(run: RunTables) -> list[Finding]:
    """Compare predicted bytes with the kernels' counts."""
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
    return [finding("kernel", problems, told)]


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


def check_summary(run: RunTables) -> list[Finding]:
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
    return [finding("summary", problems, f"{len(again)} entries are what configuration and tables give")]


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


def check_journals(run: RunTables) -> list[Finding]:
    """Close the ledgers of a run that was cut once more."""
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
    return [finding("journals", problems, told)]


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

"""Checks that a ledger adds up (docs/fronthaul.md, "Deadlines and fates").

Per link, journaled frames = delivered + duplicate + corrupt + rejected + dropped; journaled reports = used +
unused + late + lost; no snapshot is fused twice; a fix lists exactly its used reports. A frame is counted once,
by its part 0, and all of its parts have the same fate.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.messages import Direction, ReportKey

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Conservation:
    """The totals of a ledger, and the rules that it breaks.

    Attributes:
        frames_journaled: number of frames in the senders' journals.
        frames: their number by fate; every fate is a key.
        strays: number of frames that arrived without being journaled, by fate.
        reports_journaled: number of reports in journaled frames.
        reports: their number by fate; every fate is a key.
        problems: one sentence for each broken rule, with the number of cases and the first; empty if none is broken.
    """

    frames_journaled: int
    frames: Mapping[FrameFate, int]
    strays: Mapping[FrameFate, int]
    reports_journaled: int
    reports: Mapping[ReportFate, int]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether no rule is broken."""
        return not self.problems


class _Problems:
    """Violations grouped by rule, so that a million of them give one sentence."""

    def __init__(self) -> None:
        self._cases: dict[str, list[str]] = defaultdict(list)

    def add(self, rule: str, case: str) -> None:
        self._cases[rule].append(case)

    def sentences(self) -> tuple[str, ...]:
        return tuple(f"{rule}: {len(cases)}, first {cases[0]}" for rule, cases in self._cases.items())


def conservation(
    ledger: pa.Table,
    fixes: Iterable[tuple[int, Collection[ReportKey]]] | None = None,
) -> Conservation:
    """Check that a ledger adds up.

    Args:
        ledger: `ledger.ledger_schema()`, of one link or of many.
        fixes: snapshot and used reports (of all rounds) of each fix, to check against the ledger of all links; None
            skips this check.

    Returns:
        The totals and the broken rules; a ledger that does not add up raises no exception.
    """
    payload_columns = ["side", "payload"]
    rows: list[Row] = ledger.drop_columns(payload_columns).to_pylist()
    parts = [row for row in rows if row["t_sent_ns"] is not None]
    journaled = [row for row in parts if row["part"] == 0]
    strays = [row for row in rows if row["t_sent_ns"] is None]
    problems = _Problems()
    _check_frames(journaled, problems)
    _check_numbering(journaled, problems)
    _check_parts(parts, problems)
    for row in strays:
        if row["frame_fate"] in (FrameFate.DELIVERED, FrameFate.DUPLICATE):
            problems.add("authentic frames that are in no journal", _frame_name(row))
    fate_of = _check_reports(parts, problems)
    if fixes is not None:
        _check_fixes(fixes, fate_of, problems)
    frame_counts = Counter(row["frame_fate"] for row in journaled)
    stray_counts = Counter(row["frame_fate"] for row in strays)
    report_counts = Counter(fate_of.values())
    return Conservation(
        frames_journaled=len(journaled),
        frames={fate: frame_counts[fate] for fate in FrameFate},
        strays={fate: stray_counts[fate] for fate in FrameFate},
        reports_journaled=len(fate_of),
        reports={fate: report_counts[fate] for fate in ReportFate},
        problems=problems.sentences(),
    )


def _check_frames(journaled: list[Row], problems: _Problems) -> None:
    fates = set(FrameFate)
    for row in journaled:
        if row["frame_fate"] not in fates:
            problems.add("journaled frames without a fate", _frame_name(row))
        elif (row["frame_fate"] == FrameFate.DROPPED) != (row["t_received_ns"] is None):
            problems.add("frames with a time of arrival but dropped, or the reverse", _frame_name(row))
        elif row["frame_fate"] in (FrameFate.DELIVERED, FrameFate.DUPLICATE) and row["reason"] is not None:
            problems.add("frames that arrived although the link model dropped them", _frame_name(row))


def _check_numbering(journaled: list[Row], problems: _Problems) -> None:
    seqs: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for row in journaled:
        seqs[row["bs"], row["epoch"], row["direction"]].append(row["seq"])
    for (bs, epoch, direction), numbers in seqs.items():
        link = f"BS {bs} epoch {epoch} {direction}"
        if len(set(numbers)) != len(numbers):
            problems.add("links that used a seq twice", link)
        if max(numbers) - min(numbers) + 1 != len(set(numbers)):
            problems.add("links whose journal has gaps in seq", link)


def _check_parts(parts: list[Row], problems: _Problems) -> None:
    frames: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in parts:
        frames[row["bs"], row["epoch"], row["direction"], row["seq"]].append(row)
    for rows in frames.values():
        if len({row["frame_fate"] for row in rows}) > 1:
            problems.add("frames with several fates", _frame_name(rows[0]))
        numbers = {row["part"] for row in rows}
        if numbers != set(range(len(numbers))):
            problems.add("frames of which parts are missing", _frame_name(rows[0]))


def _check_reports(parts: list[Row], problems: _Problems) -> dict[ReportKey, str | None]:
    """Return the fate of each journaled report."""
    frames: dict[ReportKey, list[Row]] = defaultdict(list)
    for row in parts:
        if row["direction"] == Direction.UP:
            frames[ReportKey(row["bs"], row["epoch"], row["snapshot"], row["round"])].append(row)
    fate_of: dict[ReportKey, str | None] = {}
    for report, rows in frames.items():
        fates = {row["report_fate"] for row in rows}
        delivered = sum(row["frame_fate"] == FrameFate.DELIVERED for row in rows)
        fate = fate_of[report] = rows[0]["report_fate"]
        if fates - set(ReportFate):
            problems.add("journaled reports without a fate", str(report))
        elif len(fates) > 1:
            problems.add("reports with several fates", str(report))
        elif delivered > 1:
            problems.add("reports delivered more than once", str(report))
        elif (fate == ReportFate.LOST) != (delivered == 0):
            problems.add("reports lost but delivered, or the reverse", str(report))
        elif not delivered and any(row["frame_fate"] == FrameFate.DUPLICATE for row in rows):
            problems.add("reports with a duplicate but no delivered frame", str(report))
    return fate_of


def _check_fixes(
    fixes: Iterable[tuple[int, Collection[ReportKey]]],
    fate_of: Mapping[ReportKey, str | None],
    problems: _Problems,
) -> None:
    fused: set[int] = set()
    listed: Counter[ReportKey] = Counter()
    for snapshot, reports in fixes:
        if snapshot in fused:
            problems.add("snapshots fused twice", str(snapshot))
        fused.add(snapshot)
        listed.update(reports)
        for report in reports:
            if report.snapshot != snapshot:
                problems.add("fixes that list a report of another snapshot", f"{report} in {snapshot}")
    for report, times in listed.items():
        if times > 1:
            problems.add("reports that several fixes list", str(report))
        if fate_of.get(report) != ReportFate.USED:
            problems.add("reports in a fix that are not used", str(report))
    for report, fate in fate_of.items():
        if fate == ReportFate.USED and report not in listed:
            problems.add("used reports that no fix lists", str(report))


def _frame_name(row: Row) -> str:
    return f"BS {row['bs']} epoch {row['epoch']} {row['direction']} seq {row['seq']}"

"""Checks that a ledger adds up (docs/fronthaul.md, "Deadlines and fates").

Per link, journaled frames = delivered + duplicate + corrupt + rejected + dropped; journaled reports = used +
unused + late + lost; no snapshot is fused twice; a fix lists exactly its used reports. A frame is counted once,
by its part 0, and all of its parts have the same fate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fronthaul.account.used import UsedReports
from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.messages import Direction, ReportKey

if TYPE_CHECKING:
    import pyarrow as pa

Array = npt.NDArray[Any]


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


class Problems:
    """Cases grouped by the rule that they break, so that a million of them give one sentence."""

    def __init__(self) -> None:
        """Start without any."""
        self._cases: dict[str, tuple[int, str]] = {}

    def add(self, rule: str, case: str, count: int = 1) -> None:
        """Note `count` cases of a broken rule, of which `case` is the first."""
        before, first = self._cases.get(rule, (0, case))
        self._cases[rule] = before + count, first

    def add_where(self, rule: str, broken: Array, name: Callable[[int], str]) -> None:
        """Note the cases in which `broken` is true; `name` names one by its index."""
        if broken.any():
            self.add(rule, name(int(np.argmax(broken))), int(broken.sum()))

    def sentences(self) -> tuple[str, ...]:
        """Return one sentence for each rule, with the number of cases and the first."""
        return tuple(f"{rule}: {count}, first {first}" for rule, (count, first) in self._cases.items())


CHECKED = (
    *("bs", "epoch", "snapshot", "round", "seq", "part", "direction", "t_sent_ns", "t_received_ns"),
    *("frame_fate", "report_fate", "reason"),
)
"""The columns of a ledger that `conservation` looks at."""


def conservation(ledgers: Iterable[pa.Table], fixes: UsedReports | None = None) -> Conservation:
    """Check that ledgers add up.

    Args:
        ledgers: tables with the columns `CHECKED`, taken one after the other; all rows of a base station are in one.
        fixes: used reports (of all rounds) of each fix, to check against the ledgers of all links; None skips this
            check.

    Returns:
        The totals and the broken rules; a ledger that does not add up raises no exception.
    """
    problems = Problems()
    frames, strays, reports = (np.zeros(len(kind), np.int64) for kind in (FrameFate, FrameFate, ReportFate))
    journaled = told = 0
    unseen = np.ones(0 if fixes is None else len(fixes.bs), np.bool_)
    for ledger in ledgers:
        rows = _Rows(ledger)
        sent = rows.where(rows.sent)
        first = sent.where(sent.part == 0)
        came = rows.where(~rows.sent)
        _check_frames(first, problems)
        _check_numbering(first, problems)
        _check_parts(sent, problems)
        authentic = (came.fate == _DELIVERED) | (came.fate == _DUPLICATE)
        problems.add_where("authentic frames that are in no journal", authentic, came.name)
        found = _check_reports(sent, problems)
        if fixes is not None:
            mine = np.isin(fixes.bs, np.unique(rows.bs[rows.bs >= 0])) & unseen
            unseen &= ~mine
            _check_used(found, fixes, mine, problems)
        frames += _counts(first.fate, len(frames))
        strays += _counts(came.fate, len(strays))
        reports += _counts(found.fate, len(reports))
        journaled += len(first.bs)
        told += len(found.fate)
    if fixes is not None:
        _check_fixes(fixes, unseen, problems)
    return Conservation(
        frames_journaled=journaled,
        frames=dict(zip(FrameFate, frames.tolist(), strict=True)),
        strays=dict(zip(FrameFate, strays.tolist(), strict=True)),
        reports_journaled=told,
        reports=dict(zip(ReportFate, reports.tolist(), strict=True)),
        problems=problems.sentences(),
    )


_DELIVERED, _DUPLICATE, _DROPPED = (
    list(FrameFate).index(fate) for fate in (FrameFate.DELIVERED, FrameFate.DUPLICATE, FrameFate.DROPPED)
)
_LOST, _USED = list(ReportFate).index(ReportFate.LOST), list(ReportFate).index(ReportFate.USED)
_NO_FATE = -1


@dataclass(frozen=True)
class _Rows:
    """Rows of a ledger, as arrays; fates by their number, `_NO_FATE` for any other text."""

    bs: Array
    epoch: Array
    seq: Array
    part: Array
    snapshot: Array
    round: Array
    down: Array
    sent: Array
    came: Array
    fate: Array
    report_fate: Array
    with_reason: Array

    def __init__(self, ledger: pa.Table) -> None:
        import pyarrow as pa

        def numbers(name: str, missing: int = 0) -> Array:
            found: Array = ledger[name].cast(pa.int64()).fill_null(missing).to_numpy()
            return found

        def present(name: str) -> Array:
            found: Array = ledger[name].is_valid().to_numpy()
            return found

        self._set(
            numbers("bs", -1), *map(numbers, ("epoch", "seq", "part", "snapshot", "round")),
            codes(ledger["direction"], list(Direction)) == 1, present("t_sent_ns"), present("t_received_ns"),
            codes(ledger["frame_fate"], list(FrameFate)), codes(ledger["report_fate"], list(ReportFate)),
            present("reason"),
        )  # fmt: skip

    def _set(self, *columns: Array) -> None:
        for field, column in zip(fields(self), columns, strict=True):
            object.__setattr__(self, field.name, column)

    def where(self, chosen: Array) -> _Rows:
        """Return the chosen rows: a mask, or indices in the order wanted."""
        rows = object.__new__(_Rows)
        rows._set(*(getattr(self, field.name)[chosen] for field in fields(self)))
        return rows

    def name(self, at: int) -> str:
        """Return the name of a row's frame."""
        way = Direction.DOWN if self.down[at] else Direction.UP
        return f"{self.start_name(at)} {way} seq {self.seq[at]}"

    def start_name(self, at: int) -> str:
        """Return the name of the start that a row belongs to."""
        return f"BS {self.bs[at] if self.bs[at] >= 0 else None} epoch {self.epoch[at]}"


def codes(column: pa.Array | pa.ChunkedArray, names: Sequence[str]) -> Array:
    """Return texts by their index in `names`; -1 for any other text and for null."""
    import pyarrow as pa

    coded = pa.chunked_array([column] if isinstance(column, pa.Array) else column.chunks, column.type)
    coded = coded.combine_chunks().dictionary_encode()
    known = [names.index(text) if text in names else _NO_FATE for text in coded.dictionary.to_pylist()]
    indices = coded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
    found: Array = np.array([*known, _NO_FATE], np.int8)[indices]
    return found


def _counts(fates: Array, kinds: int) -> Array:
    found: Array = np.bincount(fates[fates >= 0], minlength=kinds)
    return found


def _check_frames(first: _Rows, problems: Problems) -> None:
    known = first.fate >= 0
    problems.add_where("journaled frames without a fate", ~known, first.name)
    odd = known & ((first.fate == _DROPPED) == first.came)
    problems.add_where("frames with a time of arrival but dropped, or the reverse", odd, first.name)
    arrived = (first.fate == _DELIVERED) | (first.fate == _DUPLICATE)
    rule = "frames that arrived although the link model dropped them"
    problems.add_where(rule, arrived & first.with_reason & ~odd, first.name)


def _check_numbering(first: _Rows, problems: Problems) -> None:
    rows = first.where(np.lexsort((first.seq, first.down, first.epoch, first.bs)))
    same = _same(rows.bs, rows.epoch, rows.down)
    step = np.diff(rows.seq, prepend=0)
    for rule, broken in (
        ("links that used a seq twice", same & (step == 0)),
        ("links whose journal has gaps in seq", same & (step > 1)),
    ):
        for at in np.flatnonzero(broken)[:1].tolist():
            links = {(rows.bs[n], rows.epoch[n], rows.down[n]) for n in np.flatnonzero(broken).tolist()}
            way = Direction.DOWN if rows.down[at] else Direction.UP
            problems.add(rule, f"{rows.start_name(at)} {way}", len(links))


def _check_parts(parts: _Rows, problems: Problems) -> None:
    if (parts.part == 0).all():  # no bundles: nothing to compare
        return
    rows = parts.where(np.lexsort((parts.part, parts.seq, parts.down, parts.epoch, parts.bs)))
    same = _same(rows.bs, rows.epoch, rows.down, rows.seq)
    begins = np.flatnonzero(~same)
    if len(begins):
        lowest, highest = np.minimum.reduceat(rows.fate, begins), np.maximum.reduceat(rows.fate, begins)
        problems.add_where("frames with several fates", lowest != highest, lambda n: rows.name(int(begins[n])))
    place = np.arange(len(same)) - np.repeat(begins, np.diff(np.append(begins, len(same))))
    missing = np.unique(np.searchsorted(begins, np.flatnonzero(place != rows.part), side="right") - 1)
    if len(missing):
        problems.add("frames of which parts are missing", rows.name(int(begins[missing[0]])), len(missing))


@dataclass(frozen=True)
class _Reports:
    """The reports of a ledger, in order of their keys: fields of the key, and the number of their fate."""

    bs: Array
    epoch: Array
    snapshot: Array
    round: Array
    fate: Array

    def name(self, at: int) -> str:
        """Return the name of a report."""
        return str(ReportKey(*(int(values[at]) for values in (self.bs, self.epoch, self.snapshot, self.round))))


def _check_reports(parts: _Rows, problems: Problems) -> _Reports:
    """Return the fate of each journaled report."""
    rows = parts.where(~parts.down)
    rows = rows.where(np.lexsort((rows.round, rows.snapshot, rows.epoch, rows.bs)))
    begins = np.flatnonzero(~_same(rows.bs, rows.epoch, rows.snapshot, rows.round))
    found = _Reports(*(values[begins] for values in (rows.bs, rows.epoch, rows.snapshot, rows.round, rows.report_fate)))
    if not len(begins):
        return found
    lowest, highest = (np.minimum, np.maximum)
    several = lowest.reduceat(rows.report_fate, begins) != highest.reduceat(rows.report_fate, begins)
    delivered = np.add.reduceat((rows.fate == _DELIVERED).astype(np.int64), begins)
    copied = np.add.reduceat((rows.fate == _DUPLICATE).astype(np.int64), begins) > 0
    none = lowest.reduceat(rows.report_fate, begins) == _NO_FATE
    fine = np.ones(len(begins), np.bool_)
    for rule, broken in (
        ("journaled reports without a fate", none),
        ("reports with several fates", several),
        ("reports delivered more than once", delivered > 1),
        ("reports lost but delivered, or the reverse", (found.fate == _LOST) != (delivered == 0)),
        ("reports with a duplicate but no delivered frame", (delivered == 0) & copied),
    ):
        problems.add_where(rule, broken & fine, found.name)
        fine &= ~broken
    return found


def _check_used(reports: _Reports, fixes: UsedReports, mine: Array, problems: Problems) -> None:
    """Check the reports of a ledger against those that fixes list of its base stations, `mine`."""
    listed = _Reports(
        fixes.bs[mine], fixes.epoch[mine], fixes.snapshot[mine], fixes.round[mine], np.ones(int(mine.sum()), np.int8)
    )
    # In one sorted sequence, a report stands directly before the fixes that list it.
    bs, epoch, snapshot, round_ = (np.concatenate(pair) for pair in zip(_key(reports), _key(listed), strict=True))
    lists = np.concatenate([np.zeros(len(reports.fate), np.bool_), np.ones(len(listed.fate), np.bool_)])
    used = np.concatenate([reports.fate == _USED, np.zeros(len(listed.fate), np.bool_)])
    order = np.lexsort((lists, round_, snapshot, epoch, bs))
    lists, used = lists[order], used[order]
    whole = _Reports(bs[order], epoch[order], snapshot[order], round_[order], lists)
    same, name = _same(*_key(whole)), whole.name
    again = lists & same & np.append(False, lists[:-1])
    problems.add_where("reports that several fixes list", again, name)
    unused = lists & ~again & ~(same & np.append(False, used[:-1]))
    problems.add_where("reports in a fix that are not used", unused, name)
    alone = ~np.append(same[1:], False)
    problems.add_where("used reports that no fix lists", used & alone, name)


def _key(reports: _Reports) -> tuple[Array, Array, Array, Array]:
    return reports.bs, reports.epoch, reports.snapshot, reports.round


def _check_fixes(fixes: UsedReports, unseen: Array, problems: Problems) -> None:
    """Check that no snapshot is fused twice, and that no fix lists a report (`unseen`) of a link without ledger."""
    order = np.sort(fixes.snapshots)
    problems.add_where("snapshots fused twice", order[1:] == order[:-1], lambda at: str(order[at]))
    lost = _Reports(fixes.bs, fixes.epoch, fixes.snapshot, fixes.round, fixes.round)
    problems.add_where("reports in a fix that are not used", unseen, lost.name)


def _same(*columns: Array) -> Array:
    """Return whether each row equals the one before it, in all columns; the first never does."""
    same = np.ones(len(columns[0]), np.bool_)
    same[:1] = False
    for column in columns:
        same[1:] &= column[1:] == column[:-1]
    return same

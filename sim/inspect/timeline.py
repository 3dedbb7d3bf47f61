"""Timeline of a run, second by second: frames sent, fates and fixes.

Time zero is that of snapshot 0. A run without fixes in its table, such as one that was cut, has no time zero on disk:
there it is the time at which the first frame was sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fronthaul.account.conservation import codes
from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.messages import Direction
from sim.inspect.frames import Choice, chosen_rows, link_ledgers, moments_ns
from sim.records.books import read_fix_logs
from sim.records.folder import RunFolder, read_configuration
from sim.records.links import numbers, read_table, report_keys, valid

if TYPE_CHECKING:
    import pyarrow as pa

_SECOND_NS = 1_000_000_000
_FRAME_FATES = [fate.value for fate in FrameFate]
_REPORT_FATES = [fate.value for fate in ReportFate]


@dataclass
class Second:
    """What happened in one second of a run.

    Attributes:
        number: seconds after time zero; negative before.
        up: number of frames sent by base stations.
        down: number of frames sent by the cloud.
        payload_bits: payload of all these frames [bit].
        frames: number of frames by fate, strays included.
        reports: number of reports by fate, each counted when its first frame was sent.
        fixes: number of fixes made in this second.
    """

    number: int
    up: int = 0
    down: int = 0
    payload_bits: int = 0
    frames: Counter[str] = field(default_factory=Counter)
    reports: Counter[str] = field(default_factory=Counter)
    fixes: int = 0


def time_zero_ns(folder: Path) -> int:
    """Return time zero of snapshot 0 [ns], as defined at the top of this file.

    Raises:
        UserError: the folder is not a run's, has no ledgers, or a table is damaged.
    """
    run = RunFolder(folder)
    if run.fixes.exists():
        fixes = read_table(run.fixes)
        if len(fixes):
            interval_ns = read_configuration(run).settings.interval_ns
            first: int = fixes["t_zero_ns"][0].as_py() - interval_ns * fixes["snapshot"][0].as_py()
            return first
    ledgers, first_ns = link_ledgers(folder), []
    for bs in ledgers:
        for rows in ledgers.batches(bs, ["t_sent_ns"]):
            sent_ns = numbers(rows, "t_sent_ns")[valid(rows, "t_sent_ns")]
            first_ns += [int(sent_ns.min())] if len(sent_ns) else []
    return min(first_ns, default=0)


def timeline(folder: Path, choice: Choice) -> list[Second]:
    """Return the seconds in which selected frames were sent or fixes were made; fixes are those of all links.

    Raises:
        UserError: the folder is not a run's, has no ledgers or no such link, or a table is damaged.
    """
    t0_ns = time_zero_ns(folder)
    seconds: dict[int, Second] = {}
    reports: dict[int, list[tuple[Any, Any, Any]]] = {}  # by link: key, time and fate of each row
    for rows in chosen_rows(folder, choice, t0_ns):
        _count_frames(seconds, rows, t0_ns)
        fate = codes(rows["report_fate"], _REPORT_FATES)
        told, bs = valid(rows, "t_sent_ns") & (fate >= 0), numbers(rows, "bs")
        for station in np.unique(bs[told]).tolist():
            mine = told & (bs == station)
            reports.setdefault(station, []).append((report_keys(rows)[mine], moments_ns(rows)[mine], fate[mine]))
    for parts in reports.values():
        keys, moment_ns, fate = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.lexsort((moment_ns, keys))
        first = order[np.append(True, np.diff(keys[order]) != 0)]
        number = (moment_ns[first] - t0_ns) // _SECOND_NS
        for n in np.unique(number).tolist():
            _at(seconds, n).reports.update(_tally(fate[first][number == n], _REPORT_FATES))
    for t_ns in fix_times_ns(folder):
        after_s = (t_ns - t0_ns) / 1e9
        begin_s, end_s = choice.begin_s, choice.end_s
        if (begin_s is None or after_s >= begin_s) and (end_s is None or after_s < end_s):
            _at(seconds, (t_ns - t0_ns) // _SECOND_NS).fixes += 1
    return [seconds[number] for number in sorted(seconds)]


def fix_times_ns(folder: Path) -> list[int]:
    """Return when fixes were made [ns]; for a run without a table of fixes, from the logs of its cloud."""
    run = RunFolder(folder)
    if run.fixes.exists():
        times: list[int] = read_table(run.fixes)["t_fix_ns"].to_pylist()
        return times
    return [*map(int, read_fix_logs(run)["t_fix_ns"].to_pylist())]


def _count_frames(seconds: dict[int, Second], rows: pa.RecordBatch, t0_ns: int) -> None:
    """Add the frames and the payload of some rows to the seconds in which they were sent."""
    number = (moments_ns(rows) - t0_ns) // _SECOND_NS
    fate, bits = codes(rows["frame_fate"], _FRAME_FATES), numbers(rows, "payload_bits")
    first, sent = numbers(rows, "part") == 0, valid(rows, "t_sent_ns")
    up = codes(rows["direction"], [Direction.UP]) == 0
    for n in np.unique(number).tolist():
        here, second = number == n, _at(seconds, n)
        second.up += int(np.count_nonzero(here & first & sent & up))
        second.down += int(np.count_nonzero(here & first & sent & ~up))
        second.payload_bits += int(bits[here & sent].sum())
        second.frames.update(_tally(fate[here & first], _FRAME_FATES))


def _tally(fates: Any, names: Sequence[str]) -> dict[str, int]:
    counts = np.bincount(fates[fates >= 0], minlength=len(names))
    return {name: count for name, count in zip(names, counts.tolist(), strict=True) if count}


def _at(seconds: dict[int, Second], number: int) -> Second:
    return seconds.setdefault(number, Second(number))

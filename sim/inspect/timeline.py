"""Timeline of a run, second by second: frames sent, fates and fixes.

Time zero is that of snapshot 0. A run without fixes in its table, such as one that was cut, has no time zero on disk:
there it is the time at which the first frame was sent.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud.fixlog import read_fixes
from fronthaul.errors import LocalError
from fronthaul.log.stream_names import FIXES
from sim.inspect.frames import Choice, chosen_frames, read_link_ledgers
from sim.records.folder import RunFolder, read_configuration
from sim.records.links import read_table


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
    columns = [ledger["t_sent_ns"].to_pylist() for ledger in read_link_ledgers(folder).values()]
    return min((t_ns for column in columns for t_ns in column if t_ns is not None), default=0)


def timeline(folder: Path, choice: Choice) -> list[Second]:
    """Return the seconds in which selected frames were sent or fixes were made; fixes are those of all links.

    Raises:
        UserError: the folder is not a run's, has no ledgers or no such link, or a table is damaged.
    """
    t0_ns = time_zero_ns(folder)
    seconds: dict[int, Second] = {}
    seen: set[tuple[Any, ...]] = set()
    for row in chosen_frames(folder, choice, t0_ns):
        second = _at(seconds, moment_ns(row), t0_ns)
        if row["part"] == 0:
            second.frames[row["frame_fate"]] += 1
        if row["t_sent_ns"] is None:
            continue
        if row["part"] == 0:
            second.up += row["direction"] == "up"
            second.down += row["direction"] == "down"
        second.payload_bits += row["payload_bits"]
        report = (row["bs"], row["epoch"], row["snapshot"], row["round"])
        if row["report_fate"] is not None and report not in seen:
            seen.add(report)
            second.reports[row["report_fate"]] += 1
    for t_ns in fix_times_ns(folder):
        after_s = (t_ns - t0_ns) / 1e9
        begin_s, end_s = choice.begin_s, choice.end_s
        if (begin_s is None or after_s >= begin_s) and (end_s is None or after_s < end_s):
            _at(seconds, t_ns, t0_ns).fixes += 1
    return [seconds[number] for number in sorted(seconds)]


def fix_times_ns(folder: Path) -> list[int]:
    """Return when fixes were made [ns]; for a run without a table of fixes, from the logs of its cloud."""
    run = RunFolder(folder)
    if run.fixes.exists():
        times: list[int] = read_table(run.fixes)["t_fix_ns"].to_pylist()
        return times
    return [fix.t_fix_ns for path in run.streams(FIXES) for fix in _fixes(path)]


def moment_ns(row: dict[str, Any]) -> int:
    """Return when the frame of a row was sent [ns], or when it was received if no sender journaled it."""
    moment: int = row["t_received_ns"] if row["t_sent_ns"] is None else row["t_sent_ns"]
    return moment


def _fixes(path: Path) -> Iterable[Any]:
    with contextlib.suppress(LocalError, FileNotFoundError):  # never begun
        return read_fixes(path)
    return ()


def _at(seconds: dict[int, Second], t_ns: int, t0_ns: int) -> Second:
    number = (t_ns - t0_ns) // 1_000_000_000
    return seconds.setdefault(number, Second(number))

"""Processor time of this process and of all that it has started, such as Ray's and its actors."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class _Stat(NamedTuple):
    """What proc_pid_stat(5) says of a process: its parent, and its user and system time [s]."""

    parent: int
    cpu_s: float


def family() -> list[int]:
    """Return the ids of this process and of its descendants."""
    parents = {int(entry.name): stat.parent for entry in PROC.glob("[0-9]*") if (stat := _stat(entry.name)) is not None}
    found = [os.getpid()]
    for pid in found:  # grows meanwhile
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def spent_s(pids: Iterable[int]) -> float:
    """Return the processor time that processes have spent [s]; those that have ended are left out."""
    return sum(stat.cpu_s for pid in pids if (stat := _stat(pid)) is not None)


def _stat(pid: int | str) -> _Stat | None:
    try:
        words = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()  # a name may have blanks
    except OSError:
        return None
    return _Stat(int(words[1]), (int(words[11]) + int(words[12])) / TICKS_PER_S)

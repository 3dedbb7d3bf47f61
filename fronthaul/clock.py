"""Time as an argument: one interface for real and simulated time, in integer nanoseconds.

Real time is one reading of the wall clock, when the run's first process starts, plus the monotonic clock: pacing, times
and latencies hold when somebody sets the clock.
"""

import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """A source of time that can also sleep until a given time."""

    @property
    def name(self) -> str:
        """Identity of the clock: two instances with the same name read the same clock."""

    def now_ns(self) -> int:
        """Return the time [ns]."""

    def sleep_until(self, t_ns: int) -> None:
        """Sleep until `t_ns` [ns]; return at once if it is past."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The wall time at which a host's monotonic clock read zero [ns], and the identity of these clocks."""

    host: str
    t_ns: int


def read_origin() -> Origin:
    """Return this host's origin by the wall clock as it is now: a step of that clock changes it, slewing does not."""
    readings = []
    for _ in range(5):
        before_ns, wall_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        readings.append((after_ns - before_ns, wall_ns - (before_ns + after_ns) // 2))
    return Origin(_host(), min(readings)[1])


def origin() -> Origin:
    """Return the origin of this process's times."""
    return _origin


def adopt(other: Origin) -> None:
    """Tell the time by the origin of another process, if that runs on this host: it may have started before a step."""
    global _origin
    if other.host == _origin.host:
        _origin = other


def real_ns() -> int:
    """Return the time since the Unix epoch [ns], as if nobody set the wall clock after the process has started."""
    return _origin.t_ns + time.monotonic_ns()


def _host() -> str:
    """Return the kernel's boot ID: containers on one host share it, and the clocks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return f"host {uuid.getnode():012x}"


_origin = read_origin()


class WallClock:
    """Real time since the Unix epoch, which steps of the wall clock do not touch."""

    @property
    def name(self) -> str:
        """The host's name."""
        return _origin.host

    def now_ns(self) -> int:
        """Return the time since the Unix epoch [ns]."""
        return real_ns()

    def sleep_until(self, t_ns: int) -> None:
        """Sleep until `t_ns` [ns] since the Unix epoch."""
        while (remaining_ns := t_ns - real_ns()) > 0:
            time.sleep(remaining_ns / 1e9)


class SimulatedClock:
    """Simulated time, which moves only when it is advanced."""

    name = "simulated"

    def __init__(self, start_ns: int = 0) -> None:
        """Start at `start_ns` [ns]."""
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """Return the time [ns]."""
        return self._now_ns

    def sleep_until(self, t_ns: int) -> None:
        """Advance to `t_ns` [ns], unless it is past."""
        self._now_ns = max(self._now_ns, t_ns)

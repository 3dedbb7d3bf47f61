"""Time as an argument: one interface for real and simulated time, in integer nanoseconds."""

import time
import uuid
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


class WallClock:
    """Real time since the Unix epoch."""

    @property
    def name(self) -> str:
        """The kernel's boot ID: containers on one host share it, and the clock."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        except OSError:
            return f"host {uuid.getnode():012x}"

    def now_ns(self) -> int:
        """Return the time since the Unix epoch [ns]."""
        return time.time_ns()

    def sleep_until(self, t_ns: int) -> None:
        """Sleep until `t_ns` [ns] since the Unix epoch."""
        # A loop, because the wall clock may be set back while we sleep.
        while (remaining_ns := t_ns - time.time_ns()) > 0:
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

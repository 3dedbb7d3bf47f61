"""How long a thread may compute before another one gets its core (Linux).

With more processes than cores, each turn of one pushes weights and data of the others out of the core's caches. Longer
turns are fewer; each process's share of the cores stays as it was.
"""

import ctypes
import os
import platform
import struct
from contextlib import suppress
from pathlib import Path

TURN_NS = 20_000_000
"""Length of a turn [ns], where the kernel's own is 1.4 ms, and 16 snapshots take ECC's base station 4 ms."""

# Not in Python, and in glibc since 2.41 alone.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}.get(platform.machine())


def take_long_turns() -> None:
    """Let all threads of this process, and those they start, take turns of `TURN_NS`, and interrupt no other's.

    Who wakes waits longer for a core, so this is for runs in closed loop, where only the total counts. It has no effect
    on threads whose scheduling somebody has chosen, or where the system does not know it or forbids it; kernels before
    6.12 leave the length of turns as it is.
    """
    if _SCHED_SETATTR is None:
        return
    libc = ctypes.CDLL(None)
    for thread in (int(entry.name) for entry in Path("/proc/self/task").iterdir()):
        with suppress(ProcessLookupError):  # it has ended meanwhile
            if os.sched_getscheduler(thread) == os.SCHED_OTHER:
                nice = os.getpriority(os.PRIO_PROCESS, thread)
                # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period
                attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_BATCH, 0, nice, 0, TURN_NS, 0, 0)
                libc.syscall(_SCHED_SETATTR, thread, attributes, 0)

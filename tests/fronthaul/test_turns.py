"""Long turns on a core, in a process of its own: its threads cannot all be put back."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fronthaul.turns import TURN_NS

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import ctypes, os, struct, threading
from fronthaul.turns import _SCHED_SETATTR, take_long_turns

def tell():
    attributes = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(_SCHED_SETATTR + 1, 0, attributes, 48, 0) == 0  # sched_getattr
    _, policy, _, nice, _, turn_ns, _, _ = struct.unpack("=IIQiIQQQ", attributes.raw)
    print(policy, nice, turn_ns)

def wait(policy):
    os.sched_setscheduler(0, policy, os.sched_param(0))
    begun.wait()
    done.wait()
    tell()

os.nice(3)
tell()
for policy in (os.SCHED_OTHER, os.SCHED_IDLE):
    begun, done = threading.Barrier(2), threading.Event()
    other = threading.Thread(target=wait, args=[policy])
    other.start()
    begun.wait()
    take_long_turns()
    done.set()
    other.join()
later = threading.Thread(target=tell)
later.start()
later.join()
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="other machines keep the kernel's turns")
def test_threads_and_those_they_start_take_long_turns_at_the_same_priority() -> None:
    """One that runs already, one that was told to use idle time alone, and one that starts later."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    before, running, idle, later = (tuple(map(int, line.split())) for line in done.stdout.splitlines())
    turn_ns = TURN_NS if before[2] else 0  # kernels before 6.12 have no turns of a thread's own, and say 0
    assert before[:2] == (os.SCHED_OTHER, before[1])
    assert running == later == (os.SCHED_BATCH, before[1], turn_ns)
    assert idle[:2] == (os.SCHED_IDLE, before[1])

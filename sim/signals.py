"""Signals that end a command as Ctrl-C does: in order, with a sentence on what is on disk."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that a system sends when it shuts down, and a terminal when it is closed."""


@contextlib.contextmanager
def like_ctrl_c() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on Ctrl-C and the signals above while the block lasts, once.

    Further ones do not disturb what the first one's exception closes; they say that this is going on.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, wait)
        raise KeyboardInterrupt

    def wait(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        os.write(2, b"\nStopping already: what is open is being closed.\n")  # print may be interrupted by itself

    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, *STOPPING)}
    for number, handler in before.items():
        if number != signal.SIGINT or handler != signal.SIG_IGN:  # a shell's background job is to go on
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_undisturbed() -> None:
    """Ignore the signals while a process that has been stopped ends."""
    for number in (signal.SIGINT, *STOPPING):
        signal.signal(number, signal.SIG_IGN)

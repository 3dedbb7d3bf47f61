"""Signals that end a command as Ctrl-C does: in order, with a sentence on what is on disk."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that a system sends when it shuts down, and a terminal when it is closed."""


@contextlib.contextmanager
def like_ctrl_c() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on the signals above while the block lasts, once; further ones are ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in STOPPING:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

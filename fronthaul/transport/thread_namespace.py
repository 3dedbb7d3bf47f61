"""Threads in another network namespace (Linux, root): how a base station's end of a link gets its own network.

A namespace belongs to a thread. A socket belongs to the namespace of the thread that made it, and a new thread starts
in that of its maker. libzmq starts its I/O thread, which makes the TCP sockets, with a context's first socket, and
connects again from there: a context whose first socket is made inside stays inside for good.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fronthaul.errors import LocalError

FOLDER = Path("/var/run/netns")
"""Where `ip netns` keeps namespaces by name."""

_CLONE_NEWNET = 0x40000000  # linux/sched.h


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Move the calling thread into a network namespace, and back at the end.

    Sockets and threads that are made meanwhile stay there. Leave with the thread that entered.

    Args:
        name: of a namespace, as `ip netns` lists it.

    Raises:
        LocalError: there is no such namespace, or we may not enter it.
    """
    # thread-self, not self: the main thread may be elsewhere.
    with Path("/proc/thread-self/ns/net").open("rb") as before:
        try:
            with (FOLDER / name).open("rb") as namespace:
                _move_to(namespace.fileno())
        except OSError as error:
            raise LocalError(f"cannot enter the network namespace {name!r}: {error.strerror}") from error
        try:
            yield
        finally:
            _move_to(before.fileno())


def _move_to(namespace_fd: int) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace_fd, _CLONE_NEWNET):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))

"""Runs threads in another network namespace (Linux, root), to give a base station's end of a link its own network.

Each thread is in a namespace. A socket belongs to the namespace of the thread that created it, and a new thread starts
in the namespace of its creator. libzmq starts its I/O thread, which creates the TCP sockets and also reconnects, with
the first socket of a context: a context whose first socket is created inside a namespace stays inside.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fronthaul.errors import LocalError

FOLDER = Path("/var/run/netns")
"""Folder where `ip netns` keeps namespaces by name."""

_CLONE_NEWNET = 0x40000000  # linux/sched.h


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Move the calling thread into a network namespace, and back at the end.

    Sockets and threads created meanwhile stay there. Enter and exit the context in the same thread.

    Args:
        name: name of a namespace, as listed by `ip netns`.

    Raises:
        LocalError: there is no such namespace, or permission to enter it is missing.
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

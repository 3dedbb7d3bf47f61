"""The kernel's byte counts of a TCP connection that another library owns. Linux only.

A duplicate of the connection's descriptor keeps the counters readable after the owner has closed its own. It also
keeps the connection open: no FIN is sent before the duplicate is closed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import time
from typing import NamedTuple

INFO_BYTES = 156
"""Size of struct tcp_info up to tcpi_data_segs_in: 8 B of flags, 24 u32, four u64, five u32 [B]."""
COUNTERS_OFFSET = 120
"""Offset of tcpi_bytes_acked and tcpi_bytes_received [B]."""
SEGMENTS_OFFSET = 152
"""Offset of tcpi_data_segs_in [B]."""
CLOSE, CLOSE_WAIT = 7, 8
"""Values of tcpi_state: closed (reset or unused); closed by the other end."""


class Counters(NamedTuple):
    """Bytes sent and received on the TCP stream [B], segments received, and tcpi_state."""

    sent: int
    received: int
    segments: int
    state: int


class Tap:
    """A duplicate descriptor of a TCP connection."""

    def __init__(self, descriptor: int, *, connecting: bool) -> None:
        """Duplicate `descriptor`.

        Args:
            descriptor: of a TCP connection.
            connecting: whether this end called connect.

        Raises:
            OSError: `descriptor` is not, or no longer, that of a TCP connection.
        """
        self._descriptor = descriptor
        self._connecting = connecting
        self._socket = socket.socket(fileno=os.dup(descriptor))
        try:
            self._inode = os.fstat(self._socket.fileno()).st_ino
            self.local = _name(self._socket.getsockname())
            self.remote = _name(self._socket.getpeername())
            self.read()  # fails here rather than later if it is not a TCP connection
        except OSError:
            self._socket.close()
            raise

    def read(self) -> Counters:
        """Return the current counters.

        The kernel counts sequence numbers. It counts the SYN as sent at the connecting end, and the other end's FIN as
        received at both ends; these are not part of the stream and are subtracted.
        """
        information = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_BYTES)
        state = information[0]
        acknowledged, received = struct.unpack_from("=QQ", information, COUNTERS_OFFSET)
        (segments,) = struct.unpack_from("=I", information, SEGMENTS_OFFSET)
        return Counters(acknowledged - self._connecting, received - (state == CLOSE_WAIT), segments, state)

    @property
    def alone(self) -> bool:
        """Whether the owner has closed its descriptor (its number may name something else by now)."""
        try:
            return os.fstat(self._descriptor).st_ino != self._inode
        except OSError:
            return True

    def wait_acknowledged(self, timeout_s: float) -> None:
        """Wait until the other end has acknowledged everything sent or is gone, for at most `timeout_s` [s]."""
        deadline = time.monotonic() + timeout_s
        while self._outstanding() and self.read().state != CLOSE and time.monotonic() < deadline:
            time.sleep(0.001)

    def unread_bytes(self) -> int:
        """Return the number of bytes that have arrived and that the owner has not read [B] (SIOCINQ)."""
        return self._queued(termios.FIONREAD)

    def end(self) -> None:
        """End the connection in both directions; its owner sees it closed by the other end."""
        end_connection(self._socket.fileno())

    def close(self, *, reset: bool = False) -> None:
        """Close the descriptor; with `reset` the connection ends with an RST, and data in flight is lost."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _outstanding(self) -> int:
        """Return the number of bytes written but not acknowledged [B] (SIOCOUTQ)."""
        return self._queued(termios.TIOCOUTQ)

    def _queued(self, request: int) -> int:
        answer = fcntl.ioctl(self._socket.fileno(), request, bytes(4))
        return int.from_bytes(answer, "little" if struct.pack("=H", 1)[0] else "big")


def end_connection(descriptor: int) -> None:
    """End the TCP connection of `descriptor`, which stays its owner's, in both directions."""
    with contextlib.suppress(OSError):  # it has ended already
        borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=descriptor)  # told all, it asks nothing
        try:
            borrowed.shutdown(socket.SHUT_RDWR)
        finally:
            borrowed.detach()


def _name(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

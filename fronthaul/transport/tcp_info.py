"""What the kernel counts on a TCP connection that another library owns (accounting, "Equality"). Linux alone.

A duplicate of the connection's descriptor keeps the counters readable after the owner has closed its own. It also
keeps the connection: no FIN leaves before the duplicate is closed.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
import time
from typing import NamedTuple

INFO_BYTES = 136
"""struct tcp_info up to tcpi_bytes_received: 8 B of flags, 24 u32, four u64 [B]."""
COUNTERS_OFFSET = 120
"""Where tcpi_bytes_acked and tcpi_bytes_received stand [B]."""
CLOSE, CLOSE_WAIT = 7, 8
"""States of tcpi_state: reset or unused; the other end has closed."""


class Counters(NamedTuple):
    """Bytes of the stream [B]; `state` is tcpi_state."""

    sent: int
    received: int
    state: int


class Tap:
    """A second descriptor of a connection."""

    def __init__(self, descriptor: int, *, connecting: bool) -> None:
        """Duplicate `descriptor`.

        Args:
            descriptor: of a TCP connection.
            connecting: whether this end called connect.

        Raises:
            OSError: it is no such descriptor any more.
        """
        self._descriptor = descriptor
        self._connecting = connecting
        self._socket = socket.socket(fileno=os.dup(descriptor))
        try:
            self._inode = os.fstat(self._socket.fileno()).st_ino
            self.local = _name(self._socket.getsockname())
            self.remote = _name(self._socket.getpeername())
            self.read()  # fails here rather than later where it is no TCP connection
        except OSError:
            self._socket.close()
            raise

    def read(self) -> Counters:
        """Return the counters as they are now.

        The kernel counts sequence numbers. At the connecting end it counts its SYN as sent, at both ends the
        other's FIN as received: neither is of the stream.
        """
        information = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO_BYTES)
        state = information[0]
        acknowledged, received = struct.unpack_from("=QQ", information, COUNTERS_OFFSET)
        return Counters(acknowledged - self._connecting, received - (state == CLOSE_WAIT), state)

    @property
    def alone(self) -> bool:
        """Whether the owner has closed its descriptor (its number may name something else by now)."""
        try:
            return os.fstat(self._descriptor).st_ino != self._inode
        except OSError:
            return True

    def wait_acknowledged(self, timeout_s: float) -> None:
        """Return once the other end has acknowledged all that was sent or is gone, or after `timeout_s` [s]."""
        deadline = time.monotonic() + timeout_s
        while self._outstanding() and self.read().state != CLOSE and time.monotonic() < deadline:
            time.sleep(0.001)

    def close(self, *, reset: bool = False) -> None:
        """Close the descriptor; with `reset` the connection's end is an RST, and what is on the way is lost."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _outstanding(self) -> int:
        """Return what was written and is not acknowledged [B] (SIOCOUTQ)."""
        answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, "little" if struct.pack("=H", 1)[0] else "big")


def _name(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

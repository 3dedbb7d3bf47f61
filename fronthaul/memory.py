"""Links within one process: queues that never block, never lose anything and need no threads.

Unlike sockets they have no limit on what waits, so a send never fails for a full queue.
"""

from collections import deque

from fronthaul.errors import LocalError, TransportError
from fronthaul.transport import CloudTransport, EdgeTransport, check_sendable, identity


class MemoryNetwork:
    """One cloud and any number of base stations.

    Example:
        >>> network = MemoryNetwork()
        >>> cloud, edge = network.cloud(), network.edge(3)
        >>> edge.send(b"hello")
        >>> cloud.receive(0.0)
        (b'bs-003', b'hello')
    """

    def __init__(self) -> None:
        """Start with empty queues."""
        self._to_cloud: deque[tuple[bytes, bytes]] = deque()
        self._to_edge: dict[bytes, deque[bytes]] = {}

    def cloud(self) -> CloudTransport:
        """Return the cloud's end."""
        return _MemoryCloud(self._to_cloud, self._to_edge)

    def edge(self, bs: int) -> EdgeTransport:
        """Return the end of `bs`; a second one takes over what the cloud sends, as a restarted BS does."""
        inbox: deque[bytes] = deque()
        self._to_edge[identity(bs)] = inbox
        return _MemoryEdge(identity(bs), inbox, self._to_cloud, self._to_edge)


class _MemoryCloud:
    def __init__(self, inbox: deque[tuple[bytes, bytes]], edges: dict[bytes, deque[bytes]]) -> None:
        self._inbox = inbox
        self._edges = edges
        self._closed = False

    @property
    def address(self) -> str:
        return "memory"

    def receive(self, timeout_s: float) -> tuple[bytes, bytes] | None:
        _require_open(self._closed)
        return self._inbox.popleft() if self._inbox else None

    def send(self, peer: bytes, data: bytes) -> None:
        _require_open(self._closed)
        check_sendable(data)
        if peer not in self._edges:
            raise TransportError(f"no base station is connected as {peer!r}")
        self._edges[peer].append(data)

    def close(self) -> None:
        self._closed = True


class _MemoryEdge:
    def __init__(
        self,
        name: bytes,
        inbox: deque[bytes],
        outbox: deque[tuple[bytes, bytes]],
        edges: dict[bytes, deque[bytes]],
    ) -> None:
        self._name = name
        self._inbox = inbox
        self._outbox = outbox
        self._edges = edges
        self._closed = False

    def send(self, data: bytes) -> None:
        _require_open(self._closed)
        check_sendable(data)
        self._outbox.append((self._name, data))

    def receive(self, timeout_s: float) -> bytes | None:
        _require_open(self._closed)
        return self._inbox.popleft() if self._inbox else None

    def close(self) -> None:
        self._closed = True
        if self._edges.get(self._name) is self._inbox:  # a successor keeps its place
            del self._edges[self._name]


def _require_open(closed: bool) -> None:
    if closed:
        raise LocalError("the transport is closed")

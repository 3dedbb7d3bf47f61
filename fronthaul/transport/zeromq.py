"""Links over TCP: one DEALER at each base station, one ROUTER at the cloud. The only file that uses zmq.

Defaults of ZeroMQ that lose data or hang silently are changed here:

    ROUTER_MANDATORY  sending to an unknown peer or a full queue is an error, not silence
    ROUTER_HANDOVER   a connection that ZeroMQ makes again takes over from the dead one, under the same name
    SNDHWM, RCVHWM    queue length on each side of a link, in messages
    MAXMSGSIZE        a peer cannot make us allocate more than the longest message for a part
    HANDSHAKE_IVL     how long a peer may take for its handshake
    LINGER            how long closing waits for messages still to be sent

Without keys (NULL), a connection belongs to the base station that it names, unless another one does already; use this
on one machine only. With keys (CURVE), it belongs to the base station whose key it has proven to hold; names are
neither sent nor trusted. At the cloud a thread of its own admits connections and ends those that exceed the limits
(`tcp_connections`), whatever the thread that calls `receive` is doing meanwhile.

ZeroMQ's heartbeats stay off, because the ledger could not count their bytes. Sockets are not thread-safe and do not
survive a fork: create a transport where it is used. Each has its own context.
"""

from __future__ import annotations

import math
import os
import resource
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Generic, TypeVar

import zmq

from fronthaul.clock import origin, real_ns
from fronthaul.errors import LocalError, QueueFull, TransportError
from fronthaul.message.wire import MAX_MESSAGE_BYTES
from fronthaul.transport.endpoint import host_of, ip_header_bytes, is_ipv6
from fronthaul.transport.identity import claimed, connection_name
from fronthaul.transport.keys import CloudKeys, EdgeKeys, admit
from fronthaul.transport.tcp_connections import PATIENCE_S, ConnectionBook, Limits, OpenConnection
from fronthaul.transport.transport import (
    Arrived,
    ConnectionCount,
    LinkEvent,
    Load,
    Received,
    check_release,
    check_sendable,
)
from fronthaul.transport.transport_costs import TransportCosts
from fronthaul.transport.zmtp import ZMTP_CURVE, ZMTP_NULL

QUEUE_MESSAGES = 1000
"""Default queue length on each side of a link: over 1 s at 500 snapshots/s, under 0.5 MB at 400 B per report."""
LINGER_S = 2.0
"""How long closing waits for messages still to be sent [s]."""
EVENTS_INTERVAL_S = 0.05
"""Interval of reading connection events while messages keep arriving [s]."""
HANDSHAKE_S = 5.0
"""How long a peer may take for its handshake with the cloud [s]; ZeroMQ's default is 30 s."""
GUARD_S, GUARD_EACH_S = 0.01, 0.0001
"""Interval of checking the connections at the cloud [s]: the longer of the first, and of the second for each."""
GUARD_EVENTS = 1000
"""Maximum number of connection events that are processed before the limits are checked again."""
NOTE_S = 0.02
"""How long a first message waits for the guard to note its connection, at most [s]."""
STRANGERS = 64
"""Connections of strangers are ended beyond this number and one for each base station, which is one until heard."""
PER_STATION = 4
"""Connections of one base station are ended beyond this number: one, and those of its past that are not over yet."""
REFUSED_MESSAGES = 100
"""Maximum number of messages that one look for the next message discards."""
OWN_FILES = 200
"""Descriptors that the rest of the process may need."""
LIVING_S = 3.0
"""Without keys, a base station that was heard this long ago keeps its name from others [s]."""

MONITORED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_MONITOR_STOPPED
)
"""Not EVENT_ACCEPT_FAILED, which comes as often as the poller turns while no descriptor is free."""

KNOWN_FAILURES: dict[int, str] = {
    zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: "one end has keys and the other has none",
    zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: "it was encrypted for another key",
}
"""Explanations of common handshake failures, by the monitor's value."""

Message = TypeVar("Message", bytes, Received)

REFUSED = "the cloud does not know this base station's key"
_claimed = lru_cache(maxsize=4096)(claimed)
# What `_drain` needs of each message, made once: an enum's member or a keyword costs as much as a step of the work.
_NOBLOCK, _SRCFD = int(zmq.NOBLOCK), int(zmq.SRCFD)


def new_key_pair() -> tuple[bytes, bytes]:
    """Return a new key pair (public, secret) in Z85."""
    return zmq.curve_keypair()


class _Endpoint(ABC, Generic[Message]):
    """Common part of both ends: the socket, its monitor, its connections, and waiting for events of these."""

    def __init__(
        self, kind: int, address: str, queue_messages: int, message_bytes: int, *, curve: bool, book: ConnectionBook
    ) -> None:
        self.costs: TransportCosts = replace(
            ZMTP_CURVE if curve else ZMTP_NULL, ip_header_bytes=ip_header_bytes(address)
        )
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.setsockopt(zmq.IPV6, is_ipv6(address))  # else libzmq takes names and addresses of IPv4 alone
        self._socket.setsockopt(zmq.SNDHWM, queue_messages)
        self._socket.setsockopt(zmq.RCVHWM, queue_messages)
        self._socket.setsockopt(zmq.MAXMSGSIZE, message_bytes + self.costs.encryption_bytes)
        self._socket.setsockopt(zmq.LINGER, _milliseconds(LINGER_S))
        self._polled: list[tuple[Any, int]] = [(self._socket, zmq.POLLIN)]
        self._helpers: list[zmq.Socket[bytes]] = []
        # The monitor's queue must be unlimited: a full one would block the thread that serves all connections.
        self._socket.monitor("inproc://monitor", MONITORED)
        self._monitor = self._helper(zmq.PAIR)
        self._monitor.setsockopt(zmq.RCVHWM, 0)
        self._monitor.connect("inproc://monitor")
        self._book = book
        self._read_events_at = 0.0
        self._reconnect_at = math.inf
        self._wake = -1
        self._stopped = False
        self.t_received_ns = 0

    def _helper(self, kind: int) -> zmq.Socket[bytes]:
        helper = self._context.socket(kind)
        self._helpers.append(helper)
        self._polled.append((helper, zmq.POLLIN))
        return helper

    def wake_by(self, descriptor: int) -> None:
        """Let `receive` return early, with None, once `descriptor` is readable; the caller reads it."""
        self._wake = descriptor
        self._polled.append((descriptor, zmq.POLLIN))

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next message, or None; see `Transport.receive`."""
        self._begin()
        message = self._take()
        if message is not None or timeout_s <= 0:
            return message
        deadline = time.monotonic() + timeout_s
        while (now := time.monotonic()) < deadline:
            woken = self._wait(max(min(deadline, self._reconnect_at) - now, 0.0))
            message = self._take()
            if message is not None or woken:
                break
        return message

    def take_connections(self) -> list[ConnectionCount]:
        """Return the connections that have ended; see `Transport.take_connections`."""
        self._read_events()
        return self._book.take_connections()

    def take_events(self) -> list[LinkEvent]:
        """Return the connection events; see `Transport.take_events`."""
        self._read_events()
        return self._book.take_events()

    def close(self) -> None:
        """Send queued messages, for at most `LINGER_S`, and close."""
        if self._socket.closed:
            return
        self._read_events()
        self._book.closing = True
        self._socket.close()
        # A connection may be established only now: socket and monitor go on until everything is sent.
        deadline = time.monotonic() + LINGER_S + 1.0
        while not self._stopped and (remaining_s := deadline - time.monotonic()) > 0:
            zmq.zmq_poll([(helper, zmq.POLLIN) for helper in self._helpers], _milliseconds(remaining_s))
            self._read_events()
        self._end()

    def _end(self) -> None:
        for helper in self._helpers:
            helper.close(linger=0)
        self._context.term()
        self._book.close()

    @abstractmethod
    def _take(self) -> Message | None:
        """Return a message that has arrived already, or None; never blocks."""

    def _begin(self) -> None:
        """Begin a call: raise if the transport is closed, and read connection events from time to time."""
        if self._socket.closed:
            raise LocalError("the transport is closed")
        if time.monotonic() >= self._read_events_at:
            self._read_events()

    def _read_events(self) -> None:
        """Process the pending connection events."""
        if self._monitor.closed:
            return
        self._read_events_at = time.monotonic() + EVENTS_INTERVAL_S
        for _ in range(GUARD_EVENTS):
            if (news := _poll_message(self._monitor)) is None:
                break
            event, value = struct.unpack("=hi", news[0])
            self._hear(event, value)
        self._book.settle()

    def _hear(self, event: int, value: int) -> None:
        """Process one event of the monitor; `value` is a descriptor, or the reason why a handshake failed."""
        if event in (zmq.EVENT_CONNECTED, zmq.EVENT_ACCEPTED):
            self._book.opened(value)
        elif event == zmq.EVENT_DISCONNECTED:
            self._book.ended(value)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._book.failed(KNOWN_FAILURES.get(value, f"ZeroMQ's protocol error {value:#x}"))
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._book.failed("it was aborted")
        elif event == zmq.EVENT_MONITOR_STOPPED:
            self._stopped = True

    def _wait(self, timeout_s: float) -> bool:
        """Wait for a message, an event, or the caller's descriptor; return whether the descriptor is readable."""
        ready = [source for source, _ in zmq.zmq_poll(self._polled, _milliseconds(timeout_s))]
        if ready != [self._socket]:
            self._read_events()
        return self._wake in ready


class DealerTransport(_Endpoint[bytes]):
    """A base station's end of its link (an `EdgeTransport`)."""

    def __init__(
        self, address: str, bs: int, *, keys: EdgeKeys | None = None, queue_messages: int = QUEUE_MESSAGES
    ) -> None:
        """Connect as `bs`; returns before the connection is established.

        Args:
            address: the cloud's `RouterTransport.address`.
            bs: base station; without keys, its name identifies the connection.
            keys: keys for encryption and identification; None for an unencrypted link.
            queue_messages: maximum number of messages queued on each side.

        Raises:
            LocalError: `address` is not valid, or its host is not known.
        """
        scheme, _, place = address.partition("://")
        host, _, port = place.rpartition(":")
        if scheme != "tcp" or not host:
            raise LocalError(f"cannot connect to {address!r}: it is not tcp://HOST:PORT")
        address = f"tcp://{host_of(host)}:{port}"
        book = ConnectionBook(connecting=True, owner=bs)
        super().__init__(zmq.DEALER, address, queue_messages, MAX_MESSAGE_BYTES, curve=keys is not None, book=book)
        if keys is not None:
            self._socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server_public)
            self._socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        self._address = address
        self._bs = bs
        self._mark = None if keys is not None else os.urandom(4)
        self._connections = 0
        self._queue_messages = queue_messages
        self._during_cut: deque[bytes] = deque()
        self._refused = False
        try:
            self._connect()
        except zmq.ZMQError as error:
            self.close()
            raise LocalError(f"cannot connect to {address!r}: {error.strerror}") from error
        book.port = port

    def send(self, data: bytes, t_release_ns: int = 0) -> None:
        """Queue one message for the cloud; see `EdgeTransport.send`. Cannot hold messages back."""
        self._begin()
        check_sendable(data)
        check_release(t_release_ns)
        if not self._connected():
            if len(self._during_cut) >= self._queue_messages:
                raise QueueFull("the queue to the cloud is full: the link is cut")
            self._during_cut.append(data)
            return
        try:
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.Again as error:
            self._read_events()
            if self._refused:
                raise TransportError(REFUSED) from error
            raise QueueFull("the queue to the cloud is full: is it running?") from error

    def cut(self, seconds: float) -> None:
        """Reset the connection, and connect again after `seconds` [s]; see `EdgeTransport.cut`.

        The first call of `send` or `receive` after that time reconnects; a `receive` that waits does so too.
        """
        self._begin()
        self._read_events()
        if self._reconnect_at == math.inf:
            self._socket.setsockopt(zmq.LINGER, 0)
            self._disconnect()
            self._socket.setsockopt(zmq.LINGER, _milliseconds(LINGER_S))
        self._during_cut.clear()
        self._book.cut()
        self._reconnect_at = time.monotonic() + seconds

    def renew(self) -> None:
        """Give up a mute connection, and connect again; see `EdgeTransport.renew`."""
        self._begin()
        self._read_events()
        if self._book.connections:
            self._disconnect()
            self._book.give_up()
            self._connect()

    def _connect(self) -> None:
        if self._mark is not None:
            self._socket.setsockopt(zmq.IDENTITY, connection_name(self._bs, self._mark, self._connections))
            self._connections += 1
        self._socket.connect(self._address)

    def _disconnect(self) -> None:
        """Disconnect, and wait until the socket has closed its descriptor."""
        self._socket.disconnect(self._address)
        deadline = time.monotonic() + PATIENCE_S
        while not self._book.alone and time.monotonic() < deadline:
            self._socket.getsockopt(zmq.EVENTS)  # lets the socket process the disconnect
            time.sleep(0.001)

    def _take(self) -> bytes | None:
        self._connected()
        try:
            part = self._socket.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        self.t_received_ns = real_ns()
        data, descriptor = part.bytes, part.get(zmq.SRCFD)
        first = not self._book.taken
        self._book.taken.append((descriptor, self._bs, self.costs.stream_bytes(len(data))))
        if first and not self._book.known(descriptor):
            self._read_events()
        return data

    def _hear(self, event: int, value: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refused = True
            self._book.failed(REFUSED)
        else:
            super()._hear(event, value)

    def _connected(self) -> bool:
        """Return whether the link is not cut; reconnects once the time of a cut is over."""
        if self._reconnect_at == math.inf:
            return True
        if time.monotonic() < self._reconnect_at:
            return False
        self._reconnect_at, self._refused = math.inf, False
        self._connect()
        while self._during_cut:
            self._socket.send(self._during_cut.popleft(), zmq.NOBLOCK)
        return True


@dataclass(slots=True)
class _Owner:
    """The process that speaks for a base station.

    Attributes:
        mark: without keys, the mark in the names of its connections.
        peer: ZeroMQ's name of the connection over which it was heard last.
        heard_ns: when it was heard last [ns].
        connection: its connection; None if that was not known yet.
    """

    mark: bytes
    peer: bytes
    heard_ns: int
    connection: OpenConnection | None


class RouterTransport(_Endpoint[Received]):
    """The cloud's end of all links (a `CloudTransport`).

    Attributes:
        address: address to which base stations connect, such as "tcp://127.0.0.1:45671".
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        keys: CloudKeys | None = None,
        queue_messages: int = QUEUE_MESSAGES,
        load: Load = Load(frozenset(range(STRANGERS))),  # noqa: B008 - immutable
    ) -> None:
        """Listen for base stations.

        Args:
            host: name or address of the interface to listen at.
            port: TCP port; 0 picks a free one.
            keys: keys for encryption, and the keys to admit; None admits any peer, unencrypted.
            queue_messages: maximum number of messages queued on each side of each link.
            load: of the base stations; peers that exceed it are cut off.

        Raises:
            LocalError: the port is in use, the host is not known or not an address of this machine, or the system
                allows too few open files.
        """
        address = f"tcp://{host_of(host)}"
        costs = ZMTP_NULL if keys is None else ZMTP_CURVE
        strangers = _allowed_strangers(len(load.stations))
        limits = Limits(
            queue_messages=queue_messages,
            message_bytes=costs.stream_bytes(load.message_bytes),
            handshake_bytes=costs.handshake_bytes(0xFFFF)[0],
            stations=load.stations,
            strangers=strangers,
            per_station=PER_STATION,
        )
        book = ConnectionBook(connecting=False, limits=limits)
        super().__init__(zmq.ROUTER, address, queue_messages, load.message_bytes, curve=keys is not None, book=book)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, _milliseconds(HANDSHAKE_S))
        self._allowed: dict[bytes, int] | None = None
        self._stations = load.stations
        self._door: zmq.Socket[bytes] | None = None  # where ZeroMQ sends authentication requests (ZAP, RFC 27)
        self._owners: dict[int, _Owner] = {}
        self._guard = threading.Thread(target=self._keep_guard, name="fronthaul guard", daemon=True)
        self._broken: BaseException | None = None
        self._waited_s = -math.inf
        self._stream_bytes = lru_cache(self.costs.stream_bytes)
        self._closing = threading.Event()
        self._ready_to_close = threading.Event()
        if keys is None:
            self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        else:
            self._allowed = dict(keys.allowed)
            self._socket.setsockopt(zmq.CURVE_SERVER, 1)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
            self._door = self._helper(zmq.REP)
            self._door.bind("inproc://zeromq.zap.01")
        self._polled = [entry for entry in self._polled if entry[0] is self._socket]  # the guard polls the helpers
        self._guard.start()
        try:
            self._socket.bind(f"{address}:{port or '*'}")
        except zmq.ZMQError as error:
            self.close()
            if error.errno == zmq.EADDRINUSE:
                raise LocalError(f"port {port} on {host} is in use: choose another, or 0 for a free one") from error
            raise LocalError(f"cannot listen on {host} port {port}: {error.strerror}") from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self._book.port = self.address.rsplit(":", 1)[-1]

    def send(self, bs: int, data: bytes, t_release_ns: int = 0) -> None:
        """Queue one message for base station `bs`; see `CloudTransport.send`. Cannot hold messages back."""
        self._begin()
        check_sendable(data)
        check_release(t_release_ns)
        owner = self._owners.get(bs)
        if owner is None:
            raise TransportError(f"BS {bs} is not connected")
        try:
            self._socket.send(owner.peer, zmq.SNDMORE | zmq.NOBLOCK)
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.Again as error:
            raise QueueFull(f"the queue to BS {bs} is full: does it still receive?") from error
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            raise TransportError(f"BS {bs} is not connected") from error

    def take_connections(self) -> list[ConnectionCount]:
        """Return the connections that have ended; see `Transport.take_connections`."""
        return self._book.take_connections()

    def take_events(self) -> list[LinkEvent]:
        """Return the connection events; see `Transport.take_events`."""
        return self._book.take_events()

    def close(self) -> None:
        """Send queued messages, for at most `LINGER_S`, and close."""
        if self._socket.closed:
            return
        self._closing.set()
        self._ready_to_close.wait(LINGER_S)
        self._socket.close()
        self._guard.join()
        self._end()

    def _begin(self) -> None:
        if self._socket.closed:
            raise LocalError("the transport is closed")
        if self._broken is not None:
            raise TransportError("the thread that guards the connections broke down") from self._broken

    def _wait(self, timeout_s: float) -> bool:
        ready = [source for source, _ in zmq.zmq_poll(self._polled, _milliseconds(timeout_s))]
        return self._wake in ready

    def receive_waiting(self, most: int) -> list[Arrived]:
        """Return messages that have arrived already; see `CloudTransport.receive_waiting`."""
        self._begin()
        return self._drain(most)

    def _take(self) -> Received | None:
        for bs, data, t_received_ns in self._drain(1):
            self.t_received_ns = t_received_ns
            return Received(bs, data)
        return None

    def _drain(self, most: int) -> list[Arrived]:
        """Return messages that have arrived already; the connection of one that nobody may send is ended."""
        receive, keyed, owners, book = self._socket.recv, self._allowed is not None, self._owners, self._book
        took, stream_bytes, origin_ns = book.taken.append, self._stream_bytes, origin().t_ns
        arrived: list[Arrived] = []
        refused = 0
        while len(arrived) < most and refused < REFUSED_MESSAGES:
            try:
                peer = receive(_NOBLOCK)
            except zmq.Again:
                break
            part = receive(0, False)
            now_ns = origin_ns + time.monotonic_ns()  # as `real_ns`
            data, descriptor = part.bytes, part.get(_SRCFD)
            # Read from each message: a route may belong to another connection later.
            bs, mark = (int(part.get("User-Id")), b"") if keyed else _claimed(peer)
            owner = None if bs is None else owners.get(bs)
            if part.more:
                while part.more:
                    part = receive(0, False)
                book.end(descriptor, "it sent a message of several parts")  # our peers send one part
                refused += 1
                continue
            if owner is not None and owner.peer == peer and owner.connection is not None and not owner.connection.ended:
                owner.heard_ns = now_ns  # as nearly always
            elif bs is None:  # returned as evidence
                book.end(descriptor, "it does not name a base station")
            elif not self._speaks_for(bs, mark, peer, descriptor, now_ns):
                book.end(descriptor, f"it claims to be BS {bs}, which is connected already or not of this run")
                refused += 1
                continue
            took((descriptor, bs, stream_bytes(len(data))))
            arrived.append((bs, data, now_ns))
        return arrived

    def _speaks_for(self, bs: int, mark: bytes, peer: bytes, descriptor: int, now_ns: int) -> bool:
        """Return whether a peer speaks for the base station that it claims to be, and address its answers to it."""
        owner = self._owners.get(bs)
        if owner is None:
            if bs not in self._stations and len(self._owners) >= len(self._stations) + STRANGERS:
                return False
        elif owner.mark != mark and self._lives(owner, now_ns):
            return False
        self._owners[bs] = _Owner(mark, peer, now_ns, self._noted(descriptor))
        return True

    def _noted(self, descriptor: int) -> OpenConnection | None:
        """Return the connection of `descriptor`, after a moment for the guard to note it: it may end soon after.

        A peer that connects again and again is not waited for each time.
        """
        now_s = time.monotonic()
        if now_s - self._waited_s > 10 * NOTE_S:
            while not self._book.known(descriptor) and time.monotonic() - now_s < NOTE_S:
                self._waited_s = time.monotonic()
                time.sleep(0.001)
        return self._book.connection(descriptor)

    def _lives(self, owner: _Owner, now_ns: int) -> bool:
        """Return whether a peer is connected, and was heard not long before `now_ns` [ns]."""
        if now_ns - owner.heard_ns >= LIVING_S * 1e9:
            return False
        return owner.connection is None or self._book.lives(owner.connection)

    # --- the guard's thread, which alone uses the monitor and the door

    def _keep_guard(self) -> None:
        try:
            self._watch()
        except BaseException as error:
            self._broken = error
            self._ready_to_close.set()

    def _watch(self) -> None:
        deadline = math.inf
        while not self._stopped and time.monotonic() < deadline:
            pause_s = max(GUARD_S, GUARD_EACH_S * self._book.connections)
            zmq.zmq_poll([(helper, zmq.POLLIN) for helper in self._helpers], _milliseconds(pause_s))
            begin = time.monotonic()
            with self._book.lock:
                self._read_events()
                self._book.enforce()
                if self._closing.is_set() and not self._book.closing:
                    self._book.closing = True
                    deadline = time.monotonic() + LINGER_S + 1.0
                    self._ready_to_close.set()
            time.sleep((time.monotonic() - begin) / 2)  # a flood must leave the interpreter to the caller for a third

    def _read_events(self) -> None:
        if self._door is not None:
            for _ in range(GUARD_EVENTS):
                if (request := _poll_message(self._door)) is None:
                    break
                reply, stranger = admit(request, self._allowed or {})
                self._door.send_multipart(reply)
                if stranger is not None:
                    self._book.refused(stranger, "its key belongs to no base station")
        super()._read_events()


def _allowed_strangers(stations: int) -> int:
    """Return how many connections that no base station owns may be open; raise the limit of open files for them.

    Each takes two descriptors, the socket's and the book's.

    Raises:
        LocalError: the system allows too few open files even for the base stations.
    """
    reserved = 2 * PER_STATION * stations + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = reserved + 2 * (STRANGERS + stations)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = wanted if soft == resource.RLIM_INFINITY else soft
    strangers = min(wanted, room) - reserved
    if strangers < 2 * stations:
        raise LocalError(
            f"{stations} base stations need {reserved + 2 * stations} open files, the system allows {room}"
        )
    return strangers // 2


def _poll_message(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


def _milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)

"""A base station whose link's other end is in the hands of a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_nodes import site

from edge.node import EdgeNode
from fronthaul.clock import SimulatedClock
from fronthaul.errors import TransportError
from fronthaul.log.received import read_received
from fronthaul.log.sent import amended, read_journal
from fronthaul.message.messages import Frame, Message, Payload, Report, ReportKey
from fronthaul.message.wire import decode, encode
from fronthaul.transport.memory import MemoryNetwork
from fronthaul.transport.transport import CloudTransport, EdgeTransport

NAME = "bs-005-epoch-2"


class Stubborn:
    """A base station's end of a memory link, which does not take everything."""

    def __init__(self, inner: EdgeTransport) -> None:
        self.inner = inner
        self.on_send: list[TransportError] = []
        self.on_receive: list[TransportError] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def send(self, data: bytes, t_release_ns: int = 0) -> None:
        if self.on_send:
            raise self.on_send.pop(0)
        self.inner.send(data, t_release_ns)

    def receive(self, timeout_s: float) -> bytes | None:
        if self.on_receive:
            raise self.on_receive.pop(0)
        return self.inner.receive(timeout_s)


class Linked:
    """BS 5 in epoch 2, and the other end of its link."""

    def __init__(self, folder: Path, build: Any = None, **changes: Any) -> None:
        self.folder = folder
        self.clock = SimulatedClock(50)
        self.network = MemoryNetwork(self.clock)
        self.transport = Stubborn(self.network.edge(5))
        self.cloud: CloudTransport = self.network.cloud()
        parts = site(5, 2, **changes)
        if build is not None:
            parts = replace(parts, station=replace(parts.station, build=build))
        self.node: EdgeNode = EdgeNode(parts, self.transport, folder, self.clock)

    def heard(self) -> list[Message]:
        messages = []
        while (received := self.cloud.receive(0.0)) is not None:
            messages.append(decode(received.data))
        return messages

    def say(self, *messages: Message | bytes) -> None:
        for message in messages:
            self.cloud.send(5, message if isinstance(message, bytes) else encode(message))

    def sent(self) -> list[dict[str, Any]]:
        return amended(read_journal(self.folder / f"{NAME}-sent.arrow").to_pylist())

    def received(self) -> list[dict[str, Any]]:
        return read_received(self.folder / f"{NAME}-received.arrow").to_pylist()


@contextmanager
def linked(folder: Path, **changes: Any) -> Iterator[Linked]:
    made = Linked(folder, **changes)
    try:
        yield made
    finally:
        made.node.close()


def frames(messages: list[Message]) -> list[Frame]:
    return [message for message in messages if isinstance(message, Frame)]


def state(snapshot: int, round_: int, *, bs: int = 5, epoch: int = 2, value: int = 9, seq: int = 0) -> Frame:
    return Frame(seq, (Report(ReportKey(bs, epoch, snapshot, round_), Payload(bytes([value]), 8)),))

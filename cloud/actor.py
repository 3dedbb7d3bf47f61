"""The Ray shell around the cloud.

A plain class, which `sim.run.cluster` turns into an actor with three threads: `serve` occupies one for the whole run,
the others answer `ask` and `closed_snapshots` meanwhile.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import ray
import torch

from cloud.node import CloudNode, CloudOutcome, CloudParts, Request
from fronthaul.clock import WallClock
from fronthaul.ledger import ReceiveLog
from fronthaul.sockets import RouterTransport


class CloudActor:
    """The cloud in a process of its own."""

    def __init__(self, parts: CloudParts, threads: int) -> None:
        """Keep the parts; `threads` is how many torch computes with."""
        self._parts = parts
        self._threads = threads
        self._node: CloudNode | None = None
        self._shipped: Path | None = None

    def listen(self, host: str | None, port: int, receive_log: Path, driver_node: str) -> str:
        """Bind, and return the address at which base stations reach the cloud.

        Args:
            host: address to listen at; None takes this node's own.
            port: TCP port; 0 takes a free one.
            receive_log: its path on the driver's node; elsewhere a temporary file takes its place, until
                `collect` ships it.
            driver_node: Ray's id of that node.

        Raises:
            LocalError: the port is in use, or the host is not ours.
        """
        path = receive_log
        if ray.get_runtime_context().get_node_id() != driver_node:
            path = self._shipped = Path(tempfile.mkdtemp(prefix="cofix-")) / receive_log.name
        own: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        transport = RouterTransport(host or own, port)
        self._node = CloudNode(self._parts, transport, ReceiveLog(path), WallClock())
        # A wildcard is where we listen, and nowhere to connect to.
        return transport.address.replace("//0.0.0.0:", f"//{own}:")

    def serve(self, idle_timeout_s: float) -> None:
        """Run until all base stations have left, or nothing has arrived for `idle_timeout_s` [s]."""
        # Per thread in OpenMP, so it is set where fusion runs.
        torch.set_num_threads(self._threads)
        node = self._running()
        node.rehearse()
        node.run(idle_timeout_s)

    def ask(self, request: Request) -> None:
        """Pass a request to the loop of `serve`."""
        self._running().ask(request)

    def closed_snapshots(self) -> int:
        """Snapshots that are done."""
        return self._running().closed_snapshots

    def collect(self) -> tuple[CloudOutcome, bytes | None]:
        """Close links and log; return the outcome, and the log where this is not the driver's node."""
        node = self._running()
        node.close()
        log = None
        if self._shipped is not None:
            log = self._shipped.read_bytes()
            self._shipped.unlink()
            self._shipped.parent.rmdir()
        return node.outcome(), log

    def _running(self) -> CloudNode:
        assert self._node is not None, "listen comes first"
        return self._node

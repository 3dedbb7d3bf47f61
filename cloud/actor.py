"""The Ray wrapper around the cloud.

A plain class, which `sim.emulate.ray_driver` turns into an actor with three threads: `serve` occupies one for the whole
run; the others serve `ask` and `progress` meanwhile.
"""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from pathlib import Path

import ray
import torch

from cloud.cloud_spec import CloudOutcome, CloudSpec
from cloud.node import CloudNode, Request
from fronthaul.clock import Origin, WallClock, adopt
from fronthaul.errors import LocalError
from fronthaul.sender.sender import PATIENCE_S
from fronthaul.transport.connect import cloud_transport
from fronthaul.transport.endpoint import in_url, is_ipv6, is_loopback
from fronthaul.transport.keys import CloudKeys
from fronthaul.turns import take_long_turns


class CloudActor:
    """The cloud in its own process."""

    def __init__(self, parts: CloudSpec, origin: Origin, threads: int, device: str = "cpu", gpus: float = 0.0) -> None:
        """Store the parts; nothing is built before `listen`.

        Args:
            parts: specification of the cloud.
            origin: of the driver's times.
            threads: number of threads that torch uses.
            device: device on which the networks run.
            gpus: share of a GPU assigned to this process.
        """
        adopt(origin)
        if gpus > 0:
            # Ray places fractions and does not enforce them.
            torch.cuda.set_per_process_memory_fraction(min(1.0, gpus))
        self._parts = replace(parts, setup=replace(parts.setup, device=device))
        self._threads = threads
        self._node: CloudNode | None = None

    def process(self) -> tuple[str, int]:
        """Return where this actor runs: Ray's node id and the process id."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def listen(
        self,
        host: str | None,
        port: int,
        keys: CloudKeys | None,
        queue_messages: int,
        folder: Path,
        incarnation: int,
    ) -> str:
        """Bind, and return the address at which base stations reach the cloud.

        Args:
            host: address to listen at; None uses this node's own address.
            port: TCP port; 0 picks a free one.
            keys: of the cloud; None leaves the links unencrypted.
            queue_messages: maximum number of messages queued per link.
            folder: of the streams, on this node.
            incarnation: how many times the cloud started before.

        Raises:
            LocalError: the port is in use, or the host is not an address of this machine.
        """
        own: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        transport = cloud_transport(
            host or own,
            port,
            keys=keys,
            queue_messages=queue_messages,
            delayed=bool(self._parts.down),
            patience_s=PATIENCE_S if self._parts.closed_loop else 0.0,
            load=self._parts.load,
        )
        self._node = CloudNode(self._parts, transport, folder, WallClock(), incarnation=incarnation)
        return _reachable(transport.address, own)

    def serve(self, idle_timeout_s: float) -> CloudOutcome:
        """Run until all base stations have left, or the remaining ones have been silent for `idle_timeout_s` [s].

        Returns:
            The outcome, before the streams are closed.
        """
        # OpenMP keeps this setting per thread, so it is set in the thread that runs fusion.
        torch.set_num_threads(self._threads)
        if self._parts.closed_loop:
            take_long_turns()
        node = self._running()
        node.rehearse()
        gc.collect()
        # Otherwise a full garbage collection during the run scans all objects of the libraries: 0.3 million, which
        # stopped the loop for 0.13 s. On average over many reports it makes no difference.
        gc.freeze()
        node.run(idle_timeout_s)
        return node.outcome()

    def ask(self, request: Request) -> None:
        """Pass a request to the loop of `serve`."""
        self._running().ask(request)

    def progress(self) -> tuple[int, int]:
        """Return the numbers of closed snapshots and of rounds that wait, see `CloudNode.waiting`."""
        node = self._running()
        return node.closed_snapshots, node.waiting

    def close(self) -> None:
        """Close links and streams."""
        self._running().close()

    def _running(self) -> CloudNode:
        assert self._node is not None, "listen comes first"
        return self._node


def _reachable(address: str, own: str) -> str:
    """Return an address to connect to: one that listens at all of this node's becomes its own.

    Raises:
        LocalError: it listens at all addresses of IPv6, and `own` is of IPv4.
    """
    if "//[::]:" not in address:
        return address.replace("//0.0.0.0:", f"//{in_url(own)}:")
    if is_loopback(own):
        own = "::1"
    if not is_ipv6(in_url(own)):
        raise LocalError(f"[::] is no address to connect to, and {own} is not of IPv6: name one of this machine's")
    return address.replace("//[::]:", f"//{in_url(own)}:")

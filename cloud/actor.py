"""The Ray shell around the cloud.

A plain class, which `sim.emulate.ray_driver` turns into an actor with three threads: `serve` occupies one for the whole
run, the others answer `ask` and `progress` meanwhile.
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
from fronthaul.clock import WallClock
from fronthaul.log.workspace import Workspace
from fronthaul.transport.connect import cloud_transport
from fronthaul.transport.keys import CloudKeys


class CloudActor:
    """The cloud in a process of its own."""

    def __init__(self, parts: CloudSpec, threads: int, device: str = "cpu", gpus: float = 0.0) -> None:
        """Keep the parts.

        Args:
            parts: what the cloud is made of.
            threads: how many torch computes with.
            device: on which networks compute.
            gpus: share of a GPU that this process was given.
        """
        if gpus > 0:
            # Ray places fractions and does not enforce them.
            torch.cuda.set_per_process_memory_fraction(min(1.0, gpus))
        self._parts = replace(parts, setup=replace(parts.setup, device=device))
        self._threads = threads
        self._node: CloudNode | None = None
        self._workspace = Workspace()

    def process(self) -> tuple[str, int]:
        """Return where this actor runs: Ray's id of the node, and the process's number there."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def listen(
        self,
        host: str | None,
        port: int,
        keys: CloudKeys | None,
        queue_messages: int,
        folder: Path,
        driver_node: str,
        incarnation: int,
    ) -> str:
        """Bind, and return the address at which base stations reach the cloud.

        Args:
            host: address to listen at; None takes this node's own.
            port: TCP port; 0 takes a free one.
            keys: of the cloud; None leaves the links unencrypted.
            queue_messages: what may wait on a link.
            folder: of the streams on the driver's node; elsewhere a temporary one takes its place, until `collect`
                ships it.
            driver_node: Ray's id of that node.
            incarnation: how many times the cloud started before.

        Raises:
            LocalError: the port is in use, or the host is not ours.
        """
        path = self._workspace.open(folder, ray.get_runtime_context().get_node_id() == driver_node)
        own: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        transport = cloud_transport(
            host or own, port, keys=keys, queue_messages=queue_messages, delayed=bool(self._parts.down)
        )
        self._node = CloudNode(self._parts, transport, path, WallClock(), incarnation=incarnation)
        # A wildcard is where we listen, and nowhere to connect to.
        return transport.address.replace("//0.0.0.0:", f"//{own}:")

    def serve(self, idle_timeout_s: float) -> None:
        """Run until all base stations have left, or those who have not say nothing for `idle_timeout_s` [s]."""
        # Per thread in OpenMP, so it is set where fusion runs.
        torch.set_num_threads(self._threads)
        node = self._running()
        node.rehearse()
        gc.collect()
        # Or a full collection, which comes once enough is new, looks through all that the libraries hold: 0.3 million
        # objects, for which the loop stood still 0.13 s. On average over many reports it makes no difference.
        gc.freeze()
        node.run(idle_timeout_s)

    def ask(self, request: Request) -> None:
        """Pass a request to the loop of `serve`."""
        self._running().ask(request)

    def progress(self) -> tuple[int, int]:
        """Snapshots that are done, and fixes of this incarnation."""
        node = self._running()
        return node.closed_snapshots, node.fixes_made

    def collect(self) -> tuple[CloudOutcome, dict[str, bytes]]:
        """Close links and streams; return the outcome, and the streams where this is not the driver's node."""
        node = self._running()
        node.close()
        return node.outcome(), self._workspace.ship()

    def _running(self) -> CloudNode:
        assert self._node is not None, "listen comes first"
        return self._node

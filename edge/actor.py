"""Ray actor for base stations: one process holds one or several, each with its own link and streams.

This is a plain class, which `sim.emulate.ray_driver` turns into an actor with two threads: `run` occupies one, `cut`
needs the other.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from edge.node import EdgeNode
from edge.pacing import End, run_schedule
from edge.schedule import Schedule
from edge.site import SiteSpec
from fronthaul.clock import Origin, WallClock, adopt
from fronthaul.errors import LocalError
from fronthaul.log.remote import RemoteFolder
from fronthaul.sender.sender import PATIENCE_S
from fronthaul.transport.connect import edge_transport
from fronthaul.transport.keys import EdgeKeys
from fronthaul.transport.thread_namespace import inside
from fronthaul.turns import take_long_turns


class EdgeActor:
    """Base stations that share a process."""

    def __init__(
        self, sites: Sequence[SiteSpec], origin: Origin, threads: int, device: str = "cpu", gpus: float = 0.0
    ) -> None:
        """Store the sites and configure torch.

        Args:
            sites: one or several base stations.
            origin: of the driver's times.
            threads: number of torch threads.
            device: compute device of the networks.
            gpus: share of a GPU that is allotted to this process.
        """
        adopt(origin)
        torch.set_num_threads(threads)
        self._threads = threads
        if gpus > 0:
            # Ray schedules by GPU fractions but does not enforce them.
            torch.cuda.set_per_process_memory_fraction(min(1.0, gpus))
        self._sites = [_on_device(site, device) for site in sites]
        self._nodes: list[EdgeNode] = []

    def process(self) -> tuple[str, int]:
        """Return where this actor runs: Ray's node id and the process id."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def connect(
        self,
        addresses: Mapping[int, str],
        keys: Mapping[int, EdgeKeys],
        namespaces: Mapping[int, str],
        queue_messages: int,
        folder: Path,
        driver_node: str,
        keeper: Any,
        timeout_s: float,
    ) -> list[int]:
        """Build the base stations, connect and register them.

        Args:
            addresses: address of the cloud for each BS.
            keys: keys of each BS; empty for links without encryption.
            namespaces: network namespace in which each BS opens its sockets; empty for this process's own.
            queue_messages: maximum number of messages queued on a link.
            folder: folder of the streams on the driver's node.
            driver_node: Ray's id of the driver's node.
            keeper: handle of a `Keeper` there, which writes the streams of other nodes; None if there are none.
            timeout_s: how long the cloud may take to answer [s].

        Returns:
            The BSs that are registered.

        Raises:
            FronthaulError: the cloud refuses a base station, or does not answer.
        """
        here = ray.get_runtime_context().get_node_id() == driver_node
        streams = folder if here else RemoteFolder(_KeeperCalls(keeper))
        for site in self._sites:
            bs = site.station.bs
            with inside(namespaces[bs]) if bs in namespaces else contextlib.nullcontext():
                transport = edge_transport(
                    addresses[bs],
                    bs,
                    keys=keys.get(bs),
                    queue_messages=queue_messages,
                    delayed=site.up is not None,
                    patience_s=PATIENCE_S if site.closed_loop else 0.0,
                )
            self._nodes.append(EdgeNode(site, transport, streams, WallClock()))
        for node in self._nodes:
            node.rehearse()
            node.register()
        for node in self._nodes:
            node.await_welcome(timeout_s)
        return [node.station.bs for node in self._nodes]

    def run(self, schedule: Schedule, first_snapshot: int, end_s: float) -> End:
        """Run the schedule from `first_snapshot` on, paced by this process's own clock; see `run_schedule`.

        Raises:
            FronthaulError: the cloud has turned a base station away, or the disk is full.
        """
        # OpenMP keeps this setting per thread, so it is set in the thread that encodes.
        torch.set_num_threads(self._threads)
        if not schedule.interval_ns:
            take_long_turns()
        gc.collect()
        gc.freeze()  # otherwise every collection scans all objects of the libraries
        clock = WallClock()
        first_snapshot = max(first_snapshot, schedule.next_snapshot(clock.now_ns()) if first_snapshot else 0)
        return run_schedule(self._nodes, schedule, clock, first_snapshot=first_snapshot, end_s=end_s)

    def cut(self, bs: int, seconds: float) -> None:
        """Cut the link of `bs` for `seconds` [s] (fault injection)."""
        for node in self._nodes:
            if node.station.bs == bs:
                node.cut(seconds)

    def close(self) -> None:
        """Close links and streams."""
        for node in self._nodes:
            node.close()


class _KeeperCalls:
    """Calls of a keeper that is an actor on the driver's node."""

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper

    def write(self, name: str, offset: int, data: bytes) -> object:
        return self._keeper.write.remote(name, offset, data)

    def truncate(self, name: str, size: int) -> object:
        return self._keeper.truncate.remote(name, size)

    def await_all(self, calls: list[Any]) -> None:
        try:
            ray.get(calls)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            raise LocalError("the driver's node, which keeps the journals, cannot be reached") from error


def _on_device(site: SiteSpec, device: str) -> SiteSpec:
    station = site.station
    return replace(site, station=replace(station, setup=replace(station.setup, device=device)))

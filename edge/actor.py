"""The Ray shell around base stations: one actor process holds one or several, each with its own link and journal.

A plain class, which `sim.run.cluster` turns into an actor. Methods run one after the other in the same process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import ray
import torch

from edge.node import EdgeNode, EdgeOutcome, Schedule, SiteParts, run_schedule
from fronthaul.clock import WallClock
from fronthaul.journal import SendJournal
from fronthaul.sockets import DealerTransport


class EdgeActor:
    """Base stations that share a process."""

    def __init__(self, sites: Sequence[SiteParts], threads: int, gpus: float = 0.0) -> None:
        """Keep the parts.

        Args:
            sites: one or several base stations.
            threads: how many torch computes with.
            gpus: share of a GPU that this process was given; 0 computes on the CPU.
        """
        torch.set_num_threads(threads)
        if gpus > 0:
            # Ray places fractions and does not enforce them.
            torch.cuda.set_per_process_memory_fraction(min(1.0, gpus))
            sites = [_on_device(site, "cuda") for site in sites]
        self._sites = sites
        self._nodes: list[EdgeNode] = []
        self._shipped: dict[int, Path] = {}

    def connect(self, address: str, journals: Mapping[int, Path], driver_node: str, timeout_s: float) -> list[int]:
        """Build the base stations, connect and register them.

        Args:
            address: where the cloud listens.
            journals: path of each BS's journal on the driver's node; elsewhere a temporary file takes its
                place, until `collect` ships it.
            driver_node: Ray's id of that node.
            timeout_s: how long the cloud may take to answer [s].

        Returns:
            The BSs.

        Raises:
            FronthaulError: the cloud refuses a base station, or does not answer.
        """
        here = ray.get_runtime_context().get_node_id() == driver_node
        for site in self._sites:
            bs = site.station.bs
            path = journals[bs]
            if not here:
                path = self._shipped[bs] = Path(tempfile.mkdtemp(prefix="cofix-")) / path.name
            transport = DealerTransport(address, bs)
            self._nodes.append(site.node(transport, SendJournal(path, bs), WallClock()))
        for node in self._nodes:
            node.rehearse()
            node.register()
        for node in self._nodes:
            node.await_welcome(timeout_s)
        return [node.station.bs for node in self._nodes]

    def run(self, schedule: Schedule) -> None:
        """Run the schedule, paced by this process's own clock, and say goodbye.

        Raises:
            FronthaulError: a link could not take a frame.
        """
        run_schedule(self._nodes, schedule)

    def collect(self) -> list[tuple[EdgeOutcome, bytes | None]]:
        """Close links and journals; return each outcome, and the journal where it is not the driver's node's."""
        collected = []
        for node in self._nodes:
            node.close()
            path = self._shipped.get(node.station.bs)
            journal = None if path is None else path.read_bytes()
            if path is not None:
                path.unlink()
                path.parent.rmdir()
            collected.append((node.outcome(), journal))
        return collected


def _on_device(site: SiteParts, device: str) -> SiteParts:
    station = site.station
    return replace(site, station=replace(station, setup=replace(station.setup, device=device)))

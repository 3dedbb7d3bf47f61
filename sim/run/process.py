"""The in-process driver: all nodes in one thread, links in memory, time simulated.

Nothing depends on how fast the machine is: the clock moves from one time zero or deadline to the next, and
computing takes none of it. Fates are exact, and thousands of base stations fit.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from cloud.node import CloudNode
from edge.node import EdgeNode, Schedule, run_batch
from fronthaul.clock import SimulatedClock
from fronthaul.journal import SendJournal
from fronthaul.ledger import ReceiveLog
from fronthaul.memory import MemoryNetwork
from sim.errors import UserError
from sim.run.compose import Plan
from sim.run.record import OnProgress, Progress, RunRecord
from sim.run.runfolder import THREADS, RunFolder

_PROGRESS_S = 0.1


def run_in_process(plan: Plan, folder: RunFolder, on_progress: OnProgress) -> RunRecord:
    """Run a plan; journals and receive log go to `folder`."""
    clock = SimulatedClock()
    with torch_threads(THREADS):
        edges, cloud = assemble(plan, folder, clock)
        begin_s = time.perf_counter()
        try:
            drive(edges, cloud, clock, plan.schedule(0), on_progress)
        finally:
            for node in edges:
                node.close()
            cloud.close()
    return RunRecord(
        edges={node.station.bs: node.outcome() for node in edges},
        cloud=cloud.outcome(),
        t0_ns=0,
        wall_clock=False,
        seconds=time.perf_counter() - begin_s,
        address=cloud.address,
    )


def assemble(plan: Plan, folder: RunFolder, clock: SimulatedClock) -> tuple[list[EdgeNode], CloudNode]:
    """Make all nodes of a plan, linked in memory."""
    _allow_open_files(len(plan.sites) + 200)
    network = MemoryNetwork()
    cloud = CloudNode(plan.cloud, network.cloud(), ReceiveLog(folder.receive_log), clock)
    edges = []
    for site in plan.sites:
        bs, epoch = site.station.bs, site.station.epoch
        journal = SendJournal(folder.journal(bs, epoch), bs)
        edges.append(site.node(network.edge(bs), journal, clock))
    return edges, cloud


def drive(
    edges: Sequence[EdgeNode],
    cloud: CloudNode,
    clock: SimulatedClock,
    schedule: Schedule,
    on_progress: OnProgress,
) -> None:
    """Run a schedule; base stations take turns in the order of `edges`, which changes no result."""
    edges[0].rehearse()  # one is enough: all share this process's libraries
    cloud.rehearse()
    for node in edges:
        node.register()
    _drain(cloud)
    for node in edges:
        node.await_welcome(0.0)
    cloud.ask(("start", schedule.t0_ns))
    shown_s = 0.0
    for snapshots in schedule.batches():
        _wait_until(schedule.time_zero_ns(snapshots[-1]), cloud, clock)
        run_batch(edges, snapshots, schedule)
        _drain(cloud)
        if time.perf_counter() - shown_s > _PROGRESS_S:
            shown_s = time.perf_counter()
            on_progress(Progress("run", cloud.closed_snapshots, schedule.snapshots))
    for node in edges:
        node.leave()
    _drain(cloud)
    _wait_until(None, cloud, clock)
    cloud.finish()


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Have torch compute with so many threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _drain(cloud: CloudNode) -> None:
    while cloud.poll(0.0):
        pass


def _wait_until(t_ns: int | None, cloud: CloudNode, clock: SimulatedClock) -> None:
    """Move the clock to `t_ns` [ns], stopping at every deadline; None stops at the last deadline."""
    while (deadline_ns := cloud.next_deadline_ns) is not None and (t_ns is None or deadline_ns < t_ns):
        clock.sleep_until(deadline_ns)
        _drain(cloud)
    if t_ns is not None:
        clock.sleep_until(t_ns)


def _allow_open_files(count: int) -> None:
    """Let this process hold so many files open: each link has its journal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise UserError(f"So many base stations need {count} open files, the system allows {hard}.")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))

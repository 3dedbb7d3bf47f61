"""The in-process driver: all nodes in one thread, links in memory, time simulated.

Results do not depend on the speed of the machine: the clock moves from one time zero or deadline to the next, and
computation takes no simulated time. Fates are exact, and runs scale to thousands of base stations.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from cloud.center import FusionError
from cloud.node import CloudNode
from edge.node import EdgeNode
from edge.pacing import run_batch
from edge.schedule import Schedule
from fronthaul.clock import SimulatedClock
from fronthaul.transport.memory import MemoryNetwork
from sim.arithmetic import fixed_arithmetic
from sim.files import allow_open_files
from sim.plan.outcome import OnProgress, Progress, RunRecord
from sim.plan.plan import Plan
from sim.records.folder import RunFolder

STREAMS_OF_A_LINK = 6
"""Number of files that a base station holds open."""
PROGRESS_S = 0.1


def run_in_process(plan: Plan, folder: RunFolder, on_progress: OnProgress) -> RunRecord:
    """Run a plan; all streams go to `folder`. An error of the fusion rule is listed in the record's `failures`."""
    clock = SimulatedClock()
    with fixed_arithmetic():
        world = assemble(plan, folder, clock)
        begin_s = time.perf_counter()
        failures = []
        try:
            drive(world, plan.schedule(0), on_progress)
        except FusionError as error:
            failures.append(f"The cloud failed: {error}.")
        finally:
            for node in world.edges:
                node.close()
            world.cloud.close()
    return RunRecord(
        cloud=world.cloud.outcome(),
        t0_ns=world.cloud.t0_ns or 0,
        wall_clock=False,
        seconds=time.perf_counter() - begin_s,
        address="memory",
        failures=failures,
    )


@dataclass(frozen=True)
class World:
    """All nodes of a run, linked in memory, and their clock."""

    edges: Sequence[EdgeNode]
    cloud: CloudNode
    network: MemoryNetwork
    clock: SimulatedClock

    def settle(self) -> None:
        """Let all nodes receive and answer messages until none is pending."""
        # A list, not a generator: every node must have its turn.
        while self.cloud.poll(0.0) or any([node.pump() for node in self.edges]):
            pass

    def advance(self, t_ns: int | None) -> None:
        """Move the clock to `t_ns` [ns], stopping at every deadline and arrival; None stops at the last one."""
        while (event_ns := self._next_event_ns()) is not None and (t_ns is None or event_ns < t_ns):
            self.clock.sleep_until(event_ns)
            self.settle()
        if t_ns is not None:
            self.clock.sleep_until(t_ns)

    def _next_event_ns(self) -> int | None:
        events = (self.cloud.next_deadline_ns, self.network.next_release_ns)
        return min((event_ns for event_ns in events if event_ns is not None), default=None)


def assemble(plan: Plan, folder: RunFolder, clock: SimulatedClock) -> World:
    """Create all nodes of a plan, linked in memory."""
    allow_open_files(STREAMS_OF_A_LINK * len(plan.sites) + 200)
    network = MemoryNetwork(clock)
    edges: list[EdgeNode] = []
    with ExitStack() as opened:  # closes the others if one cannot be created
        cloud = CloudNode(plan.cloud, network.cloud(), folder.links, clock)
        opened.callback(cloud.close)
        for site in plan.sites:
            edges.append(EdgeNode(site, network.edge(site.station.bs), folder.links, clock))
            opened.callback(edges[-1].close)
        opened.pop_all()
    return World(edges, cloud, network, clock)


def drive(world: World, schedule: Schedule, on_progress: OnProgress) -> int:
    """Run a schedule; base stations take turns in the order of `edges`, which does not affect the results.

    Returns:
        Time zero [ns]: the schedule's, or the end of registration if that is later, as over links with a delay.
    """
    edges, cloud = world.edges, world.cloud
    edges[0].rehearse()  # one is enough: all share this process's libraries
    cloud.rehearse()
    for node in edges:
        node.register()
    world.settle()
    world.advance(None)
    for node in edges:
        node.await_welcome(0.0)
    schedule = replace(schedule, t0_ns=max(schedule.t0_ns, world.clock.now_ns()))
    cloud.ask(("start", schedule.t0_ns))
    for node in edges:
        node.start(schedule.t0_ns)
    world.settle()
    on_progress(Progress("run", 0, schedule.snapshots))
    shown_s = 0.0
    for snapshots in schedule.batches():
        world.advance(schedule.time_zero_ns(snapshots[-1]))
        run_batch(edges, snapshots, schedule)
        world.settle()
        if time.perf_counter() - shown_s > PROGRESS_S:
            shown_s = time.perf_counter()
            on_progress(Progress("run", cloud.closed_snapshots, schedule.snapshots))
    for node in edges:
        node.leave()
    world.settle()
    world.advance(None)
    cloud.finish()
    world.settle()
    world.advance(None)
    return schedule.t0_ns

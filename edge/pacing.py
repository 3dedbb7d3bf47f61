"""Pacing of base stations that share a process through one schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edge.node import REPEAT_S, EdgeNode, prepare_together, transmit_together
from edge.schedule import Schedule
from fronthaul.clock import Clock
from fronthaul.sender.sender import PATIENCE_S

PAUSE_NS = 500_000
"""Polling interval of the links of base stations that share a process [ns]; a single one waits on its socket."""
AHEAD = 64
"""Snapshots that base stations of a process simulate at once in closed loop, all together: each costs an eighth of one
alone. With an interval it is one batch, since the time for more could make a report late."""
UNSENT_NS = 100_000_000
"""In closed loop, reports of several batches are made together where that takes no longer than this [ns]: the cloud
takes a base station for dead that is silent for many seconds."""
GOODBYE_S = 10.0
"""At the end of a run, a base station whose link stays down at least this long does not wait for the goodbye [s]."""


class End(NamedTuple):
    """How a schedule ended for base stations that share a process.

    Attributes:
        unanswered: base stations that waited for the cloud's goodbye and did not get it.
        cut_off: base stations that did not wait for it, because their link was down.
    """

    unanswered: list[int]
    cut_off: list[int]


def run_batch(nodes: Sequence[EdgeNode], snapshots: range, schedule: Schedule) -> None:
    """Run one batch at all base stations from the time at which it is due."""
    prepare_together(nodes, snapshots)
    transmit_together(nodes, schedule.time_zero_ns(snapshots[-1]))


def run_schedule(
    nodes: Sequence[EdgeNode], schedule: Schedule, clock: Clock, *, first_snapshot: int, end_s: float
) -> End:
    """Run a schedule from `first_snapshot` on, say goodbye, and answer the cloud until it has finished.

    The time for the cloud's goodbye counts from when ours has left our line, which may be slower than what it is given.

    Returns:
        Base stations that waited in vain for the cloud's goodbye (timeout `end_s` [s]), and those that did not wait.

    Raises:
        FronthaulError: the cloud has turned a base station away, or the disk is full.
    """
    for node in nodes:
        node.start(schedule.t0_ns, patience_s=0.0 if schedule.interval_ns else PATIENCE_S)
    at_once = 1 if schedule.interval_ns else max(1, AHEAD // (schedule.batch * len(nodes)))
    batches = list(schedule.batches(first_snapshot))
    together = 1
    for first in range(0, len(batches), at_once):
        prepared = batches[first : first + at_once]
        prepare_together(nodes, *prepared)
        while prepared:
            some, prepared = prepared[:together], prepared[together:]
            due_ns = schedule.time_zero_ns(some[-1][-1])
            wait_together(nodes, due_ns, clock)
            begin_ns = clock.now_ns()
            for node in nodes:
                node.transmit(due_ns, len(some))
            together = max(1, len(some) * UNSENT_NS // max(1, clock.now_ns() - begin_ns))
    for node in nodes:
        node.leave()
    waiting = [node for node in nodes if not node.is_cut_off(GOODBYE_S)]
    begin_ns = max([clock.now_ns(), *(node.line_ns for node in waiting)])
    end_ns = begin_ns + round(end_s * 1e9)
    again_ns = begin_ns + round(REPEAT_S * 1e9)
    while len(nodes) > 1 and not all(node.ended for node in waiting) and clock.now_ns() < end_ns:
        states = sum(node.states for node in nodes)
        for node in nodes:
            node.pump()
        if sum(node.states for node in nodes) > states:  # as in `EdgeNode.await_end`
            end_ns = max(end_ns, clock.now_ns() + round(end_s * 1e9))
        if clock.now_ns() >= again_ns:
            again_ns += round(REPEAT_S * 1e9)
            for node in waiting:
                if not node.ended:
                    node.leave()
        clock.sleep_until(clock.now_ns() + PAUSE_NS)
    alone_s = end_s if len(nodes) == 1 else 0.0
    unanswered = [node.station.bs for node in waiting if not (node.ended or node.await_end(alone_s))]
    return End(unanswered, [node.station.bs for node in nodes if node not in waiting])


def wait_together(nodes: Sequence[EdgeNode], until_ns: int, clock: Clock) -> None:
    """Let all base stations receive and answer the cloud's messages until `until_ns` [ns]."""
    if len(nodes) == 1:
        nodes[0].wait(until_ns)
        return
    while (now_ns := clock.now_ns()) < until_ns:
        if not any([node.pump() for node in nodes]):
            clock.sleep_until(min(until_ns, now_ns + PAUSE_NS))

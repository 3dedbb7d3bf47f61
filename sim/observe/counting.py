"""From a run's streams to the values of its metrics: what the ledger will count, counted while the run goes on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from fronthaul.account.costs import cost_columns
from fronthaul.link.link_model import DropReason
from fronthaul.log.sent import DISCONNECTED, TRANSPORT_FULL
from fronthaul.log.stream_names import EVENTS as EVENT_STREAMS
from fronthaul.log.stream_names import FIXES as FIX_STREAMS
from fronthaul.log.stream_names import RECEIVED, SENT, EdgeStart
from fronthaul.message.columns import frame_columns, is_control
from fronthaul.message.fates import FrameFate, ReportFate
from fronthaul.message.wire import report_keys
from fronthaul.transport.transport_costs import recorded_costs
from sim.observe.metrics import (
    ARRIVAL,
    BYTES_RETURNED,
    BYTES_SENT,
    EVENTS,
    FIX,
    FIXES,
    FRAMES_DROPPED,
    FRAMES_RECEIVED,
    FRAMES_SENT,
    FUSE,
    HELD,
    IN_FLIGHT,
    REPORTS,
    SNAPSHOTS,
    WAITING,
    Metric,
)
from sim.records.tail import Tail

if TYPE_CHECKING:
    import pyarrow as pa

    from sim.plan.settings import EmulateSettings

UNKNOWN = "unknown"
"""Label `bs` of what belongs to no base station, as in the name of its ledger."""
Labels = tuple[str, ...]
"""Values of a metric's labels, in its order."""


class Counting:
    """The metrics of one run.

    Attributes:
        counts: increments of counters since they were taken last, by metric and labels.
        observed: likewise new observations of histograms [ms].
        gauges: values of gauges.
    """

    def __init__(self, links: Path, t0_ns: int, settings: EmulateSettings) -> None:
        """Begin to count.

        Args:
            links: folder of the streams.
            t0_ns: time zero of snapshot 0 on the run's clock [ns].
            settings: of the run.
        """
        self._tail = Tail(links)
        self._t0_ns, self._interval_ns = t0_ns, settings.interval_ns
        self._deadline_ns, self._snapshots = settings.deadline_ns, settings.snapshots
        self._over = 0
        self._release_ns: dict[Labels, list[int]] = {}  # of frames that are held, by link
        self._flying: Counter[Labels] = Counter()
        self.counts: dict[tuple[Metric, Labels], float] = defaultdict(float)
        self.observed: dict[tuple[Metric, Labels], list[float]] = defaultdict(list)
        self.gauges: dict[tuple[Metric, Labels], float] = {}

    def look(self, closed: int, waiting: int, now_ns: int) -> None:
        """Take the state of the cloud.

        Args:
            closed: snapshots that are over there. One that got no report in time is not among them.
            waiting: rounds there that wait for reports or for fusion.
            now_ns: time of the run's clock [ns].
        """
        if self._interval_ns:
            due = (now_ns - self._t0_ns - self._deadline_ns) // self._interval_ns + 1
            closed = max(closed, min(due, self._snapshots))
        self.counts[SNAPSHOTS, ()] += max(0, closed - self._over)
        self._over = max(self._over, closed)
        self.gauges[WAITING, ()] = waiting

    def read(self, clock: Callable[[], int]) -> None:
        """Count what has been appended to the streams since the last call; `clock` tells the time of the run [ns]."""
        # Arrivals first: what has arrived is in a journal by then, so that no frame seems to arrive before it is sent.
        for more in self._tail.further(RECEIVED):
            self._arrived(more.metadata[b"direction"].decode(), more.rows)
        now_ns = clock()  # none of the frames that are released later is among these arrivals
        for more in self._tail.further(SENT):
            self._sent(more.metadata, more.rows)
        for more in self._tail.further(FIX_STREAMS):
            self._fixed(more.rows)
        for more in self._tail.further(EVENT_STREAMS):
            end = "edge" if isinstance(more.start, EdgeStart) else "cloud"
            for bs, kind in zip(more.rows["bs"].to_pylist(), more.rows["kind"].to_pylist(), strict=True):
                if kind != "clock":
                    self.counts[EVENTS, (_label(bs), end, kind)] += 1
        for link, release_ns in self._release_ns.items():
            release_ns[:] = [t_ns for t_ns in release_ns if t_ns > now_ns]
            self.gauges[HELD, link] = len(release_ns)
            self.gauges[IN_FLIGHT, link] = max(0, self._flying[link])

    def take(self) -> Iterator[tuple[Metric, Labels, float]]:
        """Yield increments and observations since the last call, and the gauges."""
        counts, self.counts = self.counts, defaultdict(float)
        observed, self.observed = self.observed, defaultdict(list)
        for (metric, labels), count in counts.items():
            yield metric, labels, count
        for (metric, labels), values in observed.items():
            yield from ((metric, labels, value) for value in values)
        for (metric, labels), value in self.gauges.items():
            yield metric, labels, value

    def _sent(self, metadata: dict[bytes, bytes], rows: pa.RecordBatch) -> None:
        direction = metadata[b"direction"].decode()
        frames = frame_columns(rows["message"])
        costs = cost_columns(frames, recorded_costs(metadata[b"transport"].decode()))
        reasons = np.array(rows["drop_reason"].to_pylist(), object)[frames.message]
        release_ns = rows["t_release_ns"].to_numpy()[frames.message]
        for bs in np.unique(frames.bs).tolist():
            link = (str(bs), direction)
            if link not in self._release_ns:
                self._begin(link)
            of_bs = frames.bs == bs
            for reason in set(reasons[of_bs].tolist()):
                chosen = of_bs & (reasons == reason)
                count = int(chosen.sum())
                returned = reason in (TRANSPORT_FULL, DISCONNECTED)  # such a row amends an earlier one
                if not returned:
                    self.counts[FRAMES_SENT, link] += count
                if reason is not None:
                    self.counts[FRAMES_DROPPED, (*link, reason)] += count
                if reason is None or returned:
                    metric = BYTES_RETURNED if returned else BYTES_SENT
                    for name, each in costs.items():
                        part, _, unit = name.partition("_")
                        if total := int(each[chosen[frames.frame]].sum()):
                            self.counts[metric, (*link, part)] += total / 8 if unit == "bits" else total
                    self._flying[link] += -count if returned else count
                if reason is None:
                    self._release_ns[link] += release_ns[chosen].tolist()

    def _begin(self, link: Labels) -> None:
        """Count 0 of what may befall a link: Prometheus sees no increase in the first value of a series."""
        self._release_ns[link] = []
        for reason in (*get_args(DropReason), TRANSPORT_FULL, DISCONNECTED):
            self.counts[FRAMES_DROPPED, (*link, reason)] += 0
        for fate in FrameFate:
            if fate != FrameFate.DROPPED:
                self.counts[FRAMES_RECEIVED, (*link, fate.value)] += 0
        bs, direction = link
        if direction == "up":
            for report in (ReportFate.USED, ReportFate.LATE):
                self.counts[REPORTS, (bs, report.value)] += 0

    def _arrived(self, direction: str, rows: pa.RecordBatch) -> None:
        for bs, fate, late, t_ns, head, data in zip(*(rows[name].to_pylist() for name in _ARRIVAL), strict=True):
            if fate is None or (data and fate == FrameFate.REJECTED and is_control(_one(data))[0]):
                continue
            self.counts[FRAMES_RECEIVED, (_label(bs), direction, fate)] += 1
            if bs is not None:
                self._flying[_label(bs), direction] -= 1
            if fate == FrameFate.DELIVERED and direction == "up":
                if late:
                    self.counts[REPORTS, (_label(bs), ReportFate.LATE.value)] += late.bit_count()
                if self._interval_ns:
                    self.observed[ARRIVAL, (_label(bs),)] += [
                        (t_ns - self._t0_ns - key.snapshot * self._interval_ns) / 1e6 for key in report_keys(head)
                    ]

    def _fixed(self, rows: pa.RecordBatch) -> None:
        for snapshot, used, t_fix_ns, fuse_ns in zip(*(rows[name].to_pylist() for name in _FIX), strict=True):
            self.counts[FIXES, ()] += 1
            for bs in used:
                self.counts[REPORTS, (_label(bs), ReportFate.USED.value)] += 1
            self.observed[FUSE, ()].append(fuse_ns / 1e6)
            if self._interval_ns:
                self.observed[FIX, ()].append((t_fix_ns - self._t0_ns - snapshot * self._interval_ns) / 1e6)


_ARRIVAL = ("bs", "frame_fate", "late", "t_received_ns", "head", "data")
_FIX = ("snapshot", "used_bs", "t_fix_ns", "fuse_ns")


def _label(bs: int | None) -> str:
    return UNKNOWN if bs is None else str(bs)


def _one(data: bytes) -> pa.Array:
    import pyarrow as pa

    return pa.array([data])

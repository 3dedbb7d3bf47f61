"""The metrics of a run: the one place that knows their names, labels and bounds.

Prometheus sees them through Ray, which puts ``ray_`` before each name, ``_total`` after that of a counter, and labels
of its own beside ours (`exported`). Every metric has the labels `run` (name of the run's folder) and `scheme`.
A snapshot is no label: each would begin a time series of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RUN_LABELS = ("run", "scheme")
"""Labels of every metric."""
BOUNDS_MS = tuple(
    round(mantissa * 10.0**decade, 5)
    for decade in range(-1, 4)
    for mantissa in (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)  # ISO 3, series R10
)
"""Upper bounds of the buckets [ms]: a quantile read from them is at most a bucket's width, 28 %, off."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric.

    Attributes:
        name: its name at Ray.
        kind: counter (grows), gauge, or histogram.
        labels: its labels besides `RUN_LABELS`.
        help: what it counts or measures.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str

    @property
    def exported(self) -> tuple[str, ...]:
        """Names of its series at Prometheus."""
        ends = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
        return tuple(f"ray_{self.name}{end}" for end in ends[self.kind])


FRAMES_SENT = Metric(
    "cofix_frames_sent", "counter", ("bs", "direction"), "Frames journaled, those that the link model drops included"
)
FRAMES_RECEIVED = Metric(
    "cofix_frames_received", "counter", ("bs", "direction", "fate"),
    "Frames that arrived, by fate: delivered, duplicate, corrupt, rejected",
)  # fmt: skip
FRAMES_DROPPED = Metric(
    "cofix_frames_dropped", "counter", ("bs", "direction", "reason"),
    "Frames that never got onto the wire, by the link model's reason, or transport (queue full), or disconnected",
)  # fmt: skip
BYTES_SENT = Metric(
    "cofix_bytes_sent", "counter", ("bs", "direction", "part"),
    "Bytes on the TCP stream of frames given to the transport, by part: payload (exact to the bit), side, header, "
    "padding, zmtp, curve",
)  # fmt: skip
BYTES_RETURNED = Metric(
    "cofix_bytes_returned", "counter", ("bs", "direction", "part"),
    "Bytes among those sent that the transport gave back unsent; the ledger has the difference",
)  # fmt: skip
REPORTS = Metric("cofix_reports", "counter", ("bs", "fate"), "Reports by fate: used in a fix, or late")
FIXES = Metric("cofix_fixes", "counter", (), "Fixes made")
SNAPSHOTS = Metric("cofix_snapshots", "counter", (), "Snapshots that are over, past their deadline if not before")
EVENTS = Metric(
    "cofix_events", "counter", ("bs", "end", "event"),
    "Events at an end (edge or cloud): connected, disconnected, refused; registration (refused), fusion (no finite "
    "fix), excluded (report of no use to the fusion rule), left out (messages beyond what is logged of a link)",
)  # fmt: skip
ARRIVAL = Metric(
    "cofix_arrival_ms", "histogram", ("bs",),
    "Time from a snapshot's time zero to the arrival of a delivered report [ms]; not in closed loop",
)  # fmt: skip
FIX = Metric("cofix_fix_ms", "histogram", (), "Time from a snapshot's time zero to its fix [ms]; not in closed loop")
FUSE = Metric("cofix_fuse_ms", "histogram", (), "Time that the fusion of a fix took [ms], all rounds")
IN_FLIGHT = Metric(
    "cofix_frames_in_flight", "gauge", ("bs", "direction"),
    "Frames on their way: sent, neither dropped nor arrived; in the end, those lost without a reason",
)  # fmt: skip
HELD = Metric(
    "cofix_frames_held", "gauge", ("bs", "direction"), "Of these, frames that the link model's delay line still holds"
)
WAITING = Metric("cofix_rounds_waiting", "gauge", (), "Rounds at the cloud that wait for reports or for fusion")

METRICS = (
    *(FRAMES_SENT, FRAMES_RECEIVED, FRAMES_DROPPED, BYTES_SENT, BYTES_RETURNED, REPORTS, FIXES, SNAPSHOTS),
    *(EVENTS, ARRIVAL, FIX, FUSE, IN_FLIGHT, HELD, WAITING),
)

"""When which snapshot is due."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """When which snapshot is due.

    Attributes:
        t0_ns: time zero of snapshot 0 [ns].
        interval_ns: between two snapshots [ns]; 0 runs as fast as it goes.
        snapshots: how many.
        batch: how many at a time; a batch is due with its last snapshot.
    """

    t0_ns: int
    interval_ns: int
    snapshots: int
    batch: int = 1

    def time_zero_ns(self, snapshot: int) -> int:
        """Return when a snapshot is measured [ns]."""
        return self.t0_ns + snapshot * self.interval_ns

    def batches(self, first_snapshot: int = 0) -> Iterator[range]:
        """Yield the snapshots a batch at a time, without the batches that begin before `first_snapshot`."""
        begin = -(-first_snapshot // self.batch) * self.batch
        for first in range(begin, self.snapshots, self.batch):
            yield range(first, min(first + self.batch, self.snapshots))

    def next_snapshot(self, now_ns: int) -> int:
        """Return the first snapshot that is still to come at `now_ns` [ns]; 0 in closed loop."""
        return 0 if not self.interval_ns else max(0, -(-(now_ns - self.t0_ns) // self.interval_ns))

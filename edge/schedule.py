"""Schedule of snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Times at which snapshots are due.

    Attributes:
        t0_ns: time zero of snapshot 0 [ns].
        interval_ns: interval between two snapshots [ns]; 0 is closed loop, as fast as possible.
        snapshots: number of snapshots.
        batch: number of snapshots per batch; a batch is due with its last snapshot.
    """

    t0_ns: int
    interval_ns: int
    snapshots: int
    batch: int = 1

    def time_zero_ns(self, snapshot: int) -> int:
        """Return the time at which a snapshot is measured [ns]."""
        return self.t0_ns + snapshot * self.interval_ns

    def batches(self, first_snapshot: int = 0) -> Iterator[range]:
        """Yield the snapshots of each batch, skipping batches that begin before `first_snapshot`."""
        begin = -(-first_snapshot // self.batch) * self.batch
        for first in range(begin, self.snapshots, self.batch):
            yield range(first, min(first + self.batch, self.snapshots))

    def next_snapshot(self, now_ns: int) -> int:
        """Return the first snapshot whose time is not before `now_ns` [ns]; 0 in closed loop."""
        return 0 if not self.interval_ns else max(0, -(-(now_ns - self.t0_ns) // self.interval_ns))

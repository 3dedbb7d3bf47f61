"""What is known of a run while it goes on: the streams that its ends append to, read as far as they are.

Only streams on this machine can be read: of a cloud that runs on another host there is the progress alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fronthaul.log.stream_names import FIXES, RECEIVED, CloudStart
from fronthaul.message.fates import FrameFate
from sim.plan.outcome import Progress
from sim.records.tail import Tail

if TYPE_CHECKING:
    import pyarrow as pa

FRAME_FATES = (FrameFate.DELIVERED, FrameFate.DUPLICATE, FrameFate.CORRUPT, FrameFate.REJECTED)
"""Fates of frames that arrived."""


class Following:
    """A run that goes on.

    Attributes:
        progress: what the driver said last.
        snapshot: numbers of the snapshots that have a fix, in the order in which they were made.
        estimate: the fixes (x, y, z) [m], likewise.
        error_m: their 3D errors [m], likewise.
        links: by base station what arrived from it: frames by fate, bytes, late reports, and reports used in fixes.
    """

    def __init__(self, truth: npt.NDArray[np.float64], stations: range) -> None:
        """Begin to follow a run.

        Args:
            truth: positions of the test users (N, 3) [m].
            stations: the base stations.
        """
        self._truth = truth
        self._tail: Tail | None = None
        self.progress: Progress | None = None
        self.snapshot: list[int] = []
        self.estimate: list[list[float]] = []
        self.error_m: list[float] = []
        empty = {**{fate.value: 0 for fate in FRAME_FATES}, "bytes": 0, "late": 0, "used": 0}
        self.links: dict[int, dict[str, int]] = {bs: dict(empty) for bs in stations}

    def note(self, progress: Progress) -> None:
        """Take the driver's word on how far the run is."""
        if progress.folder is not None:
            self._tail = Tail(progress.folder / "links")
        self.progress = progress

    def read(self) -> None:
        """Read what has been appended since the last call."""
        for rows in self._further(RECEIVED):
            self._arrived(rows)
        for rows in self._further(FIXES):
            self._fixed(rows)

    def truth(self, snapshot: int) -> list[float]:
        """Return the true position [m] of a snapshot's user."""
        found: list[float] = self._truth[snapshot % len(self._truth)].tolist()
        return found

    def _further(self, kind: str) -> Iterator[pa.RecordBatch]:
        if self._tail is not None:
            yield from (more.rows for more in self._tail.further(kind) if isinstance(more.start, CloudStart))

    def _arrived(self, rows: pa.RecordBatch) -> None:
        for bs, fate, late, size in zip(*(rows[name].to_pylist() for name in _ARRIVAL), strict=True):
            if fate is not None and bs in self.links:  # neither a control message nor a stranger's
                link = self.links[bs]
                link[fate] += 1
                link["bytes"] += size
                link["late"] += (late or 0).bit_count()

    def _fixed(self, rows: pa.RecordBatch) -> None:
        for snapshot, position, used in zip(*(rows[name].to_pylist() for name in _FIX), strict=True):
            self.snapshot.append(snapshot)
            self.estimate.append(position)
            self.error_m.append(float(np.linalg.norm(np.subtract(position, self.truth(snapshot)))))
            for bs in used:
                if bs in self.links:
                    self.links[bs]["used"] += 1


_ARRIVAL = ("bs", "frame_fate", "late", "bytes")
_FIX = ("snapshot", "position", "used_bs")

"""The reports used in fixes, as arrays."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fronthaul.message.messages import ReportKey

if TYPE_CHECKING:
    import pyarrow as pa

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[np.integer]


@dataclass(frozen=True)
class UsedReports:
    """The used reports of N fixes, U in all, ordered by fix; numbers take as few bytes as they can.

    Attributes:
        snapshots: (N,) snapshot of each fix.
        fix: (U,) index of a report's fix.
        bs: (U,) its base station.
        epoch: (U,) epoch of that base station.
        round: (U,) its round.
    """

    snapshots: Ints
    fix: Array
    bs: Array
    epoch: Array
    round: Array

    def __post_init__(self) -> None:
        """Narrow the numbers: there may be tens of millions."""
        kinds = {"fix": np.int32, "bs": np.uint16, "epoch": np.uint16, "round": np.uint8}
        for name, kind in kinds.items():
            object.__setattr__(self, name, getattr(self, name).astype(kind))

    def of(self, bs: int, epoch: int) -> Ints:
        """Return the used reports of a start of a base station, each as snapshot << 8 | round."""
        mine = np.flatnonzero((self.bs == bs) & (self.epoch == epoch))
        return self.snapshots[self.fix[mine]] << 8 | self.round[mine]

    @property
    def snapshot(self) -> Ints:
        """(U,) Snapshot of each report's fix."""
        return self.snapshots[self.fix]

    @classmethod
    def of_table(cls, fixes: pa.Table) -> UsedReports:
        """Return the used reports in a table with the columns `snapshot`, `used_bs`, `used_epoch` and `used_round`.

        Raises:
            ValueError: the lists of a fix are not equally long.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if not len(fixes):
            return cls(*(np.zeros(0, np.int64) for _ in range(5)))
        lists = [pc.fill_null(fixes[name].combine_chunks(), []) for name in ("used_bs", "used_epoch", "used_round")]
        counts = [pc.list_value_length(column).to_numpy(zero_copy_only=False) for column in lists]
        if any((counts[0] != count).any() for count in counts[1:]):
            raise ValueError("the used base stations, epochs and rounds of a fix are not equally many")
        numbers = [pc.list_flatten(column).to_numpy(zero_copy_only=False) for column in lists]
        snapshots = pc.cast(fixes["snapshot"], pa.int64()).to_numpy()
        return cls(snapshots, np.repeat(np.arange(len(snapshots), dtype=np.int32), counts[0]), *numbers)

    @classmethod
    def of_fixes(cls, fixes: Iterable[tuple[int, Collection[ReportKey]]]) -> UsedReports:
        """Return the used reports of fixes given by snapshot and keys.

        Raises:
            ValueError: a fix lists a report of another snapshot.
        """
        fixes = list(fixes)
        rows = [(at, key) for at, (_, keys) in enumerate(fixes) for key in keys]
        if any(key.snapshot != fixes[at][0] for at, key in rows):
            raise ValueError("a fix lists reports of its own snapshot alone")
        columns = [(at, key.bs, key.epoch, key.round) for at, key in rows]
        return cls(
            np.array([snapshot for snapshot, _ in fixes], np.int64), *np.array(columns, np.int64).reshape(-1, 4).T
        )

    def by_fix(self) -> Iterator[tuple[int, list[ReportKey]]]:
        """Yield snapshot and used reports of each fix."""
        ends = np.searchsorted(self.fix, np.arange(len(self.snapshots) + 1))
        columns = (self.bs, self.epoch, self.snapshot, self.round)
        for snapshot, (begin, end) in zip(self.snapshots.tolist(), itertools.pairwise(ends.tolist()), strict=True):
            rows = zip(*(column[begin:end].tolist() for column in columns), strict=True)
            yield snapshot, [ReportKey(*row) for row in rows]

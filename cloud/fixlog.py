"""Fixes on disk as they are made: what one incarnation of the cloud has fixed, a later one does not fix again."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fronthaul.errors import LocalError
from fronthaul.log.arrow_stream import RowStream, read_stream
from fronthaul.message.messages import ReportKey

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class FixRecord:
    """One fix and how it came about; times on the run's clock [ns].

    Attributes:
        snapshot: which one.
        used: the reports in the fix, by round and BS.
        position: estimate [m].
        covariance: (3, 3) [m^2], or None.
        last_bs: whose report came last in the last round.
        t_last_received_ns: when.
        t_fuse_ns: when the last fusion began.
        t_fix_ns: when the fix was there.
        fuse_ns: what fusion took in all rounds, measured even where the run's clock is simulated.
        rounds: how many the fix took.
        excluded: base stations that the rule could not use, with the reason; an event in the log of the cloud's links
            and not a part of this one.
    """

    snapshot: int
    used: tuple[ReportKey, ...]
    position: tuple[float, float, float]
    covariance: npt.NDArray[np.float64] | None
    last_bs: int
    t_last_received_ns: int
    t_fuse_ns: int
    t_fix_ns: int
    fuse_ns: int
    rounds: int = 1
    excluded: Mapping[int, str] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        """Whether it is a fix at all: numbers that ran away are none."""
        whole = self.covariance is None or bool(np.isfinite(self.covariance).all())
        return whole and all(map(math.isfinite, self.position))


@functools.cache
def fix_schema() -> pa.Schema:
    """Return the columns of the stream."""
    import pyarrow as pa

    times = ("t_last_received_ns", "t_fuse_ns", "t_fix_ns", "fuse_ns")
    return pa.schema(
        [
            ("snapshot", pa.uint32()),
            ("used_bs", pa.list_(pa.uint16())),
            ("used_epoch", pa.list_(pa.uint16())),
            ("used_round", pa.list_(pa.uint8())),
            ("position", pa.list_(pa.float64())),
            ("covariance", pa.list_(pa.float64())),
            ("last_bs", pa.uint16()),
            *((name, pa.int64()) for name in times),
            ("rounds", pa.uint16()),
        ]
    )


class FixLog:
    """The fixes of one incarnation of the cloud; one that is in it is made, one that is not was not."""

    def __init__(self, path: Path) -> None:
        """Create the stream.

        Raises:
            LocalError: there is a file at `path` already.
        """
        self._rows = RowStream(path, fix_schema())

    def append(self, fixes: Sequence[FixRecord]) -> None:
        """Write down fixes that were just made.

        Raises:
            LocalError: the disk is full.
        """
        self._rows.extend(
            [
                (
                    fix.snapshot,
                    [key.bs for key in fix.used],
                    [key.epoch for key in fix.used],
                    [key.round for key in fix.used],
                    list(fix.position),
                    None if fix.covariance is None else np.asarray(fix.covariance, np.float64).ravel().tolist(),
                    fix.last_bs,
                    fix.t_last_received_ns,
                    fix.t_fuse_ns,
                    fix.t_fix_ns,
                    fix.fuse_ns,
                    fix.rounds,
                )
                for fix in fixes
            ]
        )

    def close(self) -> None:
        """Mark the stream's end; closing twice is fine."""
        self._rows.close()


def read_fixes(path: Path) -> list[FixRecord]:
    """Read the fixes of one incarnation of the cloud, also where it ended by kill -9.

    Raises:
        LocalError: the file is no stream of fixes.
    """
    table = read_stream(path)
    if table.schema != fix_schema():
        raise LocalError(f"{path} is not a stream of fixes")
    try:
        return [_fix(row) for row in table.to_pylist()]
    except (TypeError, ValueError) as error:  # columns that do not belong together: the file is damaged
        raise LocalError(f"{path} holds what is no fix: {error}") from error


def _fix(row: dict[str, Any]) -> FixRecord:
    snapshot, covariance = row["snapshot"], row["covariance"]
    keys = zip(row["used_bs"], row["used_epoch"], row["used_round"], strict=True)
    return FixRecord(
        snapshot=snapshot,
        used=tuple(ReportKey(bs, epoch, snapshot, round_) for bs, epoch, round_ in keys),
        position=tuple(row["position"]),
        covariance=None if covariance is None else np.array(covariance).reshape(3, 3),
        **{name: row[name] for name in ("last_bs", "t_last_received_ns", "t_fuse_ns", "t_fix_ns", "fuse_ns")},
        rounds=row["rounds"],
    )

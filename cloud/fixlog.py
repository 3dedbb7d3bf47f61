"""Log of fixes on disk, so that a restarted cloud does not make the same fixes again."""

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
        snapshot: number of the snapshot.
        used: the reports in the fix, ordered by round and BS.
        position: estimate [m].
        covariance: (3, 3) [m^2], or None.
        last_bs: BS whose report arrived last in the last round.
        t_last_received_ns: when that report arrived.
        t_fuse_ns: when the last fusion began.
        t_fix_ns: when the fix was ready.
        fuse_ns: fusion time of all rounds, in real time even if the run's clock is simulated.
        rounds: number of rounds.
        excluded: reason by base station that the fusion rule could not use; logged as events of the cloud's links,
            and not in the fix log.
        note: what the fusion rule says of the fix, in a word.
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
    note: str | None = None

    @property
    def finite(self) -> bool:
        """Whether position and covariance are finite; if not, it does not count as a fix."""
        whole = self.covariance is None or bool(np.isfinite(self.covariance).all())
        return whole and all(map(math.isfinite, self.position))


@functools.cache
def fix_schema() -> pa.Schema:
    """Return the columns of the fix log."""
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
            ("note", pa.string()),
        ]
    )


class FixLog:
    """The fixes of one incarnation of the cloud; a fix counts as made exactly if it is in this log."""

    def __init__(self, path: Path) -> None:
        """Create the stream.

        Raises:
            LocalError: `path` exists already.
        """
        self._rows = RowStream(path, fix_schema())

    def append(self, fixes: Sequence[FixRecord]) -> None:
        """Append new fixes.

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
                    fix.note,
                )
                for fix in fixes
            ]
        )

    def close(self) -> None:
        """Write the end of the stream; closing twice is fine."""
        self._rows.close()


def read_fix_table(path: Path) -> pa.Table:
    """Return the fixes of one incarnation of the cloud, `fix_schema()`, even one that was killed (kill -9).

    Raises:
        FileNotFoundError: there is no such file.
        LocalError: the file is not a fix log, or is damaged.
    """
    import pyarrow.compute as pc

    table = read_stream(path)
    if table.schema != fix_schema():
        raise LocalError(f"{path} is not a stream of fixes")
    lengths = {name: pc.list_value_length(table[name]) for name in ("used_bs", "used_epoch", "used_round", "position")}
    whole = [pc.equal(lengths["position"], 3), pc.equal(pc.fill_null(pc.list_value_length(table["covariance"]), 9), 9)]
    whole += [pc.equal(lengths["used_bs"], lengths[name]) for name in ("used_epoch", "used_round")]
    if any(table[name].null_count for name in table.column_names if name not in ("covariance", "note")) or not all(
        pc.all(pc.fill_null(column, False), min_count=0).as_py() for column in whole
    ):
        raise LocalError(f"{path} holds an invalid fix")
    return table


def read_fixes(path: Path) -> list[FixRecord]:
    """Return the fixes in a fix log as records.

    Raises:
        FileNotFoundError: there is no such file.
        LocalError: the file is not a fix log, or is damaged.
    """
    try:
        return [_fix(row) for row in read_fix_table(path).to_pylist()]
    except TypeError as error:  # null among the numbers of a list
        raise LocalError(f"{path} holds an invalid fix: {error}") from error


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
        note=row["note"],
    )

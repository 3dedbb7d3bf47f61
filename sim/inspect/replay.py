"""Replay: compute the fixes again from logged payloads, side values and used sets alone.

On the machine of the run, a replay is exact at batch 1, and at any batch if the run was in process and every report
arrived. With larger batches on Ray, or with lost reports, the cloud does not wait for a full batch and may have fused
other groups of snapshots than the replay does: replayed fixes then agree to within 1 mm.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cloud.center import FusionCenter, replay_exchanges
from cloud.fusion.scheme import Fix
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Payload, Report, ReportKey
from sim.arithmetic import fixed_arithmetic
from sim.inspect.run_weights import run_weights
from sim.plan.plan import cloud_parts
from sim.records.books import used_reports
from sim.records.folder import RunConfiguration, RunFolder, read_configuration
from sim.records.links import read_ledgers, read_table

if TYPE_CHECKING:
    import pyarrow as pa

TOLERANCE_M = 1e-3
"""Largest allowed distance between a fix and its replay [m]."""


@dataclass(frozen=True)
class ReplayResult:
    """How replayed fixes compare with those of the run.

    Attributes:
        total: number of fixes of the run.
        compared: number of fixes whose used reports are all in the ledgers.
        identical: number of fixes that are the same to the last bit, covariance included.
        max_difference_m: largest distance between a fix and its replay [m]; 0 for no fixes.
        max_sigma_difference_m: largest difference between their standard deviations along any axis, and between the
            square roots of their covariances' other entries [m]; infinite where only one has a covariance.
    """

    total: int
    compared: int
    identical: int
    max_difference_m: float
    max_sigma_difference_m: float

    @property
    def ok(self) -> bool:
        """Whether every fix was replayed, and none, nor its covariance, differs by more than `TOLERANCE_M`."""
        return self.compared == self.total and max(self.max_difference_m, self.max_sigma_difference_m) <= TOLERANCE_M


@fixed_arithmetic()
def replay(folder: Path, on_progress: Callable[[int, int], None] = lambda *_: None) -> ReplayResult:
    """Fuse the logged reports of a run again, and compare the fixes; tell fixes done, of how many.

    Raises:
        UserError: the folder is not a run's, a file in it is damaged, or the weights of the run are not available.
    """
    run = RunFolder(folder)
    configuration = read_configuration(run)
    center = _center(configuration)
    fixes = read_table(run.fixes)
    reports = logged_reports(read_ledgers(run))
    groups: list[tuple[int, list[Report]]] = []
    wanted = []
    estimates = zip(*(fixes[name].to_pylist() for name in ("x_m", "y_m", "z_m", "covariance_m2")), strict=True)
    for (snapshot, keys), (*position, covariance) in zip(used_reports(fixes).by_fix(), estimates, strict=True):
        if all(key in reports for key in keys):
            groups.append((snapshot, [reports[key] for key in keys]))
            wanted.append((tuple(position), covariance))
    with torch.inference_mode():
        made = _fused(center, groups, configuration.settings.batch, on_progress)
    pairs = list(zip(wanted, made, strict=True))
    return ReplayResult(
        total=len(fixes),
        compared=len(pairs),
        identical=sum(a == b for a, b in pairs),
        # NaN if any is.
        max_difference_m=float(np.max([math.dist(a[0], b[0]) for a, b in pairs], initial=0.0)),
        max_sigma_difference_m=float(np.max([_sigma_difference_m(a[1], b[1]) for a, b in pairs], initial=0.0)),
    )


_Estimate = tuple[tuple[float, ...], list[float] | None]
"""Position [m], and covariance [m²], nine numbers, or None."""


def _sigma_difference_m(one: list[float] | None, other: list[float] | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    return float(np.max(np.abs(_roots(one) - _roots(other))))


def _roots(covariance: list[float]) -> Any:
    """Return the square roots of a covariance's entries, with their signs [m]."""
    return np.sign(covariance) * np.sqrt(np.abs(covariance))


def _fused(
    center: FusionCenter, groups: list[tuple[int, list[Report]]], batch: int, on_progress: Callable[[int, int], None]
) -> list[_Estimate]:
    """Fuse the used reports of each snapshot; the position is NaN where no fix results."""
    made: list[Fix | None] = []
    for begin in range(0, len(groups), batch):
        made += replay_exchanges(center, {n: _by_round(reports) for n, reports in groups[begin : begin + batch]})
        on_progress(min(begin + batch, len(groups)), len(groups))
    return [((math.nan,) * 3, None) if fix is None else (fix.position, _flat(fix)) for fix in made]


def _flat(fix: Fix) -> list[float] | None:
    return None if fix.covariance is None else np.asarray(fix.covariance, np.float64).ravel().tolist()


def _by_round(reports: list[Report]) -> list[list[Report]]:
    """Group reports, which are ordered by round, by their round."""
    return [list(group) for _, group in itertools.groupby(reports, key=lambda report: report.key.round)] or [[]]


def logged_reports(ledgers: dict[int | None, pa.Table]) -> dict[ReportKey, Report]:
    """Return the delivered reports of all ledgers, as they were sent."""
    names = ("bs", "epoch", "snapshot", "round", "payload", "payload_bits", "side", "frame_fate", "report_fate")
    reports = {}
    for ledger in ledgers.values():
        for bs, epoch, snapshot, round_, payload, bits, side, fate, report_fate in zip(
            *(ledger[name].to_pylist() for name in names), strict=True
        ):
            if fate == FrameFate.DELIVERED and report_fate is not None:  # journaled by a BS, not a stray
                key = ReportKey(bs, epoch, snapshot, round_)
                reports[key] = Report(key, Payload(payload, bits), side)
    return reports


def _center(configuration: RunConfiguration) -> FusionCenter:
    weights = run_weights(configuration)
    parts = cloud_parts(configuration.settings, configuration.scenario, weights)
    return FusionCenter(parts.build(parts.setup))

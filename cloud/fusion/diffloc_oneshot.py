"""DiffLoc in one message: each base station sends a mixture of three Gaussians for its own posterior.

The cloud multiplies them exactly (`cloud.fusion.scores.mixture`): under a flat prior, the joint posterior is their
product. A fix of K base stations takes 3 K (1 + D + D (D + 1) / 2) B bits, without headers.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloud.fusion.diffloc_spec import DiffLocSpec
from cloud.fusion.scheme import CloudSetup, Fix, unheard_fix
from fronthaul.message.messages import Report
from fronthaul.payload.diffloc import ScoreFormat


class OneShotFusion:
    """Fusion rule that multiplies posteriors."""

    def __init__(self, setup: CloudSetup, score: ScoreFormat) -> None:
        """Read the constants of the weights, among them the scale to metres."""
        self._score = score
        self._parts = DiffLocSpec(setup, score)

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Multiply the mixtures of each group; the fix is the mean and covariance of the product."""
        return [
            unheard_fix(group) or self._fuse_one(sorted(group, key=lambda report: report.key.bs)) for group in groups
        ]

    def _fuse_one(self, group: Sequence[Report]) -> Fix:
        read = {report.key.bs: self._score.decode_mixture(report.payload) for report in group}
        excluded = {bs: "its posterior is not finite" for bs, mixture in read.items() if mixture is None}
        mixtures = [mixture for mixture in read.values() if mixture is not None]
        if not mixtures:
            return self._parts.none(excluded)
        mean, covariance = self._parts.multiplied(mixtures)
        return self._parts.fix(mean[None], covariance[None], excluded)

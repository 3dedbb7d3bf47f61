"""Interface of a scheme at the cloud: groups of reports in, fixes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fronthaul.installed import load
from fronthaul.message.messages import Payload, Report, ReportKey
from fronthaul.payload.choice import PayloadChoice
from fronthaul.payload.hearing import UNHEARD

ENTRY_POINT_GROUP = "cofix.fusion"


@dataclass(frozen=True, slots=True)
class Fix:
    """An estimated position [m], with its covariance (3, 3) [m²] where the scheme has one.

    All numbers are finite: the cloud treats any other result as no fix, and journals that there was none. `excluded`
    maps base stations whose reports the rule could not use to the reason, which the cloud journals; by default, all
    their reports of the snapshot count as unused. If the fix of a rule of several rounds contains earlier ones, the
    rule sets in `excluded_from` the round from which on a base station's reports are unused. `note` is what the rule
    says of the fix, in a word; it is recorded with it.
    """

    position: tuple[float, float, float]
    covariance: npt.NDArray[np.float64] | None = None
    excluded: Mapping[int, str] = field(default_factory=dict)
    excluded_from: Mapping[int, int] = field(default_factory=dict)
    note: str | None = None

    def uses(self, key: ReportKey) -> bool:
        """Return whether a report that was given to the rule is used in the fix."""
        return key.bs not in self.excluded or key.round < self.excluded_from.get(key.bs, 0)


NOTHING_HEARD = "receives nothing from the user"
"""Reason to exclude a base station that does not hear the user."""


def unheard_fix(reports: Sequence[Report], is_heard: Callable[[bytes], bool] = UNHEARD.__ne__) -> Fix | None:
    """Return the result without a position where there are reports and all say that nobody hears the user, else None.

    For rules that were trained on what base stations measure where no path reaches them: as long as one hears the user,
    that others do not is information, and their reports are used.

    Args:
        reports: reports of round 0 of one snapshot.
        is_heard: reads this from their side information.
    """
    if not reports or any(is_heard(report.side) for report in reports):
        return None
    return Fix((math.nan, math.nan, math.nan), None, {report.key.bs: NOTHING_HEARD for report in reports})


class Exchange(Protocol):
    """The rounds of one snapshot: the cloud broadcasts a state, base stations answer, until there is a fix.

    It is deterministic in its inputs, so that logged reports replay to the same fix.
    """

    def advance(self, reports: Sequence[Report]) -> Payload | Fix:
        """Take the reports of a round, ordered by base station; return the state to broadcast next, or the fix.

        The first call has the reports of round 0. Later calls may have fewer reports than base stations were asked.
        """

    def conclude(self) -> Fix | None:
        """Return the best fix so far, if time ran out or too few answered; None if there is none yet."""


@runtime_checkable
class Fusion(Protocol):
    """A fusion rule. Its only inputs are reports: no call takes a user's position."""

    def open(self, snapshot: int) -> Exchange:
        """Begin the rounds of a snapshot; the number `snapshot` may key random draws."""


class OneRoundFusion(Protocol):
    """Alternative to `Fusion` for a rule that needs only the reports of round 0; `OneRound` makes a `Fusion` of it.

    Each call takes many snapshots.
    """

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Return one fix per group, the reports of one snapshot; a pure function of them and the seed."""


@dataclass(frozen=True, slots=True)
class OneRound:
    """Adapter that makes a rule of one round a `Fusion`, and also the exchange of every snapshot."""

    rule: OneRoundFusion

    def open(self, snapshot: int) -> OneRound:
        """Return itself: no state is kept per snapshot."""
        return self

    def advance(self, reports: Sequence[Report]) -> Fix:
        """Return the fix from the reports of round 0."""
        return self.fuse([reports])[0]

    def conclude(self) -> None:
        """Return None: there is no fix before there are reports."""

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Advance the exchanges of several snapshots at once.

        Raises:
            ValueError: the rule did not make one fix per snapshot.
        """
        fixes = self.rule.fuse(groups)
        if len(fixes) != len(groups):
            raise ValueError(f"the fusion rule made {len(fixes)} fixes from {len(groups)} snapshots")
        return fixes


def as_fusion(rule: Fusion | OneRoundFusion) -> Fusion:
    """Return a rule of either kind as a `Fusion`."""
    return rule if isinstance(rule, Fusion) else OneRound(rule)


@dataclass(frozen=True)
class CloudSetup:
    """Inputs from which a fusion rule is built.

    `stations`: base station → planned array position [m]; the cloud admits no other at registration; `payload`: what
    reports carry; `config` and `tensors`: the weights file's configuration and the cloud's share of its tensors;
    `seed`: seed of the rule's random draws; `device`: compute device ("cpu", "cuda:0"); `options`: scheme options that
    the user set; `networks`: base station → factory of the part of it that runs at the cloud, if any, called with the
    device.
    """

    stations: Mapping[int, tuple[float, float, float]]
    payload: PayloadChoice
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    seed: int = 0
    device: str = "cpu"
    options: Mapping[str, str | int] = field(default_factory=dict)
    networks: Mapping[int, Callable[[str], Any]] = field(default_factory=dict)

    @property
    def bits(self) -> int | None:
        """B of the payload; None for lossless."""
        return self.payload.bits


FusionBuilder = Callable[[CloudSetup], Fusion | OneRoundFusion]
"""Type of the object that an entry point of `cofix.fusion` names."""


def load_fusion(name: str) -> FusionBuilder:
    """Return the builder of fusion rule `name`.

    Raises:
        LookupError: as for `fronthaul.installed.load`.
    """
    build: FusionBuilder = load(ENTRY_POINT_GROUP, name, "fusion rule", "cloud's")
    return build

"""What a scheme is at the cloud: groups of reports in, fixes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fronthaul.message.messages import Payload, Report, ReportKey
from fronthaul.payload.choice import PayloadChoice

ENTRY_POINT_GROUP = "cofix.fusion"


@dataclass(frozen=True, slots=True)
class Fix:
    """An estimated position [m], with its covariance (3, 3) [m²] where the scheme has one.

    All numbers are finite: the cloud takes others for no fix, and writes down that there was none. Base stations whose
    reports the rule could not use are `excluded`, with the reason: their reports of the snapshot are unused, and the
    cloud writes the reason down. A rule of several rounds that finds out late says in `excluded_from` from which round
    on a base station's reports are unused, those before having gone into the fix; where it does not, it is all of them.
    """

    position: tuple[float, float, float]
    covariance: npt.NDArray[np.float64] | None = None
    excluded: Mapping[int, str] = field(default_factory=dict)
    excluded_from: Mapping[int, int] = field(default_factory=dict)

    def uses(self, key: ReportKey) -> bool:
        """Whether a report that the rule was given is in the fix."""
        return key.bs not in self.excluded or key.round < self.excluded_from.get(key.bs, 0)


class Exchange(Protocol):
    """The rounds of one snapshot: the cloud broadcasts a state, base stations answer, until there is a fix.

    Deterministic in what it is given, so that logged reports replay to the same fix.
    """

    def advance(self, reports: Sequence[Report]) -> Payload | Fix:
        """Take the reports of a round, ordered by base station; return the state to broadcast next, or the fix.

        The first call has the reports of round 0. Later ones may have fewer reports than base stations were asked.
        """

    def conclude(self) -> Fix | None:
        """Return the best fix so far, where time ran out or too few answered; None if there is none yet."""


@runtime_checkable
class Fusion(Protocol):
    """A fusion rule. Its only inputs are reports: no call takes a user's position."""

    def open(self, snapshot: int) -> Exchange:
        """Begin the rounds of a snapshot; `snapshot` may key random draws, it says nothing of the user."""


class OneRoundFusion(Protocol):
    """What a rule may offer instead that needs no more than the reports of round 0; `OneRound` makes a `Fusion` of it.

    It is given many snapshots at once.
    """

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group, the used reports of one snapshot; a pure function of them and the seed."""


@dataclass(frozen=True, slots=True)
class OneRound:
    """A rule of one round as a `Fusion`, and as the exchange of every snapshot: the first reports make the fix."""

    rule: OneRoundFusion

    def open(self, snapshot: int) -> OneRound:
        """Return itself: nothing is kept of a snapshot."""
        return self

    def advance(self, reports: Sequence[Report]) -> Fix:
        """Return the fix."""
        return self.fuse([reports])[0]

    def conclude(self) -> None:
        """There is no fix before there are reports."""

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Advance the exchanges of several snapshots at once.

        Raises:
            ValueError: the rule made another number of fixes.
        """
        fixes = self.rule.fuse(groups)
        if len(fixes) != len(groups):
            raise ValueError(f"the fusion rule made {len(fixes)} fixes from {len(groups)} snapshots")
        return fixes


def as_fusion(rule: Fusion | OneRoundFusion) -> Fusion:
    """Return a rule of either kind as one of rounds."""
    return rule if isinstance(rule, Fusion) else OneRound(rule)


@dataclass(frozen=True)
class CloudSetup:
    """What a fusion rule is built from.

    `stations`: base station → array position [m], as registered, for the cloud lets no other in; `payload`: what
    reports carry; `config` and `tensors`: the weights file's configuration and the cloud's share of its tensors;
    `device` on which to compute ("cpu", "cuda:0"); `options` of the scheme that the user gave; `networks`: base station
    → maker, called with the device, of the part of it that stands at the cloud, where its scheme has any there.
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
"""What an entry point names."""


def load_fusion(name: str) -> FusionBuilder:
    """Return the builder of fusion rule `name`.

    Raises:
        LookupError: no installed package offers it; the sentence names those that are.
    """
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise LookupError(f"There is no fusion rule {name!r}; installed are {', '.join(sorted(found)) or 'none'}.")
    build: FusionBuilder = found[name].load()
    return build

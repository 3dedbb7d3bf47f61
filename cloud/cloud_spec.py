"""What a cloud is made of, and what an incarnation of it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloud.collector import CollectorRules
from cloud.fusion.scheme import CloudSetup, FusionBuilder
from fronthaul.link.link_config import LinkConfig
from fronthaul.message.messages import PayloadFormat, Registration, Report


@dataclass(frozen=True)
class CloudSpec:
    """What a cloud is made of; crosses to the actor that runs it. Holds no position of any user.

    Attributes:
        scheme: its name, which registrations must match.
        build: makes the fusion rule from `setup`.
        setup: see `CloudSetup`.
        rules: of the collector.
        report: what the rule expects of a report of round 0, which registrations must match; None takes any.
        answer: the same of an answer in later rounds; None where it asks for none.
        batch: snapshots fused at once; 1 keeps a fix independent of what else is ready.
        rehearsal: reports of one snapshot, to try the rule on before anything counts.
        down: link models by BS; a BS that is missing has a perfect link.
        seed: of their draws.
        silence_ns: heartbeat timeout: a BS silent for this long is no longer waited for [ns]; 0 disables it.
    """

    scheme: str
    build: FusionBuilder
    setup: CloudSetup
    rules: CollectorRules
    report: PayloadFormat | None = None
    answer: PayloadFormat | None = None
    batch: int = 1
    rehearsal: tuple[Report, ...] = ()
    down: Mapping[int, LinkConfig] = field(default_factory=dict)
    seed: int = 0
    silence_ns: int = 0

    def refusal(self, registration: Registration) -> str | None:
        """Return why these parts cannot fuse what a base station would send; None where they can."""
        if registration.scheme != self.scheme:
            return f"the cloud fuses {self.scheme!r}, not {registration.scheme!r}"
        if (registration.answer is None) != (self.answer is None):
            return f"the cloud's {self.scheme!r} takes {'one round' if self.answer is None else 'several rounds'}"
        for kind, said, wanted in (
            ("reports", registration.report, self.report),
            ("answers", registration.answer, self.answer),
        ):
            if said is not None and wanted is not None and said != wanted:
                return f"the cloud's {self.scheme!r} takes {kind} of {wanted}, not of {said}"
        return None


@dataclass(frozen=True)
class CloudOutcome:
    """What an incarnation of the cloud leaves beside its streams.

    Attributes:
        registered: BSs that came.
        missing: BSs that were waited for until the end.
    """

    registered: frozenset[int] = frozenset()
    missing: frozenset[int] = frozenset()

"""Specification of a cloud, and the outcome of one of its incarnations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloud.collector import CollectorRules
from cloud.fusion.scheme import CloudSetup, FusionBuilder
from fronthaul.link.link_config import LinkConfig
from fronthaul.message.messages import PayloadFormat, Registration, Report
from fronthaul.message.wire import longest_message_bytes
from fronthaul.transport.transport import Load


@dataclass(frozen=True)
class CloudSpec:
    """Specification of a cloud; sent to the actor that runs it. Contains no user positions.

    Attributes:
        scheme: name of the scheme, which registrations must match.
        build: builds the fusion rule from `setup`.
        setup: input of `build`.
        rules: of the collector.
        report: payload format of round 0, which registrations must match; None accepts any.
        answer: the same for later rounds; None if the scheme has one round only.
        bundle: maximum number of reports in a frame.
        compact: whether frames come in their compact form (`fronthaul.message.compact`).
        batch: number of snapshots fused at once; with 1, a fix does not depend on which other snapshots are ready.
        rehearsal: reports of one snapshot for a warm-up of the fusion rule, whose result is discarded.
        down: link models by BS, cloud to BS; a BS without one has a perfect link.
        seed: of the link models' random draws.
        silence_ns: heartbeat timeout: a BS silent for this long is no longer waited for [ns]; 0 disables it.
    """

    scheme: str
    build: FusionBuilder
    setup: CloudSetup
    rules: CollectorRules
    report: PayloadFormat | None = None
    answer: PayloadFormat | None = None
    bundle: int = 1
    compact: bool = False
    batch: int = 1
    rehearsal: tuple[Report, ...] = ()
    down: Mapping[int, LinkConfig] = field(default_factory=dict)
    seed: int = 0
    silence_ns: int = 0

    @property
    def closed_loop(self) -> bool:
        """Whether base stations send as fast as they can: a full queue holds up who sends, and loses nothing."""
        return not self.rules.interval_ns

    @property
    def load(self) -> Load:
        """What the base stations send; a transport limits everybody by it."""
        if self.report is None:  # of any length
            return Load(self.rules.stations)
        formats = [self.report] if self.answer is None else [self.report, self.answer]
        return Load(self.rules.stations, longest_message_bytes(formats, self.bundle))

    def refusal(self, registration: Registration) -> str | None:
        """Return why a registration does not match this specification; None if it does."""
        if registration.scheme != self.scheme:
            return f"the cloud runs scheme {self.scheme!r}, not {registration.scheme!r}"
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
    """What an incarnation of the cloud leaves besides its streams.

    Attributes:
        registered: BSs that registered.
        missing: BSs that had more to send, and might still have come, when the run ended.
    """

    registered: frozenset[int] = frozenset()
    missing: frozenset[int] = frozenset()

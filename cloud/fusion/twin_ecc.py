"""`twin-ecc` at the cloud: `twin`, and a learned fix where its self-check fails.

A fix of `twin` that is undetermined or uncertain is not given: the cloud asks all base stations for a learned report,
and gives the fix that `ecc-klt` makes of these, marked as such. Without answers, what `twin` said stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from cloud.fusion.ecc_rate import RateFusion
from cloud.fusion.scheme import CloudSetup, Fix, OneRoundFusion
from cloud.fusion.twin import TwinFusion
from fronthaul.message.messages import Payload, Report
from fronthaul.payload.twin_ecc import answer_options

LEARNED = "learned"
"""Note of a fix that the learned reports made."""
_QUESTION = Payload(b"", 0)


class TwinEccFusion:
    """Opens an exchange for each snapshot."""

    def __init__(self, setup: CloudSetup) -> None:
        """Build both rules.

        Raises:
            ValueError: there is no report or answer of this length.
        """
        self._first = TwinFusion(setup)
        self._second = RateFusion(replace(setup, options=answer_options(setup.options)))

    def open(self, snapshot: int) -> TwinEccExchange:
        """Begin a snapshot, whichever."""
        return TwinEccExchange(self._first, self._second)


class TwinEccExchange:
    """The rounds of a snapshot: one, or two."""

    def __init__(self, first: OneRoundFusion, second: OneRoundFusion) -> None:
        self._first, self._second = first, second
        self._found: Fix | None = None

    def advance(self, reports: Sequence[Report]) -> Payload | Fix:
        """Return the fix of `twin` if it vouches for it, else the question; of answers, return the learned fix."""
        if self._found is not None:
            [learned] = self._second.fuse([reports])
            return replace(learned, note=LEARNED, excluded={}) if math.isfinite(learned.position[0]) else self._found
        [self._found] = self._first.fuse([reports])
        if self._found.note is None and math.isfinite(self._found.position[0]):
            return self._found
        if not any(report.payload.bits for report in reports):
            return self._found  # nobody hears the user
        return _QUESTION

    def conclude(self) -> Fix | None:
        """Return what `twin` said."""
        return self._found

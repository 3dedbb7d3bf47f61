"""`twin-ecc` at the cloud: `twin`, and a learned fix where its self-check fails.

Where `twin` is undetermined or uncertain the cloud asks all base stations for a learned report. If `twin` has no
position, the fix is the one that `ecc-klt` makes of these; if it has one, with covariance C, the two are combined,

    p = S (C⁻¹ p_twin + σ⁻² p_learned),        S = (C⁻¹ + σ⁻² I)⁻¹,

with a deviation σ of the learned fix on each axis. Either is marked as such. Without answers, what `twin` said stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cloud.fusion.ecc_rate import RateFusion
from cloud.fusion.scheme import CloudSetup, Fix, OneRoundFusion
from cloud.fusion.twin import TwinFusion
from fronthaul.message.messages import Payload, Report
from fronthaul.payload.twin_ecc import answer_options, learned_mm

LEARNED = "learned"
"""Note of a fix that the learned reports made."""
COMBINED = "combined"
"""Note of a fix in which both have a part."""
_QUESTION = Payload(b"", 0)


class TwinEccFusion:
    """Opens an exchange for each snapshot."""

    def __init__(self, setup: CloudSetup) -> None:
        """Build both rules.

        Raises:
            ValueError: there is no report or answer of this length.
        """
        self._first = TwinFusion(setup)
        self._learned_m = learned_mm(setup.options) / 1e3
        self._second = RateFusion(replace(setup, options=answer_options(setup.options)))

    def open(self, snapshot: int) -> TwinEccExchange:
        """Begin a snapshot, whichever."""
        return TwinEccExchange(self._first, self._second, self._learned_m)


class TwinEccExchange:
    """The rounds of a snapshot: one, or two."""

    def __init__(self, first: OneRoundFusion, second: OneRoundFusion, learned_m: float) -> None:
        self._first, self._second, self._learned_m = first, second, learned_m
        self._found: Fix | None = None

    def advance(self, reports: Sequence[Report]) -> Payload | Fix:
        """Return the fix of `twin` if it vouches for it, else the question; of answers, return the learned fix."""
        if self._found is not None:
            [learned] = self._second.fuse([reports])
            return self._with(learned) if math.isfinite(learned.position[0]) else self._found
        [self._found] = self._first.fuse([reports])
        if self._found.note is None and math.isfinite(self._found.position[0]):
            return self._found
        if not any(report.payload.bits for report in reports):
            return self._found  # nobody hears the user
        return _QUESTION

    def _with(self, learned: Fix) -> Fix:
        assert self._found is not None
        position, covariance = self._found.position, self._found.covariance
        if covariance is None or not math.isfinite(position[0]):
            return replace(learned, note=LEARNED, excluded={})
        known, precision = np.linalg.inv(covariance), np.eye(3) / self._learned_m**2
        spread = np.linalg.inv(known + precision).astype(np.float64)
        x, y, z = spread @ (known @ position + precision @ learned.position)
        return replace(self._found, position=(float(x), float(y), float(z)), covariance=spread, note=COMBINED)

    def conclude(self) -> Fix | None:
        """Return what `twin` said."""
        return self._found

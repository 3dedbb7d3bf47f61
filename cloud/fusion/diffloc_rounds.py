"""DiffLoc with networks at the base stations: the cloud broadcasts noised states, base stations answer.

    round 0   reports: a header, or the covariance of each base station's own posterior
    round r   state: x_r at level r, P·D numbers of B bits; answers: P·D numbers, with `jac` P·D(D + 1)/2 more

The cloud keeps its own x_r, which is not rounded; base stations answer at the state they received, x̃. For diffusion,
ε̂(x̃) is used as ε̂(x). A consistency model f = c_skip x + c_out F sends f(x̃) − c_skip x̃, to which the cloud adds
c_skip x. Rounding of the last state, where c_skip is 1, thus costs nothing; ε̂ = (x − f) / s. A base station that does
not answer is left out of the step and asked again in the next. One that reports non-finite numbers is excluded from
that round on; its earlier answers are part of the state and count as used. For K base stations and R steps a fix takes

    K R P (2 D + D (D + 1) / 2 with `jac`) B   bits without headers, and K D (D + 1) / 2 B more with `local`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloud.fusion.diffloc_spec import DiffLocSpec, Floats, is_finite
from cloud.fusion.scheme import CloudSetup, Fix, unheard_fix
from fronthaul.message.messages import Payload, Report
from fronthaul.payload.diffloc import ScoreFormat


class RoundsFusion:
    """Opens one exchange per snapshot; holds what all exchanges share."""

    def __init__(self, setup: CloudSetup, score: ScoreFormat) -> None:
        """Read the constants of the weights."""
        self._parts = DiffLocSpec(setup, score)

    def open(self, snapshot: int) -> ScoreExchange:
        """Begin the exchange of a snapshot, from noise."""
        return ScoreExchange(self._parts, snapshot)


class ScoreExchange:
    """The rounds of one snapshot."""

    def __init__(self, parts: DiffLocSpec, snapshot: int) -> None:
        """Draw the first state."""
        self._parts = parts
        self._score = parts.score
        self._sampler = parts.sampler(snapshot)
        self._round = 0
        self._stepped = False
        self._covariances: dict[int, Floats] = dict(parts.posteriors)
        self._excluded: dict[int, str] = {}
        self._from: dict[int, int] = {}

    def advance(self, reports: Sequence[Report]) -> Payload | Fix:
        """Take a step with a round's answers; those of round 0 hold covariances, or nothing."""
        if self._round == 0:
            if (unheard := unheard_fix(reports)) is not None:
                return unheard
            self._take_covariances(reports)
        elif not self._step(reports):
            return self.conclude() or self._parts.none(self._excluded)
        if self._sampler.done or not np.isfinite(self._sampler.x).all():
            return self._fix()
        self._round += 1
        return self._score.encode_state(self._sampler.x, self._sampler.level)

    def conclude(self) -> Fix | None:
        """Return the fix of the last step's clean positions; None before the first step."""
        return self._fix() if self._stepped else None

    def _take_covariances(self, reports: Sequence[Report]) -> None:
        if not self._score.local:
            return
        for report in reports:
            covariance = self._score.decode_covariance(report.payload)
            if np.isfinite(covariance).all():
                self._covariances[report.key.bs] = covariance
            else:
                self._exclude(report.key.bs, 0, "the covariance of its posterior is not finite")

    def _step(self, reports: Sequence[Report]) -> bool:
        """Step with the usable answers; return False if there are none."""
        said, covariances = [], []
        for report in reports:
            bs = report.key.bs
            if bs in self._excluded:
                continue
            raw, jacobian = self._score.decode_answer(report.payload, self._sampler.x, self._sampler.level)
            if is_finite((raw, jacobian)):
                said.append((raw, jacobian))
                covariances.append(self._covariances[bs])
            else:
                self._exclude(bs, self._round, f"its answer of round {self._round} is not finite")
        if not said:
            return False
        self._sampler.advance(self._parts.answers(self._sampler, said, covariances))
        self._stepped = True
        return True

    def _exclude(self, bs: int, round_: int, reason: str) -> None:
        """Exclude a base station from a round on; in round 1, from round 0 on, since no answer of it was used."""
        self._excluded[bs] = reason
        self._from[bs] = round_ if round_ > 1 else 0

    def _fix(self) -> Fix:
        return self._parts.fix(self._sampler.position, self._sampler.covariance, self._excluded, self._from)

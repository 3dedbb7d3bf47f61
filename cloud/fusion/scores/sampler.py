"""Sampler with external scores: it exposes states and level, takes the answers to them, and steps.

    ┌ x, level ──> base stations ──> Answers ──> rule ──> ε̂ ──> p̂ = (x − s ε̂) / a ┐
    └── x' = a' p̂ + s' ε̂        diffusion: DDIM, η = 0, DiffLoc Eq. 13 <────────────┤
        x' = p̂ + s' z           consistency: fresh noise, DiffLoc Algorithm 4 <─────┘

In round r = 1 … R, base stations are to be asked at states `x` and `level` = schedule[r − 1]. `advance` takes their
answers and moves on to round r + 1; after the last round the sampler is `done` with `position` = p̂. For rules that set
`Rule.holds`, clean estimates p̂ are clipped to the prior's range, as image samplers clip to the range of pixels: where
s ≫ a, a small error of ε̂ is a large error of p̂, and a sampler that has left the networks' range does not return. The
paper's sum does not clip, as in the paper.

Every sample begins at noise: N(0, I) for diffusion, N(0, σ_max² I) for consistency. Nothing takes the true position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cloud.fusion.scores.answers import Answers, FloatArray, Kind
from cloud.fusion.scores.rule import Rule
from fronthaul.payload.noise_levels import Level


class NotFiniteError(ValueError):
    """A base station's answer is not finite."""


class Sampler:
    """N positions sampled at once.

    Attributes:
        x: states (N, D) of the pending round.
        round: number of the pending round, from 1; R once done.
        done: whether the last round is complete.
        position: p̂ (N, D) of the last step; the prior's mean before the first.
        covariance: (N, D, D) claimed by the rule; the prior's before the first step. For rules that use Jacobians it is
            that of the level whose ρ is nearest to the prior's standard deviation: with less noise a Jacobian covers
            only the mode around x, with more noise it carries little information. For other rules: the last level's.
    """

    def __init__(self, kind: Kind, schedule: Sequence[Level], rule: Rule, draw: Callable[[int], FloatArray]) -> None:
        """Begin at noise.

        Args:
            kind: type of the networks.
            schedule: R levels, from most noise to least.
            rule: fusion rule.
            draw: round → standard normal (N, D); called for the first round, and for consistency in each round.

        Raises:
            ValueError: the kind is unknown, there are no levels, or the draws are not (N, D).
        """
        if kind not in ("diffusion", "consistency"):
            raise ValueError(f"networks are of kind 'diffusion' or 'consistency', not {kind!r}")
        if not schedule:
            raise ValueError("a sampler needs at least one level")
        self.kind, self.schedule, self.rule = kind, tuple(schedule), rule
        self._draw = draw
        self.round = 1
        self.done = False
        noise = np.asarray(draw(1), np.float64)
        count, size = noise.shape if noise.ndim == 2 else (0, 0)
        if not count or size != len(rule.prior.mean):
            raise ValueError(f"draws must be (N, {len(rule.prior.mean)}) with N ≥ 1, not {noise.shape}")
        self.x = noise if kind == "diffusion" else noise * self.level.noise
        self.position: FloatArray = np.tile(rule.prior.mean, (count, 1))
        self.covariance: FloatArray = np.tile(rule.prior.covariance, (count, 1, 1))
        self._claims = self._nearest_to_prior() if rule.needs_jacobian else len(self.schedule)

    @property
    def level(self) -> Level:
        """Level of the pending round; the last one once done."""
        return self.schedule[self.round - 1]

    def advance(self, answers: Answers) -> None:
        """Take a step with the usable base stations' answers at `x` and `level`.

        Raises:
            ValueError: the sampler is done, there are no answers, or their shape does not match `x`.
            NotFiniteError: an answer is not finite; leave out such base stations with `Answers.select`.
        """
        if self.done:
            raise ValueError("the sampler is done")
        if not answers.stations:
            raise ValueError("no base station answered: a step needs a score")
        if answers.eps.shape[1:] != self.x.shape:
            raise ValueError(f"answers are on states {answers.eps.shape[1:]}, asked was {self.x.shape}")
        if not answers.finite().all():
            raise NotFiniteError("an answer is not finite; leave out that base station")
        level = self.level
        eps = self.rule.eps(self.x, level, answers)
        self.position = (self.x - level.noise * eps) / level.signal
        if self.rule.holds:
            self.position = self.rule.prior.held(self.position)
            eps = (self.x - level.signal * self.position) / level.noise
        if self.round <= self._claims:
            self.covariance = self.rule.covariance(level, answers)
        if self.round == len(self.schedule):
            self.done = True
            return
        self.round += 1
        after = self.level
        if self.kind == "diffusion":  # DiffLoc Eq. 13
            self.x = after.signal * self.position + after.noise * eps
        else:
            self.x = self.position + after.noise * np.asarray(self._draw(self.round), np.float64)

    def _nearest_to_prior(self) -> int:
        """Return the round whose ρ is nearest, as a ratio, to the prior's standard deviation, averaged over axes."""
        deviation = float(np.sqrt(np.diag(self.rule.prior.covariance)).mean())
        return 1 + int(np.argmin([abs(np.log(level.ratio / deviation)) for level in self.schedule]))

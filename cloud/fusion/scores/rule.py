"""What a fusion rule of scores is, and the rules by name: each is a file here, and a line of `score_rules.RULES`."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from cloud.fusion.scores.answers import Answers, FloatArray
from cloud.fusion.scores.prior import Prior
from fronthaul.payload.noise_levels import Level
from fronthaul.payload.score_rules import RULES


class Rule(Protocol):
    """Makes one ε̂ of those of K ≥ 1 base stations. A pure function of its arguments; no call takes a user's position.

    Attributes:
        name: as `build_rule` takes it.
        needs_jacobian: whether `Answers.jacobian` must be there.
        holds: whether the sampler is to hold clean estimates to the prior's range.
        prior: what all base stations were trained under.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def needs_jacobian(self) -> bool: ...  # noqa: D102
    @property
    def holds(self) -> bool: ...  # noqa: D102
    @property
    def prior(self) -> Prior: ...  # noqa: D102

    def eps(self, x: FloatArray, level: Level, answers: Answers) -> FloatArray:
        """Fused ε̂ (N, D) at states x (N, D), the ones that the answers are of.

        Raises:
            ValueError: the rule needs Jacobians and there are none.
        """

    def covariance(self, level: Level, answers: Answers) -> FloatArray:
        """Covariance (N, D, D) of the clean position that the rule claims.

        Raises:
            ValueError: the rule needs Jacobians and there are none.
        """


def build_rule(name: str, prior: Prior) -> Rule:
    """Return the rule of a name: what `build` of the file of that name makes.

    Raises:
        ValueError: there is none of that name; the sentence names those there are.
    """
    if name not in RULES:
        raise ValueError(f"there is no fusion rule {name!r} for scores: {', '.join(RULES)}")
    rule: Rule = import_module(f"cloud.fusion.scores.{name}").build(prior)
    return rule

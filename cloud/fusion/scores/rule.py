"""Interface of a score fusion rule, and rules by name: each has a file here and an entry in `score_rules.RULES`."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from cloud.fusion.scores.answers import Answers, FloatArray
from cloud.fusion.scores.prior import Prior
from fronthaul.payload.noise_levels import Level
from fronthaul.payload.score_rules import RULES


class Rule(Protocol):
    """Combines the ε̂ of K ≥ 1 base stations into one. Its methods are pure functions; none takes a user's position.

    Attributes:
        name: name for `build_rule`.
        needs_jacobian: whether the rule needs `Answers.jacobian`.
        holds: whether the sampler clips clean estimates to the prior's range.
        prior: prior under which all base stations were trained.
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
        """Return the fused ε̂ (N, D) at states x (N, D), to which the answers belong.

        Raises:
            ValueError: the rule needs Jacobians and there are none.
        """

    def covariance(self, level: Level, answers: Answers) -> FloatArray:
        """Return the covariance (N, D, D) of the clean position that the rule claims.

        Raises:
            ValueError: the rule needs Jacobians and there are none.
        """


def build_rule(name: str, prior: Prior) -> Rule:
    """Build the rule of a name, with `build` of the module of that name.

    Raises:
        ValueError: there is no such rule; the message lists all rules.
    """
    if name not in RULES:
        raise ValueError(f"there is no fusion rule {name!r} for scores: {', '.join(RULES)}")
    rule: Rule = import_module(f"cloud.fusion.scores.{name}").build(prior)
    return rule

"""What a fusion rule of scores is, and the rules by name."""

from __future__ import annotations

from typing import Protocol

from cloud.fusion.scores.answers import Answers, FloatArray
from cloud.fusion.scores.fnpe import FnpeRule
from cloud.fusion.scores.gauss import GaussRule
from cloud.fusion.scores.jac import JacRule
from cloud.fusion.scores.mean import MeanRule
from cloud.fusion.scores.precision import PrecisionRule
from cloud.fusion.scores.prior import Prior
from cloud.fusion.scores.sum_ import SumRule
from fronthaul.payload.noise_levels import Level


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


_BUILDERS = {rule.name: rule for rule in (SumRule, MeanRule, PrecisionRule, FnpeRule, GaussRule, JacRule)}
RULES = tuple(_BUILDERS)
"""Names of the rules."""


def build_rule(name: str, prior: Prior) -> Rule:
    """Return the rule of a name.

    Raises:
        ValueError: there is none of that name; the sentence names those there are.
    """
    if name not in _BUILDERS:
        raise ValueError(f"there is no fusion rule {name!r} for scores: {', '.join(RULES)}")
    rule: Rule = _BUILDERS[name](prior)
    return rule

"""Trainings that diverge end there: nothing of them is saved."""

from __future__ import annotations

import math

from torch import nn

from sim.errors import UserError


def require_finite(value: float, when: str) -> None:
    """Check a loss or an error.

    Raises:
        UserError: it is not finite.
    """
    if not math.isfinite(value):
        raise UserError(f"The training diverged before {when}: lower the learning rate.")


def require_finite_weights(network: nn.Module, when: str) -> None:
    """Check all weights of a network.

    Raises:
        UserError: one is not finite.
    """
    for parameter in network.parameters():
        require_finite(float(parameter.detach().abs().max()), when)

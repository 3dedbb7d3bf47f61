"""Moving average of a network's weights, which is validated and exported in their place.

The weights of a training move about their mean at the scale of the learning rate; their average over the latest steps
is closer to it (Polyak and Juditsky, 1992). It costs one pass over the weights per step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Average of all floating point parameters and buffers of a network over the latest `share` of the steps.

    It moves towards the weights by 1 / (1 + share · t) at step t, so that its length grows with the training, whatever
    its length will be (Karras et al., 2024). With a share of 0 it is the weights themselves, and nothing is stored.
    """

    def __init__(self, network: nn.Module, share: float) -> None:
        """Start at the network's weights."""
        self._share, self._updates = share, 0
        everything = network.state_dict(keep_vars=True)  # shares memory with the network
        self._own = [value.detach() for value in everything.values() if value.is_floating_point()] if share else []
        self._mean = [value.clone() for value in self._own]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        if self._own:
            self._updates += 1
            torch._foreach_lerp_(self._mean, self._own, 1 / (1 + self._share * self._updates))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the context the network has the averaged weights."""
        trained = [value.clone() for value in self._own]
        self.apply()
        try:
            yield
        finally:
            _copy(trained, self._own)

    def apply(self) -> None:
        """Give the network the averaged weights, for good."""
        _copy(self._mean, self._own)

    def state_dict(self) -> dict[str, Any]:
        """Return the average, for checkpoints."""
        return {"mean": self._mean, "updates": self._updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s result."""
        _copy(state["mean"], self._mean)
        self._updates = state["updates"]


@torch.no_grad()
def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    for value, own in zip(source, target, strict=True):
        own.copy_(value)

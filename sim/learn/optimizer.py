"""Muon for weight matrices, AdamW for everything else.

Muon (Jordan et al., 2024) replaces the Nesterov momentum by its nearest orthogonal matrix, so that a step has equal
size in all singular directions of a weight. In trials with equal numbers of samples, this mattered more than any other
training choice.

torch.optim.Muon treats one matrix at a time in bfloat16. The six encoders hold 80 small matrices of few shapes:
stacked by shape and orthogonalised in float32 they take a fraction of the time on CPUs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

_RATIO = 10.0  # Muon's rate over AdamW's
_MOMENTUM = 0.95
_DECAY = 0.01
_ITERATIONS = 5
_SMALLEST_SIDE = 8  # narrower matrices gain nothing from a spectrum
_LARGEST_SIDE = 4096  # an input layer over all raw channels: orthogonalising it would cost more than the network


class MatrixOptimizer:
    """Muon and AdamW together, with learning rates in a fixed ratio."""

    def __init__(self, model: nn.Module, *, half: bool = False, matrices: bool = True) -> None:
        """Take the parameters of a model.

        Args:
            model: its parameters are changed by `step`.
            half: orthogonalise matrices in bfloat16 as in torch.optim.Muon. This pays off for large matrices: on CPUs
                with bfloat16 products it takes less than half of the time.
            matrices: whether matrices are treated by Muon, or by AdamW like everything else.
        """
        self._half = half
        self._parameters = list(model.parameters())
        shapes: dict[tuple[int, ...], list[nn.Parameter]] = {}
        rest: list[nn.Parameter] = []
        for parameter in self._parameters:
            if matrices and parameter.requires_grad and _is_spectral(parameter):
                shapes.setdefault(tuple(parameter.shape), []).append(parameter)
            elif parameter.requires_grad:
                rest.append(parameter)
        self._stacks = list(shapes.values())
        self._momenta = [torch.zeros(len(s), *s[0].shape, device=s[0].device) for s in self._stacks]
        device = self._parameters[0].device
        self._rate = torch.zeros((), device=device)  # a tensor, so that a captured CUDA graph follows its changes
        self._rest = torch.optim.AdamW(rest, self._rate, betas=(0.9, 0.98), capturable=device.type == "cuda")

    def set_rate(self, rate: float) -> None:
        """Set AdamW's learning rate of the steps that follow."""
        self._rate.fill_(rate)

    def descend(self, loss: Tensor, rate: float | None = None) -> None:
        """Take one step against the gradient of `loss`, clipped to a norm of 1, at AdamW rate `rate` or the one set."""
        if rate is not None:
            self.set_rate(rate)
        self.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self.step()

    @torch.no_grad()
    def step(self) -> None:
        """Apply the gradients."""
        matrix_rate = self._rate * _RATIO
        for stack, momentum in zip(self._stacks, self._momenta, strict=True):
            gradient = torch.stack([torch.zeros_like(p) if p.grad is None else p.grad for p in stack])
            momentum.lerp_(gradient, 1 - _MOMENTUM)
            direction = gradient.lerp(momentum, _MOMENTUM)
            update = orthogonalised(direction.bfloat16() if self._half else direction).float()
            rows, columns = stack[0].shape
            update = update * (matrix_rate * max(1.0, rows / columns) ** 0.5)
            torch._foreach_mul_(stack, 1 - matrix_rate * _DECAY)  # type: ignore[arg-type]
            torch._foreach_sub_(stack, update.unbind())  # type: ignore[arg-type]
        self._rest.step()

    def zero_grad(self) -> None:
        """Clear the gradients."""
        for stack in self._stacks:
            for parameter in stack:
                parameter.grad = None
        self._rest.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both optimizers, for checkpoints."""
        return {"momenta": self._momenta, "rest": self._rest.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`'s result."""
        for momentum, saved in zip(self._momenta, state["momenta"], strict=True):
            momentum.copy_(saved)
        self._rest.load_state_dict(state["rest"])
        for group in self._rest.param_groups:
            group["lr"] = self._rate


def warm_cosine(peak: float, step: int, steps: int, warmup_steps: int) -> float:
    """Return the learning rate at a step of `steps`: linear warm-up to `peak`, then cosine decay to zero."""
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    return peak * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def _is_spectral(parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and min(parameter.shape) >= _SMALLEST_SIDE and max(parameter.shape) <= _LARGEST_SIDE


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return nearly orthogonal factors (G, r, c) of a stack of matrices, by Newton-Schulz with Muon's coefficients."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    out: Tensor = x if wide else x.mT
    return out

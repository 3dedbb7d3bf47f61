"""Keyed draws for torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fronthaul.draws import generator


def torch_generator(seed: int, stream: str, *key: int) -> torch.Generator:
    """Return a CPU generator whose draws depend on (seed, stream, key) alone."""
    return torch.Generator().manual_seed(int(generator(seed, stream, *key).integers(2**62)))


@dataclass(frozen=True)
class Draws:
    """Keyed draws of a step on a device.

    Attributes:
        host: generator on the CPU, for what the host has to know, such as the size of a tensor: a draw on a GPU would
            have to be waited for.
        device: generator of tensors on the device; on a CPU it is `host` itself.
    """

    host: torch.Generator
    device: torch.Generator


def device_draws(device: torch.device, seed: int, stream: str, *key: int) -> Draws:
    """Return generators whose draws depend on (seed, stream, key) and the kind of device alone."""
    host = torch_generator(seed, stream, *key)
    if device.type == "cpu":
        return Draws(host, host)
    return Draws(host, torch.Generator(device).manual_seed(host.initial_seed()))

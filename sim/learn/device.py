"""Where to train."""

from __future__ import annotations

import torch

from sim.errors import UserError


def training_device(name: str | None = None) -> torch.device:
    """Return the device of this name, by default a CUDA device if there is one, otherwise the CPU.

    Raises:
        UserError: there is no such device here.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise UserError(f"There is no --device {name!r}: it is cpu, cuda, or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"There is no --device {name!r}: it is cpu, cuda, or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: torch finds {torch.cuda.device_count()} CUDA devices here.")
    return device

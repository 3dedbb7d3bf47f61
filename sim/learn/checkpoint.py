"""Checkpoints of trainings: one file, written atomically, with the identity of the training that it belongs to."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from fronthaul.files import whole_file
from sim.errors import UserError


class Stateful(Protocol):
    """A part of a training, such as a network or an optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state needed to resume."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Restore `state_dict`'s result."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint's content.

    Attributes:
        identity: identity of the training that it belongs to.
        step: number of steps, or epochs, done.
        state: state of each part, by its name.
    """

    identity: dict[str, Any]
    step: int
    state: dict[str, Any]


class Checkpoint:
    """The checkpoint file of one training; without a path nothing is saved."""

    def __init__(self, path: Path | None, identity: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
        """Take the training's parts by name; `identity` must hold everything that its result depends on."""
        self._path, self._identity, self._parts = path, dict(identity), parts

    def save(self, step: int) -> None:
        """Write the state after `step`.

        Raises:
            OSError: the file cannot be written.
            UserError: there is not enough space for it.
        """
        if self._path is None:
            return
        state = {name: part.state_dict() for name, part in self._parts.items()}
        with whole_file(self._path) as temporary:
            try:
                torch.save({"identity": self._identity, "step": step, **state}, temporary)
            except RuntimeError as error:  # of torch's writer
                raise UserError(f"The checkpoint {self._path} cannot be written: is the disk full?") from error

    def resume(self) -> int:
        """Restore the parts; return the step reached, 0 without a file.

        Raises:
            UserError: the file is damaged or belongs to another training.
        """
        if self._path is None or not self._path.is_file():
            return 0
        saved = read_checkpoint(self._path)
        if saved.identity != self._identity or not self._parts.keys() <= saved.state.keys():
            raise UserError(
                f"The checkpoint {self._path} belongs to another training; remove it or name another folder."
            )
        for name, part in self._parts.items():
            part.load_state_dict(saved.state[name])
        return saved.step

    def remove(self) -> None:
        """Remove the file of a training whose result is kept elsewhere."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def read_checkpoint(path: Path, *, mapped: bool = False) -> Saved:
    """Read a checkpoint; with `mapped`, tensors are memory-mapped and read when they are used.

    Raises:
        UserError: the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        return Saved(state.pop("identity"), int(state.pop("step")), state)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError) as error:
        raise UserError(f"The checkpoint {path} is damaged ({type(error).__name__}); remove it.") from error

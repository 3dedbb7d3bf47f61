"""`train --dry-run`: a training goes on for seconds in a temporary folder, which tells how long all of it takes."""

from __future__ import annotations

import contextlib
import io
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from sim.terminal import ProgressBar, duration, megabytes

WATCHED_S = 4.0
"""How long the pace is measured [s]."""
_WEIGHTS_BYTES, _CHECKPOINT_BYTES = 2, 12
"""Of a number in a network: half precision; single precision with its average and the optimiser's state."""


class Rehearsal(ProgressBar):
    """In the place of a progress bar: ends the command when the pace of its steps is known, and prints what follows.

    Nothing that the command itself prints is shown. One that ends before is measured whole.

    Attributes:
        folder: a temporary folder, for all that the command writes.
    """

    folder: Path

    def __init__(self, name: str, numbers: int | None) -> None:
        """Take what is rehearsed, and how many numbers the networks of such weights have, if that is known."""
        super().__init__(quiet=True)
        self._name, self._numbers = name, numbers
        self._resources = contextlib.ExitStack()
        self._told: list[str] = []
        self._phase, self._seen = "", (0.0, 0.0)

    def __enter__(self) -> Rehearsal:
        """Begin."""
        self.folder = Path(self._resources.enter_context(TemporaryDirectory(prefix="cofix-dry-run-")))
        self._resources.enter_context(contextlib.redirect_stdout(io.StringIO()))
        self._begun = time.monotonic()
        return self

    def __exit__(self, *raised: object) -> None:
        """Print what is known, unless something failed."""
        kind, error, _ = raised
        if kind is None:
            size = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
            self._told = [
                f"{self._name}: {duration(time.monotonic() - self._begun)}, all of it; {megabytes(size)} on disk."
            ]
        self._resources.close()
        if kind is None or isinstance(error, typer.Exit):
            print("\n".join([*self._told, "Nothing was done."]))

    def update(self, description: str, done: float, total: float, *, note: str = "", restart: bool = False) -> None:
        """Take note of a step; the first of a phase starts the clock.

        Raises:
            typer.Exit: the pace is known.
        """
        now = time.monotonic()
        if restart or description != self._phase:
            self._phase, self._seen = description, (now, done)
            return
        begun, before = self._seen
        if done <= before or now - begun < WATCHED_S:
            return
        pace = (now - begun) / (done - before)
        self._told = [
            f"{self._name}, {description}: {total:.0f} steps of {pace:.3g} s, as measured here on {done - before:.0f}: "
            f"about {duration(pace * total)}, after {duration(begun - self._begun)} until the first of them. "
            "What follows these steps is not counted."
        ]
        if self._numbers is not None:
            weights, kept = self._numbers * _WEIGHTS_BYTES, self._numbers * _CHECKPOINT_BYTES
            self._told.append(
                f"On disk: {megabytes(weights)} of weights and {megabytes(kept)} of checkpoint for each payload, if "
                f"networks have {self._numbers} numbers, as those that ship."
            )
        raise typer.Exit


def numbers_of(scheme: str) -> int | None:
    """Return how many numbers the shipped weights of a scheme have; None if there are none."""
    from sim.plan.weights import load_weights
    from sim.world.store import ASSET_FOLDER

    shipped = [*ASSET_FOLDER.glob(f"*/{scheme}.safetensors"), *ASSET_FOLDER.glob(f"*/{scheme}-b4.safetensors")]
    return sum(tensor.numel() for tensor in load_weights(shipped[0]).tensors.values()) if shipped else None

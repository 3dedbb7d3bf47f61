"""What stands behind a table's rows: trainings at hand, by name, and what tells two of them apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Protocol

from sim.errors import UserError


class Bench(Protocol):
    """The trainings, or runs, behind a table; rows name them."""

    def require_data(self, names: Iterable[str]) -> None:
        """Check that the data they need are there, else raise `UserError`."""

    def is_trained(self, name: str) -> bool:
        """Whether there is nothing left to train."""

    def train(self, name: str) -> None:
        """Train, if it has not been."""

    def identity(self, name: str, *, fitted: bool) -> str | None:
        """Digest of its data and, with `fitted`, of what was trained; None where that is not."""


def require_traced(wanted: Iterable[tuple[str, Path, str]]) -> None:
    """Check that path data are there.

    Args:
        wanted: of each data set its name, a file that stands for it, and the arguments of `trace` that make it.

    Raises:
        UserError: some are missing; the sentence names the commands that make them.
    """
    missing = {name: words for name, file, words in wanted if not file.is_file()}
    if missing:
        commands = " and ".join(f"`python cli.py trace {words}`" for words in missing.values())
        raise UserError(f"The path data of {', '.join(missing)} are missing: run {commands}.")


def file_digest(path: Path) -> bytes:
    """Digest of a file's content; a file that has not changed is read once."""
    state = path.stat()
    return _digest(path.resolve(), state.st_mtime_ns, state.st_size)


@cache
def _digest(path: Path, _changed_ns: int, _size: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()

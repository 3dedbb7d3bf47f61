"""Benches: the named trainings or runs that a table's rows are measured on, and digests that identify them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Protocol

from sim.errors import UserError


class Bench(Protocol):
    """The trainings or runs that a table is measured on; rows refer to them by name."""

    def require_data(self, names: Iterable[str]) -> None:
        """Check that the data they need exist, else raise `UserError`."""

    def is_trained(self, name: str) -> bool:
        """Return whether there is nothing left to train."""

    def train(self, name: str) -> None:
        """Train, unless already trained."""

    def identity(self, name: str, *, fitted: bool) -> str | None:
        """Return a digest of its data and, with `fitted`, of the trained networks; None without them."""


def require_traced(wanted: Iterable[tuple[str, Path, str]]) -> None:
    """Check that path data exist.

    Args:
        wanted: for each data set its name, the file that is checked, and the arguments of `trace` that make it.

    Raises:
        UserError: some are missing; the message names the commands that make them.
    """
    missing = {name: words for name, file, words in wanted if not file.is_file()}
    if missing:
        commands = " and ".join(f"`python cli.py trace {words}`" for words in missing.values())
        raise UserError(f"The path data of {', '.join(missing)} are missing: run {commands}.")


def file_digest(path: Path) -> bytes:
    """Return a digest of a file's content; an unchanged file is read once."""
    state = path.stat()
    return _digest(path.resolve(), state.st_mtime_ns, state.st_size)


@cache
def _digest(path: Path, _changed_ns: int, _size: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()

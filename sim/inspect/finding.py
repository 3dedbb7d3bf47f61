"""What a check of an audit finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sim.errors import UserError


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        name: what was checked.
        state: "holds", "fails", or "left out" if the run has nothing to check.
        detail: figures, or what is wrong, in one line.
    """

    name: str
    state: Literal["holds", "fails", "left out"]
    detail: str


def finding(name: str, problems: Iterable[str], told: str) -> Finding:
    """Return what a check found: its problems, or `told` if there are none."""
    problems = list(problems)
    return Finding(name, "fails", "; ".join(problems)) if problems else Finding(name, "holds", told)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Name the table whose columns are missing or of another kind.

    Raises:
        UserError: they are.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{name} is damaged: {error}.") from error


def floats(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """Return a column of numbers; NaN stands for null."""
    return np.asarray(table[name].cast(pa.float64()).fill_null(np.nan))

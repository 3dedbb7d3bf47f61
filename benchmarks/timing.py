"""Timing of cases against their baselines.

A repetition times every case of a part once, in turn, each as the mean over a block of calls, so that other load on the
machine affects a case and its baseline alike. A row holds median, least and largest value over the repetitions, and the
median of the ratios within repetitions.
"""

from __future__ import annotations

import math
import statistics
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: `repetitions` of blocks of `block_s` [s]; `runs` emulations of `snapshots` for ``whole``."""

    repetitions: int
    block_s: float
    runs: int
    snapshots: int


FULL = Effort(repetitions=15, block_s=0.02, runs=3, snapshots=480)
QUICK = Effort(repetitions=2, block_s=0.0, runs=1, snapshots=8)
"""Smoke test: its results are meaningless."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Inputs of a part: effort, a folder for its files, and weights for the scheme ``ecc``."""

    effort: Effort
    folder: Path
    weights: Path

    @property
    def quick(self) -> bool:
        """Whether this is the smoke test."""
        return self.effort == QUICK


@dataclass(frozen=True, slots=True)
class Case:
    """A case to time: `call` processes `per` items; `reference` names the case that is its baseline."""

    name: str
    call: Callable[[], object]
    per: int = 1
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    `ratio` is this time or rate over that of the case `reference`, if any: the median over the repetitions, whose least
    and largest value are `ratio_range`.
    """

    case: str
    unit: str
    median: float
    least: float
    largest: float
    ratio: float | None = None
    reference: str | None = None
    ratio_range: Sequence[float] = ()


def row(
    case: str,
    unit: str,
    values: Sequence[float],
    reference: str | None = None,
    yardstick: Sequence[float] | None = None,
) -> Row:
    """Summarise one value per repetition; `yardstick` holds the values of `reference` in the same repetitions."""
    median, least, largest = statistics.median(values), min(values), max(values)
    if yardstick is None:
        return Row(case, unit, median, least, largest)
    ratios = [value / base for value, base in zip(values, yardstick, strict=True)]
    span = (min(ratios), max(ratios))
    return Row(case, unit, median, least, largest, statistics.median(ratios), reference, span)


def measure(cases: Sequence[Case], effort: Effort, clock: Callable[[], float] = timeit.default_timer) -> list[Row]:
    """Time cases in turn by `clock` [s]; return one row for each, in microseconds per item."""
    timers = {case.name: timeit.Timer(case.call, timer=clock) for case in cases}  # holds off garbage collection
    calls = {name: _calls(timer, effort.block_s) for name, timer in timers.items()}
    taken: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(effort.repetitions):
        for case in cases:
            seconds = timers[case.name].timeit(calls[case.name])
            taken[case.name].append(1e6 * seconds / (calls[case.name] * case.per))
    return [
        row(case.name, "µs", taken[case.name], case.reference, taken[case.reference] if case.reference else None)
        for case in cases
    ]


def _calls(timer: timeit.Timer, block_s: float) -> int:
    """Return the number of calls that fill a block, after one call that fills caches."""
    timer.timeit(1)
    return max(1, math.ceil(block_s / timer.timeit(1)))

"""What a row of a sweep costs in a process of its own, what it takes to send it there, and what kept pilots spare it.

    python -m benchmarks.sweep_rows

Processor time of one core; the two kinds of run take turns, and ratios are medians over their pairs.
"""

from __future__ import annotations

import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from sim.emulate.emulator import emulate
from sim.plan.plan import load_plan
from sim.sweep.cases import cases_of
from sim.world.pilot_store import PilotStore

ROWS = {"ecc": 300, "rss": 1000}
"""Snapshots of a row on paris-6, by scheme."""
PAIRS = 4

T = TypeVar("T")


def taken(work: Callable[[], T]) -> tuple[float, T]:
    """Return the processor time of some work [s], and its result."""
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def main() -> None:
    """Run rows of each scheme, and print a line for each."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for scheme, snapshots in ROWS.items():
            words = {"scheme": scheme, "scenario": "paris-6", "snapshots": snapshots}
            settings = replace(cases_of(words, Path(folder))[0].settings, output=Path(folder) / scheme)
            loaded_s, plan = taken(lambda: load_plan(settings))  # noqa: B023 - called at once
            sent_s, data = taken(lambda: pickle.dumps(plan))  # noqa: B023
            received_s, _ = taken(lambda: pickle.loads(data))  # noqa: B023
            store = PilotStore()
            emulate(settings, store=store)
            pairs = [
                (taken(lambda: emulate(settings))[0], taken(lambda: emulate(settings, store=store))[0])  # noqa: B023
                for _ in range(PAIRS)
            ]
            alone_s = statistics.median(alone for alone, _ in pairs)
            ratio = statistics.median(kept / alone for alone, kept in pairs)
            print(
                f"{scheme}, {snapshots} snapshots: {alone_s:.1f} s, of which plan {loaded_s:.2f} s; with kept pilots "
                f"{ratio:.2f} of it; sent: {len(data) / 1e6:.0f} MB, {sent_s + received_s:.2f} s"
            )


if __name__ == "__main__":
    main()

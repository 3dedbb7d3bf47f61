"""The same messages as `peers` carries, as arguments and results of Ray's actor calls.

Ray is imported where it is used: its actors need nothing else of this project, and not torch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers import STATE
from benchmarks.samples import STATIONS, frame
from fronthaul.message.wire import encode

IN_FLIGHT = 64
"""Calls that a sender leaves unanswered at most."""


class Cloud:
    """Counts what comes."""

    def __init__(self) -> None:
        self._bytes = 0

    def take(self, data: bytes) -> int:
        """Take one message."""
        self._bytes += len(data)
        return len(data)


class Station:
    """Sends to a cloud, or answers."""

    def push(self, cloud: Any, data: bytes, messages: int) -> None:
        """Send the same message so many times."""
        import ray

        waiting: list[Any] = []
        for _ in range(messages):
            if len(waiting) >= IN_FLIGHT:
                _, waiting = ray.wait(waiting, num_returns=IN_FLIGHT // 2)
            waiting.append(cloud.take.remote(data))
        ray.get(waiting)

    def answer(self, state: bytes, data: bytes) -> bytes:
        """Answer a state with a report."""
        return data if state else b""


class RaySide:
    """The actors."""

    def __init__(self, cloud: Any, stations: Sequence[Any]) -> None:
        """Take actors that are up."""
        self._cloud, self._stations = cloud, stations

    def rate(self, count: int, bundle: int) -> float:
        """Return how long `count` reports of each station take [s], so many in a message."""
        import ray

        data = encode(frame(bundle))
        begin_s = time.perf_counter()
        ray.get([station.push.remote(self._cloud, data, -(-count // bundle)) for station in self._stations])
        return time.perf_counter() - begin_s

    def round(self, count: int) -> float:
        """Return how long it takes on average to ask all stations and have all answers [s]."""
        import ray

        data = encode(frame())
        begin_s = time.perf_counter()
        for _ in range(count):
            ray.get([station.answer.remote(STATE.data, data) for station in self._stations])
        return (time.perf_counter() - begin_s) / count


@contextmanager
def session() -> Iterator[RaySide]:
    """Start Ray and the actors, and end it."""
    from sim.emulate import ray_session  # isort: skip  # before Ray: it sets its environment

    import ray

    place = str(Path(ray_session.__file__).parents[2])
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": place, "OMP_NUM_THREADS": "1"}},
    )
    try:
        cloud = ray.remote(Cloud).options(num_cpus=0).remote()
        stations: list[Any] = [ray.remote(Station).options(num_cpus=0).remote() for _ in range(STATIONS)]
        ray.get([station.answer.remote(b"", b"") for station in stations])
        yield RaySide(cloud, stations)
    finally:
        ray.shutdown()

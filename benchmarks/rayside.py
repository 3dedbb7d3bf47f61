"""The messages of `peers`, sent as arguments and results of Ray's actor calls.

Ray is imported inside functions; its actors do not need torch.
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
"""Maximum number of pending calls of a sender."""


class Cloud:
    """Actor that counts the bytes it receives."""

    def __init__(self) -> None:
        self._bytes = 0

    def take(self, data: bytes) -> int:
        """Take one message."""
        self._bytes += len(data)
        return len(data)


class Station:
    """Actor that sends reports to a cloud, or answers states."""

    def push(self, cloud: Any, data: bytes, messages: int) -> None:
        """Send the same message `messages` times."""
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
    """The actors of one Ray session."""

    def __init__(self, cloud: Any, stations: Sequence[Any]) -> None:
        """Take actors that have started."""
        self._cloud, self._stations = cloud, stations

    def rate(self, count: int, bundle: int) -> float:
        """Return the time that `count` reports of each station take [s], with `bundle` reports in a message."""
        import ray

        data = encode(frame(bundle))
        begin_s = time.perf_counter()
        ray.get([station.push.remote(self._cloud, data, -(-count // bundle)) for station in self._stations])
        return time.perf_counter() - begin_s

    def round(self, count: int) -> float:
        """Return the mean time to query all stations and receive all answers [s]."""
        import ray

        data = encode(frame())
        begin_s = time.perf_counter()
        for _ in range(count):
            ray.get([station.answer.remote(STATE.data, data) for station in self._stations])
        return (time.perf_counter() - begin_s) / count


@contextmanager
def session() -> Iterator[RaySide]:
    """Start Ray and the actors; shut Ray down on exit."""
    from sim.emulate import ray_session  # isort: skip  # before Ray: it sets its environment

    import ray

    place = str(Path(ray_session.__file__).parents[2])
    with ray_session.own_token():
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

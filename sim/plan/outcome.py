"""Progress and results of a run, common to both drivers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cloud.cloud_spec import CloudOutcome


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run.

    Attributes:
        stage: "start" (processes and links come up), "run" or "write".
        done: snapshots closed at the cloud.
        total: snapshots of the run.
        folder: folder of the run, where the run has just made it; else None.
    """

    stage: Literal["start", "run", "write"]
    done: int
    total: int
    folder: Path | None = None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart of a process that died.

    Attributes:
        name: "the cloud", or the base stations of the process.
        t_died_ns: time at which the death was noticed [ns].
        t_back_ns: time from which the new process worked [ns]; None if the run ended before.
        node_lost: whether it died with its node.
    """

    name: str
    t_died_ns: int
    t_back_ns: int | None
    node_lost: bool = False


@dataclass(frozen=True)
class RunRecord:
    """Record of a run, in addition to the streams in its folder.

    Attributes:
        cloud: outcome of the cloud's last incarnation.
        t0_ns: time zero of snapshot 0 on the run's clock [ns].
        wall_clock: whether that clock is the wall clock; otherwise it is simulated.
        seconds: real time from the first snapshot to the end [s].
        address: address on which the cloud listened.
        failures: one sentence per failure; empty if there was none.
        restarts: processes that died and were started again.
        step_ns: by how much the wall clock of the driver's host was set during the run, at most [ns].
    """

    cloud: CloudOutcome
    t0_ns: int
    wall_clock: bool
    seconds: float
    address: str
    failures: list[str] = field(default_factory=list)
    restarts: list[Restart] = field(default_factory=list)
    step_ns: int = 0


@dataclass(frozen=True)
class RunResult:
    """Result of a successful run: its folder, and the content of `summary.json`."""

    folder: Path
    summary: dict[str, Any]

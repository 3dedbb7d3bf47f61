"""What a driver is told and what it brings back; both drivers speak these values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cloud.cloud_spec import CloudOutcome


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: "start" (processes and links come up), "run" or "write".
        done: snapshots closed at the cloud.
        total: snapshots of the run.
    """

    stage: Literal["start", "run", "write"]
    done: int
    total: int


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Restart:
    """A process that died and was started again.

    Attributes:
        name: "the cloud", or its base stations.
        t_died_ns: when that was noticed [ns].
        t_back_ns: when the new one was at work [ns]; None where the run ended before.
    """

    name: str
    t_died_ns: int
    t_back_ns: int | None


@dataclass(frozen=True)
class RunRecord:
    """What happened in a run, beside the streams in its folder.

    Attributes:
        cloud: outcome of the cloud's last incarnation.
        t0_ns: time zero of snapshot 0 on the run's clock [ns].
        wall_clock: whether that clock is the wall clock; else it is simulated.
        seconds: from the first snapshot to the end, in real time [s].
        address: where the cloud listened.
        failures: one sentence for each thing that went wrong; empty if nothing did.
        restarts: processes that died and were started again.
    """

    cloud: CloudOutcome
    t0_ns: int
    wall_clock: bool
    seconds: float
    address: str
    failures: list[str] = field(default_factory=list)
    restarts: list[Restart] = field(default_factory=list)


@dataclass(frozen=True)
class RunResult:
    """A run that ended well: its folder, and `summary.json` as a table."""

    folder: Path
    summary: dict[str, Any]

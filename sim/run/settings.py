"""What a user may choose about an emulation, checked before anything starts.

Times are in milliseconds here, as on the command line; `interval_ns` and `deadline_ns` are what the run uses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sim.errors import UserError, nearest_hint
from sim.world.scenario import Scenario

Driver = Literal["ray", "process"]
"""``ray``: actors for BSs and cloud, ZeroMQ between them, wall clock. ``process``: everything in this one,
memory links, simulated clock."""

MAX_SNAPSHOTS = 1 << 24
"""More would need a run folder beyond any disk; the wire format could number 2**32."""


@dataclass(frozen=True, kw_only=True)
class EmulateSettings:
    """One emulation.

    Attributes:
        scenario: name of a shipped scenario, or path of a TOML file.
        scheme: entry point name of edge scheme and fusion.
        bs: the scenario's first so many sites take part.
        bits: quantiser resolution B, 1..8 [bit a coefficient]; None sends without loss.
        snapshots: positioning occasions.
        seed: of all draws.
        driver: see `Driver`.
        interval_ms: between two snapshots [ms]; 0 runs as fast as it goes, without deadline.
        deadline_ms: from a snapshot's time zero until the cloud waits no longer [ms].
        minimum_bs: a fix needs so many reports.
        batch: snapshots processed at once at edge and cloud; above 1 a fix may change by up to 1 mm.
        bs_per_actor: BSs that share one Ray actor process, each with its own link.
        cpus_per_bs: CPUs that Ray reserves for a BS.
        gpus_per_bs: GPUs that Ray reserves for a BS.
        cloud_cpus: CPUs that Ray reserves for the cloud.
        ray_address: None or "local" start Ray here, "auto" or an address attach to a running cluster.
        host: address at which the cloud listens; None chooses loopback or the cloud node's own address.
        port: TCP port of the cloud; 0 takes a free one.
        warmup: first snapshots that latency statistics leave out; they are positioned all the same.
        weights: file of trained weights; None takes the shipped one.
        test: file of test paths; None takes the scenario's.
        output: folder in which the run's folder is made.
        shuffle_csi: control experiment: each snapshot's CSI is that of another test position.
        controls: evaluate prior, nearest neighbours and error bound on the same snapshots, and draw pictures.

    Raises:
        UserError: one sentence that says which value is impossible.
    """

    scenario: str = "paris-6"
    scheme: str = "ecc"
    bs: int = 6
    bits: int | None = 4
    snapshots: int = 1000
    seed: int = 1
    driver: Driver = "ray"
    interval_ms: float = 30.0
    deadline_ms: float = 1000.0
    minimum_bs: int = 1
    batch: int = 1
    bs_per_actor: int = 1
    cpus_per_bs: float = 0.25
    gpus_per_bs: float = 0.0
    cloud_cpus: float = 0.5
    ray_address: str | None = None
    host: str | None = None
    port: int = 0
    warmup: int = 20
    weights: Path | None = None
    test: Path | None = None
    output: Path = Path("runs")
    shuffle_csi: bool = False
    controls: bool = True

    def __post_init__(self) -> None:
        """Check every value; `require_fits` checks what needs the scenario."""
        if self.driver not in get_args(Driver):
            hint = nearest_hint(str(self.driver), get_args(Driver))
            raise UserError(f"There is no driver {self.driver!r}{hint}.")
        if self.bits is not None:
            _require_int("bits", self.bits, 1, 8, "the codebook has 1 to 8 bits a coefficient (or lossless)")
        _require_int("bs", self.bs, 1, 1 << 16, "at least one base station is needed")
        _require_int("snapshots", self.snapshots, 1, MAX_SNAPSHOTS, "give how many snapshots to position")
        _require_int("seed", self.seed, 0, 2**63 - 1, "give a whole number that is not negative")
        _require_int("minimum-bs", self.minimum_bs, 1, self.bs, "a fix takes 1 to --bs base stations")
        _require_int("batch", self.batch, 1, 4096, "snapshots are processed one or more at a time")
        _require_int("bs-per-actor", self.bs_per_actor, 1, 1 << 16, "an actor holds one base station or more")
        _require_int("port", self.port, 0, 65535, "TCP ports are 1 to 65535, and 0 takes a free one")
        _require_int("warmup", self.warmup, 0, MAX_SNAPSHOTS, "give how many snapshots to leave out")
        for name, value in (
            ("interval", self.interval_ms),
            ("cpus-per-bs", self.cpus_per_bs),
            ("gpus-per-bs", self.gpus_per_bs),
            ("cloud-cpus", self.cloud_cpus),
        ):
            _require_float(name, value, "it must be a number that is not negative", value >= 0)
        _require_float("deadline", self.deadline_ms, "it must be above 0 ms", self.deadline_ms > 0)
        self._check_timing()
        self._check_places()

    def _check_timing(self) -> None:
        if max(self.interval_ms, self.deadline_ms) > 3.6e6:
            raise UserError("--interval and --deadline are in milliseconds, and at most one hour each.")
        held_ms = (self.batch - 1) * self.interval_ms  # the first of a batch waits for the last
        if self.interval_ms > 0 and held_ms >= self.deadline_ms:
            raise UserError(
                f"--batch {self.batch} at --interval {self.interval_ms:g} ms holds a report back for "
                f"{held_ms:g} ms, beyond --deadline {self.deadline_ms:g} ms; use a smaller batch."
            )

    def _check_places(self) -> None:
        if self.host is not None and not self.host.strip():
            raise UserError("--host must name an address of this machine, it is empty.")
        if self.ray_address is not None and not self.ray_address.strip():
            raise UserError("--ray-address must be 'local', 'auto' or one like 10.0.0.5:6379, it is empty.")
        if self.driver == "process":
            for name, given in (
                ("ray-address", self.ray_address is not None),
                ("host", self.host is not None),
                ("port", self.port != 0),
            ):
                if given:
                    raise UserError(f"--{name} has no meaning with --driver process, which opens no sockets.")

    def require_fits(self, scenario: Scenario) -> None:
        """Check what depends on the scenario.

        Raises:
            UserError: more base stations than the scenario has sites.
        """
        sites = len(scenario.sites)
        if self.bs > sites:
            raise UserError(f"--bs {self.bs} is more than the {sites} sites of scenario {scenario.name!r}.")

    @property
    def interval_ns(self) -> int:
        """Between two snapshots [ns]."""
        return round(self.interval_ms * 1e6)

    @property
    def deadline_ns(self) -> int:
        """From time zero until the cloud waits no longer [ns]."""
        return round(self.deadline_ms * 1e6)

    @property
    def warmup_snapshots(self) -> int:
        """Snapshots that latency statistics leave out: `warmup`, but at most half of a short run."""
        return min(self.warmup, self.snapshots // 2)


def _require_int(name: str, value: int, low: int, high: int, why: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"--{name} must lie in {low}..{high}, it is {value!r}: {why}.")


def _require_float(name: str, value: float, why: str, holds: bool) -> None:
    if not (math.isfinite(value) and holds):
        raise UserError(f"--{name} is {value!r}: {why}.")

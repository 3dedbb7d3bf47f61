"""What a user may choose about an emulation, checked before anything starts.

Times are in milliseconds here, as on the command line; `interval_ns` and `deadline_ns` are what the run uses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from fronthaul.errors import LocalError
from fronthaul.link.link_file import LinkPlan
from fronthaul.message.messages import MAX_BUNDLE
from fronthaul.payload.choice import PayloadChoice
from fronthaul.roster import Roster
from fronthaul.transport.keys import is_loopback
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
        bs: the scenario's first so many sites take part, or so many at random in each snapshot.
        random_subset: base stations stand at all sites, and `bs` of them, drawn anew, measure each snapshot.
        layout: which of the held-out layouts of a scenario that has several; None takes the first, and is all that a
            scenario without layouts allows.
        bits: quantiser resolution B, 1..8 [bit a coefficient]; None forwards the channel itself.
        forward: how the channel is forwarded where `bits` is None: complex64 (lossless), iq16, or bfp1 to
            bfp16 (`fronthaul.codec.iq`).
        snapshots: positioning occasions.
        seed: of all draws.
        driver: see `Driver`.
        interval_ms: between two snapshots [ms]; 0 runs as fast as it goes, without deadline.
        deadline_ms: from a snapshot's time zero until the cloud waits no longer [ms].
        window_ms: reports that come sooner after time zero than this are counted as early [ms].
        round_ms: how long the cloud waits for the reports of one round, in round 0 from the first on [ms]; 0 for as
            long as the deadline allows.
        minimum_bs: a fix needs so many reports.
        bundle: reports that share a message, at most a batch.
        links: link models; the default is perfect links.
        batch: snapshots processed at once at edge and cloud; above 1 a fix may change by up to 1 mm.
        bs_per_actor: BSs that share one Ray actor process, each with its own link.
        cpus_per_bs: CPUs that Ray reserves for a BS.
        gpus_per_bs: GPUs that Ray reserves for a BS.
        cloud_cpus: CPUs that Ray reserves for the cloud.
        cloud_gpus: GPUs that Ray reserves for the cloud.
        ray_address: None or "local" start Ray here, "auto" or an address attach to a running cluster.
        host: address at which the cloud listens; None chooses loopback or the cloud node's own address.
        port: TCP port of the cloud; 0 takes a free one.
        curve: whether links are encrypted and base stations known by their keys; None where the cloud listens beyond
            loopback.
        keys: folder of keys that `cofix keys` made; None makes new ones for this run.
        hwm: messages that may wait at each end of a link.
        ping_ms: between two signs of life of a base station [ms]; 0 gives none.
        restarts: how many times a base station, or the cloud, is started again after its process died.
        capture: write each link's frames as pcapng.
        netns: each base station in a network namespace of its own, links shaped by the kernel (root).
        warmup: first snapshots that latency statistics leave out; they are positioned all the same.
        weights: file of trained weights; None takes the shipped one.
        test: file of test paths; None takes the scenario's.
        output: folder in which the run's folder is made.
        shuffle_csi: control experiment: each snapshot's CSI is that of another test position.
        controls: evaluate prior, nearest neighbours and error bound on the same snapshots, and draw pictures.
        options: of the scheme, name and value; `sim.plan.scheme_options` holds them against what the scheme takes.

    Raises:
        UserError: one sentence that says which value is impossible.
    """

    scenario: str = "paris-6"
    scheme: str = "ecc"
    bs: int = 6
    random_subset: bool = False
    layout: int | None = None
    bits: int | None = 4
    forward: str = "complex64"
    snapshots: int = 1000
    seed: int = 1
    driver: Driver = "ray"
    interval_ms: float = 30.0
    deadline_ms: float = 1000.0
    window_ms: float = 0.0
    round_ms: float = 0.0
    minimum_bs: int = 1
    bundle: int = 1
    links: LinkPlan = LinkPlan()  # noqa: RUF009 - frozen
    batch: int = 1
    bs_per_actor: int = 1
    cpus_per_bs: float = 0.25
    gpus_per_bs: float = 0.0
    cloud_cpus: float = 0.5
    cloud_gpus: float = 0.0
    ray_address: str | None = None
    host: str | None = None
    port: int = 0
    curve: bool | None = None
    keys: Path | None = None
    hwm: int = 1000
    ping_ms: float = 1000.0
    restarts: int = 3
    capture: bool = True
    netns: bool = False
    warmup: int = 20
    weights: Path | None = None
    test: Path | None = None
    output: Path = Path("runs")
    shuffle_csi: bool = False
    controls: bool = True
    options: tuple[tuple[str, str | int], ...] = ()

    def __post_init__(self) -> None:
        """Check every value; `require_fits` checks what needs the scenario."""
        if self.driver not in get_args(Driver):
            hint = nearest_hint(str(self.driver), get_args(Driver))
            raise UserError(f"There is no driver {self.driver!r}{hint}.")
        if self.bits is not None:
            _require_int("bits", self.bits, 1, 8, "the codebook has 1 to 8 bits a coefficient (or lossless)")
        _require_int("bs", self.bs, 1, 1 << 16, "at least one base station is needed")
        if self.layout is not None:
            _require_int("layout", self.layout, 0, 1 << 16, "layouts are numbered from 0")
        _require_int("snapshots", self.snapshots, 1, MAX_SNAPSHOTS, "give how many snapshots to position")
        _require_int("seed", self.seed, 0, 2**63 - 1, "give a whole number that is not negative")
        _require_int("minimum-bs", self.minimum_bs, 1, self.bs, "a fix takes 1 to --bs base stations")
        _require_int("batch", self.batch, 1, 4096, "snapshots are processed one or more at a time")
        _require_int("bs-per-actor", self.bs_per_actor, 1, 1 << 16, "an actor holds one base station or more")
        _require_int("port", self.port, 0, 65535, "TCP ports are 1 to 65535, and 0 takes a free one")
        _require_int("warmup", self.warmup, 0, MAX_SNAPSHOTS, "give how many snapshots to leave out")
        _require_int("bundle", self.bundle, 1, MAX_BUNDLE, "a message bundles so many reports")
        _require_int("hwm", self.hwm, 1, 1 << 20, "give how many messages may wait at each end of a link")
        _require_int("restarts", self.restarts, 0, 1000, "give how often a process that died is started again")
        for name, value in (
            ("interval", self.interval_ms),
            ("window", self.window_ms),
            ("round", self.round_ms),
            ("ping", self.ping_ms),
            ("cpus-per-bs", self.cpus_per_bs),
            ("gpus-per-bs", self.gpus_per_bs),
            ("cloud-cpus", self.cloud_cpus),
            ("cloud-gpus", self.cloud_gpus),
        ):
            _require_float(name, value, "it must be a number that is not negative", value >= 0)
        _require_float("deadline", self.deadline_ms, "it must be above 0 ms", self.deadline_ms > 0)
        names = [name for name, _ in self.options]
        if len(set(names)) < len(names):
            raise UserError(f"An option of the scheme is given twice: {', '.join(names)}.")
        self._check_payload()
        self._check_timing()
        self._check_places()

    def _check_payload(self) -> None:
        try:
            payload = self.payload
        except LocalError as error:
            raise UserError(f"{error}.") from error
        if not payload.is_plain and payload.forwarded is None:
            raise UserError(f"--forward {self.forward} is for --bits lossless alone.")

    @property
    def payload(self) -> PayloadChoice:
        """What a report carries, from `bits` and `forward`."""
        return PayloadChoice(self.bits, self.forward)

    @property
    def edge_device(self) -> str:
        """On which base stations compute, as torch names it."""
        return _device(self, self.gpus_per_bs)

    @property
    def cloud_device(self) -> str:
        """On which the cloud computes, as torch names it."""
        return _device(self, self.cloud_gpus)

    def _check_timing(self) -> None:
        if max(self.interval_ms, self.deadline_ms) > 3.6e6:
            raise UserError("--interval and --deadline are in milliseconds, and at most one hour each.")
        if self.bundle > self.batch:
            raise UserError(
                f"--bundle {self.bundle} is more than --batch {self.batch}: a message bundles what is made at once."
            )
        if self.window_ms >= self.deadline_ms:
            raise UserError(f"--window {self.window_ms:g} ms must be before --deadline {self.deadline_ms:g} ms.")
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
        if self.keys is not None and self.curve is False:
            raise UserError("--keys encrypts the links, --plaintext does not: give one of them.")
        if self.netns and (self.host is not None or self.ray_address not in (None, "local")):
            raise UserError("--netns is for base stations on this machine: leave out --host and --ray-address.")
        if self.driver == "process":
            for name, given in (
                ("keys", self.keys is not None),
                ("curve", bool(self.curve)),
                ("netns", self.netns),
                ("ray-address", self.ray_address is not None),
                ("host", self.host is not None),
                ("port", self.port != 0),
            ):
                if given:
                    raise UserError(f"--{name} has no meaning with --driver process, which opens no sockets.")

    def require_fits(self, scenario: Scenario) -> None:
        """Check what depends on the scenario.

        Raises:
            UserError: more base stations than the scenario has sites, a layout where it has none, or a file of test
                positions where it has several.
        """
        layouts, sites = scenario.layouts, scenario.station_count
        if layouts is None and self.layout is not None:
            raise UserError(f"--layout is for scenarios of several layouts; {scenario.name!r} has one, leave it out.")
        if layouts is not None and self.test is not None:
            raise UserError(f"--test has no meaning in scenario {scenario.name!r}, whose test set --layout chooses.")
        if self.bs > sites:
            raise UserError(f"--bs {self.bs} is more than the {sites} sites of scenario {scenario.name!r}.")

    def stations(self, scenario: Scenario) -> range:
        """Return the base stations of the run: the first `bs` sites, or all where each snapshot draws its own."""
        return range(scenario.station_count if self.random_subset else self.bs)

    def roster(self, scenario: Scenario) -> Roster | None:
        """Return what draws the base stations of each snapshot; None where all measure all of them."""
        return Roster(self.seed, scenario.station_count, self.bs) if self.random_subset else None

    @property
    def interval_ns(self) -> int:
        """Between two snapshots [ns]."""
        return round(self.interval_ms * 1e6)

    @property
    def deadline_ns(self) -> int:
        """From time zero until the cloud waits no longer [ns]."""
        return round(self.deadline_ms * 1e6)

    @property
    def round_ns(self) -> int:
        """How long the cloud waits for the answers of one round [ns]; 0 for as long as the deadline allows."""
        return round(self.round_ms * 1e6)

    @property
    def window_ns(self) -> int:
        """Reports that come sooner after time zero are early [ns]."""
        return round(self.window_ms * 1e6)

    @property
    def ping_ns(self) -> int:
        """Between two signs of life [ns]; none on the simulated clock, which says who lives."""
        return round(self.ping_ms * 1e6) if self.driver == "ray" else 0

    @property
    def encrypted(self) -> bool:
        """Whether links are encrypted."""
        if self.driver == "process":
            return False
        if self.curve is not None:
            return self.curve
        abroad = self.ray_address not in (None, "local") if self.host is None else not is_loopback(self.host)
        return abroad or self.netns or self.keys is not None

    @property
    def warmup_snapshots(self) -> int:
        """Snapshots that latency statistics leave out: `warmup`, but at most half of a short run."""
        return min(self.warmup, self.snapshots // 2)


def _device(settings: EmulateSettings, gpus: float) -> str:
    """An actor that reserves a share of a GPU sees that one alone; in process there is none."""
    return "cuda:0" if settings.driver == "ray" and gpus > 0 else "cpu"


def _require_int(name: str, value: int, low: int, high: int, why: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UserError(f"--{name} must lie in {low}..{high}, it is {value!r}: {why}.")


def _require_float(name: str, value: float, why: str, holds: bool) -> None:
    if not (math.isfinite(value) and holds):
        raise UserError(f"--{name} is {value!r}: {why}.")

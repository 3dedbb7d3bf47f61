"""Settings of an emulation, checked before anything starts.

Times are in milliseconds here, as on the command line; the run uses `interval_ns`, `deadline_ns` and so on.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_type_hints

from fronthaul.errors import LocalError
from fronthaul.link.link_file import LinkPlan
from fronthaul.message.checks import MAX_BUNDLE
from sim.errors import UserError
from sim.plan.setting import LINKS, OUTPUT, PLACEMENT, RAY, SECURITY, TIMING, WHAT, Driver, Setting, require_driver

if TYPE_CHECKING:  # `--help` imports this file: slow imports are made where they are needed
    from fronthaul.payload.choice import PayloadChoice
    from fronthaul.roster import Roster
    from sim.world.scenario import Scenario

BITS = "1…8|lossless|iq16|bfp1…16"
"""Choices of the payload, as the command line shows them."""

MAX_SNAPSHOTS = 1 << 24
"""Maximum number of snapshots: a larger run folder would fit no disk. The wire format allows 2**32."""

_HOUR_MS = 3.6e6


@dataclass(frozen=True, kw_only=True)
class EmulateSettings:
    """Settings of one emulation, each with description, unit and bounds; the command lines are derived from them.

    `bits` is the quantiser's resolution B; None forwards the channel in the format `forward` (`fronthaul.codec.iq`).
    `layout` None selects the first layout, and is required for a scenario without layouts. `curve` None encrypts if the
    cloud listens beyond loopback, in namespaces (`netns`), or if `keys` are given. `options` are names and values of
    the scheme's options; `sim.plan.scheme_options` checks them against the scheme's declaration.

    Raises:
        UserError: a value is impossible; one sentence that names it.
    """

    scenario: Annotated[
        str, Setting("Name of a shipped scenario, or path of a TOML file", WHAT, default="the scheme's own, or paris-6")
    ] = "paris-6"
    scheme: Annotated[
        str, Setting("Scheme: ecc, diffloc, vinloc, rss, or one of your own", WHAT, listed="ecc,twin,rss")
    ] = "ecc"
    bs: Annotated[
        int,
        Setting(
            "Number of base stations, at the scenario's first sites",
            WHAT,
            least=1,
            most=1 << 16,
            why="at least one base station is needed",
            default="all sites of the scenario",
            listed="1,2,4,6",
        ),
    ] = 6
    random_subset: Annotated[
        bool,
        Setting(
            "All sites have base stations, and a random --bs of them, drawn anew, measure each snapshot",
            WHAT,
            names=("--random-subset",),
        ),
    ] = False
    layout: Annotated[
        int | None,
        Setting(
            "Number of the held-out layout of the sites, for scenarios that have several",
            WHAT,
            least=0,
            most=1 << 16,
            why="layouts are numbered from 0",
            metavar="N",
            default="0",
        ),
    ] = None
    bits: Annotated[
        int | None,
        Setting(
            "Quantiser resolution in bits per coefficient, or how the channel itself is forwarded",
            WHAT,
            least=1,
            most=8,
            why="the codebook has 1 to 8 bits a coefficient (or lossless)",
            metavar=BITS,
            listed="2,4,lossless,iq16,bfp9",
            text=True,
            default="4, or lossless where the scheme sends nothing else",
        ),
    ] = 4
    forward: Annotated[
        str,
        Setting(
            "How --bits lossless forwards the channel; --bits iq16 is short for both",
            WHAT,
            metavar="complex64|iq16|bfp1…16",
        ),
    ] = "complex64"
    snapshots: Annotated[
        int,
        Setting(
            "Number of snapshots to position",
            WHAT,
            least=1,
            most=MAX_SNAPSHOTS,
            why="give how many snapshots to position",
        ),
    ] = 1000
    seed: Annotated[
        int,
        Setting(
            "Seed of all random draws",
            WHAT,
            least=0,
            most=2**63 - 1,
            why="give a whole number that is not negative",
            listed="1,2,3",
        ),
    ] = 1
    driver: Annotated[
        Driver,
        Setting(
            "ray: actors, ZeroMQ, wall clock; process: this process, memory links, simulated clock",
            PLACEMENT,
            metavar="ray|process",
        ),
    ] = "ray"
    interval_ms: Annotated[
        float,
        Setting(
            "Time between snapshots",
            TIMING,
            unit="ms",
            zero="as fast as possible, without deadline",
            least=0,
            most=_HOUR_MS,
            default="the scheme's own, or 30",
            listed="10,30",
        ),
    ] = 30.0
    deadline_ms: Annotated[
        float,
        Setting(
            "Time from a snapshot's time zero until the cloud stops waiting for reports",
            TIMING,
            unit="ms",
            least=0,
            most=_HOUR_MS,
            above=True,
            listed="5,10",
        ),
    ] = 1000.0
    window_ms: Annotated[
        float,
        Setting(
            "Reports that arrive sooner than this after time zero are counted as early", TIMING, unit="ms", least=0
        ),
    ] = 0.0
    round_ms: Annotated[
        float,
        Setting(
            "Time limit for one round, from its first report or from the cloud's request",
            TIMING,
            unit="ms",
            zero="until the deadline",
            least=0,
        ),
    ] = 0.0
    minimum_bs: Annotated[
        int,
        Setting(
            "Minimum number of reports per fix",
            TIMING,
            least=1,
            most=1 << 16,
            why="a fix takes 1 to --bs base stations",
            listed="1,3",
        ),
    ] = 1
    bundle: Annotated[
        int,
        Setting(
            "Reports of a base station that share a message, at most --batch",
            TIMING,
            least=1,
            most=MAX_BUNDLE,
            why="this is how many reports fit into a message",
        ),
    ] = 1
    compact: Annotated[
        bool,
        Setting(
            "Leave out of reports' headers what the connection implies: 8 B beside a short report instead of 21 B",
            LINKS,
            names=("--compact",),
        ),
    ] = False
    links: Annotated[
        LinkPlan,
        Setting(
            "Link models by link and direction (TOML); the options below override it",
            LINKS,
            metavar="FILE",
            default="perfect links",
        ),
    ] = LinkPlan()  # noqa: RUF009 - frozen
    batch: Annotated[
        int,
        Setting(
            "Snapshots processed at once; above 1 a fix may change by 1 mm",
            TIMING,
            least=1,
            most=4096,
            why="snapshots are processed one or more at a time",
        ),
    ] = 1
    bs_per_actor: Annotated[
        int,
        Setting(
            "Base stations that share one actor process",
            PLACEMENT,
            least=1,
            most=1 << 16,
            why="an actor holds one base station or more",
            drivers=RAY,
            default="1, more where cores are few",
        ),
    ] = 1
    cpus_per_bs: Annotated[
        float,
        Setting(
            "CPU cores that Ray reserves for each base station",
            PLACEMENT,
            least=0,
            drivers=RAY,
            default="0.25, less where cores are few",
        ),
    ] = 0.25
    gpus_per_bs: Annotated[
        float, Setting("GPUs that Ray reserves for each base station", PLACEMENT, least=0, drivers=RAY)
    ] = 0.0
    cloud_cpus: Annotated[
        float, Setting("CPU cores that Ray reserves for the cloud", PLACEMENT, least=0, drivers=RAY)
    ] = 0.5
    cloud_gpus: Annotated[float, Setting("GPUs that Ray reserves for the cloud", PLACEMENT, least=0, drivers=RAY)] = 0.0
    ray_address: Annotated[
        str | None,
        Setting("auto, or HOST:PORT of a running Ray cluster", PLACEMENT, drivers=RAY, default="start Ray here"),
    ] = None
    node_label: Annotated[
        str | None,
        Setting(
            "Label of the cluster's nodes over whose values base stations are dealt out in turn",
            PLACEMENT,
            drivers=RAY,
            metavar="KEY",
            default="spread over all nodes",
        ),
    ] = None
    host: Annotated[
        str | None, Setting("Address at which the cloud listens", PLACEMENT, drivers=RAY, default="its node's own")
    ] = None
    port: Annotated[
        int,
        Setting(
            "TCP port of the cloud",
            PLACEMENT,
            zero="a free one",
            least=0,
            most=65535,
            why="TCP ports are 1 to 65535, and 0 takes a free one",
            drivers=RAY,
        ),
    ] = 0
    curve: Annotated[
        bool | None,
        Setting(
            "Encrypt links with CURVE, base stations known by their keys",
            SECURITY,
            drivers=RAY,
            names=("--curve/--plaintext",),
            default="where the cloud listens beyond loopback, or keys are given",
        ),
    ] = None
    keys: Annotated[
        Path | None,
        Setting(
            "Folder of keys made by `keys`", SECURITY, drivers=RAY, metavar="FOLDER", default="new ones for this run"
        ),
    ] = None
    sign: Annotated[
        Path | None,
        Setting(
            "Key with which the run's manifest is signed, made if there is no such file",
            SECURITY,
            metavar="FILE",
            default="not signed",
        ),
    ] = None
    hwm: Annotated[
        int,
        Setting(
            "Messages that may wait in the socket at each end of a link (high-water mark)",
            LINKS,
            least=1,
            most=1 << 20,
            why="give how many messages may wait at each end of a link",
            drivers=RAY,
        ),
    ] = 1000
    ping_ms: Annotated[
        float,
        Setting("Heartbeat interval of a base station", TIMING, unit="ms", zero="no heartbeats", least=0, drivers=RAY),
    ] = 1000.0
    restarts: Annotated[
        int,
        Setting(
            "Times a process that died is restarted",
            PLACEMENT,
            least=0,
            most=1000,
            why="give how often a process that died is restarted",
            drivers=RAY,
        ),
    ] = 3
    capture: Annotated[
        bool, Setting("Write each link's frames as pcapng, for Wireshark", OUTPUT, names=("--capture/--no-capture",))
    ] = True
    report: Annotated[
        bool,
        Setting(
            "Write report.html, of runs of up to 262144 reports; `report RUN` writes it of any",
            OUTPUT,
            names=("--report/--no-report",),
        ),
    ] = True
    metrics: Annotated[
        bool,
        Setting(
            "Count for Prometheus through the metrics agent of the driver's node; for --ray-address",
            OUTPUT,
            drivers=RAY,
            names=("--metrics",),
        ),
    ] = False
    log_json: Annotated[
        Path | None,
        Setting(
            "Append what happens to a file, one JSON object a line; - is standard error",
            OUTPUT,
            metavar="FILE",
            default="no log",
        ),
    ] = None
    netns: Annotated[
        bool,
        Setting(
            "Each base station in a network namespace of its own, its link shaped by the kernel (needs root)",
            LINKS,
            drivers=RAY,
            names=("--netns",),
        ),
    ] = False
    warmup: Annotated[
        int,
        Setting(
            "First snapshots that latency statistics leave out",
            TIMING,
            least=0,
            most=MAX_SNAPSHOTS,
            why="give how many snapshots to leave out",
        ),
    ] = 20
    weights: Annotated[
        Path | None,
        Setting("Trained weights (safetensors)", WHAT, default="the shipped ones, else those of `train`"),
    ] = None
    force: Annotated[
        bool,
        Setting(
            "Run also with weights for another scene, other sites or channels of another shape",
            WHAT,
            names=("--force",),
        ),
    ] = False
    test: Annotated[Path | None, Setting("Path data of the test positions", WHAT, default="the scenario's own")] = None
    output: Annotated[Path, Setting("Folder in which the run's folder is made", OUTPUT)] = Path("runs")
    shuffle_csi: Annotated[
        bool, Setting("Control experiment: give each snapshot another position's CSI", WHAT, names=("--shuffle-csi",))
    ] = False
    controls: Annotated[
        bool,
        Setting(
            "Evaluate prior, nearest neighbours and error bound on the same snapshots; draw pictures",
            OUTPUT,
            names=("--controls/--no-controls",),
        ),
    ] = True
    track: Annotated[
        bool,
        Setting(
            "Track users: filter and smooth the fixes of each walk, for test sets of whole walks",
            WHAT,
            names=("--track",),
        ),
    ] = False
    track_deviation: Annotated[
        float,
        Setting(
            "Standard deviation of a fix in each axis for --track, where the scheme claims no covariance",
            WHAT,
            unit="m",
            zero="from the fixes' own second differences",
            least=0,
        ),
    ] = 0.0
    track_acceleration: Annotated[
        float,
        Setting(
            "Power spectral density of users' acceleration for --track",
            WHAT,
            unit="m²/s³",
            least=0,
            above=True,
        ),
    ] = 0.1
    options: Annotated[
        tuple[tuple[str, str | int], ...],
        Setting(
            "Any option of the scheme; may be given repeatedly",
            WHAT,
            names=("--option",),
            metavar="KEY=VALUE",
            default="none",
        ),
    ] = ()

    def __post_init__(self) -> None:
        """Check every value; `require_fits` checks what needs the scenario."""
        require_driver(self.driver)
        for setting in SETTINGS.values():
            setting.check(getattr(self, setting.field))
        dataclasses.replace(SETTINGS["minimum_bs"], most=self.bs).check(self.minimum_bs)
        names = [name for name, _ in self.options]
        if len(set(names)) < len(names):
            raise UserError(f"An option of the scheme is given twice: {', '.join(names)}.")
        self._check_payload()
        self._check_timing()
        self._check_places()
        for setting in SETTINGS.values():
            if getattr(self, setting.field) != setting.absent:
                setting.require_effect(self.driver)

    def _check_payload(self) -> None:
        try:
            payload = self.payload
        except LocalError as error:
            raise UserError(f"{error}.") from error
        if not payload.is_plain and payload.forwarded is None:
            raise UserError(f"--forward {self.forward} is for --bits lossless alone.")

    @property
    def payload(self) -> "PayloadChoice":
        """Payload of a report, from `bits` and `forward`."""
        from fronthaul.payload.choice import PayloadChoice

        return PayloadChoice(self.bits, self.forward)

    @property
    def edge_device(self) -> str:
        """Torch device of the base stations."""
        return _device(self, self.gpus_per_bs)

    @property
    def cloud_device(self) -> str:
        """Torch device of the cloud."""
        return _device(self, self.cloud_gpus)

    def _check_timing(self) -> None:
        if self.bundle > self.batch:
            raise UserError(
                f"--bundle {self.bundle} is more than --batch {self.batch}: a message bundles reports of one batch."
            )
        if self.interval_ms == 0:
            for name, given, default in (
                ("deadline", self.deadline_ms, EmulateSettings.deadline_ms),
                ("window", self.window_ms, EmulateSettings.window_ms),
            ):
                if given != default:
                    raise UserError(f"--{name} has no effect with --interval 0, which has no deadline: leave one out.")
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
        if self.metrics and self.ray_address in (None, "local"):
            raise UserError(
                "--metrics needs --ray-address: the Ray that a run starts for itself ends with it, and its metrics too."
            )
        if self.netns and (self.host is not None or self.ray_address not in (None, "local")):
            raise UserError("--netns is for base stations on this machine: leave out --host and --ray-address.")

    def require_fits(self, scenario: "Scenario") -> None:
        """Check what depends on the scenario.

        Raises:
            UserError: there are more base stations than sites, a layout is given for a scenario without layouts, or a
                file of test positions for a scenario with layouts.
        """
        layouts, sites = scenario.layouts, scenario.station_count
        if layouts is None and self.layout is not None:
            raise UserError(f"--layout is for scenarios of several layouts; {scenario.name!r} has one, leave it out.")
        if layouts is not None and self.test is not None:
            raise UserError(f"--test has no meaning in scenario {scenario.name!r}, whose test set --layout chooses.")
        if self.bs > sites:
            raise UserError(f"--bs {self.bs} is more than the {sites} sites of scenario {scenario.name!r}.")

    def stations(self, scenario: "Scenario") -> range:
        """Return the base stations of the run: the first `bs` sites, or all sites if each snapshot draws a subset."""
        return range(scenario.station_count if self.random_subset else self.bs)

    def roster(self, scenario: "Scenario") -> "Roster | None":
        """Return the roster that draws the base stations of each snapshot; None if all BSs measure every snapshot."""
        from fronthaul.roster import Roster

        return Roster(self.seed, scenario.station_count, self.bs) if self.random_subset else None

    def in_process(self) -> "EmulateSettings":
        """Return the same settings for the in-process driver; those without effect there get their defaults."""
        without = {setting.field: setting.absent for setting in SETTINGS.values() if "process" not in setting.drivers}
        return dataclasses.replace(self, driver="process", **without)

    @property
    def interval_ns(self) -> int:
        """Time between two snapshots [ns]."""
        return round(self.interval_ms * 1e6)

    @property
    def deadline_ns(self) -> int:
        """Time after a snapshot's time zero at which the cloud stops waiting for reports [ns]."""
        return round(self.deadline_ms * 1e6)

    @property
    def round_ns(self) -> int:
        """How long the cloud waits for the answers of one round [ns]; 0: until the deadline."""
        return round(self.round_ms * 1e6)

    @property
    def window_ns(self) -> int:
        """Start of the receive window after time zero [ns]; reports that arrive before it are early."""
        return round(self.window_ms * 1e6)

    @property
    def ping_ns(self) -> int:
        """Time between two heartbeats [ns]; 0 (none) with the in-process driver, which needs no heartbeats."""
        return round(self.ping_ms * 1e6) if self.driver == "ray" else 0

    @property
    def encrypted(self) -> bool:
        """Whether links are encrypted."""
        if self.driver == "process":
            return False
        if self.curve is not None:
            return self.curve
        from fronthaul.transport.endpoint import is_loopback

        abroad = self.ray_address not in (None, "local") if self.host is None else not is_loopback(self.host)
        return abroad or self.netns or self.keys is not None

    @property
    def warmup_snapshots(self) -> int:
        """Number of first snapshots that latency statistics leave out: `warmup`, but at most half of the run."""
        return min(self.warmup, self.snapshots // 2)


def _declared() -> dict[str, Setting]:
    hints = get_type_hints(EmulateSettings, include_extras=True)
    found = {}
    for spec in dataclasses.fields(EmulateSettings):
        [setting] = hints[spec.name].__metadata__
        found[spec.name] = dataclasses.replace(setting, field=spec.name, absent=spec.default)
    return found


def _device(settings: EmulateSettings, gpus: float) -> str:
    """Return the torch device: an actor that reserves a share of a GPU sees only that GPU; in process there is none."""
    return "cuda:0" if settings.driver == "ray" and gpus > 0 else "cpu"


SETTINGS: Mapping[str, Setting] = _declared()
"""All settings by field name."""

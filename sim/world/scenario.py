"""A scenario: scene, sites, arrays, numerology, users, link budget, clocks and splits, read from one TOML file.

All quantities are SI; where confusion is likely, the key ends in its unit (``_hz``, ``_m``, ``_s``, ``_ns``, ``_dbm``).
Unknown keys are errors that name the nearest known key, because a misspelt key that is silently ignored
changes results without a trace.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fronthaul.documents import parse_toml, read_text
from fronthaul.errors import LocalError
from sim.errors import UserError, nearest_hint
from sim.toml.read import build
from sim.world.deployment import FACTORY_KINDS, FACTORY_SCENE, Factory, Layouts, Strip
from sim.world.mismatch import Mismatch

SPEED_OF_LIGHT = 299_792_458.0  # [m/s]
BOLTZMANN = 1.380649e-23  # [J/K]

SCENARIO_FOLDER = Path(__file__).resolve().parent.parent / "scenarios"
MEASURED_SCENE, IMPORTED_SCENE = "measured", "imported"
"""Scene names of what `import` made: channels as they were measured, or paths that something else traced."""
MOST_SNAPSHOTS = 1000
"""Maximum number of snapshots of a walk: a shard of traced paths holds whole walks."""
MOST_SITES = 1000
"""Maximum number of sites of a layout; a fronthaul of more base stations could not be run."""

_Rules = list[tuple[bool, str]]
"""Rules: whether each holds, and its error message."""


@dataclass(frozen=True, slots=True)
class Site:
    """A base station: `position` [m] and boresight `yaw_deg`, `pitch_deg` (positive pitch looks down)."""

    position: tuple[float, float, float]
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Array:
    """Uniform planar array in the y-z plane of its site or user; `spacing_wavelengths` between neighbours.

    `polarizations`: 1 (vertical), or 2 (vertical and horizontal at each element; first all V antennas, then all H).
    """

    rows: int = 2
    columns: int = 2
    spacing_wavelengths: float = 0.5
    polarizations: int = 1

    @property
    def antennas(self) -> int:
        """Number of antennas M; each has its own port."""
        return self.rows * self.columns * self.polarizations


@dataclass(frozen=True, slots=True)
class Numerology:
    """OFDM grid of one snapshot: measured tones and slots.

    `tones` tones are measured, one per `tone_stride` subcarriers; `slots` slots are `slot_spacing_s` apart. With
    `taps` > 0 a site's front end outputs the first `taps` taps of the unitary `ifft`-point IFFT of the tones
    instead of the tones. DiffLoc Eq. 2-3.
    """

    carrier_hz: float
    bandwidth_hz: float
    subcarrier_spacing_hz: float
    subcarriers: int = 288
    tones: int = 24
    tone_stride: int = 12
    slots: int = 10
    slot_spacing_s: float = 2e-3
    ifft: int = 0
    taps: int = 0

    @property
    def bins(self) -> int:
        """Length of a channel's last axis: number of taps if the front end outputs taps, else of tones."""
        return self.taps or self.tones

    @property
    def wavelength_m(self) -> float:
        """Carrier wavelength [m]."""
        return SPEED_OF_LIGHT / self.carrier_hz

    @property
    def tone_spacing_hz(self) -> float:
        """Spacing of measured tones [Hz]."""
        return self.subcarrier_spacing_hz * self.tone_stride


@dataclass(frozen=True, slots=True)
class Users:
    """How users are drawn: uniform in a box, outdoors, moving at `speed_mps` in a random horizontal direction.

    `area`: ``"box"``, or ``"hull"`` for the part of the box above or below the convex hull of the sites.
    `strip`: keep the part of the area above or below this rectangle of any orientation, for example a street.
    `outdoor`: ``"sky"`` keeps points from which a vertical ray meets no surface; ``"any"`` keeps all.
    `min_links`: minimum number of sites from which a path reaches a point.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    speed_mps: float
    outdoor: str = "sky"
    min_links: int = 1
    area: str = "box"
    strip: Strip | None = None


@dataclass(frozen=True, slots=True)
class Walk:
    """Walks: `snapshots` positions `interval_s` apart, at a constant speed drawn from the range `speed_mps`.

    The heading is kept from step to step and drawn anew where the next step would leave the area or meet a surface.
    """

    speed_mps: tuple[float, float]
    snapshots: int = 10
    interval_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Tracing:
    """Ray tracing: `positions` users, reflections up to `depth`, `samples_per_source` rays from each site.

    With `Scenario.layouts` the layouts define the number of users, and `positions` is 0.
    """

    positions: int = 0
    depth: int = 5
    samples_per_source: int = 10_000
    seed: int = 1


@dataclass(frozen=True, slots=True)
class LinkBudget:
    """Transmit power (over the whole band and all the user's antennas), receiver noise figure and temperature.

    `noise`: ``"thermal"``, from temperature and noise figure; ``"none"``; or ``"snr"``: white, `snr_db` below the mean
    signal power of the same snapshot and site (DiffLoc Sec. VI-B4).
    """

    tx_power_dbm: float = 23.0
    noise_figure_db: float = 5.0
    temperature_k: float = 290.0
    noise: str = "thermal"
    snr_db: float = 30.0


@dataclass(frozen=True, slots=True)
class ClockErrors:
    """Synchronisation errors; the position error bound uses the same values.

    `ue_bias_ns`: standard deviation of the user's clock bias, one draw per snapshot, common to all sites.
    `bs_sigma_ns`: standard deviation of each site's own error, one draw per snapshot and site.
    `bs_limit_sigmas`: above 0, that Gaussian is truncated to ± this many `bs_sigma_ns` (TR 38.855: 2).
    `per_slot_phase`: a uniform carrier phase for each site and slot, common to antennas and tones.
    """

    ue_bias_ns: float = 0.0
    bs_sigma_ns: float = 0.0
    per_slot_phase: bool = False
    bs_limit_sigmas: float = 0.0


@dataclass(frozen=True, slots=True)
class Splits:
    """Held-out sets of `test` and `validation` positions.

    In the block split, `block_fraction` of the square blocks of edge `block_m` is held out, and training positions keep
    a distance of `guard_m` from them.
    """

    test: int = 2000
    validation: int = 2000
    block_m: float = 20.0
    guard_m: float = 3.0
    block_fraction: float = 0.15
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Scenario:
    """A complete scenario; see the classes of its fields for units.

    `name`: also of files and folders; letters, digits, dots, dashes and underscores, 64 at most (`is_name`).
    `data`: name of the scenario whose traced paths and shipped files this one uses; by default its own.
    `mismatch`: how the world of a run differs from what was made beforehand.
    `phases`: carrier phases of paths, ``"traced"``, ``"drawn"`` or ``"initial"``, see `sim.world.phases`.
    With `layouts`, `sites` holds the sites of one layout (`at_layout`), or none.
    """

    name: str
    scene: str
    users: Users
    numerology: Numerology
    tracing: Tracing
    sites: tuple[Site, ...] = ()
    array: Array = field(default_factory=Array)
    user_array: Array = field(default_factory=lambda: Array(rows=1, columns=1))
    link_budget: LinkBudget = field(default_factory=LinkBudget)
    clock: ClockErrors = field(default_factory=ClockErrors)
    splits: Splits = field(default_factory=Splits)
    walk: Walk | None = None
    layouts: Layouts | None = None
    factory: Factory | None = None
    phases: str = "traced"
    data: str = ""
    mismatch: Mismatch = field(default_factory=Mismatch)

    @property
    def data_name(self) -> str:
        """Name under which traced paths and weights are kept."""
        return self.data or self.name

    @property
    def station_count(self) -> int:
        """Number of sites that may hear a user: the listed ones, or those of one layout."""
        return self.layouts.sites if self.layouts is not None and not self.sites else len(self.sites)

    def at_layout(self, position: npt.ArrayLike) -> Scenario:
        """Return the scenario with the sites of one layout, at `position` (K, 3) [m]."""
        places = np.asarray(position, np.float64).tolist()
        sites = tuple(Site((x, y, z), name=f"trp-{k}") for k, (x, y, z) in enumerate(places))
        return dataclasses.replace(self, sites=sites)

    @property
    def tone_power_w(self) -> float:
        """Transmit power P of one user antenna on one subcarrier [W].

        The budget's power is spread over the whole band, and shared equally by the user's antennas.
        """
        total = float(10 ** ((self.link_budget.tx_power_dbm - 30) / 10) / self.numerology.subcarriers)
        return total / self.user_array.antennas

    @property
    def tone_noise_w(self) -> float:
        """Thermal noise power on one subcarrier after the noise figure [W]."""
        figure = 10 ** (self.link_budget.noise_figure_db / 10)
        return BOLTZMANN * self.link_budget.temperature_k * self.numerology.subcarrier_spacing_hz * figure

    @property
    def csi_shape(self) -> tuple[int, int, int]:
        """(slots, antenna pairs, tones or taps) of one site's channel of one snapshot.

        Pair m·U + j is from the user's antenna j of U to the site's antenna m; for U = 1 pairs are antennas.
        """
        numerology = self.numerology
        return numerology.slots, self.array.antennas * self.user_array.antennas, numerology.bins

    @property
    def is_own(self) -> bool:
        """Whether `import` made it: there is no scene to trace."""
        return self.scene in (MEASURED_SCENE, IMPORTED_SCENE)

    @property
    def polarized(self) -> bool:
        """Whether any array is dual-polarised, so that synthesis needs the paths' 2×2 matrices."""
        return max(self.array.polarizations, self.user_array.polarizations) > 1

    def tracing_digest(self) -> str:
        """Return a digest of everything that traced paths depend on; guards against mixing data sets."""
        users = dataclasses.asdict(self.users)
        users.pop("speed_mps")
        # Newer keys are left out at their defaults, so that older data stay valid.
        if self.users.area == "box":
            users.pop("area")
        if self.users.strip is None:
            users.pop("strip")
        parts: dict[str, Any] = {
            "scene": self.scene,
            "sites": [dataclasses.asdict(site) for site in self.sites],
            "users": users,
            "carrier_hz": self.numerology.carrier_hz,
            "tracing": {k: v for k, v in dataclasses.asdict(self.tracing).items() if k != "positions"},
        }
        for key, table in (("walk", self.walk), ("factory", self.factory), ("layouts", self.layouts)):
            if table is not None:
                parts[key] = dataclasses.asdict(table)
        if self.scene == MEASURED_SCENE:  # channels of these arrays at these tones; taps follow from the tones
            kept = {k: v for k, v in dataclasses.asdict(self.numerology).items() if k not in ("taps", "ifft")}
            parts["measured"] = [dataclasses.asdict(self.array), dataclasses.asdict(self.user_array), kept]
        if self.layouts is not None:  # a layout is drawn from its own number, and holds its own sites
            for key in ("training", "validation", "test"):
                del parts["layouts"][key]
            del parts["sites"]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def world_digest(self) -> str:
        """Return the digest of the paths of a run: of those that were traced, or traced again with the mismatch."""
        again = self.mismatch.traced()
        if not again:
            return self.tracing_digest()
        return hashlib.sha256(json.dumps([self.tracing_digest(), again], sort_keys=True).encode()).hexdigest()[:16]


_NAME = re.compile("[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


def is_name(text: str) -> bool:
    """Return whether a text may name files and folders: it leads to no other folder, and is printable."""
    return _NAME.fullmatch(text) is not None


def load_scenario(name_or_path: str) -> Scenario:
    """Read a scenario by its name, if shipped, or by the path of its TOML file.

    Raises:
        UserError: unknown name, unreadable file, unknown or missing key, wrong type, impossible value.
    """
    path = _scenario_path(name_or_path)
    table, base = _read_table(path, ())
    scenario = build(Scenario, table, str(path))
    require_possible(scenario, str(path))
    if base is not None and not scenario.data:
        extended = load_scenario(str(base))
        if extended.tracing_digest() == scenario.tracing_digest():  # the same paths serve both
            scenario = dataclasses.replace(scenario, data=extended.data_name)
    return scenario


def _scenario_path(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix == ".toml":
        return path
    path = SCENARIO_FOLDER / f"{name_or_path}.toml"
    if not is_name(name_or_path) or not path.is_file():
        known = [p.stem for p in SCENARIO_FOLDER.glob("*.toml")]
        raise UserError(
            f"There is no scenario {name_or_path!r}{nearest_hint(name_or_path, known)}; "
            "give a shipped name or the path of a .toml file."
        )
    return path


def _read_table(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], Path | None]:
    """Read a TOML file; ``extends = "name"`` starts from another scenario and overrides it key by key.

    Returns:
        The table, and the file that it extends.
    """
    if path in seen:
        raise UserError(f"The scenario file {path} extends itself.")
    try:
        table = parse_toml(read_text(path))
    except OSError as error:
        raise UserError(f"Cannot read the scenario file {path}: {error.strerror}.") from error
    except LocalError as error:
        raise UserError(f"The scenario file {path} is not valid TOML: {error}.") from error
    table.setdefault("name", path.stem)
    base_name = table.pop("extends", None)
    if base_name is None:
        return table, None
    if not isinstance(base_name, str):
        raise UserError(f"{path}: extends must be the name or the path of a scenario.")
    base = _scenario_path(base_name)
    merged, _ = _read_table(base, (*seen, path))
    merged.pop("data", None)
    for key, value in table.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if both else value
    return merged, base


def scenario_table(scenario: Scenario) -> dict[str, Any]:
    """Return the scenario as plain tables, as recorded in a run's folder."""
    table = typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(scenario))))
    if scenario.mismatch == Mismatch():  # a newer table; without it older records and digests stay valid
        del table["mismatch"]
    return table


def scenario_from_table(table: dict[str, Any], where: str) -> Scenario:
    """Rebuild a scenario from `scenario_table`'s result (`where` names the source in errors)."""
    scenario = build(Scenario, table, where)
    require_possible(scenario, where)
    return scenario


def require_possible(scenario: Scenario, where: str) -> None:
    """Reject values that have the right type but are impossible (`where` names the source in errors).

    Raises:
        UserError: one sentence on the first such value.
    """
    rules: _Rules = []
    if scenario.walk is not None:
        rules += _walk_rules(scenario.walk)
    if scenario.layouts is not None:
        rules += _layout_rules(scenario, scenario.layouts)
    if scenario.factory is not None:
        rules += _factory_rules(scenario, scenario.factory)
    rules += scenario.mismatch.rules()
    for holds, sentence in rules + _rules(scenario):
        if not holds:
            raise UserError(f"{where}: {sentence}.")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 64 else text[:63] + "…")


def _rules(scenario: Scenario) -> _Rules:
    n, users, tracing, budget = scenario.numerology, scenario.users, scenario.tracing, scenario.link_budget
    arrays, sites = (scenario.array, scenario.user_array), scenario.station_count
    x, y = np.array([site.position[:2] for site in scenario.sites] or [(0, 0)]).T
    flat = np.linalg.matrix_rank(np.stack([x - x[0], y - y[0]])) < 2
    drawn = scenario.layouts is not None
    clock = scenario.clock
    names = (
        "must consist of letters, digits, dots, dashes and underscores, 64 at most, and not begin with a dot or dash"
    )
    return [
        (is_name(scenario.name), f"name: {_quoted(scenario.name)} {names}"),
        (is_name(scenario.data or "own"), f"data: {_quoted(scenario.data)} {names}"),
        (all(s.name.isprintable() and len(s.name) <= 64 for s in scenario.sites), "sites: a name is one short line"),
        (bool(scenario.sites) or drawn, "sites: at least one site is needed"),
        (len({s.position for s in scenario.sites}) == len(scenario.sites), "sites: two sites share one position"),
        (n.carrier_hz > 0 and n.subcarrier_spacing_hz > 0, "numerology: frequencies must be positive"),
        (n.tones >= 1 and n.slots >= 1 and n.tone_stride >= 1, "numerology: tones, slots and tone_stride must be >= 1"),
        (n.tones * n.tone_stride <= n.subcarriers, "numerology: tones * tone_stride exceeds subcarriers"),
        (n.subcarriers * n.subcarrier_spacing_hz <= n.bandwidth_hz, "numerology: subcarriers do not fit the bandwidth"),
        (n.taps >= 0 and (n.taps > 0) == (n.ifft != 0), "numerology: taps and ifft must both be given, or neither"),
        (n.taps == 0 or n.tone_stride == 1, "numerology.taps: neighbouring tones are needed, tone_stride = 1"),
        (n.taps == 0 or n.ifft >= max(n.tones, n.taps), "numerology.ifft must not be below tones or taps"),
        (min(a.rows for a in arrays) >= 1, "array and user_array: rows must be >= 1"),
        (min(a.columns for a in arrays) >= 1, "array and user_array: columns must be >= 1"),
        (all(a.polarizations in (1, 2) for a in arrays), "array and user_array: polarizations must be 1 or 2"),
        (min(a.spacing_wavelengths for a in arrays) > 0, "array and user_array: spacing_wavelengths must be positive"),
        (all(a <= b for a, b in zip(users.low, users.high, strict=True)), "users: low must not exceed high"),
        (users.outdoor in ("sky", "any"), "users.outdoor must be 'sky' or 'any'"),
        (users.area in ("box", "hull"), "users.area must be 'box' or 'hull'"),
        (users.area != "hull" or not drawn, "users.area: a hull needs sites that are listed, not drawn"),
        (users.area != "hull" or not flat, "users.area: a hull needs three sites that do not stand in one line"),
        (users.strip is None or _is_area(users.strip), "users.strip: it needs two ends apart and width_m > 0"),
        (0 <= users.min_links <= sites, "users.min_links must lie between 0 and the number of sites"),
        (users.speed_mps >= 0, "users.speed_mps must not be negative"),
        (tracing.positions >= (not drawn) and tracing.depth >= 0, "tracing: positions >= 1 and depth >= 0 are needed"),
        (not (drawn and tracing.positions), "tracing.positions: with [layouts], layouts.users says how many"),
        (tracing.samples_per_source >= 1, "tracing.samples_per_source must be >= 1"),
        (n.slot_spacing_s > 0, "numerology.slot_spacing_s must be positive"),
        (budget.temperature_k > 0, "link_budget.temperature_k must be positive"),
        (budget.noise in ("thermal", "none", "snr"), "link_budget.noise must be 'thermal', 'none' or 'snr'"),
        (min(clock.ue_bias_ns, clock.bs_sigma_ns) >= 0, "clock: deviations must not be negative"),
        (clock.bs_limit_sigmas >= 0, "clock.bs_limit_sigmas must not be negative; 0 is no limit"),
        (scenario.phases in ("traced", "drawn", "initial"), "phases must be 'traced', 'drawn' or 'initial'"),
        (min(scenario.splits.test, scenario.splits.validation) >= 1, "splits: test and validation must be >= 1"),
        (scenario.splits.block_m > 0 and scenario.splits.guard_m >= 0, "splits: block_m must be > 0, guard_m >= 0"),
        (0 < scenario.splits.block_fraction < 1, "splits.block_fraction must lie between 0 and 1"),
        (scenario.factory is not None or scenario.scene != FACTORY_SCENE, f"scene {FACTORY_SCENE!r} needs [factory]"),
        (not scenario.mismatch.words() or (scenario.factory is None and not drawn),
         "mismatch: it needs listed sites in a traced scene; leave out [layouts] and [factory]"),
        (not scenario.is_own or not (drawn or scenario.walk or scenario.factory),
         f"scene {scenario.scene!r} comes with its positions; leave out [layouts], [walk] and [factory]"),
        (scenario.scene != MEASURED_SCENE or not scenario.mismatch.words(),
         "mismatch: it changes paths, and measured channels have none"),
        (scenario.scene != MEASURED_SCENE or scenario.phases == "traced",
         "phases: those of measured channels are as measured; leave the key out"),
    ]  # fmt: skip


def _walk_rules(walk: Walk) -> _Rules:
    return [
        (1 <= walk.snapshots <= MOST_SNAPSHOTS, f"walk.snapshots must lie between 1 and {MOST_SNAPSHOTS}"),
        (walk.interval_s > 0, "walk.interval_s must be positive"),
        (0 <= walk.speed_mps[0] <= walk.speed_mps[1], "walk.speed_mps must be two speeds, the lower one first"),
    ]


def _layout_rules(scenario: Scenario, layouts: Layouts) -> _Rules:
    counts = (layouts.training, layouts.validation, layouts.test, layouts.users)
    return [
        (scenario.walk is None, "layouts: positions in layouts are no walks; leave out [walk]"),
        (_is_area(layouts.region), "layouts.region: it needs two ends apart and width_m > 0"),
        (1 <= layouts.sites <= MOST_SITES, f"layouts.sites must lie between 1 and {MOST_SITES}"),
        (layouts.sites <= layouts.places <= MOST_SITES, f"layouts.places must lie between sites and {MOST_SITES}"),
        (min(counts) >= 1, "layouts: training, validation, test and users must be >= 1"),
        (layouts.least_roof_m > 0, "layouts.least_roof_m must be positive: the ground is no roof"),
        (layouts.above_roof_m > 0, "layouts.above_roof_m must be positive"),
    ]


def _factory_rules(scenario: Scenario, factory: Factory) -> _Rules:
    size = np.array([factory.length_m, factory.width_m, factory.height_m])
    corners = np.array([scenario.users.low, scenario.users.high])
    sites = np.array([site.position for site in scenario.sites]).reshape(-1, 3)
    return [
        (scenario.scene == FACTORY_SCENE, f"factory: the scene of a factory is {FACTORY_SCENE!r}"),
        (scenario.layouts is None, "factory: the sites of a factory are listed; leave out [layouts]"),
        (scenario.walk is None, "factory: positions in a factory are no walks; leave out [walk]"),
        (factory.kind in FACTORY_KINDS, f"factory.kind must be one of {', '.join(FACTORY_KINDS)}"),
        (min(size) > 0, "factory: length_m, width_m and height_m must be positive"),
        (0 < factory.clutter_density < 1, "factory.clutter_density must lie between 0 and 1"),
        (0 < factory.clutter_height_m <= factory.height_m, "factory.clutter_height_m must lie between 0 and height_m"),
        (factory.clutter_size_m > 0, "factory.clutter_size_m must be positive"),
        (factory.excess_sigma_log10 >= 0, "factory.excess_sigma_log10 must not be negative"),
        (factory.excess_distance_m > 0, "factory.excess_distance_m must be positive"),
        (bool(np.all((corners >= 0) & (corners <= size))), "factory: users.low and users.high must lie in the hall"),
        (bool(np.all((sites >= 0) & (sites <= size))), "factory: all sites must stand in the hall"),
        (scenario.users.outdoor == "any", "factory: nobody is outdoors there; users.outdoor must be 'any'"),
    ]


def _is_area(strip: Strip) -> bool:
    return strip.start != strip.end and strip.width_m > 0 and math.isfinite(strip.width_m)

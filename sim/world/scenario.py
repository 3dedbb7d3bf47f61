"""A scenario: scene, sites, arrays, numerology, users, link budget, clocks and splits, read from one TOML file.

All quantities are SI; where confusion is likely the key carries its unit (``_hz``, ``_m``, ``_s``, ``_ns``, ``_dbm``).
Unknown keys are errors that name the nearest known key, because a misspelt key that is silently ignored
changes results without a trace.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sim.errors import UserError, nearest_hint

SPEED_OF_LIGHT = 299_792_458.0  # [m/s]
BOLTZMANN = 1.380649e-23  # [J/K]

SCENARIO_FOLDER = Path(__file__).resolve().parent.parent / "scenarios"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Site:
    """A base station: `position` [m] and boresight `yaw_deg`, `pitch_deg` (positive pitch looks down)."""

    position: tuple[float, float, float]
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Array:
    """Uniform planar array in the site's y-z plane; `spacing_wavelengths` between neighbours."""

    rows: int = 2
    columns: int = 2
    spacing_wavelengths: float = 0.5

    @property
    def antennas(self) -> int:
        """Number of antennas M."""
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Numerology:
    """OFDM grid of one snapshot: which tones and slots are measured.

    `tones` tones are kept, one per `tone_stride` subcarriers; `slots` slots are `slot_spacing_s` apart.
    """

    carrier_hz: float
    bandwidth_hz: float
    subcarrier_spacing_hz: float
    subcarriers: int = 288
    tones: int = 24
    tone_stride: int = 12
    slots: int = 10
    slot_spacing_s: float = 2e-3

    @property
    def wavelength_m(self) -> float:
        """Carrier wavelength [m]."""
        return SPEED_OF_LIGHT / self.carrier_hz

    @property
    def tone_spacing_hz(self) -> float:
        """Distance of two measured tones [Hz]."""
        return self.subcarrier_spacing_hz * self.tone_stride


@dataclass(frozen=True, slots=True)
class Users:
    """Where UEs are drawn: uniform in a box, outdoors, moving at `speed_mps` in a random horizontal direction.

    `outdoor`: ``"sky"`` keeps points from which a vertical ray meets no surface; ``"any"`` keeps all.
    `min_links`: keep points that at least so many sites reach by a path.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    speed_mps: float
    outdoor: str = "sky"
    min_links: int = 1


@dataclass(frozen=True, slots=True)
class Tracing:
    """Ray tracing: `positions` UEs, reflections up to `depth`, `samples_per_source` rays from each site."""

    positions: int
    depth: int = 5
    samples_per_source: int = 10_000
    seed: int = 1


@dataclass(frozen=True, slots=True)
class LinkBudget:
    """Transmit power (over the whole band), receiver noise figure and temperature."""

    tx_power_dbm: float = 23.0
    noise_figure_db: float = 5.0
    temperature_k: float = 290.0


@dataclass(frozen=True, slots=True)
class ClockErrors:
    """Synchronisation errors. The bound is computed under the same keys.

    `ue_bias_ns`: standard deviation of the UE's clock bias, one draw a snapshot, common to all sites.
    `bs_sigma_ns`: standard deviation of each site's own error, one draw a snapshot and site.
    `per_slot_phase`: a uniform carrier phase for each site and slot, common to antennas and tones.
    """

    ue_bias_ns: float = 0.0
    bs_sigma_ns: float = 0.0
    per_slot_phase: bool = False


@dataclass(frozen=True, slots=True)
class Splits:
    """Sizes of the held-out sets; `block_fraction` of the blocks of edge `block_m` is held out, within `guard_m`."""

    test: int = 2000
    validation: int = 2000
    block_m: float = 20.0
    guard_m: float = 3.0
    block_fraction: float = 0.15
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Scenario:
    """One complete setting; see the classes of its fields for units.

    `data`: name of the scenario whose traced paths and shipped files this one uses; its own name by default.
    """

    name: str
    scene: str
    sites: tuple[Site, ...]
    users: Users
    numerology: Numerology
    tracing: Tracing
    array: Array = field(default_factory=Array)
    link_budget: LinkBudget = field(default_factory=LinkBudget)
    clock: ClockErrors = field(default_factory=ClockErrors)
    splits: Splits = field(default_factory=Splits)
    data: str = ""

    @property
    def data_name(self) -> str:
        """Name under which traced paths and weights are kept."""
        return self.data or self.name

    @property
    def tone_power_w(self) -> float:
        """Transmit power on one subcarrier [W]: the budget's power spread over the whole band."""
        return float(10 ** ((self.link_budget.tx_power_dbm - 30) / 10) / self.numerology.subcarriers)

    @property
    def tone_noise_w(self) -> float:
        """Thermal noise power on one subcarrier after the noise figure [W]."""
        figure = 10 ** (self.link_budget.noise_figure_db / 10)
        return BOLTZMANN * self.link_budget.temperature_k * self.numerology.subcarrier_spacing_hz * figure

    @property
    def csi_shape(self) -> tuple[int, int, int]:
        """(slots, antennas, tones) of one site's channel of one snapshot."""
        return self.numerology.slots, self.array.antennas, self.numerology.tones

    def tracing_digest(self) -> str:
        """Digest of everything that traced paths depend on; guards against mixing data sets."""
        users = dataclasses.asdict(self.users)
        users.pop("speed_mps")
        parts = {
            "scene": self.scene,
            "sites": [dataclasses.asdict(site) for site in self.sites],
            "users": users,
            "carrier_hz": self.numerology.carrier_hz,
            "tracing": {k: v for k, v in dataclasses.asdict(self.tracing).items() if k != "positions"},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def load_scenario(name_or_path: str) -> Scenario:
    """Read a scenario by name (shipped ones) or by the path of a TOML file.

    Raises:
        UserError: unknown name, unreadable file, unknown or missing key, wrong type, impossible value.
    """
    path = _scenario_path(name_or_path)
    table, base = _read_table(path, ())
    scenario = _build(Scenario, table, str(path))
    _check(scenario, str(path))
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
    if not path.is_file():
        known = [p.stem for p in SCENARIO_FOLDER.glob("*.toml")]
        raise UserError(
            f"There is no scenario {name_or_path!r}{nearest_hint(name_or_path, known)}; "
            "give a shipped name or the path of a .toml file."
        )
    return path


def _read_table(path: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], Path | None]:
    """Read a TOML file; ``extends = "name"`` starts from another scenario and overrides it key by key.

    Returns the table and the file that it extends.
    """
    if path in seen:
        raise UserError(f"The scenario file {path} extends itself.")
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(f"Cannot read the scenario file {path}: {error.strerror}.") from error
    except ValueError as error:  # no text, no TOML, or a number of thousands of digits
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
    """Return the scenario as plain tables, as a run records it."""
    return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(scenario))))


def scenario_from_table(table: dict[str, Any], where: str) -> Scenario:
    """Rebuild a scenario from `scenario_table`'s result (`where` names the source in errors)."""
    scenario = _build(Scenario, table, where)
    _check(scenario, where)
    return scenario


def _build(cls: type[T], table: dict[str, Any], where: str) -> T:
    """Build dataclass `cls` from a TOML table, checking names and types."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise UserError(f"Unknown key {key!r} in {where}{nearest_hint(key, fields)}.")
    values: dict[str, Any] = {}
    for key, spec in fields.items():
        if key in table:
            values[key] = _convert(hints[key], table[key], f"{where}: {key}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise UserError(f"The key {key!r} is missing in {where}.")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Convert a TOML value to the annotated type, or say which type is wanted."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise UserError(f"{where} must be a table.")
        return _build(typing.cast(type, hint), value, where)
    if origin in (tuple, types.GenericAlias):
        args = typing.get_args(hint)
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} must be a list.")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(value) != len(args):
            raise UserError(f"{where} must have {len(args)} entries, it has {len(value)}.")
        return tuple(_convert(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(zip(args, value, strict=True)))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise UserError(f"{where} must be finite.")
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise UserError(f"{where} must be {getattr(hint, '__name__', hint)}, it is {value!r}.")


def _check(scenario: Scenario, where: str) -> None:
    """Reject values that are well-typed and still impossible."""
    n, users, tracing = scenario.numerology, scenario.users, scenario.tracing
    rules = [
        (len(scenario.sites) >= 1, "sites: at least one site is needed"),
        (len({s.position for s in scenario.sites}) == len(scenario.sites), "sites: two sites share one position"),
        (n.carrier_hz > 0 and n.subcarrier_spacing_hz > 0, "numerology: frequencies must be positive"),
        (n.tones >= 1 and n.slots >= 1 and n.tone_stride >= 1, "numerology: tones, slots and tone_stride must be >= 1"),
        (n.tones * n.tone_stride <= n.subcarriers, "numerology: tones * tone_stride exceeds subcarriers"),
        (n.subcarriers * n.subcarrier_spacing_hz <= n.bandwidth_hz, "numerology: subcarriers do not fit the bandwidth"),
        (scenario.array.rows >= 1 and scenario.array.columns >= 1, "array: rows and columns must be >= 1"),
        (all(a <= b for a, b in zip(users.low, users.high, strict=True)), "users: low must not exceed high"),
        (users.outdoor in ("sky", "any"), "users.outdoor must be 'sky' or 'any'"),
        (0 <= users.min_links <= len(scenario.sites), "users.min_links must lie between 0 and the number of sites"),
        (users.speed_mps >= 0, "users.speed_mps must not be negative"),
        (tracing.positions >= 1 and tracing.depth >= 0, "tracing: positions >= 1 and depth >= 0 are needed"),
        (tracing.samples_per_source >= 1, "tracing.samples_per_source must be >= 1"),
        (scenario.array.spacing_wavelengths > 0, "array.spacing_wavelengths must be positive"),
        (n.slot_spacing_s > 0, "numerology.slot_spacing_s must be positive"),
        (scenario.link_budget.temperature_k > 0, "link_budget.temperature_k must be positive"),
        (min(scenario.clock.ue_bias_ns, scenario.clock.bs_sigma_ns) >= 0, "clock: deviations must not be negative"),
        (min(scenario.splits.test, scenario.splits.validation) >= 1, "splits: test and validation must be >= 1"),
        (scenario.splits.block_m > 0 and scenario.splits.guard_m >= 0, "splits: block_m must be > 0, guard_m >= 0"),
        (0 < scenario.splits.block_fraction < 1, "splits.block_fraction must lie between 0 and 1"),
    ]
    for holds, sentence in rules:
        if not holds:
            raise UserError(f"{where}: {sentence}.")

"""Which link does what: a TOML file and command-line options, read into a plan and written back.

    [default]                 # every link, both directions
    rate = "10mbit"           # bit, kbit, mbit, gbit; a bare number is bit/s; "none" is without limit
    delay = "2ms"             # ns, us, ms, s; a bare number is s
    jitter = "500us"          # its mean, on top of the delay
    jitter_shape = "pareto"   # uniform, normal, exponential, pareto
    loss = "1%"               # or 0.01; duplicate, reorder and corrupt likewise
    burst = "1% 25%"          # Gilbert-Elliott: to the bad state, back, loss in the bad state (100%), in the good (0%)
    outage = "2s-3s, 8s-8.5s"
    queue = "64kB"            # B, kB, MB, KiB, MiB; a bare number is B

    [up]                      # overrides [default] for one direction, key by key; [down] likewise
    [bs.3]                    # overrides both for one base station
    [bs.3.up]                 # overrides all for one direction of one link

An option of the command line is one of these texts, and overrides every table.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from fronthaul.errors import LocalError
from fronthaul.link.link_config import JITTER_SHAPES, GilbertElliott, LinkConfig
from fronthaul.message.messages import Direction

Layer = tuple[int | None, Direction | None]
"""Whom a table is for: base station and direction, None for all."""

_FIELDS = {
    "rate": "rate_bps",
    "delay": "delay_s",
    "jitter": "jitter_s",
    "jitter_shape": "jitter",
    "loss": "loss",
    "burst": "burst",
    "duplicate": "duplicate",
    "reorder": "reorder",
    "corrupt": "corrupt",
    "outage": "outages",
    "queue": "queue_bytes",
}
"""Keys of a table, and the fields of `LinkConfig` that they set."""

# Without one of the second, the first changes nothing: more likely a slip than a wish.
_NEEDS = {"jitter_shape": ("jitter",), "reorder": ("delay", "jitter"), "queue": ("rate",)}

_RATES = {"gbit": Decimal("1e9"), "mbit": Decimal("1e6"), "kbit": Decimal("1e3"), "bit": Decimal(1)}
_TIMES = {"s": Decimal(1), "ms": Decimal("1e-3"), "us": Decimal("1e-6"), "ns": Decimal("1e-9")}
_SIZES = {"MiB": Decimal(1 << 20), "MB": Decimal("1e6"), "KiB": Decimal(1 << 10), "kB": Decimal("1e3"), "B": Decimal(1)}
_SHARES = {"%": Decimal("0.01"), "": Decimal(1)}
_NUMBER_AND_UNIT = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*([^\s0-9.+-]*)")
_BURST_KEYS = tuple(spec.name for spec in dataclasses.fields(GilbertElliott))


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """What every link of a run does.

    Attributes:
        layers: values by key of the table they stand in, such as {(3, Direction.UP): {"delay": 0.002}}, as the fields
            of `LinkConfig` hold them.
    """

    layers: Mapping[Layer, Mapping[str, Any]] = field(default_factory=dict)

    def config(self, bs: int, direction: Direction) -> LinkConfig | None:
        """Return what the link of `bs` does in one direction; None where it lets everything pass untouched.

        Raises:
            LocalError: values that are out of range.
        """
        config = self._merged(bs, direction)
        return None if dataclasses.replace(config, jitter="uniform") == LinkConfig() else config

    def _merged(self, bs: int | None, direction: Direction) -> LinkConfig:
        values: dict[str, Any] = {}
        for layer in ((None, None), (None, direction), (bs, None), (bs, direction)):
            values.update(self.layers.get(layer, {}))
        return LinkConfig(**{_FIELDS[key]: value for key, value in values.items()})


def read_links(text: str) -> LinkPlan:
    """Read a link file.

    Args:
        text: the file's contents, TOML.

    Raises:
        LocalError: no TOML, or what `link_plan` refuses.
    """
    try:
        table = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError is one, and so is what Python says to 5000 digits
        raise LocalError(f"the link file is not TOML: {error}") from error
    return link_plan(table)


def link_plan(table: Mapping[str, Any]) -> LinkPlan:
    """Return the plan that a table describes, as TOML or `link_table` gives it.

    Raises:
        LocalError: an unknown key or table (the sentence names the nearest known one), a value that does not parse or
            is out of range, or an option that has no effect anywhere, such as a queue without a rate.
    """
    layers: dict[Layer, dict[str, Any]] = {}
    for name, content in table.items():
        if name == "default":
            layers[None, None] = _layer(content, "[default]")
        elif name in tuple(Direction):
            layers[None, Direction(name)] = _layer(content, f"[{name}]")
        elif name == "bs":
            for number, links in _require_table(content, "[bs]").items():
                layers.update(_bs_layers(number, links))
        else:
            raise LocalError(f"the link file has no table [{name}]{_hint(name, ('default', 'up', 'down', 'bs'))}")
    return _checked(LinkPlan(layers))


def link_table(plan: LinkPlan) -> dict[str, Any]:
    """Return the table that `link_plan` reads back as an equal plan; texts with units where they are exact."""
    table: dict[str, Any] = {}
    for (bs, direction), values in plan.layers.items():
        if bs is None:
            place = table.setdefault("default" if direction is None else direction.value, {})
        else:
            place = table.setdefault("bs", {}).setdefault(str(bs), {})
            if direction is not None:
                place = place.setdefault(direction.value, {})
        place.update({key: _written(key, value) for key, value in values.items()})
    return table


def with_options(
    plan: LinkPlan,
    *,
    rate: str | None = None,
    delay: str | None = None,
    jitter: str | None = None,
    jitter_shape: str | None = None,
    loss: str | None = None,
    burst: str | None = None,
    duplicate: str | None = None,
    reorder: str | None = None,
    corrupt: str | None = None,
    outage: str | None = None,
    queue: str | None = None,
) -> LinkPlan:
    """Return `plan` with options of the command line, for both directions of all links: they override every table.

    Args:
        plan: to begin with; `LinkPlan()` for none.
        rate: such as "10mbit"; "none" is without limit.
        delay: such as "2ms".
        jitter: its mean, such as "500us".
        jitter_shape: uniform, normal, exponential or pareto.
        loss: such as "1%".
        burst: such as "1% 25%", see the top of this file; "none" is without.
        duplicate: such as "1%".
        reorder: such as "1%".
        corrupt: such as "1%".
        outage: such as "2s-3s, 8s-8.5s" after time zero; "none" is without.
        queue: such as "64kB"; "none" is without limit.

    Raises:
        LocalError: a text that does not parse, a value out of range, or an option without effect.
    """
    texts = {
        "rate": rate,
        "delay": delay,
        "jitter": jitter,
        "jitter_shape": jitter_shape,
        "loss": loss,
        "burst": burst,
        "duplicate": duplicate,
        "reorder": reorder,
        "corrupt": corrupt,
        "outage": outage,
        "queue": queue,
    }
    options = {key: _parsed(key, text) for key, text in texts.items() if text is not None}
    layers = {
        layer: {key: value for key, value in values.items() if key not in options}
        for layer, values in plan.layers.items()
    }
    if options:
        layers[None, None] = {**layers.get((None, None), {}), **options}
    return _checked(LinkPlan({layer: values for layer, values in layers.items() if values}))


def _bs_layers(number: str, links: object) -> dict[Layer, dict[str, Any]]:
    where = f"[bs.{number}]"
    if not (number.isdecimal() and number.isascii() and str(int(number)) == number and int(number) < 1 << 16):
        raise LocalError(f"{where} is not a base station: its number is 0 to 65535")
    table = _require_table(links, where)
    ways = {key: value for key, value in table.items() if key in tuple(Direction)}
    own = {key: value for key, value in table.items() if key not in ways}
    found: dict[Layer, dict[str, Any]] = {}
    if own:
        found[int(number), None] = _layer(own, where, also=tuple(Direction))
    for key, value in ways.items():
        found[int(number), Direction(key)] = _layer(value, f"[bs.{number}.{key}]")
    return found


def _layer(content: object, where: str, also: Iterable[str] = ()) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in _require_table(content, where).items():
        if key not in _FIELDS:
            raise LocalError(f"{where} has an unknown key {key!r}{_hint(key, (*_FIELDS, *also))}")
        try:
            values[key] = _parsed(key, value)
        except LocalError as error:
            raise LocalError(f"{where}: {error}") from error
    return values


def _checked(plan: LinkPlan) -> LinkPlan:
    """Build every configuration once, so that a bad value is an error now and not when a run has started."""
    stations = {bs for bs, _ in plan.layers} | {None}
    configs = []
    for bs in sorted(stations, key=lambda number: -1 if number is None else number):
        for direction in Direction:
            try:
                configs.append(plan._merged(bs, direction))
            except LocalError as error:
                place = "every link" if bs is None else f"the link of BS {bs}"
                raise LocalError(f"{place}, {direction}: {error}") from error
    default = LinkConfig()

    def is_set(config: LinkConfig, key: str) -> bool:
        return bool(getattr(config, _FIELDS[key]) != getattr(default, _FIELDS[key]))

    for key, needed in _NEEDS.items():
        having = [config for config in configs if is_set(config, key)]
        if having and not any(is_set(config, other) for config in having for other in needed):
            raise LocalError(f"{key} changes nothing without {' or '.join(needed)}")
    return plan


def _parsed(key: str, value: object) -> Any:
    """Return a value as `LinkConfig` holds it."""
    if key in ("rate", "burst", "outage", "queue") and value == "none":
        return () if key == "outage" else None
    if key == "rate":
        return _quantity(key, value, _RATES, caseless=True)
    if key in ("delay", "jitter"):
        return _quantity(key, value, _TIMES)
    if key == "jitter_shape":
        if value not in JITTER_SHAPES:
            raise LocalError(f"there is no jitter_shape {value!r}{_hint(str(value), JITTER_SHAPES)}")
        return value
    if key == "burst":
        return _burst(value)
    if key == "outage":
        return _outages(value)
    if key == "queue":
        size = _quantity(key, value, _SIZES)
        if size != int(size):
            raise LocalError(f"queue must be whole bytes, not {value!r}")
        return int(size)
    return _quantity(key, value, _SHARES)


def _quantity(key: str, value: object, units: Mapping[str, Decimal], *, caseless: bool = False) -> float:
    """Return a number in SI units: a text with its unit, or a bare number of TOML."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) < math.inf or abs(value) > sys.float_info.max:
            raise LocalError(f"{key} must be a finite number, not {value!r:.40}")
        return float(value)
    names = ", ".join(unit for unit in reversed([*units]) if unit)
    example = {"rate": "10mbit", "queue": "64kB"}.get(key, "1%" if "%" in units else "2ms")
    match = _NUMBER_AND_UNIT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise LocalError(f"{key} must be a number with a unit ({names}) such as {example!r}, not {value!r}")
    number, unit = match[1], match[2].lower() if caseless else match[2]
    if unit not in units and not (unit == "" and float(number) == 0.0):
        wrong = f"has an unknown unit{_hint(unit, units)}" if unit else f"needs a unit ({names})"
        raise LocalError(f"{key} {value!r} {wrong}, such as {example!r}")
    # Decimal, so that "3ms" is the float 0.003 and not 3 times the float 0.001.
    quantity = float(Decimal(number) * units.get(unit, Decimal(1)))
    if not math.isfinite(quantity):
        raise LocalError(f"{key} must be a finite number, not {value!r:.40}")
    return quantity


def _burst(value: object) -> GilbertElliott:
    if isinstance(value, Mapping):
        for key in value:
            if key not in _BURST_KEYS:
                raise LocalError(f"burst has an unknown key {key!r}{_hint(str(key), _BURST_KEYS)}")
        for key in _BURST_KEYS[:2]:
            if key not in value:
                raise LocalError(f"burst lacks its key {key!r}")
        return GilbertElliott(**{key: _quantity(f"burst.{key}", part, _SHARES) for key, part in value.items()})
    parts = value.split() if isinstance(value, str) else []
    if not 2 <= len(parts) <= len(_BURST_KEYS):
        raise LocalError(
            "burst must be two to four probabilities (to the bad state, back, loss in the bad state, in the good) "
            f"such as '1% 25%', not {value!r}"
        )
    return GilbertElliott(*(_quantity("burst", part, _SHARES) for part in parts))


def _outages(value: object) -> tuple[tuple[float, float], ...]:
    if isinstance(value, str):
        # The minus of an exponent parts no times.
        pairs: list[Any] = [re.split(r"(?<![eE])-", part) for part in value.split(",")]
    elif isinstance(value, list | tuple):
        pairs = list(value)
    else:
        pairs = [None]
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise LocalError(f"outage must be start and end such as '2s-3s, 8s-8.5s', not {value!r}")
    return tuple((_quantity("outage", start, _TIMES), _quantity("outage", end, _TIMES)) for start, end in pairs)


def _written(key: str, value: Any) -> Any:
    """Undo `_parsed`: a readable text where that is exact, else bare numbers."""
    if value is None:
        return "none"
    if key == "rate":
        return _with_unit(value, _RATES)
    if key in ("delay", "jitter"):
        return _with_unit(value, _TIMES)
    if key == "burst":
        return dataclasses.asdict(value)
    if key == "outage":
        return [[_with_unit(edge, _TIMES) for edge in outage] for outage in value]
    if key == "queue":
        return _with_unit(value, {unit: _SIZES[unit] for unit in ("MB", "kB", "B")})
    return value


def _with_unit(value: float, units: Mapping[str, Decimal]) -> str | float:
    for unit, scale in units.items():
        text = f"{value / float(scale):.12g}{unit}"
        if value >= scale and _quantity("", text, units) == value:
            return text
    return value


def _require_table(content: object, where: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise LocalError(f"{where} must be a table, not {content!r}")
    return content


def _hint(name: str, known: Iterable[str]) -> str:
    names = [str(other) for other in known if other]  # not the repr of a Direction
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(names)})"

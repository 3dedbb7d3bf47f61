"""Link configurations of a run: a TOML file and command-line options, read into a plan and written back.

    [default]                 # every link, both directions
    rate = "10mbit"           # bit, kbit, mbit, gbit; a bare number is bit/s; "none" means no limit
    delay = "2ms"             # ns, us, ms, s; a bare number is s
    jitter = "500us"          # mean jitter, on top of the delay
    jitter_shape = "pareto"   # uniform, normal, exponential, pareto
    loss = "1%"               # or 0.01; duplicate, reorder and corrupt likewise
    burst = "1% 25%"          # Gilbert-Elliott: to the bad state, back, loss in the bad state (100%), in the good (0%)
    outage = "2s-3s, 8s-8.5s"
    queue = "64kB"            # B, kB, MB, KiB, MiB; a bare number is B

    [up]                      # overrides [default] for one direction, key by key; [down] likewise
    [bs.3]                    # overrides both for one base station
    [bs.3.up]                 # overrides all for one direction of one link

A command-line option has the same syntax as a value here, and overrides every table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fronthaul.documents import parse_toml
from fronthaul.errors import LocalError
from fronthaul.link.impairment import hint
from fronthaul.link.link_config import IMPAIRMENTS, LinkConfig
from fronthaul.message.direction import Direction

Layer = tuple[int | None, Direction | None]
"""The links that a table applies to: base station and direction, each None for all."""


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """The configurations of all links of a run.

    Attributes:
        layers: the values of each table by key, such as {(3, Direction.UP): {"delay": 0.002}}, as in the fields of
            `LinkConfig`.
    """

    layers: Mapping[Layer, Mapping[str, Any]] = field(default_factory=dict)

    def config(self, bs: int, direction: Direction) -> LinkConfig | None:
        """Return the configuration of one direction of the link of `bs`; None if it leaves all messages untouched.

        Raises:
            LocalError: values that are out of range.
        """
        config = self._merged(bs, direction)
        return None if dataclasses.replace(config, jitter="uniform") == LinkConfig() else config

    def _merged(self, bs: int | None, direction: Direction) -> LinkConfig:
        values: dict[str, Any] = {}
        for layer in ((None, None), (None, direction), (bs, None), (bs, direction)):
            values.update(self.layers.get(layer, {}))
        return LinkConfig(**{IMPAIRMENTS[key].field: value for key, value in values.items()})


def read_links(text: str) -> LinkPlan:
    """Read a link file.

    Args:
        text: the file's contents, TOML.

    Raises:
        LocalError: the text is not TOML, or an error of `link_plan`.
    """
    try:
        table = parse_toml(text)
    except LocalError as error:
        raise LocalError(f"the link file is not TOML: {error}") from error
    return link_plan(table)


def link_plan(table: Mapping[str, Any]) -> LinkPlan:
    """Return the plan that a table from TOML or `link_table` describes.

    Raises:
        LocalError: an unknown key or table (the message names the closest known one), a value that does not parse or
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
            raise LocalError(f"the link file has no table [{name}]{hint(name, ('default', 'up', 'down', 'bs'))}")
    return _checked(LinkPlan(layers))


def link_table(plan: LinkPlan) -> dict[str, Any]:
    """Return the table that `link_plan` reads back as an equal plan; values have units if that is exact."""
    table: dict[str, Any] = {}
    for (bs, direction), values in plan.layers.items():
        if bs is None:
            place = table.setdefault("default" if direction is None else direction.value, {})
        else:
            place = table.setdefault("bs", {}).setdefault(str(bs), {})
            if direction is not None:
                place = place.setdefault(direction.value, {})
        place.update({key: IMPAIRMENTS[key].write(value) for key, value in values.items()})
    return table


def with_options(plan: LinkPlan, texts: Mapping[str, str]) -> LinkPlan:
    """Return `plan` with command-line options applied to both directions of all links; they override every table.

    Args:
        plan: the plan to start from; `LinkPlan()` for none.
        texts: option values by key, such as {"delay": "2ms"}.

    Raises:
        LocalError: an unknown key, a text that does not parse, a value out of range, or an option without effect.
    """
    options = _layer(texts)
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


def _layer(content: object, where: str = "", also: Iterable[str] = ()) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in _require_table(content, where).items():
        if key not in IMPAIRMENTS:
            raise LocalError(f"{where or 'a link'} has an unknown key {key!r}{hint(key, (*IMPAIRMENTS, *also))}")
        try:
            values[key] = IMPAIRMENTS[key].parse(value)
        except LocalError as error:
            raise LocalError(f"{where}: {error}" if where else str(error)) from error
    return values


def _checked(plan: LinkPlan) -> LinkPlan:
    """Build every configuration once, so that an invalid value is an error now and not during a run."""
    stations = {bs for bs, _ in plan.layers} | {None}
    configs = []
    for bs in sorted(stations, key=lambda number: -1 if number is None else number):
        for direction in Direction:
            try:
                configs.append(plan._merged(bs, direction))
            except LocalError as error:
                place = "every link" if bs is None else f"the link of BS {bs}"
                raise LocalError(f"{place}, {direction}: {error}") from error
    for key, impairment in IMPAIRMENTS.items():
        having = [config for config in configs if impairment.is_set(config)]
        needed = [IMPAIRMENTS[other] for other in impairment.needs]
        if needed and having and not any(other.is_set(config) for config in having for other in needed):
            raise LocalError(f"{key} has no effect without {' or '.join(impairment.needs)}")
    return plan


def _require_table(content: object, where: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise LocalError(f"{where} must be a table, not {content!r}")
    return content

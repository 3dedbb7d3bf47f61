"""Options of `cofix.emulate`: those of the command line, by the same names with underscores; units are the same.

``python cli.py emulate --help`` describes each and states its default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from fronthaul.link.link_config import IMPAIRMENTS
from sim.errors import UserError, nearest_hint
from sim.plan.options import OPTIONS

_Path = str | os.PathLike[str]
_Number = int | float

ONLY_COMMANDS = ("json",)
"""Options that say how a command prints."""


class Options(TypedDict, total=False):
    """Options of a run; times are in milliseconds. `option` are options of the scheme by name."""

    scenario: str
    scheme: str
    bs: int
    random_subset: bool
    layout: int
    bits: int | str
    forward: str
    snapshots: int
    seed: int
    driver: str
    interval: _Number
    deadline: _Number
    window: _Number
    round: _Number
    minimum_bs: int
    bundle: int
    compact: bool
    links: _Path
    rate: str
    delay: _Number | str
    jitter: _Number | str
    jitter_shape: str
    loss: _Number | str
    burst: str
    duplicate: _Number | str
    reorder: _Number | str
    corrupt: _Number | str
    outage: str
    queue: str
    batch: int
    bs_per_actor: int
    cpus_per_bs: _Number
    gpus_per_bs: _Number
    cloud_cpus: _Number
    cloud_gpus: _Number
    ray_address: str
    node_label: str
    host: str
    port: int
    curve: bool
    keys: _Path
    sign: _Path
    hwm: int
    ping: _Number
    restarts: int
    capture: bool
    report: bool
    metrics: bool
    log_json: _Path
    netns: bool
    warmup: int
    weights: _Path
    force: bool
    test: _Path
    output: _Path
    shuffle_csi: bool
    controls: bool
    track: bool
    track_deviation: _Number
    track_acceleration: _Number
    steps: int
    fusion: str
    where: str
    bits_per_report: int
    total_bits: int
    entropy: bool
    option: Mapping[str, str | int]


def words_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options in the types of `sim.plan.options.OPTIONS`; None stands for the default, as if it were left out.

    Raises:
        UserError: there is no such option, or a value has another type.
    """
    return {name: _word(name, value) for name, value in given.items() if value is not None}


def listed_words(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a sweep: a list of values becomes the text that the command line takes.

    Raises:
        UserError: there is no such option, a value has another type, or the option takes one value only.
    """
    words: dict[str, Any] = {}
    for name, value in given.items():
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        if name == "weights" and isinstance(value, Mapping):
            words[name] = [f"{scheme}={_word(name, file)}" for scheme, file in value.items()]
        elif name not in OPTIONS or not OPTIONS[name][1].listed:
            if listed:
                raise UserError(f"{name} takes one value, not the list {list(value)!r}.")
            words |= words_of({name: value})
        elif value is not None:
            words[name] = ",".join(str(_word(name, each)) for each in (value if listed else [value]))
    return words


def _word(name: str, value: Any) -> Any:
    known = [option for option in OPTIONS if option not in ONLY_COMMANDS]
    if name not in known:
        raise UserError(f"There is no option {name!r}{nearest_hint(name, known)}.")
    kind, setting = OPTIONS[name]
    if name == "option" and isinstance(value, Mapping):
        return [f"{key}={each}" for key, each in value.items()]
    if kind is Path and isinstance(value, str | os.PathLike):
        return Path(value)
    if kind is str and (setting.text or name in IMPAIRMENTS) and not isinstance(value, bool):
        return f"{value:.15g}" if isinstance(value, float) else str(value)  # a number is short for its text
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float, str, bool) and isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    wanted = {Path: "a path", float: "a number", int: "a whole number", str: "a text", bool: "True or False"}
    raise UserError(f"{name} must be {wanted.get(kind, 'a mapping of names to values')}, it is {value!r}.")

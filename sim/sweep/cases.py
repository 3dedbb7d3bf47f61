"""Combinations of a sweep, from the values of its options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fronthaul.link.link_config import IMPAIRMENTS
from sim.errors import UserError
from sim.plan import options

if TYPE_CHECKING:
    from sim.plan.settings import EmulateSettings
    from sim.sweep.sweep import Case

OPTIONS = [
    name
    for name, (_, setting) in options.OPTIONS.items()
    if "process" in setting.drivers and name not in ("driver", "controls", "json")
]
"""Options that have an effect in process; a sweep does not offer `driver`, `controls` and `json`."""

AXES = [
    "bits",
    *(name for name in OPTIONS if name != "bits" and (options.OPTIONS[name][1].listed or name in IMPAIRMENTS)),
]
"""Options that can distinguish rows; the last changes fastest."""

DEFAULTS = {"bits": "2,3,4,5", "capture": False, "report": False}
"""Defaults that differ from those of a single emulation."""


def cases_of(words: dict[str, Any], output: Path) -> list[Case]:
    """Return every combination of the listed values; options have the same meaning as for `emulate`.

    Args:
        words: values by parameter name, lists as texts; missing ones take their defaults.
        output: folder of the sweep.

    Raises:
        UserError: a combination is impossible.
    """
    from sim.sweep.sweep import combinations

    words = {name: _default(name) for name in OPTIONS} | words
    texts = {name: words[name] for name in AXES if words[name] is not None}
    if "bs" not in texts:
        world = options.scenario_of(words["scenario"], words["scheme"])
        texts["bs"] = str(options.stations_of(None, world, random_subset=words["random_subset"]))
    if "interval" not in texts:
        texts["interval"] = f"{options.interval_of(None, words['scheme']):g}"
    named = {name: name.replace("_", "-") for name in AXES if name in texts}

    def settings_of(chosen: Mapping[str, str]) -> EmulateSettings:
        values = {name: value_of(name, chosen[option]) for name, option in named.items()}
        return options.settings_of({**words, **values, "driver": "process", "controls": False})

    cases = combinations({named[name]: values_of(name, texts[name]) for name in named}, settings_of, output)
    options.require_own_links(max((case.settings for case in cases), key=lambda it: it.bs))
    return cases


def values_of(name: str, text: str) -> list[str]:
    """Return the values of a list; an option that takes no list has one value.

    Raises:
        UserError: one of them is empty.
    """
    if not options.OPTIONS[name][1].listed:
        return [text]
    values = [value.strip() for value in text.split(",")]
    if not all(values):
        raise UserError(f"--{name.replace('_', '-')} must be values with commas between them, it is {text!r}.")
    return values


def value_of(name: str, text: str) -> str | int | float:
    """Return one value of a list, converted to the type of its option.

    Raises:
        UserError: the option needs a number, and it is none.
    """
    kind, setting = options.OPTIONS[name]
    if kind is int:
        if not text.removeprefix("-").isdecimal() or not text.isascii():
            raise UserError(f"--{setting.option} must be whole numbers, such as {setting.listed}; one is {text!r}.")
        return int(text)
    if kind is not float:
        return text
    try:
        return float(text)
    except ValueError as error:
        unit = f" in {setting.unit}" if setting.unit else ""
        raise UserError(
            f"--{setting.option} must be numbers{unit}, such as {setting.listed}; one is {text!r}."
        ) from error


def _default(name: str) -> Any:
    default = DEFAULTS.get(name, options.default_of(name))
    return options.as_text(default) if options.OPTIONS[name][1].listed else default

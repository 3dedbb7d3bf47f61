"""Combinations of a sweep, from the values of its options."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping, Sequence
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

_FIRST = ("scheme", "bits", "bits_per_report", "total_bits")
AXES = [
    *_FIRST,
    *(name for name in OPTIONS if name not in _FIRST and (options.OPTIONS[name][1].listed or name in IMPAIRMENTS)),
]
"""Options that can distinguish rows; the last changes fastest."""

DEFAULTS = {"bits": "2,3,4,5", "capture": False, "report": False}
"""Defaults that differ from those of a single emulation."""

_MOST_RANGE = 1000


def cases_of(words: dict[str, Any], output: Path, given: Collection[str] | None = None) -> list[Case]:
    """Return every combination of the listed values; options have the same meaning as for `emulate`.

    Of several schemes each takes the options that mean something to it.

    Args:
        words: values by parameter name, lists as texts; missing ones take their defaults.
        output: folder of the sweep.
        given: names of those that the user gave; None for all of them.

    Raises:
        UserError: a combination is impossible, or an option means nothing to any of the schemes.
    """
    from sim.sweep.sweep import combinations

    given = words.keys() if given is None else given
    words = {name: _default(name) for name in OPTIONS} | words
    texts = {name: words[name] for name in AXES if words[name] is not None}
    schemes = values_of("scheme", texts["scheme"])
    words["scenario"] = _scenario(words["scenario"], schemes)
    weights = weights_of(words["weights"], schemes)
    if "bs" not in texts:
        texts["bs"] = str(options.stations_of(None, words["scenario"], random_subset=words["random_subset"]))
    axes = {name.replace("_", "-"): (name, values_of(name, text)) for name, text in texts.items()}

    means = functools.cache(options.means)  # a look for installed schemes each time

    def taken(chosen: Mapping[str, str]) -> dict[str, str] | None:
        scheme = chosen["scheme"]
        found = {}
        for option, text in chosen.items():
            name, values = axes[option]
            nobody = name in given and not any(means(each, name, text) for each in schemes)
            if means(scheme, name, text) or nobody:  # what nobody takes is refused, and not left out
                found[option] = text
            elif any(means(scheme, name, other) for other in values):
                return None
        return found if "interval" in found else found | {"interval": f"{options.interval_of(None, scheme):g}"}

    def settings_of(chosen: Mapping[str, str]) -> EmulateSettings:
        values = {name: value_of(name, chosen[option]) if option in chosen else None
                  for option, (name, _) in axes.items()}  # fmt: skip
        interval = value_of("interval", chosen["interval"])
        own = {"interval": interval, "driver": "process", "controls": False, "weights": weights[chosen["scheme"]]}
        return options.settings_of({**words, **values, **own})

    cases = combinations({option: values for option, (_, values) in axes.items()}, settings_of, output, taken)
    options.require_own_links(max((case.settings for case in cases), key=lambda it: it.bs))
    return cases


def weights_of(given: Path | Sequence[str] | None, schemes: Sequence[str]) -> dict[str, Path | None]:
    """Return the weights of each scheme, None for those without any of their own.

    Args:
        given: one file for all schemes, or texts: SCHEME=FILE, or FILE for the schemes that are not named so.
        schemes: of the sweep.

    Raises:
        UserError: a scheme is named twice, or is none of the sweep's, or one file is for schemes whose weights differ.
    """
    from sim.plan.scheme_options import known_spec

    found: dict[str, Path] = {}
    common: Path | None = None
    for text in [str(given)] if isinstance(given, Path) else given or ():
        scheme, equals, file = text.partition("=")
        if scheme in schemes and equals and scheme not in found:
            found[scheme] = Path(file)
        elif scheme in schemes and equals:
            raise UserError(f"--weights has two files for scheme {scheme!r}.")
        elif equals and not Path(text).exists():
            raise UserError(f"--weights {text}: {scheme!r} is none of this sweep's schemes ({', '.join(schemes)}).")
        elif common is not None:
            raise UserError(f"--weights has two files that name no scheme, {common} and {text}: SCHEME=FILE names one.")
        else:
            common = Path(text)
    others = [scheme for scheme in schemes if scheme not in found]
    if common is not None and len({known_spec(scheme).weights or scheme for scheme in others}) > 1:
        raise UserError(
            f"--weights {common} is for one scheme, and {', '.join(others)} need weights of their own: give each its "
            f"file, as in --weights {others[0]}={common}."
        )
    return {scheme: found.get(scheme, common) for scheme in schemes}


def _scenario(scenario: str | None, schemes: Sequence[str]) -> str:
    """Return the scenario of all schemes.

    Raises:
        UserError: none is given, and the schemes have different ones by default.
    """
    found = {scheme: options.scenario_of(scenario, scheme) for scheme in schemes}
    if len(set(found.values())) > 1:
        each = ", ".join(f"{scheme}: {name}" for scheme, name in found.items())
        raise UserError(f"By default these schemes run in different scenarios ({each}): name one with --scenario.")
    return next(iter(found.values()))


def values_of(name: str, text: str) -> list[str]:
    """Return the values of a list, in which 2-5 stands for 2,3,4,5; an option that takes no list has one value.

    Raises:
        UserError: one of them is empty, or a range does not go up.
    """
    if not options.OPTIONS[name][1].listed:
        return [text]
    values = [value.strip() for value in text.split(",")]
    if not all(values):
        raise UserError(f"--{name.replace('_', '-')} must be values with commas between them, it is {text!r}.")
    if options.OPTIONS[name][0] is not int and name != "bits":
        return values
    return [each for value in values for each in _range(name, value)]


def _range(name: str, text: str) -> list[str]:
    """Return the whole numbers of a range such as 2-5; a text that is none is one value."""
    ends = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", text)
    if ends is None:
        return [text]
    first, last = map(int, ends.groups())
    if not first < last < first + _MOST_RANGE:
        raise UserError(
            f"A range such as 2-5 goes up, by less than {_MOST_RANGE}; --{name.replace('_', '-')} has {text}."
        )
    return [str(number) for number in range(first, last + 1)]


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

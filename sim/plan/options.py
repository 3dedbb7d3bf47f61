"""Options of a run by name, as the command line and the Python API take them, and the settings made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from fronthaul.documents import read_text
from fronthaul.errors import LocalError
from fronthaul.link.link_config import IMPAIRMENTS
from fronthaul.link.link_file import LinkPlan, link_table, read_links, with_options
from sim.errors import UserError
from sim.plan.places import places_of
from sim.plan.setting import LINKS, OUTPUT, WHAT, Setting, require_driver
from sim.plan.settings import SETTINGS, EmulateSettings

if TYPE_CHECKING:
    from edge.scheme import SchemeSpec

_SCHEME_OPTIONS = {
    "steps": (
        int,
        Setting(
            "Steps of a sampler, for schemes that have one",
            WHAT,
            metavar="N",
            default="the weights' own",
            listed="2,10",
        ),
    ),
    "fusion": (
        str,
        Setting(
            "Fusion rule, for schemes that have several",
            WHAT,
            metavar="RULE",
            default="the weights' own",
            listed="sum,gauss",
        ),
    ),
    "where": (
        str,
        Setting(
            "Where networks run, for schemes that let one choose", WHAT, metavar="MODE", default="the scheme's own"
        ),
    ),
    "bits_per_report": (
        int,
        Setting(
            "Payload of a report in bit, for schemes that have it",
            WHAT,
            metavar="N",
            default="the scheme's own",
            listed="32,64,128",
        ),
    ),
    "total_bits": (
        int,
        Setting(
            "Payload of all base stations together in bit, for schemes that share it out",
            WHAT,
            metavar="N",
            default="the scheme's own",
            listed="96,192,384",
        ),
    ),
    "entropy": (
        bool,
        Setting(
            "Entropy coding of reports, up to --bits-per-report, for schemes that have it",
            WHAT,
            names=("--entropy",),
            default="off",
        ),
    ),
}
"""Scheme options that have a command-line option of their own."""


def _options() -> dict[str, tuple[Any, Setting]]:
    """Return type and declaration of every option, by parameter name."""
    types = get_type_hints(EmulateSettings)
    found: dict[str, tuple[Any, Setting]] = {}
    for setting in SETTINGS.values():
        kind = types[setting.field]
        if setting.field == "links":
            kind = Path
        elif setting.field == "options":
            found |= {name: (own, dataclasses.replace(it, field=name)) for name, (own, it) in _SCHEME_OPTIONS.items()}
            kind = list[str]
        elif setting.text or get_origin(kind) is Literal:
            kind = str
        elif get_origin(kind) is UnionType:
            [kind] = (part for part in get_args(kind) if part is not NoneType)
        found[setting.word] = kind, setting
        if setting.field == "links":
            for key, it in IMPAIRMENTS.items():
                found[key] = (
                    str,
                    Setting(
                        it.help, LINKS, metavar=it.kind.metavar, default=it.default, listed=it.values or "", field=key
                    ),
                )
    found["json"] = (
        bool,
        Setting(
            "Print the run's folder and summary as JSON and nothing else",
            OUTPUT,
            names=("--json",),
            default="tables",
            absent=False,
        ),
    )
    return found


OPTIONS = _options()
"""Type and declaration of every option, by parameter name."""


def default_of(name: str) -> Any:
    """Return an option's default; None if it depends on scheme, scenario or machine."""
    kind, setting = OPTIONS[name]
    return None if setting.default and kind is not bool else setting.absent


def as_text(default: Any) -> str | None:
    """Return a default as the text that a command line would take."""
    return default if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def require_effect(given: Iterable[str], driver: str) -> None:
    """Check that every given option has an effect with `driver`.

    Raises:
        UserError: one has none, or there is no such driver.
    """
    require_driver(driver)
    for name in given:
        if name in OPTIONS:
            OPTIONS[name][1].require_effect(driver)


def settings_of(words: Mapping[str, Any]) -> EmulateSettings:
    """Return the settings for command-line values, for all commands; missing values take their defaults.

    Args:
        words: values by parameter name, in the types of `OPTIONS`.

    Raises:
        UserError: a value is impossible.
    """
    given = {name: default_of(name) for name in OPTIONS} | dict(words)
    scheme, cloud_cpus = given["scheme"], given["cloud_cpus"]
    bits, forward = parse_payload(payload_of(given["bits"], scheme), given["forward"])
    texts = {key: given[key] for key in IMPAIRMENTS if given[key] is not None}
    links = links_with(link_file_plan(given["links"]), texts)
    chosen = scheme_options(given)
    scenario = scenario_of(given["scenario"], scheme)
    bs = stations_of(given["bs"], scenario, random_subset=given["random_subset"])
    stations = stations_of(None, scenario) if given["random_subset"] else bs
    local = given["driver"] == "ray" and given["ray_address"] in (None, "local")
    per_actor, cpus = places_of(
        given["bs_per_actor"], given["cpus_per_bs"], stations=stations, cloud_cpus=cloud_cpus, local=local
    )
    found = {
        "scenario": scenario,
        "bs": bs,
        "bits": bits,
        "forward": forward,
        "interval_ms": interval_of(given["interval"], scheme),
        "links": links,
        "bs_per_actor": per_actor,
        "cpus_per_bs": cpus,
        "options": chosen,
    }
    return EmulateSettings(**{it.field: given[it.word] for it in SETTINGS.values()} | found)


def told_by(settings: EmulateSettings) -> dict[str, Any]:
    """Return the options that give these settings, by parameter name, but for the output folder and the defaults.

    Scenario, scheme, number of base stations, snapshots, seed and payload are always there; links are if options can
    express them.
    """
    words = {name: getattr(settings, name) for name in ("scenario", "scheme", "bs", "snapshots", "seed")}
    usual = settings_of(words | {"driver": settings.driver})
    if _spec(settings.scheme).resolution != "own":
        words["bits"] = _payload_text(settings)
    words |= {} if settings.driver == EmulateSettings.driver else {"driver": settings.driver}
    for field, setting in SETTINGS.items():
        value = getattr(settings, field)
        if setting.word not in words and value != getattr(usual, field) and field not in _OWN_WORDS:
            words[setting.word] = value
    words |= _link_words(settings) or {}
    own = {key: value for key, value in settings.options if key not in _SCHEME_OPTIONS}
    for key, value in settings.options:
        if key in _SCHEME_OPTIONS:
            words[key] = bool(value) if _SCHEME_OPTIONS[key][0] is bool else value
    return words | ({"option": [f"{key}={value}" for key, value in own.items()]} if own else {})


def command_line(settings: EmulateSettings, link_file: str = "links.toml") -> list[str]:
    """Return the words of an `emulate` command that has these settings, but for its output folder.

    Args:
        settings: of a run.
        link_file: name for a file of the link models, where options cannot express them (`fronthaul.link.link_file`).
    """
    words = []
    for name, value in told_by(settings).items():
        names = OPTIONS[name][1].names or (f"--{OPTIONS[name][1].option}",)
        if isinstance(value, bool):
            words.append(names[0].split("/")[0 if value else 1])
        elif name == "option":
            words += [word for text in value for word in ("--option", text)]
        else:
            words += [names[0], f"{value:g}" if isinstance(value, float) else str(value)]
    return words if _link_words(settings) is not None else [*words, "--links", link_file]


def _link_words(settings: EmulateSettings) -> dict[str, str] | None:
    """Return link options by parameter name; None if only a link file can express the links."""
    table = link_table(settings.links)
    texts: dict[str, Any] = table.get("default", {})
    if table.keys() <= {"default"} and not any(isinstance(text, dict | list) for text in texts.values()):
        return {key: str(text) for key, text in texts.items()}
    return None


_OWN_WORDS = ("bits", "forward", "links", "options", "output")


def _payload_text(settings: EmulateSettings) -> str:
    if settings.bits is not None:
        return str(settings.bits)
    return "lossless" if settings.forward == EmulateSettings.forward else settings.forward


def run_label(settings: EmulateSettings, options: Mapping[str, Any]) -> str:
    """Return scheme and payload of a run, such as "ecc, B = 4"; `options` are the scheme's, as resolved."""
    payload = settings.payload.label if settings.bits is None else f"B = {settings.bits}"
    if _spec(settings.scheme).resolution == "own":
        payload = f"{length} bit a report" if (length := options.get("bits_per_report")) else ""
        payload += f"{total} bit of all base stations" if (total := options.get("total_bits")) else ""
        payload += ", entropy-coded" if options.get("entropy") else ""
    return ", ".join(filter(None, (settings.scheme, payload)))


def folder_label(settings: EmulateSettings) -> str:
    """Return scheme and payload for a folder's name, such as "ecc-b4" or "twin-64bit"."""
    payload = settings.payload.label
    if _spec(settings.scheme).resolution == "own":
        given = dict(settings.options)
        payload = f"{length}bit" if (length := given.get("bits_per_report", given.get("total_bits"))) else ""
    return "-".join(filter(None, (settings.scheme, payload)))


def scheme_options(words: Mapping[str, Any]) -> tuple[tuple[str, str | int], ...]:
    """Return the options of a scheme as pairs of name and value; the scheme checks them later.

    Raises:
        UserError: an `option` is not KEY=VALUE.
    """
    chosen = [(name, words[name]) for name in _SCHEME_OPTIONS if words[name] is not None]
    given = [(name, int(value) if isinstance(value, bool) else value) for name, value in chosen]
    for text in words["option"] or ():
        key, equals, value = text.partition("=")
        if not (key.strip() and equals and value.strip()):
            raise UserError(f"--option must be KEY=VALUE, such as particles=8, it is {text!r}.")
        given.append((key.strip(), value.strip()))
    return tuple(given)


def _spec(scheme: str) -> SchemeSpec:
    from sim.plan.scheme_options import known_spec  # imports schemes, which takes a second

    return known_spec(scheme)


def means(scheme: str, name: str, text: str) -> bool:
    """Return whether a value of an option, by parameter name, can mean something to a scheme.

    Raises:
        UserError: an unknown scheme, if it matters for the option.
    """
    if name != "bits" and name not in _SCHEME_OPTIONS:
        return True
    spec = _spec(scheme)
    if name == "bits" and text.isdigit():
        return spec.resolution == "chosen"
    if name == "bits":
        return spec.resolution != "own" and (spec.forwards or text == "lossless")
    return name in (spec.options or {})


def payload_of(text: str | None, scheme: str) -> str:
    """Return the choice of the payload, or the scheme's default if it is None.

    Raises:
        UserError: an unknown scheme, or one whose payloads have resolutions of their own.
    """
    spec = _spec(scheme)
    if text is None:
        return "lossless" if spec.resolution == "lossless" else str(EmulateSettings.bits)
    if spec.resolution != "own":
        return text
    lengths = [
        f"--{name.replace('_', '-')}" for name in ("bits_per_report", "total_bits") if name in (spec.options or {})
    ]
    instead = f"; give {lengths[0]}" if lengths else ""
    raise UserError(f"--bits means nothing to scheme {scheme!r}, whose numbers have bits of their own{instead}.")


def scenario_of(scenario: str | None, scheme: str) -> str:
    """Return `scenario`, or the scheme's default if it is None.

    Raises:
        UserError: an unknown scheme.
    """
    return _spec(scheme).scenario if scenario is None else scenario


def stations_of(bs: int | None, scenario: str, *, random_subset: bool = False) -> int:
    """Return the number of base stations: `bs`, or all of the scenario if it is None.

    Raises:
        UserError: an unknown scenario, or a random subset without a size.
    """
    if bs is not None:
        return bs
    from sim.world.scenario import load_scenario

    if random_subset:
        raise UserError("--random-subset needs --bs: how many base stations measure each snapshot.")
    return load_scenario(scenario).station_count


def interval_of(interval_ms: float | None, scheme: str) -> float:
    """Return the time between snapshots [ms]: `interval_ms`, or the scheme's default if it is None.

    Raises:
        UserError: an unknown scheme.
    """
    return _spec(scheme).interval_ms if interval_ms is None else interval_ms


def link_file_plan(path: Path | None) -> LinkPlan:
    """Read a link file; None stands for perfect links.

    Raises:
        UserError: it cannot be read, or has invalid settings.
    """
    if path is None:
        return LinkPlan()
    try:
        return read_links(read_text(path))
    except OSError as error:
        raise UserError(f"Cannot read --links {path}: {error.strerror}.") from error
    except LocalError as error:
        raise UserError(f"--links {path}: {error}.") from error


def links_with(plan: LinkPlan, texts: Mapping[str, str]) -> LinkPlan:
    """Return `plan` with link options applied, given by their keys in a link file.

    Raises:
        UserError: a text does not parse, is out of range, or has no effect.
    """
    try:
        return with_options(plan, texts)
    except LocalError as error:
        given = " ".join(f"--{key.replace('_', '-')} {text!r}" for key, text in texts.items())
        raise UserError(f"Link options {given}: {error}." if given else f"--links: {error}.") from error


def require_own_links(settings: EmulateSettings) -> None:
    """Check that a link file only has tables for base stations of the run.

    Raises:
        UserError: it names another base station.
    """
    stations = stations_of(None, settings.scenario) if settings.random_subset else settings.bs
    strange = sorted({bs for bs, _ in settings.links.layers if bs is not None and bs >= stations})
    if strange:
        raise UserError(f"--links has a table for BS {strange[0]}, but base stations are 0 to {stations - 1}.")


def parse_bits(text: str) -> int | None:
    """Return B, or None for lossless.

    Raises:
        UserError: neither a whole number from 1 to 8 nor ``lossless``.
    """
    if text == "lossless":
        return None
    if text not in {"1", "2", "3", "4", "5", "6", "7", "8"}:
        raise UserError(f"--bits must be a whole number of 1 to 8 bit, or 'lossless'; it is {text!r}.")
    return int(text)


def parse_payload(text: str, forward: str = "complex64") -> tuple[int | None, str]:
    """Return B, and the format of forwarded channels if B is None: ``--bits iq16`` is short for lossless and iq16.

    Raises:
        UserError: no such payload, or `forward` names another one.
    """
    if text != "complex64" and not text.startswith(("iq", "bfp")):
        return parse_bits(text), forward
    if forward not in ("complex64", text):
        raise UserError(f"--bits {text} and --forward {forward} contradict each other: give one of them.")
    return None, text

"""Options of emulations, by name: `emulate` and `sweep` share them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.commands.common import BITS, FAULTS, LINKS, OUTPUT, PLACES, SECURITY, TIMING, WHAT

if TYPE_CHECKING:
    from fronthaul.link.link_file import LinkPlan


ACTORS_PER_CORE = 4
"""Processes of base stations on a core: each takes seconds to start, and 300 MB."""


def _option(help_: str, panel: str, *names: str, metavar: str | None = None, default: str | None = None) -> Any:
    """Return an option; one whose default is nothing says in words what that means."""
    text = help_ if default is None else f"{help_.rstrip('.')}; default: {default}."
    return typer.Option(*names, help=text, rich_help_panel=panel, metavar=metavar, show_default=default is None)


Scenario = Annotated[
    str | None,
    _option("Name of a shipped scenario, or path of a TOML file", WHAT, default="the scheme's own, or paris-6"),
]
Scheme = Annotated[str, _option("Scheme: ecc, diffloc, rss, or one of your own.", WHAT)]
Stations = Annotated[
    int | None,
    _option("Base stations: the scenario's first so many sites", WHAT, default="all sites of the scenario"),
]
RandomSubset = Annotated[
    bool,
    _option(
        "All sites have base stations, and a random --bs of them, drawn anew, measure each snapshot",
        WHAT,
        "--random-subset",
        default="off",
    ),
]
Layout = Annotated[
    int | None,
    _option("Which held-out layout of the sites, for scenarios that have several", WHAT, metavar="N", default="0"),
]
Bits = Annotated[
    str,
    _option("Quantiser resolution in bit per coefficient, or how the channel itself is forwarded.", WHAT, metavar=BITS),
]
Forward = Annotated[
    str,
    _option(
        "How --bits lossless forwards the channel; --bits iq16 is short for both.",
        WHAT,
        metavar="complex64|iq16|bfp1…16",
    ),
]
Snapshots = Annotated[int, _option("Positioning occasions; one fix each.", WHAT)]
Seed = Annotated[int, _option("Seed of all random draws.", WHAT)]
ShuffleCsi = Annotated[
    bool, _option("Control: give each snapshot another position's CSI.", WHAT, "--shuffle-csi", default="off")
]
Steps = Annotated[
    int | None,
    _option("Steps of a sampler, for schemes that have one", WHAT, metavar="N", default="those of the weights"),
]
FusionRule = Annotated[
    str | None,
    _option("Fusion rule, for schemes that have several", WHAT, "--fusion", metavar="RULE", default="the weights' own"),
]
Where = Annotated[
    str | None,
    _option("Where networks run, for schemes that let one choose", WHAT, metavar="MODE", default="the scheme's own"),
]
Option = Annotated[
    list[str] | None,
    _option("Any option of the scheme; may be given repeatedly", WHAT, metavar="KEY=VALUE", default="none"),
]
Weights = Annotated[Path | None, _option("Trained weights (safetensors)", WHAT, default="the shipped ones")]
Test = Annotated[Path | None, _option("Path data of the test positions", WHAT, default="the scenario's own")]

Interval = Annotated[float, _option("Time between snapshots in ms; 0: as fast as it goes.", TIMING)]
OwnInterval = Annotated[
    float | None,
    _option("Time between snapshots in ms; 0: as fast as it goes", TIMING, default="30, or the scheme's own"),
]
Deadline = Annotated[float, _option("The cloud waits so many ms from a snapshot's time zero.", TIMING)]
Window = Annotated[float, _option("Reports sooner after time zero than so many ms count as early.", TIMING)]
Round = Annotated[
    float,
    _option(
        "Time for one round of answers in ms, where a fix takes several; 0: until the deadline.", TIMING, "--round"
    ),
]
MinimumBs = Annotated[int, _option("Reports that a fix needs at least.", TIMING)]
Warmup = Annotated[int, _option("First snapshots that latency leaves out.", TIMING)]
Batch = Annotated[int, _option("Snapshots processed at once; above 1 a fix may change by 1 mm.", TIMING)]
Bundle = Annotated[int, _option("Reports of a base station that share a message; at most --batch.", TIMING)]

LinkFile = Annotated[
    Path | None,
    _option("Models by link and direction (TOML); the options below override it", LINKS, default="perfect links"),
]
Rate = Annotated[str | None, _option("Line rate, such as 10mbit", LINKS, metavar="RATE", default="no limit")]
Delay = Annotated[str | None, _option("One-way delay, such as 2ms", LINKS, metavar="TIME", default="none")]
Jitter = Annotated[
    str | None, _option("Mean of the random delay on top, such as 500us", LINKS, metavar="TIME", default="none")
]
JitterShape = Annotated[
    str | None,
    _option("Its distribution", LINKS, metavar="uniform|normal|exponential|pareto", default="uniform"),
]
Loss = Annotated[str | None, _option("Share of lost frames, such as 1% or 0.01", LINKS, metavar="SHARE", default="0")]
Burst = Annotated[
    str | None,
    _option(
        "Losses in bursts: probabilities to the bad state and back (then of loss in it, outside), such as '1% 25%'",
        LINKS,
        metavar="SHARES",
        default="none",
    ),
]
Duplicate = Annotated[
    str | None, _option("Share of frames that arrive twice, such as 1%", LINKS, metavar="SHARE", default="0")
]
Reorder = Annotated[
    str | None,
    _option("Share of frames that skip delay and jitter, such as 1%", LINKS, metavar="SHARE", default="0"),
]
Corrupt = Annotated[
    str | None, _option("Share of frames with flipped bits, such as 1%", LINKS, metavar="SHARE", default="0")
]
Outage = Annotated[
    str | None,
    _option("Times without a link after time zero, such as '2s-3s, 8s-8.5s'", LINKS, metavar="TIMES", default="none"),
]
Queue = Annotated[
    str | None, _option("What may wait for the line, such as 64kB", LINKS, metavar="SIZE", default="no limit")
]
Netns = Annotated[
    bool,
    _option(
        "Each base station in a network namespace of its own, its link shaped by the kernel (needs root)",
        LINKS,
        "--netns",
        default="off",
    ),
]
Hwm = Annotated[int, _option("Messages that may wait at each end of a link.", LINKS)]

Curve = Annotated[
    bool | None,
    _option(
        "Encrypt links with CURVE, base stations known by their keys, or do not",
        SECURITY,
        "--curve/--plaintext",
        default="CURVE where the cloud listens beyond loopback, or with --keys",
    ),
]
Keys = Annotated[
    Path | None, _option("Folder of keys made by `keys`", SECURITY, metavar="FOLDER", default="new ones for this run")
]

Ping = Annotated[float, _option("Time between two signs of life of a base station in ms; 0: none.", FAULTS)]
Restarts = Annotated[int, _option("How many times a process that died is started again.", FAULTS)]

DriverOption = Annotated[
    str,
    _option(
        "ray: actors, ZeroMQ, wall clock; process: this process, memory links, simulated clock.",
        PLACES,
        metavar="ray|process",
    ),
]
RayAddress = Annotated[
    str | None, _option("auto, or HOST:PORT of a running Ray cluster", PLACES, default="start Ray here")
]
Host = Annotated[str | None, _option("Address at which the cloud listens", PLACES, default="its node's own")]
Port = Annotated[int, _option("TCP port of the cloud; 0: a free one.", PLACES)]
CpusPerBs = Annotated[float, _option("CPU cores that Ray reserves for each base station.", PLACES)]
BsPerActor = Annotated[
    int | None,
    _option("Base stations that share one actor process", PLACES, default="1, more where cores are few"),
]
OwnCpusPerBs = Annotated[
    float | None,
    _option("CPU cores that Ray reserves for each base station", PLACES, default="0.25, less where cores are few"),
]
GpusPerBs = Annotated[float, _option("GPUs that Ray reserves for each base station.", PLACES)]
CloudCpus = Annotated[float, _option("CPU cores that Ray reserves for the cloud.", PLACES)]
CloudGpus = Annotated[float, _option("GPUs that Ray reserves for the cloud.", PLACES)]

Controls = Annotated[
    bool,
    _option(
        "Evaluate prior, nearest neighbours and error bound on the same snapshots; draw pictures.",
        OUTPUT,
        "--controls/--no-controls",
    ),
]
Capture = Annotated[
    bool, _option("Write each link's frames as pcapng, for Wireshark.", OUTPUT, "--capture/--no-capture")
]
Output = Annotated[Path, _option("Folder in which the run's folder is made.", OUTPUT)]
AsJson = Annotated[bool, _option("Print summary.json and nothing else", OUTPUT, "--json", default="tables")]


def scheme_options(
    steps: int | None, fusion: str | None, where: str | None, option: list[str] | None
) -> tuple[tuple[str, str | int], ...]:
    """Return the options of a scheme as settings want them; what the scheme takes is found out later.

    Raises:
        UserError: an `option` that is not KEY=VALUE.
    """
    from sim.errors import UserError

    named: list[tuple[str, str | int | None]] = [("steps", steps), ("fusion", fusion), ("where", where)]
    given = [(name, value) for name, value in named if value is not None]
    for text in option or ():
        key, equals, value = text.partition("=")
        if not (key.strip() and equals and value.strip()):
            raise UserError(f"--option must be KEY=VALUE, such as particles=8, it is {text!r}.")
        given.append((key.strip(), value.strip()))
    return tuple(given)


def scenario_of(scenario: str | None, scheme: str) -> str:
    """Return a scenario, the scheme's own where none is given.

    Raises:
        UserError: an unknown scheme.
    """
    if scenario is not None:
        return scenario
    from sim.plan.scheme_options import default_scenario

    return default_scenario(scheme)


def stations_of(bs: int | None, scenario: str, *, random_subset: bool = False) -> int:
    """Return a number of base stations, all of the scenario where none is given.

    Raises:
        UserError: an unknown scenario, or a random subset of no size.
    """
    if bs is not None:
        return bs
    from sim.errors import UserError
    from sim.world.scenario import load_scenario

    if random_subset:
        raise UserError("--random-subset needs --bs: how many base stations measure each snapshot.")
    return load_scenario(scenario).station_count


def interval_of(interval_ms: float | None, scheme: str) -> float:
    """Return a time between snapshots [ms], the scheme's own where none is given.

    Raises:
        UserError: an unknown scheme.
    """
    if interval_ms is not None:
        return interval_ms
    from sim.plan.scheme_options import default_interval_ms

    return default_interval_ms(scheme)


def places_of(
    per_actor: int | None, cpus: float | None, *, stations: int, cloud_cpus: float, local: bool
) -> tuple[int, float]:
    """Return base stations in an actor and CPUs of each; what is None fits on this machine, if Ray runs here alone."""
    cores = os.cpu_count() or 1
    room = max(cores - cloud_cpus, 0.01)
    fits_cpus = min(0.25, math.floor(1000 * room / max(stations, 1)) / 1000) if local else 0.25
    fits_actors = max(1, math.ceil(stations / (ACTORS_PER_CORE * cores))) if local else 1
    return (fits_actors if per_actor is None else per_actor), (fits_cpus if cpus is None else cpus)


def link_file_plan(path: Path | None) -> LinkPlan:
    """Read a link file; None is perfect links.

    Raises:
        UserError: it cannot be read, or says what no link can do.
    """
    from fronthaul.errors import LocalError
    from fronthaul.link.link_file import LinkPlan, read_links
    from sim.errors import UserError

    if path is None:
        return LinkPlan()
    try:
        return read_links(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read --links {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--links {path} is no text file.") from error
    except LocalError as error:
        raise UserError(f"--links {path}: {error}.") from error


def links_with(plan: LinkPlan, texts: dict[str, str | None]) -> LinkPlan:
    """Return `plan` with options by their keys in a link file; None leaves what `plan` says.

    Raises:
        UserError: a text that does not parse, is out of range, or has no effect.
    """
    from fronthaul.errors import LocalError
    from fronthaul.link.link_file import with_options
    from sim.errors import UserError

    try:
        return with_options(plan, **texts)
    except LocalError as error:
        given = " ".join(f"--{key.replace('_', '-')} {text!r}" for key, text in texts.items() if text is not None)
        raise UserError(f"Link options {given}: {error}." if given else f"--links: {error}.") from error

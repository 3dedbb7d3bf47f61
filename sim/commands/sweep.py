"""`sweep`: many emulations, a list of values for each of some options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.commands import options
from sim.commands.common import LINKS, OUTPUT, TIMING, WHAT, console, parse_payload, stoppable

if TYPE_CHECKING:
    from rich.console import Console

LINK_OPTIONS = (
    "rate", "delay", "jitter", "jitter_shape", "loss", "burst", "duplicate", "reorder", "corrupt", "outage", "queue",
)  # fmt: skip


def _list(help_: str, panel: str, example: str, name: str | None = None) -> Any:
    return typer.Option(*([name] if name else []), help=f"List: {help_}", metavar=example, rich_help_panel=panel)


def _link_list(help_: str, example: str) -> Any:
    return typer.Option(
        help=f"List: {help_.rstrip('.')}; default: as in --links.",
        metavar=example,
        rich_help_panel=LINKS,
        show_default=False,
    )


def sweep(
    context: typer.Context,
    bits: Annotated[str, _list("payloads, as of `emulate`.", WHAT, "2,4,lossless,iq16,bfp9")] = "2,3,4,5",
    bs: Annotated[
        str | None,
        typer.Option(
            help="List: base stations; default: all sites of the scenario.",
            metavar="1,2,4,6", rich_help_panel=WHAT, show_default=False,
        ),
    ] = None,
    random_subset: options.RandomSubset = False,
    layout: options.Layout = None,
    seed: Annotated[str, _list("seeds of all random draws.", WHAT, "1,2,3")] = "1",
    interval: Annotated[str, _list("time between snapshots in ms.", TIMING, "10,30")] = "30",
    deadline: Annotated[str, _list("the cloud waits so many ms from a snapshot's time zero.", TIMING, "5,10")] = "1000",
    minimum_bs: Annotated[str, _list("reports that a fix needs at least.", TIMING, "1,3")] = "1",
    rate: Annotated[str | None, _link_list("line rate.", "1mbit,10mbit")] = None,
    delay: Annotated[str | None, _link_list("one-way delay.", "0,2ms,5ms")] = None,
    jitter: Annotated[str | None, _link_list("mean of the random delay on top.", "0,500us")] = None,
    jitter_shape: Annotated[str | None, _link_list("its distribution.", "uniform,pareto")] = None,
    loss: Annotated[str | None, _link_list("share of lost frames.", "0,5%,20%")] = None,
    burst: Annotated[str | None, _link_list("losses in bursts.", "'none,1% 25%'")] = None,
    duplicate: Annotated[str | None, _link_list("share of frames that arrive twice.", "0,1%")] = None,
    reorder: Annotated[str | None, _link_list("share of frames that skip the delay.", "1%,5%")] = None,
    corrupt: Annotated[str | None, _link_list("share of frames with flipped bits.", "0,1%")] = None,
    outage: Annotated[
        str | None,
        typer.Option(
            help="Times without a link after time zero, no list: commas part times; default: as in --links.",
            metavar="TIMES", rich_help_panel=LINKS, show_default=False,
        ),
    ] = None,
    queue: Annotated[str | None, _link_list("what may wait for the line.", "16kB,64kB")] = None,
    links: options.LinkFile = None,
    scenario: options.Scenario = None,
    scheme: options.Scheme = "ecc",
    snapshots: options.Snapshots = 500,
    steps: options.Steps = None,
    fusion: options.FusionRule = None,
    where: options.Where = None,
    option: options.Option = None,
    shuffle_csi: options.ShuffleCsi = False,
    weights: options.Weights = None,
    test: options.Test = None,
    window: options.Window = 0.0,
    round_: options.Round = 0.0,
    batch: options.Batch = 1,
    bundle: options.Bundle = 1,
    capture: Annotated[
        bool,
        typer.Option("--capture/--no-capture", help="Write frames as pcapng.", rich_help_panel=OUTPUT),
    ] = False,
    output: Annotated[
        Path, typer.Option(help="Folder of the sweep: table, picture, and each row's run.", rich_help_panel=OUTPUT)
    ] = Path("sweep"),
) -> None:  # fmt: skip
    """Emulate every combination of lists in process; table and plot of error against budget; stopped, it resumes."""
    given = locals()
    chosen = options.scheme_options(steps, fusion, where, option)
    world = options.scenario_of(scenario, scheme)
    bs = bs or str(options.stations_of(None, world, random_subset=random_subset))
    axes = {"bits": bits, "bs": bs, "seed": seed, "interval": interval, "deadline": deadline, "minimum_bs": minimum_bs}
    axes |= {name: given[name] for name in LINK_OPTIONS if given[name] is not None}
    from sim.plan.settings import EmulateSettings

    plan = options.link_file_plan(links)

    def settings_of(texts: Mapping[str, str]) -> EmulateSettings:
        named = {name.replace("-", "_"): text for name, text in texts.items()}
        resolution, forward = parse_payload(named["bits"])
        return EmulateSettings(
            scenario=world,
            scheme=scheme,
            bs=whole("bs", named["bs"]),
            random_subset=random_subset,
            layout=layout,
            bits=resolution,
            forward=forward,
            snapshots=snapshots,
            seed=whole("seed", named["seed"]),
            driver="process",
            interval_ms=real("interval", named["interval"]),
            deadline_ms=real("deadline", named["deadline"]),
            window_ms=window,
            round_ms=round_,
            minimum_bs=whole("minimum-bs", named["minimum_bs"]),
            bundle=bundle,
            links=options.links_with(plan, {name: named.get(name) for name in LINK_OPTIONS}),
            batch=batch,
            capture=capture,
            weights=weights,
            test=test,
            shuffle_csi=shuffle_csi,
            controls=False,
            options=chosen,
        )

    from sim.sweep.sweep import combinations, run_sweep
    from sim.terminal import ProgressBar

    lists = {
        name.replace("_", "-"): [text] if name == "outage" else values_of(name, text) for name, text in axes.items()
    }
    cases = combinations(lists, settings_of, output)
    told = f"Stopped; finished rows are in {output}, and the same command goes on from there."
    with stoppable(lambda: told), ProgressBar() as bar:

        def advance(name: str, done: int, total: int, begins: bool) -> None:
            bar.update("sweep", done, total, note=name, restart=begins)

        made = run_sweep(cases, output, shlex.join(["cofix", *(context.obj or ())]), advance)
    show_rows(console(), made.rows)
    for path in (made.table, made.text, made.picture):
        print(path)


def show_rows(out: Console, rows: list[dict[str, Any]]) -> None:
    """Print the table of a sweep."""
    from sim.sweep.sweep import EXPLAINED, PER_REPORT, body, heading
    from sim.terminal import new_table

    words = heading(rows)
    shown = [index for index, word in enumerate(words) if word != PER_REPORT]  # as wide as a terminal
    table = new_table(*(re.sub(r" (?=\[|\(|of all)", "\n", words[index]) for index in shown))
    for cells in body(rows):
        table.add_row(*(cells[index] for index in shown))
    out.print(table)
    out.print(EXPLAINED, soft_wrap=True)


def values_of(name: str, text: str) -> list[str]:
    """Return the values of a list.

    Raises:
        UserError: one of them is empty.
    """
    from sim.errors import UserError

    values = [value.strip() for value in text.split(",")]
    if not all(values):
        raise UserError(f"--{name.replace('_', '-')} must be values with commas between them, it is {text!r}.")
    return values


def whole(name: str, text: str) -> int:
    """Return a whole number.

    Raises:
        UserError: it is none.
    """
    from sim.errors import UserError

    if not text.removeprefix("-").isdecimal() or not text.isascii():
        raise UserError(f"--{name} must be whole numbers, such as 1,2; one is {text!r}.")
    return int(text)


def real(name: str, text: str) -> float:
    """Return a number.

    Raises:
        UserError: it is none.
    """
    from sim.errors import UserError

    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"--{name} must be numbers in ms, such as 5,10; one is {text!r}.") from error

"""`sweep`: many emulations, over lists of option values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fronthaul.link.link_config import IMPAIRMENTS
from sim.commands import options
from sim.commands.common import console, stoppable
from sim.errors import UserError
from sim.plan.setting import OUTPUT

if TYPE_CHECKING:
    from rich.console import Console

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


@options.takes(OPTIONS, defaults={"bits": "2,3,4,5", "capture": False}, lists=True)
def sweep(
    context: typer.Context,
    output: Annotated[
        Path, typer.Option(help="Folder of the sweep: table, picture, and each row's run.", rich_help_panel=OUTPUT)
    ] = Path("sweep"),
    **words: Any,
) -> None:
    """Emulate every combination of lists in process; table and plot of error against budget; can be resumed."""
    from sim.sweep.sweep import run_sweep
    from sim.terminal import ProgressBar

    cases = cases_of(words, output)
    told = f"Stopped; finished rows are in {output}, and the same command resumes."
    with stoppable(lambda: told), ProgressBar() as bar:

        def advance(name: str, done: int, total: int, begins: bool) -> None:
            bar.update("sweep", done, total, note=name, restart=begins)

        made = run_sweep(cases, output, shlex.join(["cofix", *(context.obj or ())]), advance)
    show_rows(console(), made.rows)
    for path in (made.table, made.text, made.picture):
        print(path)


def cases_of(words: Mapping[str, Any], output: Path) -> list[Case]:
    """Return every combination of the listed values; options have the same meaning as for `emulate`.

    Raises:
        UserError: a combination is impossible.
    """
    from sim.sweep.sweep import combinations

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


def show_rows(out: Console, rows: list[dict[str, Any]]) -> None:
    """Print the table of a sweep."""
    from sim.sweep.sweep import EXPLAINED, PER_REPORT, body, heading
    from sim.terminal import new_table, show_table

    words = heading(rows)
    shown = [index for index, word in enumerate(words) if word != PER_REPORT]  # as wide as a terminal
    table = new_table(*(re.sub(r" (?=\[|\(|of all)", "\n", words[index]) for index in shown))
    for cells in body(rows):
        table.add_row(*(cells[index] for index in shown))
    show_table(out, table)
    out.print(EXPLAINED, soft_wrap=True)


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

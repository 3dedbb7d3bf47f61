"""Options of `emulate`, `sweep` and `chaos` as command-line options, built from their declarations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sim.plan.options import OPTIONS, as_text, default_of, means, told_by
from sim.plan.setting import DRIVERS


def takes(
    names: Iterable[str], *, defaults: Mapping[str, Any] | None = None, lists: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the options `names`, passed as ``**words``, via its signature.

    Args:
        names: parameter names from `OPTIONS`; parameters that the command itself has take precedence.
        defaults: defaults that differ from the declarations.
        lists: whether options that can take a list do.
    """
    chosen = tuple(names)

    def sign(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = {
            name: it.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, it in signature.parameters.items()
            if it.kind is not inspect.Parameter.VAR_KEYWORD
        }
        made = {name: _parameter(name, defaults or {}, lists, "driver" in chosen) for name in chosen}
        every = {name: it for name, it in own.items() if name not in made} | made | own
        command.__signature__ = signature.replace(parameters=[*every.values()])  # type: ignore[attr-defined]
        return command

    return sign


def _parameter(name: str, defaults: Mapping[str, Any], lists: bool, drivers: bool) -> inspect.Parameter:
    """Return the parameter of an option; `drivers` tells whether the command lets users choose the driver."""
    kind, setting = OPTIONS[name]
    told = "" if name in defaults else setting.default
    default = defaults.get(name, default_of(name))
    text, metavar = setting.help, setting.metavar
    if lists and setting.listed:
        kind, metavar, text = str, setting.listed, f"List: {text[:1].lower()}{text[1:]}"
    if kind is str:
        default = as_text(default)
    if kind is bool and not default and not told and "/" not in setting.names[0]:
        told = "off"
    text += f" ({setting.unit})" if setting.unit else ""
    text += f"; 0: {setting.zero}" if setting.zero else ""
    text += f"; for --driver {setting.drivers[0]} only" if drivers and setting.drivers != DRIVERS else ""
    text += f"; default: {told}." if told else "."
    option = typer.Option(
        *(setting.names or (f"--{setting.option}",)),
        help=text,
        rich_help_panel=setting.panel,
        metavar=metavar,
        show_default=not told,
    )
    annotation = Annotated[kind if default is not None else kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _inherit(context: typer.Context, run: Path | None) -> Path | None:
    """Make a run's options the command's defaults."""
    if run is None:
        return None
    from sim.records.folder import RunFolder, read_configuration

    told = told_by(read_configuration(RunFolder(run)).settings)
    params = {str(each.name): each for each in context.command.params}
    # Read as if they were typed.
    typed = {name: value if isinstance(value, bool | list) else as_text(value) for name, value in told.items()}
    context.default_map = {
        name: [value] if getattr(params[name], "multiple", False) and not isinstance(value, list) else value
        for name, value in typed.items()
        if name in params
    }
    return run


FromRun = Annotated[
    Path | None,
    typer.Option(
        "--from-run",
        metavar="RUN",
        help="Folder of a run; its options are taken where none are given here; default: none.",
        callback=_inherit,
        is_eager=True,
        show_default=False,
    ),
]
"""Option of a command that `takes` options."""


def effective(context: typer.Context, words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without those of another run that mean nothing to the driver or scheme chosen here."""
    found = dict(words)
    for name in found.keys() & OPTIONS.keys():
        source = context.get_parameter_source(name)
        if source is None or source.name != "DEFAULT_MAP":
            continue
        if words["driver"] not in OPTIONS[name][1].drivers or not means(words["scheme"], name, str(words[name])):
            found[name] = default_of(name)
    return found


def given_options(context: typer.Context) -> list[str]:
    """Return the names of the options that the command line gives."""
    sources = {name: context.get_parameter_source(name) for name in OPTIONS}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]

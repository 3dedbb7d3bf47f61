"""Shared code of the commands: common options, parsing of option values, Ctrl-C."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.signals import like_ctrl_c

if TYPE_CHECKING:
    from rich.console import Console

USER_ERROR, INTERRUPTED = 2, 130
"""Exit statuses: bad input, stopped with Ctrl-C."""

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)]


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON and nothing else; default: tables.", show_default=False)
]


DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and do nothing; default: do it.", show_default=False)
]


def _hush(context: typer.Context, quiet: bool) -> bool:
    """Let nothing that the command prints be seen, but for errors, which are printed after it."""
    if quiet:
        context.with_resource(contextlib.redirect_stdout(io.StringIO()))
    return quiet


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", help="Print nothing but errors; default: results and a progress bar.", callback=_hush,
        show_default=False,
    ),
]  # fmt: skip


def print_json(value: Any) -> None:
    """Print a value as JSON; bytes are written in hexadecimal.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    print(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False, default=lambda data: bytes(data).hex()))


def require_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Check that `value` is one of the `known` ones.

    Raises:
        UserError: it is not.
    """
    from sim.errors import UserError, nearest_hint

    if value not in known:
        raise UserError(f"There is no --{option} {value!r}{nearest_hint(value, known)}.")


def emulate_command(scenario: str, stations: int, scheme: str, weights: Path, bits: str | None = None) -> str:
    """Return the command that emulates a scheme with weights that were just trained.

    Args:
        scenario: name or file, as the user gave it.
        stations: number of base stations.
        scheme: name of the scheme.
        weights: a file of the weights.
        bits: value of ``--bits``; None leaves the default.
    """
    words = ["emulate", "--scenario", scenario, "--scheme", scheme, "--bs", str(stations)]
    words += [] if bits is None else ["--bits", bits]
    return f"python cli.py {shlex.join([*words, '--weights', str(weights)])}"


def console() -> Console:
    """Return a console on standard output, 120 columns wide if it is not a terminal."""
    from rich.console import Console

    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=120)


@contextlib.contextmanager
def stoppable(sentence: Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into exit status 130, and print a sentence that tells what is on disk."""
    try:
        with like_ctrl_c():
            yield
    except KeyboardInterrupt:
        print(sentence(), file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None

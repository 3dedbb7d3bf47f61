"""Command line of the emulator: its commands and exit statuses. Implementations are imported on demand."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from sim.commands import (
    chaos,
    emulate,
    look,
    new_scheme,
    own_data,
    preview,
    report,
    reproduce,
    sweep,
    trace,
    train,
    twin,
)
from sim.commands.common import INTERRUPTED, USER_ERROR, JsonOption, console, print_json
from sim.cores import respect_quota
from sim.signals import end_undisturbed

_OUTPUT = (errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF)
"""What a standard output may fail with that is full, closed at its other end, or gone."""
_LONGEST = 2000
"""Characters of an error."""

app = typer.Typer(
    name="cofix",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"cofix {version('cofix')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the version and exit.",
            show_default=False,
        ),
    ] = False,
) -> None:
    """Emulate cooperative positioning over a limited fronthaul."""


for _command in (
    emulate.emulate,
    report.report,
    look.inspect,
    look.replay,
    look.audit,
    sweep.sweep,
    sweep.compare,
    chaos.chaos,
    preview.preview,
    trace.trace,
    train.train,
    twin.twin,
    new_scheme.new_scheme,
    reproduce.reproduce,
):
    app.command()(_command)


app.command("import")(own_data.import_source)
if Path(__file__).with_name("benchmarks").is_dir():  # in the source tree, not in the installed package
    app.command()(import_module("benchmarks.command").bench)


@app.command()
def keys(
    folder: Annotated[Path, typer.Argument(help="Folder to make and write them to.", show_default=False)],
    bs: Annotated[int, typer.Option(help="Number of base stations.")] = 6,
) -> None:
    """Make keys of cloud and base stations, for `emulate --keys FOLDER`."""
    from fronthaul.errors import LocalError
    from fronthaul.transport.new_keys import write_keys
    from sim.errors import UserError

    if not 1 <= bs <= 1 << 16:
        raise UserError(f"--bs must lie in 1..65536, it is {bs}: at least one base station is needed.")
    try:
        write_keys(folder, bs)
    except LocalError as error:
        raise UserError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    span = "bs-000.key" if bs == 1 else f"bs-000.key to bs-{bs - 1:03d}.key"
    for name, use in (
        ("cloud.key", "secret; for the cloud only"),
        ("allowed.toml", "for the cloud: the public key of each base station; no other is admitted"),
        ("cloud.pub", "for every base station: identifies the cloud"),
        (span, "secret; each for its own base station only"),
    ):
        print(f"{name:26s}  {use}")
    print(f"keys of the cloud and {bs} base stations are in {folder}")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what is installed, what is missing, what the machine leaves to a run, and what to do about it."""
    from rich.markup import escape
    from rich.table import Table

    from sim.doctor import examine

    table = Table(box=None, pad_edge=False, show_header=False)
    for overflow in (False, False, True, True):
        table.add_column(no_wrap=not overflow, overflow="fold")
    colours = {"ok": "green", "missing": "yellow", "broken": "red"}
    findings = [*examine()]
    fatal = sum(finding.required and finding.state != "ok" for finding in findings)
    if as_json:
        print_json({"emulate_can_run": not fatal, "findings": [dataclasses.asdict(finding) for finding in findings]})
        raise typer.Exit(1 if fatal else 0)
    for finding in findings:
        colour = "red" if finding.required and finding.state != "ok" else colours[finding.state]
        told = map(escape, (finding.name, finding.detail, finding.advice))  # an extra in brackets is no markup
        table.add_row(f"[{colour}]{finding.state}[/{colour}]", *told)
    out = console()
    out.print(table)
    if fatal:
        out.print(f"[red]`emulate` cannot run: {fatal} requirement(s) above are not met.[/red]")
        raise typer.Exit(1)
    out.print("[green]`emulate` can run.[/green]")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status.

    It is 0, 1 (something does not hold), 2 (bad input, or a file or output that cannot be used) or 130 (Ctrl-C).
    """
    from fronthaul.errors import FronthaulError
    from sim.errors import UserError

    words = sys.argv[1:] if arguments is None else arguments
    _accept_any_output()
    respect_quota()
    try:
        # `obj` is available to commands as `context.obj`: the command-line arguments.
        status = int(app(words, prog_name="cofix", standalone_mode=False, obj=words) or 0)
        sys.stdout.flush()
        return status
    except OSError as error:
        print(one_sentence(_cannot(error)), file=sys.stderr)
    except (UserError, FronthaulError) as error:
        print(one_sentence(str(error)), file=sys.stderr)
    except typer.TyperException as error:  # unknown command or option, a value of the wrong type
        print(one_sentence(error.format_message()), file=sys.stderr)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
    return USER_ERROR


def _accept_any_output() -> None:
    """Have characters that the terminal cannot show replaced, and nothing written where output is closed."""
    sys.stdout = io.StringIO() if sys.stdout is None else sys.stdout
    sys.stderr = io.StringIO() if sys.stderr is None else sys.stderr
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _cannot(error: OSError) -> str:
    """Return a sentence on a file, or on standard output, that the system refuses."""
    why = error.strerror or str(error)
    if error.filename is None and error.errno in _OUTPUT:  # files are written by `whole_file`, which names them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again at its end
        return f"The output cannot be written: {why}. Files that the command wrote are complete."
    return f"Cannot use {error.filename}: {why}." if error.filename else f"The system refuses: {why}."


def one_sentence(text: str) -> str:
    """Return `text` on one line, without its middle if it quotes more than anybody would read."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"


def run() -> None:
    """Run the command of the command line and end the process."""
    status = main()
    if status == INTERRUPTED:
        end_undisturbed()
    sys.exit(status)


if __name__ == "__main__":
    run()

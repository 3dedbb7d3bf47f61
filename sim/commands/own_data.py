"""`import`: a scenario of one's own channels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.commands.common import Quiet


def import_source(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="File or folder of channels or paths with positions.", show_default=False
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the scenario; default: that of the source, without its ending.", show_default=False),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A field that the source does not have, or a better value of it, as JSON: --field 'array=[2, 2, 1]'; "
            "may be given repeatedly, a text names a file of numbers (.csv, .npy); default: none.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[int, typer.Option(metavar="N", help="Take one of N positions with measured channels.", min=1)] = 1,
    tone_every: Annotated[int, typer.Option(metavar="N", help="Take one of N of their tones.", min=1)] = 1,
    quiet: Quiet = False,
) -> None:
    """Make a scenario of channels that were measured, or of paths that something else traced."""
    from sim.commands.common import emulate_command
    from sim.commands.tracing import save_data_set
    from sim.errors import UserError
    from sim.files import whole_folder, write_text
    from sim.formats.plausible import doubts
    from sim.formats.read import read_source
    from sim.terminal import ProgressBar
    from sim.toml.write import toml_text
    from sim.world.scenario import is_name
    from sim.world.store import ASSET_FOLDER, CHECKPOINT_FOLDER, DATA_FOLDER

    name = name or source.stem
    if not is_name(name):
        raise UserError(f"{name!r} is no name: letters, digits, dots, dashes and underscores, 64 at most; give --name.")
    folder = DATA_FOLDER / name
    if folder.exists() or (ASSET_FOLDER / name).exists():
        raise UserError(f"There are data of a scenario {name!r} already: give another --name, or remove {folder}.")
    with ProgressBar(quiet=quiet) as bar:
        own = read_source(
            source, name, dict(map(_parsed, field or ())), every=every, tone_every=tone_every,
            on_progress=lambda done, size: bar.update("reading [MB]", round(done / 1e6, 1), round(size / 1e6, 1)),
        )  # fmt: skip
    with whole_folder(folder) as part:
        save_data_set(own.scenario, own.paths, part)
        write_text(part / f"{name}.toml", toml_text(own.table))
    heard = own.paths.heard
    what = "measured channels" if len(own.paths.csi) else f"{len(own.paths.delay)} paths"
    print(
        f"{len(own.paths)} positions, each heard by {heard.sum(1).mean():.1f} of {own.paths.sites} sites, {what}: "
        f"{folder / f'{name}.toml'}"
    )
    for doubt in doubts(own.scenario, own.paths) if len(own.paths.csi) else ():
        print(f"Note: {doubt}")
    scenario = str(folder / f"{name}.toml")
    print(f"python cli.py train rss --scenario {scenario}")
    weights = CHECKPOINT_FOLDER / name / "rss.safetensors"
    print(emulate_command(scenario, own.paths.sites, "rss", weights))


def _parsed(text: str) -> tuple[str, object]:
    """Return name and value of NAME=VALUE."""
    from fronthaul.documents import parse_json
    from fronthaul.errors import LocalError
    from sim.errors import UserError

    name, _, value = text.partition("=")
    try:
        return name.strip(), parse_json(value)
    except LocalError as error:
        raise UserError(f"--field is NAME=VALUE, the value as JSON, it is {text!r}: {error}.") from error

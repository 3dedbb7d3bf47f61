"""`new-scheme`: a package to begin a scheme of one's own with."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path
from typing import Annotated

import typer

_TAKEN = ("cli", "cloud", "cofix", "edge", "fronthaul", "sim", "train")
_TEMPLATE = Path(__file__).resolve().parents[1] / "template"
_FILES = {
    "pyproject.toml": "pyproject.toml",
    "{module}.py": "scheme.py",
    "train.py": "train.py",
    "test_{module}.py": "test_scheme.py",
}


def new_scheme(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the scheme.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option(help="Folder to write to; default: cofix-NAME, here.", show_default=False)
    ] = None,
) -> None:
    """Write a package with a scheme that runs, its training and its test, to begin one's own with."""
    from sim.errors import UserError
    from sim.files import write_text

    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UserError(f"A name has small letters, digits and single hyphens, such as my-scheme; it is {name!r}.")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in _TAKEN:
        raise UserError(f"{name!r} is the name of a module of Python or of this package: choose another.")
    if name in entry_points(group="cofix.edge").names:
        raise UserError(f"There is a scheme {name!r} already.")
    if module in packages_distributions():
        raise UserError(f"{name!r} is the name of a module that is installed: choose another.")
    folder = output or Path(f"cofix-{name}")
    if folder.name == module:  # beside such a folder Python imports it as a namespace package, and not the module
        raise UserError(f"The folder may not be called {module}, as the module in it is: name another --output.")
    if folder.exists():
        raise UserError(f"{folder} is there already: name another --output.")
    for target, source in _FILES.items():
        text = (_TEMPLATE / f"{source}.txt").read_text(encoding="utf-8")
        path = folder / target.format(module=module)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text.format(name=name, module=module))
        print(path)
    print(f"pip install -e {folder} && python cli.py emulate --scheme {name} --bits 4")

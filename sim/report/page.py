"""The report as one HTML file: a template, a style sheet and a script that draw the data beside them in the file.

The pictures are SVG that some 400 lines of JavaScript draw. A plotting library was the other choice: Plotly's smallest
bundle for such charts has 1 MB, the one in its Python package more than 4 MB, and choosing positions on a map and a
distribution together would take a script of one's own all the same. So a report of 1000 fixes of six base stations has
0.4 MB, most of it the run's numbers. It opens offline: its content security policy forbids any request.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

from sim.errors import UserError
from sim.files import write_text
from sim.report.run_data import run_data

_PARTS = Path(__file__).parent


def write_report(runs: Sequence[Path], path: Path) -> None:
    """Write the report of finished runs.

    Args:
        runs: their folders, each once; several are compared.
        path: HTML file to write.

    Raises:
        UserError: a folder is not a finished run's or is given twice, a table is damaged, or `path` cannot be written.
    """
    places = [folder.resolve() for folder in runs]
    if twice := [folder for folder in runs if places.count(folder.resolve()) > 1]:
        raise UserError(f"{twice[0]} is given twice: a run is compared with others.")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"The report cannot be written to {path}: give a file in a folder that is there.")
    write_text(path, page([run_data(folder) for folder in runs]))


def page(runs: Sequence[dict[str, object]]) -> str:
    """Return the page for what `run_data` returns of each run."""
    names = ", ".join(str(run["name"]) for run in runs)
    return filled("page.html", html.escape(f"Report: {names}"), part("pictures.js") + "\n" + part("page.js"), runs)


def filled(template: str, title: str, script: str, data: object) -> str:
    """Return a template with the style sheet, a title (HTML), a script, and the data that the script draws."""
    told = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    text = part(template)
    for name, content in (
        ("title", title),
        ("style", part("page.css")),
        ("script", script),
        ("data", told.replace("<", "\\u003c")),  # nothing in a text can end the element; last: it may hold braces
    ):
        text = text.replace(f"{{{{{name}}}}}", content, 1)
    return text


def part(name: str) -> str:
    """Return the text of a template, style sheet or script beside this file."""
    return (_PARTS / name).read_text(encoding="utf-8").rstrip("\n")

"""Writers of the files that a user sees, written atomically (`fronthaul.files.whole_file`); the limit of open files."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fronthaul.files import whole_file
from sim.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 120
_COLOURS = 64


def require_writable(path: Path) -> None:
    """Check that a file can be written, before hours of work that end with it. Nothing is left behind.

    Raises:
        OSError: it cannot; the error names it.
    """
    there = next(folder for folder in path.parents if folder.exists())  # its own folder, or where that will be made
    if not there.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(there))
    probe = there / f".{path.name}.{os.getpid()}.part"
    try:
        probe.write_bytes(b"")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        probe.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder to write to; it becomes `path` when the block ends without an error, and is removed otherwise.

    Raises:
        OSError: it cannot be made, or `path` exists and is not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as temporary:
        made = Path(temporary) / path.name
        made.mkdir()
        yield made
        made.rename(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file for people to read.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_rows(path: Path, rows: Sequence[Any] | dict[str, Any]) -> None:
    """Write a JSON list or table with one row per line: compact, and a changed row changes only one line."""

    def dense(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    if isinstance(rows, dict):
        text = "{\n" + ",\n".join(f"{dense(key)}:{dense(row)}" for key, row in rows.items()) + "\n}\n"
    else:
        text = "[\n" + ",\n".join(map(dense, rows)) + "\n]\n"
    write_text(path, text)


def write_vector_picture(figure: Figure, path: Path) -> None:
    """Write a figure as PDF or SVG, by the ending of `path`; the same figure gives the same bytes."""
    import matplotlib as mpl

    drawn = io.BytesIO()
    undated = {".pdf": "CreationDate", ".svg": "Date"}[path.suffix]
    with mpl.rc_context({"svg.hashsalt": "figure", "svg.fonttype": "none", "pdf.fonttype": 42}):
        figure.savefig(drawn, format=path.suffix[1:], metadata={undated: None})
    write_bytes(path, drawn.getvalue())


def write_picture(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file with a palette of few colours, a third of the size of full colour."""
    from PIL import Image

    drawn, reduced = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=_DPI, format="png")
    with Image.open(drawn) as image:
        plain = image.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        plain.save(reduced, format="png", optimize=True)
    write_bytes(path, reduced.getvalue())


def allow_open_files(count: int) -> None:
    """Raise this process's limit of open files to `count`.

    Raises:
        UserError: the system does not allow so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise UserError(f"So many base stations need {count} open files, the system allows {hard}.")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))

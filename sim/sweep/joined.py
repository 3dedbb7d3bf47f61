"""Rows of several sweeps in one table and picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fronthaul.documents import read_json
from fronthaul.errors import LocalError
from sim.errors import UserError
from sim.sweep.sweep import Row, Sweep, write_sweep

NAME = "compare"
_NEEDED = ("scenario", "settings", "run", "side_bits_per_fix", "bound_m")


def sweep_rows(folder: Path) -> list[Row]:
    """Return the rows of a finished sweep.

    Raises:
        UserError: the folder is not a sweep's, or is of an earlier version of the program.
    """
    try:
        rows = [dict(row) for row in read_json(folder / "sweep.json")["rows"]]
    except (OSError, LocalError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{folder} is not a sweep's folder: its sweep.json is missing or damaged.") from error
    if not rows or any(name not in row for row in rows for name in _NEEDED):
        raise UserError(f"The sweep in {folder} is of an earlier version: remove its sweep.json and run it again.")
    return rows


def compare(folders: Sequence[Path], output: Path, command: str) -> Sweep:
    """Write ``compare.json``, ``compare.md`` and the pictures of several sweeps' rows to `output`.

    Where rows of two sweeps have the same options, the sweep's name tells them apart.

    Args:
        folders: of the sweeps, each once.
        output: folder to write to; made if it is not there.
        command: command line of the user, for the record.

    Raises:
        UserError: a folder is not a sweep's or is given twice, or `output` holds the comparison of another command.
    """
    places = [folder.resolve() for folder in folders]
    if twice := [folder for folder in folders if places.count(folder.resolve()) > 1]:
        raise UserError(f"{twice[0]} is given twice: a sweep is compared with others.")
    rows: list[Row] = []
    for folder in folders:
        for row in sweep_rows(folder):
            settings = {"scenario": row["scenario"], **row["settings"]}
            rows.append({**row, "settings": settings, "sweep": folder.name, "run": str(folder / row["run"])})
    for row in rows:
        if sum(row["settings"] == other["settings"] for other in rows) > 1:
            rows = [{**each, "settings": {"sweep": each["sweep"], **each["settings"]}} for each in rows]
            break
    _require_own(output, command)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to --output {output}: {error.strerror}.") from error
    return write_sweep(rows, output, command, NAME)


def _require_own(output: Path, command: str) -> None:
    table = output / f"{NAME}.json"
    try:
        stored = read_json(table)["command"] if table.is_file() else command
    except (OSError, LocalError, LookupError, TypeError):  # damaged: there is nothing to keep
        return
    if stored != command:
        raise UserError(f"{table} is of another command: name another --output, or remove the file.")

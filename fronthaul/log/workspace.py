"""The folder where an end of the fronthaul keeps its streams: the run's, or a temporary one on another machine."""

from __future__ import annotations

import shutil
import tempfile
from hashlib import sha256
from pathlib import Path


class Workspace:
    """A folder for streams, whose files are returned at the end if the run's folder is on another machine."""

    def __init__(self) -> None:
        """Start without a folder."""
        self._shipped: Path | None = None

    def open(self, folder: Path, here: bool) -> Path:
        """Return the folder for the streams; `here` is whether `folder` is on this machine."""
        if here:
            return folder
        self._shipped = Path(tempfile.mkdtemp(prefix=_prefix(folder)))
        return self._shipped

    def ship(self) -> dict[str, bytes]:
        """Return the files by name and remove them; empty if they are already in the run's folder."""
        if self._shipped is None:
            return {}
        files = _taken(self._shipped)
        self._shipped = None
        return files


def ship_leftovers(folder: Path) -> dict[str, bytes]:
    """Return by name, and remove, the files that dead processes of the run with `folder` left on this machine."""
    files: dict[str, bytes] = {}
    for left in Path(tempfile.gettempdir()).glob(f"{_prefix(folder)}*"):
        files |= _taken(left)
    return files


def _prefix(folder: Path) -> str:
    return f"cofix-{sha256(str(folder).encode()).hexdigest()[:16]}-"


def _taken(folder: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    return files

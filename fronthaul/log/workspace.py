"""Where an end of the fronthaul keeps its streams: the run's folder, or a temporary one on another machine."""

from __future__ import annotations

import shutil
import tempfile
from hashlib import sha256
from pathlib import Path


class Workspace:
    """A folder for streams, shipped home at the end where the run's folder is on another machine."""

    def __init__(self) -> None:
        """Begin without a folder."""
        self._shipped: Path | None = None

    def open(self, folder: Path, here: bool) -> Path:
        """Return where to put the streams; `here` says whether `folder` is on this machine."""
        if here:
            return folder
        self._shipped = Path(tempfile.mkdtemp(prefix=_prefix(folder)))
        return self._shipped

    def ship(self) -> dict[str, bytes]:
        """Return the files by name and remove them; empty where they lie in the run's folder already."""
        if self._shipped is None:
            return {}
        files = _taken(self._shipped)
        self._shipped = None
        return files


def ship_leftovers(folder: Path) -> dict[str, bytes]:
    """Return and remove what processes that died left on this machine for the run that has `folder`, by name."""
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

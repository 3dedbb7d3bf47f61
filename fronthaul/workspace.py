"""Where an end of the fronthaul keeps its streams: the run's folder, or a temporary one on another machine."""

from __future__ import annotations

import shutil
import tempfile
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
        self._shipped = Path(tempfile.mkdtemp(prefix="cofix-"))
        return self._shipped

    def ship(self) -> dict[str, bytes]:
        """Return the files by name and remove them; empty where they lie in the run's folder already."""
        if self._shipped is None:
            return {}
        files = {path.name: path.read_bytes() for path in self._shipped.iterdir()}
        shutil.rmtree(self._shipped)
        self._shipped = None
        return files

"""Streams that are kept on another machine: a base station's, on the driver's node.

A machine may be lost with its disk, so nothing is kept there. Each write goes to a keeper on the driver's node at once,
and in order; the writer waits for it in `settle` only, which a recorder calls before a message leaves:

    base station          keeper on the driver's node
      | journal row ------------> written
      | settle <----------------- done
      | message leaves
      | stage times ------------> written
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from fronthaul.errors import LocalError
from fronthaul.log.stream_names import start_of


class Keeper:
    """Writes the streams of others into a folder of this machine.

    It holds no state, and the same write twice is as good as once: it may be started again at any time.
    """

    def __init__(self, folder: Path) -> None:
        """Write to `folder`, which exists."""
        self._folder = folder

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write `data` at `offset` [B] of the stream `name`.

        Raises:
            LocalError: the name is not a stream's.
            OSError: the disk is full.
        """
        with self._file(name) as file:
            file.seek(offset)
            written = 0
            while written < len(data):  # the disk had space for a part: the next write raises the error
                written += file.write(data[written:] if written else data)

    def truncate(self, name: str, size: int) -> None:
        """Cut the stream `name` back to `size` [B].

        Raises:
            LocalError: the name is not a stream's.
        """
        with self._file(name) as file:
            file.truncate(size)

    def _file(self, name: str) -> Any:
        if start_of(name) is None or Path(name).name != name:
            raise LocalError(f"{name!r} is not the name of a stream")
        return os.fdopen(os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666), "wb", 0)


class Calls(Protocol):
    """Calls of a keeper on another machine, carried out one after the other."""

    def write(self, name: str, offset: int, data: bytes) -> Any:
        """Begin `Keeper.write`; return the call."""

    def truncate(self, name: str, size: int) -> Any:
        """Begin `Keeper.truncate`; return the call."""

    def await_all(self, calls: list[Any]) -> None:
        """Wait until calls have ended.

        Raises:
            OSError: one of them raised it.
            LocalError: the keeper cannot be reached.
        """


class RemoteFolder:
    """The folder of a keeper on another machine."""

    def __init__(self, calls: Calls) -> None:
        """Write by `calls`."""
        self.calls = calls
        self.begun: list[Any] = []

    def __truediv__(self, name: str) -> RemotePath:
        """Return the path of a stream in the folder."""
        return RemotePath(self, name)

    def settle(self) -> None:
        """Wait until everything that was written so far is on the keeper's disk.

        Raises:
            LocalError: it is not: the disk there is full, or the keeper cannot be reached.
        """
        begun, self.begun = self.begun, []
        try:
            self.calls.await_all(begun)
        except OSError as error:
            raise LocalError(f"a stream cannot be written on the driver's node: {error.strerror or error}") from error


class RemotePath:
    """The path of a stream on another machine."""

    def __init__(self, folder: RemoteFolder, name: str) -> None:
        """Name a stream in `folder`."""
        self._folder = folder
        self.name = name

    def exists(self) -> bool:
        """Return False: starts have names of their own, and a process writes each of its streams once."""
        return False

    def open(self, mode: str, *, buffering: int) -> RemoteFile:
        """Create the file; `mode` and `buffering` are those of a file that is only written, without a buffer."""
        return RemoteFile(self._folder, self.name)

    def __str__(self) -> str:
        """Return the name."""
        return f"{self.name} (on the driver's node)"


class RemoteFile:
    """A file on another machine, with the methods of a local one that streams use.

    Attributes:
        closed: whether it is closed.
    """

    def __init__(self, folder: RemoteFolder, name: str) -> None:
        """Write the stream `name` from its beginning."""
        self._folder = folder
        self._name = name
        self._offset = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Begin to write `data` at the end; return its length [B]. Errors are raised by `RemoteFolder.settle`."""
        self._folder.begun.append(self._folder.calls.write(self._name, self._offset, data))
        self._offset += len(data)
        return len(data)

    def truncate(self, size: int) -> None:
        """Begin to cut the file back to `size` [B]."""
        self._folder.begun.append(self._folder.calls.truncate(self._name, size))

    def seek(self, offset: int) -> None:
        """Go on at `offset` [B]."""
        self._offset = offset

    def close(self) -> None:
        """Write no more."""
        self.closed = True


Folder = Path | RemoteFolder
"""Where an end keeps its streams."""
StreamPath = Path | RemotePath
"""Where a stream is kept."""

"""The streams of a run that goes on, read as far as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fronthaul.errors import LocalError
from fronthaul.log.arrow_batches import StreamFile
from fronthaul.log.stream_names import CloudStart, EdgeStart, start_of, streams

if TYPE_CHECKING:
    import pyarrow as pa


class Further(NamedTuple):
    """Rows that were appended to a stream.

    Attributes:
        start: the start of a base station or the cloud that wrote them.
        metadata: properties of the stream.
        rows: the rows, in order.
    """

    start: EdgeStart | CloudStart
    metadata: dict[bytes, bytes]
    rows: pa.RecordBatch


class Tail:
    """Reads each stream of a run's folder of links once, bit by bit."""

    def __init__(self, links: Path) -> None:
        """Take the folder; its streams may be made later."""
        self._links = links
        self._files: dict[Path, StreamFile] = {}

    def further(self, kind: str) -> Iterator[Further]:
        """Yield what was appended to the streams of a kind, such as `SENT`, since the last call for it."""
        for path in streams(self._links, kind):
            start = start_of(path.name)
            assert start is not None
            with contextlib.suppress(FileNotFoundError, LocalError):  # at its end the run removes its streams
                if path not in self._files:
                    self._files[path] = StreamFile(path)
                file = self._files[path]
                for rows in file.further():
                    yield Further(start, file.schema.metadata or {}, rows)

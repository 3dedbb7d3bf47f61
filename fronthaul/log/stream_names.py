"""File names of a run's link records, composed and parsed here.

bs-003-epoch-1-sent.arrow                     a stream of a base station's start
cloud-0-received.arrow                        a stream of an incarnation of the cloud
bs-003.parquet, bs-003.pcapng                 ledger and capture of a link, from all of its streams
unknown.parquet                               ledger of connections that belong to no base station
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from fronthaul.transport.identity import bs_of, identity

SENT, RECEIVED, CONNECTIONS, EVENTS = "-sent.arrow", "-received.arrow", "-connections.arrow", "-events.arrow"
"""Name endings of the streams that every end writes (`Recorder`)."""
STAGES = "-stages.arrow"
"""Name ending of a base station's stage times."""
FIXES = "-fixes.arrow"
"""Name ending of the cloud's fixes."""
CAPTURE = ".pcapng"
"""Name ending of the capture of a link."""
LEDGER = ".parquet"
"""Name ending of the ledger of a link."""

_UNKNOWN = "unknown"
_START = re.compile(r"(?:(bs-\d+)-epoch-(\d{1,9})|cloud-(\d{1,9}))(?:[-.].*)?", re.ASCII)


class EdgeStart(NamedTuple):
    """A start of a base station: its number and epoch."""

    bs: int
    epoch: int


class CloudStart(NamedTuple):
    """A start of the cloud: the number of earlier starts."""

    incarnation: int


def edge_name(bs: int, epoch: int) -> str:
    """Return the name of the streams of a base station's start."""
    return f"{link_name(bs)}-epoch-{epoch}"


def incarnation_name(incarnation: int) -> str:
    """Return the name of the streams of the cloud's start number `incarnation`."""
    return f"cloud-{incarnation}"


def start_of(name: str) -> EdgeStart | CloudStart | None:
    """Return the start that a stream belongs to, from its file name or the name of its start; None for other names."""
    match = _START.fullmatch(name)
    if match is None:
        return None
    station, epoch, incarnation = match.groups()
    if station is None:
        return CloudStart(int(incarnation))
    bs = bs_of(station.encode())
    return None if bs is None else EdgeStart(bs, int(epoch))


def streams(folder: Path, kind: str, bs: int | None = None) -> list[Path]:
    """Return the streams in a folder, in order of starts.

    Args:
        folder: folder of the streams.
        kind: ending of their names, such as `SENT`.
        bs: only streams of this base station; None for those of all base stations and the cloud.
    """
    begin = "" if bs is None else f"{link_name(bs)}-"
    names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208  a tenth of glob's time
    found = [name for name in names if name.endswith(kind) and name.startswith(begin) and start_of(name) is not None]
    return [folder / name for name in sorted(found, key=lambda name: (len(name), name))]


def link_name(bs: int | None) -> str:
    """Return the base name of a link's files; None stands for connections that belong to no base station."""
    return _UNKNOWN if bs is None else identity(bs).decode()


def ledgers(folder: Path) -> dict[int | None, Path]:
    """Return the ledgers in a folder by base station; None stands for connections that belong to no base station."""
    paths = {bs_of(path.stem.encode()): path for path in sorted(folder.glob(f"*{LEDGER}"))}
    paths.pop(None, None)
    unknown = folder / f"{_UNKNOWN}{LEDGER}"
    return {**paths, **({None: unknown} if unknown.is_file() else {})}

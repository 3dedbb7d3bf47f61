"""Names of what is written down of a run's links: each is made here and read here.

bs-003-epoch-1-sent.arrow                     a stream of a base station's start
cloud-0-received.arrow                        a stream of an incarnation of the cloud
bs-003.parquet, bs-003.pcapng                 what is made of all streams of a link
unknown.parquet                               the same of connections that are no base station's
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from fronthaul.transport.identity import bs_of, identity

SENT, RECEIVED, CONNECTIONS, EVENTS = "-sent.arrow", "-received.arrow", "-connections.arrow", "-events.arrow"
"""Ends of the names of the streams that every end writes (`Recorder`)."""
STAGES = "-stages.arrow"
"""Of a base station's stage times."""
FIXES = "-fixes.arrow"
"""Of the cloud's fixes."""
CAPTURE = ".pcapng"
"""Of the capture of a link."""
LEDGER = ".parquet"
"""Of the ledger of a link."""

_UNKNOWN = "unknown"
_START = re.compile(r"(?:(bs-\d+)-epoch-(\d{1,9})|cloud-(\d{1,9}))(?:[-.].*)?", re.ASCII)


class EdgeStart(NamedTuple):
    """A start of a base station: its number and epoch."""

    bs: int
    epoch: int


class CloudStart(NamedTuple):
    """A start of the cloud: how many there were before."""

    incarnation: int


def edge_name(bs: int, epoch: int) -> str:
    """Return the name of the streams of a base station's start."""
    return f"{link_name(bs)}-epoch-{epoch}"


def incarnation_name(incarnation: int) -> str:
    """Return the name of the streams of the cloud's start number `incarnation`."""
    return f"cloud-{incarnation}"


def start_of(name: str) -> EdgeStart | CloudStart | None:
    """Return whose stream it is, given the name of its file or of all streams of that start; None for other names."""
    match = _START.fullmatch(name)
    if match is None:
        return None
    station, epoch, incarnation = match.groups()
    if station is None:
        return CloudStart(int(incarnation))
    bs = bs_of(station.encode())
    return None if bs is None else EdgeStart(bs, int(epoch))


def streams(folder: Path, kind: str, bs: int | None = None) -> list[Path]:
    """Return the streams in a folder, in the order of starts.

    Args:
        folder: of the streams.
        kind: end of their names, such as `SENT`.
        bs: those of this base station alone; None for those of all base stations and the cloud.
    """
    found = []
    for path in folder.glob(f"*{kind}"):
        start = start_of(path.name)
        if start is not None and (bs is None or (isinstance(start, EdgeStart) and start.bs == bs)):
            found.append(path)
    return sorted(found, key=lambda path: (len(path.name), path.name))


def link_name(bs: int | None) -> str:
    """Return what the files of a link are called; None stands for connections that are no base station's."""
    return _UNKNOWN if bs is None else identity(bs).decode()


def ledgers(folder: Path) -> dict[int | None, Path]:
    """Return the ledgers in a folder by base station; None stands for connections that are no base station's."""
    paths = {bs_of(path.stem.encode()): path for path in sorted(folder.glob(f"*{LEDGER}"))}
    paths.pop(None, None)
    unknown = folder / f"{_UNKNOWN}{LEDGER}"
    return {**paths, **({None: unknown} if unknown.is_file() else {})}

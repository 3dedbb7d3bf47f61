"""A cloud that starts at `T0`, and what the streams of its incarnations hold."""

from pathlib import Path
from typing import Any

from tiny_nodes import MS, cloud_parts, office

from cloud.fixlog import FixRecord, read_fixes
from fronthaul.log.arrow_stream import read_stream
from fronthaul.log.received import read_received
from fronthaul.log.sent import amended, read_journal
from fronthaul.log.stream_names import EVENTS

T0 = 1000 * MS


def fixes(folder: Path, incarnation: int = 0) -> list[FixRecord]:
    return read_fixes(folder / f"cloud-{incarnation}-fixes.arrow")


def fates(folder: Path, incarnation: int = 0) -> list[str | None]:
    rows = read_received(folder / f"cloud-{incarnation}-received.arrow").to_pylist()
    return [row["frame_fate"] for row in rows if row["frame_fate"] is not None]


def sent(folder: Path, incarnation: int = 0) -> list[dict[str, Any]]:
    return amended(read_journal(folder / f"cloud-{incarnation}-sent.arrow").to_pylist())


def events(folder: Path, kind: str) -> list[str]:
    return [row["detail"] for row in read_stream(folder / f"cloud-0{EVENTS}").to_pylist() if row["kind"] == kind]


def in_rounds(folder: Path, **changes: Any) -> Any:
    return office(folder, cloud_parts(2, rounds=True, **changes))

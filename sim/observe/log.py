"""The structured log of a run: one JSON object a line, of what its ends recorded and of what the driver says.

    {"time": "2026-11-28T18:16:12.250310Z", "level": "WARNING", "run": "…", "bs": 1, "snapshot": 7,
     "event": "dropped", "message": "loss", "direction": "up"}

`bs` and `snapshot` are there where an event has one, `time` is when it happened. On the simulated clock it is when the
line was written, and `run_s` is the run's own time [s]. Base stations and cloud write no log: lines come from the
streams that they record anyway, wherever they run, and include what a process recorded before it died. Warnings of
Python and of libraries in the driver are lines, too.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from fronthaul.log.stream_names import EVENTS, FIXES, RECEIVED, SENT, EdgeStart, start_of
from fronthaul.message.fates import FrameFate
from fronthaul.message.wire import report_keys
from sim.errors import UserError, reason
from sim.plan.plan import Plan
from sim.records.tail import Further, Tail

PERIOD_S = 0.5
"""Least time between two looks at the streams [s]."""
STANDARD_ERROR = Path("-")
_SNAPSHOT = re.compile(r"snapshot (\d+)\b")
"""How the cloud's events of a snapshot begin."""
_LOGGER = logging.getLogger("cofix")


class JsonLines(logging.Formatter):
    """Formats records as JSON; `fields` of a record, if it has any, stand beside the common ones."""

    def __init__(self, run: str) -> None:
        """Take the name of the run, which every line has."""
        super().__init__()
        self._run = run

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = {"event": record.name, **getattr(record, "fields", {})}
        t_ns = fields.pop("t_ns", None)
        stamp = datetime.fromtimestamp(record.created if t_ns is None else t_ns / 1e9, UTC)
        line = {"time": f"{stamp:%Y-%m-%dT%H:%M:%S.%f}Z", "level": record.levelname, "run": self._run}
        message = record.getMessage() + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")
        for name in ("bs", "snapshot"):
            if (value := fields.pop(name, None)) is not None:
                line[name] = value
        return json.dumps(line | {"event": fields.pop("event"), "message": message} | fields, ensure_ascii=False)


class RunLog:
    """The log of one run while it goes on."""

    def __init__(self, links: Path, *, simulated: bool) -> None:
        """Begin to follow the streams in `links`, with times of the wall clock or of a simulated one."""
        self._tail = Tail(links)
        self._simulated = simulated
        self._next_s = 0.0

    def follow(self) -> None:
        """Do `read`, at most once a `PERIOD_S`."""
        if time.monotonic() >= self._next_s:
            self.read()
            self._next_s = time.monotonic() + PERIOD_S

    def read(self) -> None:
        """Write what has been appended to the streams since the last call, in order of time."""
        found = [line for kind, lines in _LINES.items() for more in self._tail.further(kind) for line in lines(more)]
        for t_ns, level, event, message, fields in sorted(found, key=lambda line: line[0]):
            when = {"run_s": t_ns / 1e9} if self._simulated else {"t_ns": t_ns}
            _say(level, event, message, **fields, **when)

    def end(self, summary: dict[str, Any]) -> None:
        """Write what only the closed books tell: notes, restarts, base stations that are missing, totals."""
        for note in summary["notes"]:
            _say(logging.WARNING, "note", note)
        for restart in summary["restarts"]:
            back = "not back at the end" if restart["t_back_ns"] is None else "restarted"
            lost = " with its node" if restart["node_lost"] else ""
            _say(logging.WARNING, "restart", f"{restart['name']} died{lost}, {back}", t_ns=restart["t_died_ns"])
        for bs in summary["missing_bs"]:
            _say(logging.WARNING, "missing", f"BS {bs} was not connected at the end", bs=bs)
        fixes, snapshots = summary["fixes"], summary["snapshots"]
        _say(
            logging.INFO, "finished", f"{fixes} fixes of {snapshots} snapshots",
            frames=summary["frames"], reports=summary["reports"],
        )  # fmt: skip


@contextmanager
def log_stream(target: Path | None) -> Iterator[IO[str] | None]:
    """Open what a log goes to: a file, which it is appended to, or standard error; None without a `target`.

    Raises:
        UserError: the file cannot be written.
    """
    if target is None:
        yield None
        return
    if target == STANDARD_ERROR:
        yield sys.stderr
        return
    try:
        file = target.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--log-json {target} cannot be written: {reason(error)}.") from error
    with file:
        yield file


@contextmanager
def json_log(stream: IO[str] | None, plan: Plan, folder: Path) -> Iterator[RunLog | None]:
    """Log a run to `stream`, if there is one; yield what follows the run."""
    if stream is None:
        yield None
        return
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(folder.name.removesuffix(".part")))
    root, before = logging.getLogger(), _LOGGER.level
    root.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    logging.captureWarnings(True)
    log = RunLog(folder / "links", simulated=plan.settings.driver == "process")
    _say(logging.INFO, "started", f"{plan.settings.snapshots} snapshots, {plan.settings.bs} base stations in {folder}")
    try:
        yield log
    except BaseException as error:
        log.read()
        stopped = isinstance(error, KeyboardInterrupt)
        _say(logging.ERROR, "failed", "Stopped." if stopped else str(error) or type(error).__name__)
        raise
    finally:
        logging.captureWarnings(False)
        _LOGGER.setLevel(before)
        root.removeHandler(handler)


def _say(level: int, event: str, message: str, **fields: Any) -> None:
    """Write a line of the driver's own."""
    _LOGGER.log(level, "%s", message, extra={"fields": {"event": event, **fields}})


# -- from rows of the streams to lines: (time [ns], level, event, message, fields)

_Line = tuple[int, int, str, str, dict[str, Any]]


def _dropped(more: Further) -> Iterator[_Line]:
    direction = more.metadata[b"direction"].decode()
    rows = more.rows.filter(more.rows["drop_reason"].is_valid())
    for row in rows.to_pylist():
        for key in report_keys(row["message"]):
            fields = {"bs": row["bs"], "snapshot": key.snapshot, "direction": direction}
            yield row["t_sent_ns"], logging.WARNING, "dropped", row["drop_reason"], fields


def _arrived(more: Further) -> Iterator[_Line]:
    direction = more.metadata[b"direction"].decode()
    for row in more.rows.to_pylist():
        fate, t_ns, fields = row["frame_fate"], row["t_received_ns"], {"bs": row["bs"], "direction": direction}
        if fate in (FrameFate.CORRUPT, FrameFate.REJECTED):
            yield t_ns, logging.WARNING, fate, row["reason"] or "", fields
        elif fate is not None:
            for part, key in enumerate(report_keys(row["head"])):
                of = fields | {"snapshot": key.snapshot}
                if fate == FrameFate.DUPLICATE:
                    yield t_ns, logging.INFO, fate, "these reports had been delivered before", of
                elif (row["late"] or 0) >> part & 1:
                    yield t_ns, logging.WARNING, "late", "after the deadline, or its round was over", of


def _happened(more: Further) -> Iterator[_Line]:
    start = more.start
    end, own = ("edge", start.bs) if isinstance(start, EdgeStart) else ("cloud", None)
    for row in more.rows.to_pylist():
        kind, detail, peer = row["kind"], row["detail"], row["peer"]
        if kind == "clock":
            continue
        said = _SNAPSHOT.match(detail)
        fields = {"bs": own if row["bs"] is None else row["bs"], "end": end} | (
            {"snapshot": int(said[1])} if said else {}
        )
        if start_of(peer) is None:  # a peer, not the recording end's own name
            fields["peer"] = peer
        yield row["t_ns"], logging.INFO if kind == "connected" else logging.WARNING, kind, detail, fields


def _fixed(more: Further) -> Iterator[_Line]:
    for row in more.rows.to_pylist():
        used = sorted(set(row["used_bs"]))
        fields = {"snapshot": row["snapshot"], "used": used, "rounds": row["rounds"]}
        yield row["t_fix_ns"], logging.INFO, "fix", f"a fix from BS {', '.join(map(str, used))}", fields


_LINES = {SENT: _dropped, RECEIVED: _arrived, EVENTS: _happened, FIXES: _fixed}
"""What makes lines of the rows of each kind of stream."""

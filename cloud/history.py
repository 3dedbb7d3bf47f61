"""Reads what earlier incarnations of the cloud logged, so that the next one continues from there."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass, field
from pathlib import Path

from cloud.collector import History
from cloud.fixlog import read_fixes
from fronthaul.errors import LocalError, RemoteError
from fronthaul.log.received import read_received
from fronthaul.log.sent import read_journal
from fronthaul.log.stream_names import FIXES, RECEIVED, SENT, incarnation_name
from fronthaul.message.compact import Reference
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Goodbye, Registration, ReportKey, Welcome
from fronthaul.message.wire import claim, decode, is_control, report_keys


@dataclass(frozen=True)
class Past:
    """State left by earlier incarnations of the cloud.

    Attributes:
        history: for the collector.
        next_seq: seq of the next frame from cloud to BS, by BS and epoch.
        last: the last frame from BS to cloud that arrived, by BS and epoch.
    """

    history: History = History()  # noqa: RUF009 - frozen
    next_seq: dict[tuple[int, int], int] = field(default_factory=dict)
    last: dict[tuple[int, int], Reference] = field(default_factory=dict)


def read_past(folder: Path, incarnation: int) -> Past:
    """Read the streams of all incarnations before `incarnation` in `folder`; missing or unreadable ones are skipped."""
    registrations: dict[int, Registration] = {}
    welcomed: set[Welcome] = set()
    done: set[int] = set()
    delivered: set[ReportKey] = set()
    fixed: set[int] = set()
    next_seq: dict[tuple[int, int], int] = {}
    last: dict[tuple[int, int], Reference] = {}
    for earlier in range(incarnation):
        name = incarnation_name(earlier)
        with contextlib.suppress(FileNotFoundError, LocalError):
            for data in read_journal(folder / f"{name}{SENT}")["message"].drop_null().to_pylist():
                if is_control(data):
                    welcomed.update(_welcome(data))
                elif (claimed := claim(data)) is not None:
                    start = claimed.bs, claimed.epoch  # not in order: a row that amends another one repeats its seq
                    next_seq[start] = max(next_seq.get(start, 0), claimed.seq + 1)
        with contextlib.suppress(FileNotFoundError, LocalError):
            received = read_received(folder / f"{name}{RECEIVED}")
            names = ("bs", "frame_fate", "head", "data", "seq")
            for owner, fate, head, data, seq in zip(*(received[column].to_pylist() for column in names), strict=True):
                if fate == FrameFate.DELIVERED:
                    with contextlib.suppress(TypeError, IndexError, struct.error):  # the log is damaged there
                        delivered.update(keys := report_keys(head))
                        start, reference = (keys[-1].bs, keys[-1].epoch), Reference(seq, keys[-1].snapshot + 1)
                        last[start] = max(last.get(start, reference), reference)
                elif fate is None and data is not None:
                    _note_control(owner, data, welcomed, registrations, done)
        with contextlib.suppress(FileNotFoundError, LocalError):
            fixed.update(fix.snapshot for fix in read_fixes(folder / f"{name}{FIXES}"))
    history = History(tuple(registrations.values()), frozenset(done), frozenset(fixed), frozenset(delivered))
    return Past(history, next_seq, last)


def _welcome(data: bytes) -> list[Welcome]:
    with contextlib.suppress(RemoteError):
        message = decode(data)
        if isinstance(message, Welcome):
            return [message]
    return []


def _note_control(
    owner: int | None, data: bytes, welcomed: set[Welcome], registrations: dict[int, Registration], done: set[int]
) -> None:
    with contextlib.suppress(RemoteError):
        message = decode(data)
        if not isinstance(message, Registration | Goodbye) or message.bs != owner:
            return
        if isinstance(message, Registration):
            if Welcome(message.bs, message.epoch) not in welcomed:
                return  # refused
            known = registrations.get(message.bs)
            if known is None or message.epoch >= known.epoch:
                registrations[message.bs] = message
                if known is not None and message.epoch > known.epoch:
                    done.discard(message.bs)
        else:
            known = registrations.get(message.bs)
            if known is not None and known.epoch == message.epoch:
                done.add(message.bs)

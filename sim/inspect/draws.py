"""Frames of a ledger against the draws of the link model, which depend on seed, link and sequence number alone.

What was lost, copied or corrupted is drawn again and compared; an outage follows from the time of sending. What depends
on other messages (rate, queue, order) is not: control messages take part there, and ledgers do not have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fronthaul.account.conservation import Problems, codes
from fronthaul.link.link_config import LinkConfig
from fronthaul.link.link_model import LinkModel
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction
from sim.inspect.ledger_frames import LedgerFrames, ledger_frames
from sim.records.links import Ledgers, numbers, report_keys, valid

_COLUMNS = (
    *("snapshot", "round", "t_release_ns", "t_received_ns", "frame_fate", "reason"),
    *("payload_bits", "side_bits", "padding_bits", "header_bytes"),
)


def drawn_problems(
    ledgers: Ledgers, bs: int, config: LinkConfig, direction: Direction, seed: int, t0_ns: int, header: int
) -> tuple[list[str], int]:
    """Draw a link's frames again; return what contradicts the ledger, and the number of frames.

    Args:
        ledgers: of the run.
        bs: base station.
        config: what the link was asked to do.
        direction: direction of the frames.
        seed: seed of the run.
        t0_ns: time zero of the run [ns].
        header: header of each IP packet of the link [B].
    """
    problems, count = Problems(), 0
    alone = replace(config, rate_bps=None, queue_bytes=None, delay_s=0.0, jitter_s=0.0, reorder=0.0, outages=())
    starts: dict[int, _Start] = {}
    for frames in ledger_frames(ledgers, bs, _COLUMNS):
        for row in _rows(frames, direction):
            if row.epoch not in starts:
                models = [
                    LinkModel(
                        each,
                        seed=seed,
                        bs=bs,
                        direction=direction,
                        epoch=row.epoch,
                        t0_ns=t0_ns,
                        ip_header_bytes=header,
                    )
                    for each in (alone, config)
                ]
                starts[row.epoch] = _Start(config, *models)
            broken = starts[row.epoch].contradiction(row)
            if broken is not None:
                problems.add(broken, frames.name(row.at))
            count += 1
    return list(problems.sentences()), count


class _Row(NamedTuple):
    """One frame: its first row, and fields as in the ledger; `reports` are the keys of its reports."""

    at: int
    epoch: int
    seq: int
    bits: int
    t_sent_ns: int
    t_release_ns: int
    arrived: bool
    corrupt: bool
    reason: str | None
    reports: tuple[int, ...]


def _rows(frames: LedgerFrames, direction: Direction) -> Iterator[_Row]:
    rows, begins = frames.rows, frames.begins
    bits = numbers(rows, "payload_bits") + numbers(rows, "side_bits") + numbers(rows, "padding_bits")
    keys = report_keys(rows)
    ends = np.append(begins[1:], len(rows)).tolist()
    reasons = rows["reason"].take(begins).to_pylist()
    columns = (
        begins, numbers(rows, "epoch")[begins], numbers(rows, "seq")[begins],
        np.add.reduceat(bits + 8 * numbers(rows, "header_bytes"), begins),
        numbers(rows, "t_sent_ns")[begins], numbers(rows, "t_release_ns")[begins],
        valid(rows, "t_received_ns")[begins], codes(rows["frame_fate"], [FrameFate.CORRUPT])[begins] == 0,
    )  # fmt: skip
    mine = codes(rows["direction"], [direction])[begins] == 0
    told = zip(*(column.tolist() for column in columns), reasons, strict=True)
    for chosen, end, row in zip(mine, ends, told, strict=True):
        if chosen:
            at, epoch, seq, bits, t_sent_ns, t_release_ns, arrived, corrupt, reason = row
            reports = tuple(keys[at:end].tolist())
            yield _Row(at, epoch, seq, bits, t_sent_ns, t_release_ns, arrived, corrupt, reason, reports)


class _Start:
    """The link model of one start of a base station, with draws alone and with everything."""

    def __init__(self, config: LinkConfig, draws: LinkModel, whole: LinkModel) -> None:
        self._config, self._draws, self._whole = config, draws, whole
        self._copied: tuple[int, ...] | None = None  # reports of the frame whose copy comes next

    def contradiction(self, row: _Row) -> str | None:
        """Return the rule that a frame breaks; None if it breaks none. Frames come in order of seq."""
        drawn = self._draws.frame(row.seq, 1, row.bits, 0)
        drop_reason = None if row.arrived else row.reason
        expected, self._copied = self._copied, None
        if expected is None and drawn.duplicate:
            self._copied = row.reports
        if expected is not None and expected != row.reports:
            return "copies of other frames than the link model draws"
        if (self._whole.outage_end_ns(row.t_sent_ns) is not None) != (drop_reason == "outage"):
            return "frames of an outage that were not dropped, or the reverse"
        if drop_reason == "queue" and self._config.queue_bytes is None:
            return "frames dropped by a queue that the link does not have"
        if drop_reason in (None, "loss") and (drawn.drop_reason == "loss") != (drop_reason == "loss"):
            return "frames lost against the draws of the link model"
        if row.arrived and bool(drawn.flipped) != row.corrupt:
            return "frames corrupt against the draws of the link model"
        if row.arrived and row.corrupt and row.reason != "checksum":
            return "frames with flipped bits that are corrupt for another reason than their checksum"
        return None

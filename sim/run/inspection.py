"""Looking into a run: totals of links, one frame down to its bits, and what a cut run left behind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fronthaul.accounting import FrameCost, frame_cost
from fronthaul.bitstream import unpack
from fronthaul.conservation import conservation
from fronthaul.ledger import Conservation
from fronthaul.messages import Direction, Frame, Payload, Report, ReportKey
from fronthaul.wire import VERSION, encode
from sim.errors import UserError
from sim.run.compose import Codec
from sim.run.links import LinkTotals, close_ledgers, read_ledgers, read_table, totals
from sim.run.results import used_reports
from sim.run.runfolder import RunFolder, read_configuration

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FrameView", "LinkTotals", "Recovered", "check_books", "frame_view", "link_totals", "recover"]


@dataclass(frozen=True)
class FrameView:
    """One frame, down to its bits.

    Attributes:
        bs: base station.
        epoch: start of the BS.
        snapshot: positioning occasion.
        round: of the report.
        seq: of the frame on its link.
        direction: "up" or "down".
        version: of the wire format.
        crc32: as sent.
        t_sent_ns: when [ns on the run's clock].
        t_received_ns: when; None where nothing arrived.
        frame_fate: what became of the frame.
        report_fate: what became of its report.
        reason: why it was dropped, corrupt or rejected; None if it was not.
        cost: bytes by name.
        data: the frame as it was handed to ZeroMQ: header, side information, payload, CRC-32.
        side: side information.
        side_values: side information read as big-endian float32 numbers, such as a gain; empty if it is none.
        bits: bits of an index.
        index: what the payload holds, (coefficients,).
    """

    bs: int
    epoch: int
    snapshot: int
    round: int
    seq: int
    direction: str
    version: int
    crc32: int
    t_sent_ns: int
    t_received_ns: int | None
    frame_fate: str
    report_fate: str | None
    reason: str | None
    cost: FrameCost
    data: bytes
    side: bytes
    side_values: tuple[float, ...]
    bits: int
    index: npt.NDArray[np.uint32]

    @property
    def hex(self) -> str:
        """The frame in hexadecimal, two digits a byte."""
        return self.data.hex()


@dataclass(frozen=True)
class Recovered:
    """What a cut run left.

    Attributes:
        links: totals by link; reports that arrived have no fate, for the cloud took it with it.
        conservation: sums over all links.
    """

    links: list[LinkTotals]
    conservation: Conservation


def link_totals(folder: Path) -> list[LinkTotals]:
    """Add up each link of a run.

    Raises:
        UserError: no run's folder, or one without ledgers.
    """
    return [totals(bs, ledger) for bs, ledger in sorted(_ledgers(folder).items())]


def check_books(folder: Path) -> Conservation:
    """Hold ledgers and fixes of a run against each other; that a run was cut is a problem too.

    Raises:
        UserError: no run's folder, one without ledgers, or a damaged table.
    """
    import pyarrow as pa

    _ledgers(folder)
    run = RunFolder(folder)
    ledger = pa.concat_tables(list(read_ledgers(run).values()))
    if run.fixes.exists():
        return conservation(ledger, used_reports(read_table(run.fixes)))
    books = conservation(ledger)
    return replace(books, problems=(f"the run was cut, it has no {run.fixes.name}", *books.problems))


def frame_view(folder: Path, link: int, frame: int, epoch: int | None = None) -> FrameView:
    """Take one frame apart.

    Args:
        folder: of the run.
        link: base station.
        frame: its seq on the link from BS to cloud.
        epoch: start of the BS; None takes the last.

    Raises:
        UserError: there is no such link or frame.
    """
    ledgers = _ledgers(folder)
    if link not in ledgers:
        raise UserError(f"There is no link {link} in {folder}: links are {_span(sorted(ledgers))}.")
    up = [row for row in ledgers[link].to_pylist() if row["direction"] == Direction.UP and row["t_sent_ns"] is not None]
    if epoch is None:
        epoch = max((row["epoch"] for row in up), default=0)
    frames = {row["seq"]: row for row in up if row["epoch"] == epoch}
    if frame not in frames:
        known = f"frames are {_span(sorted(frames))}" if frames else "nothing was sent"
        raise UserError(f"There is no frame {frame} on link {link} in epoch {epoch}: {known}.")
    return _view(frames[frame], read_configuration(RunFolder(folder)).codec)


def recover(folder: Path) -> Recovered:
    """Close the ledgers of a run that was cut, from its journals and receive log, which stay.

    Raises:
        UserError: no run's folder, or a run that was not cut.
    """
    run = RunFolder(folder)
    stations = range(read_configuration(run).settings.bs)
    if not any(run.journals(bs) for bs in stations):
        raise UserError(f"{folder} holds no journals: the run was not cut, or no frame was sent.")
    import pyarrow as pa

    ledgers = close_ledgers(run, stations, {})
    return Recovered(
        links=[totals(bs, ledgers[bs]) for bs in stations],
        conservation=conservation(pa.concat_tables(list(ledgers.values()))),
    )


def _ledgers(folder: Path) -> dict[int, pa.Table]:
    run = RunFolder(folder)
    read_configuration(run)  # says whether this is a run's folder at all
    ledgers = {bs: ledger for bs, ledger in read_ledgers(run).items() if bs is not None}
    if not ledgers:
        raise UserError(f"{folder} holds no ledgers: the run was cut, recover it with `inspect --recover`.")
    return ledgers


def _view(row: dict[str, Any], codec: Codec) -> FrameView:
    key = ReportKey(row["bs"], row["epoch"], row["snapshot"], row["round"])
    payload = Payload(row["payload"], row["payload_bits"])
    frame = Frame(row["seq"], Report(key, payload, row["side"]))
    return FrameView(
        bs=key.bs,
        epoch=key.epoch,
        snapshot=key.snapshot,
        round=key.round,
        seq=frame.seq,
        direction=row["direction"],
        version=VERSION,
        crc32=row["crc32"],
        t_sent_ns=row["t_sent_ns"],
        t_received_ns=row["t_received_ns"],
        frame_fate=row["frame_fate"],
        report_fate=row["report_fate"],
        reason=row["reason"],
        cost=frame_cost(frame, curve=row["curve_bytes"] > 0),
        data=encode(frame),
        side=row["side"],
        side_values=_floats(row["side"]),
        bits=codec.bits,
        index=unpack(payload, codec.bits, payload.bits // codec.bits),
    )


def _floats(side: bytes) -> tuple[float, ...]:
    return tuple(float(value) for value in np.frombuffer(side, ">f4")) if len(side) % 4 == 0 else ()


def _span(numbers: list[int]) -> str:
    return f"{numbers[0]}..{numbers[-1]}"

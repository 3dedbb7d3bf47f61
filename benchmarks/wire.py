"""Encoding and decoding of a report's frame, and its row in the journal.

Baselines: msgpack on the same fields, which has no checksum and checks no values; and a bare write of the same bytes.
A base station journals the reports of a batch in one write; the cloud logs all frames of a poll in one write.
"""

from __future__ import annotations

import os

import msgpack

from benchmarks.samples import frame
from benchmarks.timing import Bench, Case, Row, measure
from benchmarks.world import BATCHES
from fronthaul.log.received import Arrival, ReceiveLog
from fronthaul.log.sent import Departure, SendJournal
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import Direction, Frame
from fronthaul.message.wire import decode, encode
from fronthaul.transport.zmtp import ZMTP_NULL

BATCH = max(BATCHES)


def run(bench: Bench) -> list[Row]:
    """Measure the processing of a frame outside the link."""
    sent = frame()
    (report,) = sent.reports
    key, payload, side = report.key, report.payload, report.side
    fields = (key.bs, key.epoch, key.snapshot, key.round, sent.seq, payload.bits, side, payload.data)
    data, packed = encode(sent), msgpack.packb(fields)
    bundle = frame(BATCH)
    bundled = encode(bundle)
    journal = SendJournal(bench.folder / "journal.arrow", direction=Direction.UP, transport=ZMTP_NULL)
    log = ReceiveLog(bench.folder / "received.arrow", direction=Direction.UP)
    departure = Departure(data, 1, 1)
    arrival = Arrival(key.bs, data, 1, FrameFate.DELIVERED)
    with (bench.folder / "bare").open("wb", buffering=0) as bare:
        file = bare.fileno()
        cases = [
            Case("encode", lambda: encode(sent), reference="encode, msgpack"),
            Case("encode, msgpack", lambda: msgpack.packb(fields)),
            Case("decode", lambda: decode(data), reference="decode, msgpack"),
            Case("decode, msgpack", lambda: msgpack.unpackb(packed)),
            Case("decode, and its report", lambda: _reports(data), reference="decode"),
            Case(f"encode, {BATCH} bundled", lambda: encode(bundle), BATCH, "encode"),
            Case(f"decode, {BATCH} bundled", lambda: decode(bundled), BATCH, "decode"),
            Case(
                f"decode, {BATCH} bundled, and the reports", lambda: _reports(bundled), BATCH, "decode, and its report"
            ),
            Case("journal, a row", lambda: journal.append(key.bs, [departure]), reference="bare write"),
            Case(f"journal, {BATCH} rows", lambda: journal.append(key.bs, [departure] * BATCH), BATCH, "bare write"),
            Case("receive log, a row", lambda: log.append([arrival]), reference="bare write"),
            Case(f"receive log, {BATCH} rows", lambda: log.append([arrival] * BATCH), BATCH, "bare write"),
            Case("bare write", lambda: os.write(file, data)),
        ]
        rows = measure(cases, bench.effort)
    journal.close()
    log.close()
    return rows


def _reports(data: bytes) -> object:
    """Decode a frame and its reports; reports are decoded lazily, when they are fused."""
    message = decode(data)
    assert isinstance(message, Frame)
    return message.reports

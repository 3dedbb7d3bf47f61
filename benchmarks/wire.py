"""A report's frame to bytes and back, and its line in the journal.

Yardsticks: msgpack on the same fields, which has no checksum and checks no value; and a bare write of the same bytes.
"""

from __future__ import annotations

import os

import msgpack

from benchmarks.samples import frame
from benchmarks.timing import Bench, Case, Row, measure
from fronthaul.journal import SendJournal
from fronthaul.wire import decode, encode


def run(bench: Bench) -> list[Row]:
    """Time what every frame goes through beside the link."""
    sent = frame()
    key, payload, side = sent.report.key, sent.report.payload, sent.report.side
    fields = (key.bs, key.epoch, key.snapshot, key.round, sent.seq, payload.bits, side, payload.data)
    data, packed = encode(sent), msgpack.packb(fields)
    journal = SendJournal(bench.folder / "journal.arrow", key.bs)
    with (bench.folder / "bare").open("wb", buffering=0) as bare:
        file = bare.fileno()
        cases = [
            Case("encode", lambda: encode(sent), reference="encode, msgpack"),
            Case("encode, msgpack", lambda: msgpack.packb(fields)),
            Case("decode", lambda: decode(data), reference="decode, msgpack"),
            Case("decode, msgpack", lambda: msgpack.unpackb(packed)),
            Case("journal append", lambda: journal.append(sent, 1), reference="bare write"),
            Case("bare write", lambda: os.write(file, data)),
        ]
        rows = measure(cases, bench.effort)
    journal.close()
    return rows

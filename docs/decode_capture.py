"""Decode a run's capture with the standard library alone, as docs/wire.md describes it: one JSON line per report.

    python docs/decode_capture.py RUN/links/bs-000.pcapng [BITS]

BITS is the width of an index (B of the run); without it the payload is printed in hexadecimal.
"""

import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path


def messages(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Yield direction, time [ns] and bytes of each message of a capture (eCPRI type 3 in pcapng, big endian)."""
    at, pieces, whole = 0, {}, Whole()
    while at + 12 <= len(data):
        kind, total = struct.unpack_from(">II", data, at)
        if total < 12 or at + total > len(data):
            return  # the writer died here
        if kind == 6:  # enhanced packet block
            epoch, t_ns, size, _ = struct.unpack_from(">IQII", data, at + 8)
            to, ecpri = data[at + 28 : at + 34], data[at + 40 : at + 28 + size]
            _, _, _, _, pc_id, seq_id = struct.unpack_from(">HBBHII", ecpri)
            key = (to, pc_id & 0xFFFF, seq_id)
            pieces[key] = pieces.get(key, b"") + ecpri[14:]
            if not pc_id >> 31:  # no more pieces follow
                message = whole.form(pieces.pop(key), pc_id & 0xFFFF, epoch, seq_id)
                yield "up" if to.hex() == "02c0f1010000" else "down", t_ns, message
        at += total


class Whole:
    """Restores the standard form of messages that went onto the link in their compact form.

    A capture names base station and frame in full. What it lacks, the snapshot's high bits and the bytes of side
    information, is found by the checksum: first what the last frame lets expect, then everything near.
    """

    def __init__(self) -> None:
        self.snapshot, self.side = 0, 0

    def form(self, message: bytes, bs: int, epoch: int, seq: int) -> bytes:
        """Return a message in its standard form; the message itself if it has none."""
        if not message or message[0] < 0x80:
            return message
        number = int.from_bytes(message[:2], "big")
        padding, snapshot, at, low = number >> 11 & 7, number & 15, 2, 4
        count, mixed, bits = 1, 0, []
        if number >> 14 & 1:
            snapshot, count, mixed, at, low = snapshot << 8 | message[2], message[3] & 127, message[3] >> 7, 4, 12
        for _ in range(count * mixed):
            size = shift = 0
            while message[at : at + 1] > b"\x7f":
                size, shift, at = size | (message[at] & 127) << shift, shift + 7, at + 1
            bits.append(size | (message[at : at + 1] or b"\0")[0] << shift)
            at += 1
        first = (self.snapshot >> low << low) + snapshot
        for window in sorted(range(-8, 256), key=abs):
            for side in sorted(range(32), key=lambda side: side != self.side):
                start = first + (window << low)
                if not 0 <= start < 2**32 - count or max(bits, default=0) >= 2**32:
                    continue
                lengths = padding << 5 | side
                if count == 1:
                    head = struct.pack(">BHHIBIB", 0x21, bs, epoch, start, 0, seq, lengths)
                else:
                    head = struct.pack(">BHHIBB", 0x23 + mixed, bs, epoch, seq, count, lengths)
                    keys = [struct.pack(">IB", start + n, 0) for n in range(count)]
                    head += b"".join(key + (struct.pack(">I", bits[n]) if mixed else b"") for n, key in enumerate(keys))
                if zlib.crc32(message[at:-4], zlib.crc32(head)) == int.from_bytes(message[-4:], "big"):
                    self.snapshot, self.side = start + count, side
                    return head + message[at:]
        return message


def reports(message: bytes) -> Iterator[dict]:
    """Yield the reports of a frame; nothing for a control message.

    Raises:
        ValueError: the checksum is wrong: bits were flipped on the way.
    """
    body, crc = message[:-4], int.from_bytes(message[-4:], "big")
    if zlib.crc32(body) != crc:
        raise ValueError("corrupt")
    version, kind = body[0] >> 4, body[0] & 15
    if version != 2 or kind == 2:
        return
    if kind == 1:
        bs, epoch, snapshot, round_, seq, lengths = struct.unpack_from(">HHIBIB", body, 1)
        keys, at = [(snapshot, round_)], 15
    else:
        bs, epoch, seq, count, lengths = struct.unpack_from(">HHIBB", body, 1)
        form = ">IB" if kind == 3 else ">IBI"
        keys = [struct.unpack_from(form, body, 11 + struct.calcsize(form) * n) for n in range(count)]
        at = 11 + struct.calcsize(form) * count
    padding, side = lengths >> 5, lengths & 31
    payload_at = at + side * len(keys)
    equal = 8 * ((len(body) - payload_at) // len(keys)) - padding
    for n, (snapshot, round_, *bits) in enumerate(keys):
        size = bits[0] if bits else equal
        payload = body[payload_at : payload_at + (size + 7) // 8]
        payload_at += len(payload)
        yield {
            "bs": bs,
            "epoch": epoch,
            "seq": seq,
            "part": n,
            "snapshot": snapshot,
            "round": round_,
            "crc32": crc,
            "side": body[at + side * n : at + side * (n + 1)].hex(),
            "payload_bits": size,
            "payload": payload.hex(),
        }


def indices(payload: bytes, bits: int, count: int) -> list[int]:
    """Return the first `count` indices of `bits` bits: index 0 first, the most significant bit first."""
    word = int.from_bytes(payload, "big")
    return [word >> (8 * len(payload) - bits * (n + 1)) & ((1 << bits) - 1) for n in range(count)]


if __name__ == "__main__":
    for way, moment_ns, data in messages(Path(sys.argv[1]).read_bytes()):
        try:
            for report in reports(data):
                if len(sys.argv) > 2:
                    width, payload = int(sys.argv[2]), bytes.fromhex(report.pop("payload"))
                    report["indices"] = indices(payload, width, report["payload_bits"] // width)
                print(json.dumps({"direction": way, "t_ns": moment_ns, **report}))
        except ValueError as error:
            print(json.dumps({"direction": way, "t_ns": moment_ns, "bytes": len(data), "error": str(error)}))

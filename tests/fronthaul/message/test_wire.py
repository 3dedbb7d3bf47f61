"""Wire format: one table of messages and their bytes drives everything."""

import pickle
import struct
import zlib
from dataclasses import replace

import msgpack
import pytest
from any_message import controls, frames
from hypothesis import given
from hypothesis import strategies as st

from fronthaul.errors import LocalError, RemoteError
from fronthaul.message.messages import (
    MAX_BUNDLE,
    Abort,
    Frame,
    Goodbye,
    Message,
    Payload,
    PayloadFormat,
    Ping,
    Pong,
    Registration,
    Report,
    ReportKey,
    Welcome,
)
from fronthaul.message.wire import (
    BUNDLE_HEADER_BYTES,
    BUNDLE_KEY_BYTES,
    CRC_BYTES,
    HEADER_BYTES,
    MAX_CONTROL_BYTES,
    MAX_MESSAGE_BYTES,
    MIXED_KEY_BYTES,
    VERSION,
    claim,
    decode,
    encode,
    head,
    is_control,
    longest_message_bytes,
    named,
    only_report,
    report_heads,
    report_keys,
)

LATENTS = PayloadFormat.uniform(4, 768, 4)
ORIGIN = (0.0, 0.0, 0.0)

GOLDEN: dict[str, tuple[Message, str]] = {
    "report": (
        Frame(0x0A0B0C0D, (Report(ReportKey(3, 2, 0x01020304, 1), Payload(b"\xa7\x00", 9), b"\xde\xad\xbe\xef"),)),
        "21 0003 0002 01020304 01 0a0b0c0d e4 deadbeef a700 91a83351",
    ),
    "empty report": (
        Frame(0, (Report(ReportKey(0, 0, 0), Payload(b"", 0)),)),
        "21 0000 0000 00000000 00 00000000 00 e6ede691",
    ),
    "largest header": (
        Frame(
            0xFFFFFFFF,
            (Report(ReportKey(0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFF), Payload(b"\x80", 1), bytes(31)),),
        ),
        "21 ffff ffff ffffffff ff ffffffff ff" + 31 * "00" + "80 595dfb0d",
    ),
    "bundle": (
        Frame(
            0x0A0B0C0D,
            (
                Report(ReportKey(3, 2, 0x01020304, 1), Payload(b"\xa7\x00", 9), b"\xde\xad"),
                Report(ReportKey(3, 2, 0x01020305), Payload(b"\x01\x80", 9), b"\xbe\xef"),
            ),
        ),
        "23 0003 0002 0a0b0c0d 02 e2 01020304 01 01020305 00 dead beef a700 0180 f4f3a1bf",
    ),
    "bundle of unequal payloads": (
        Frame(
            0x0A0B0C0D,
            (
                Report(ReportKey(3, 2, 0x01020304, 1), Payload(b"\xa7\x00", 9), b"\xde\xad"),
                Report(ReportKey(3, 2, 0x01020305), Payload(b"", 0), b"\xbe\xef"),
                Report(ReportKey(3, 2, 0x01020306), Payload(b"\x42", 8), b"\xfa\xce"),
            ),
        ),
        "24 0003 0002 0a0b0c0d 03 02 01020304 01 00000009 01020305 00 00000000 01020306 00 00000008"
        "dead beef face a700 42 08dbc604",
    ),
    "empty bundle": (
        Frame(1, (Report(ReportKey(0, 0, 0), Payload(b"", 0)), Report(ReportKey(0, 0, 0, 1), Payload(b"", 0)))),
        "23 0000 0000 00000001 02 00 00000000 00 00000000 01 eb78153c",
    ),
    "registration": (
        Registration(7, 1, "ecc", LATENTS, None, (1.0, -2.5, 10.0), (0.5, 0.0, 0.0)),
        "22 88 a46b696e64 ac726567697374726174696f6e a26273 07 a565706f6368 01 a6736368656d65 a3656363"
        "a67265706f7274 93 04 cd0300 04 a6616e73776572 c0"
        "a8706f736974696f6e 93 cb3ff0000000000000 cbc004000000000000 cb4024000000000000"
        "ab6f7269656e746174696f6e 93 cb3fe0000000000000 cb0000000000000000 cb0000000000000000 4a082116",
    ),
    "registration for two rounds": (
        Registration(7, 1, "ecc", LATENTS, PayloadFormat.uniform(8, 2), (1.0, -2.5, 10.0), (0.5, 0.0, 0.0)),
        "22 88 a46b696e64 ac726567697374726174696f6e a26273 07 a565706f6368 01 a6736368656d65 a3656363"
        "a67265706f7274 93 04 cd0300 04 a6616e73776572 93 08 02 00"
        "a8706f736974696f6e 93 cb3ff0000000000000 cbc004000000000000 cb4024000000000000"
        "ab6f7269656e746174696f6e 93 cb3fe0000000000000 cb0000000000000000 cb0000000000000000 9c6e3287",
    ),
    "registration of any length": (
        Registration(7, 1, "ecc", PayloadFormat(3072, 4, fixed=False), PayloadFormat(9), ORIGIN, ORIGIN),
        "22 88 a46b696e64 ac726567697374726174696f6e a26273 07 a565706f6368 01 a6736368656d65 a3656363"
        "a67265706f7274 93 00 cd0c00 04 a6616e73776572 93 01 09 00"
        "a8706f736974696f6e 93 cb0000000000000000 cb0000000000000000 cb0000000000000000"
        "ab6f7269656e746174696f6e 93 cb0000000000000000 cb0000000000000000 cb0000000000000000 4d5ee743",
    ),
    "welcome": (Welcome(7, 1), "22 83 a46b696e64 a777656c636f6d65 a26273 07 a565706f6368 01 749dbf4d"),
    "goodbye": (
        Goodbye(7, 1, 300),
        "22 84 a46b696e64 a7676f6f64627965 a26273 07 a565706f6368 01 a66672616d6573 cd012c d537f366",
    ),
    "abort": (Abort("no"), "22 82 a46b696e64 a561626f7274 a6726561736f6e a26e6f 6bc17221"),
    "ping": (
        Ping(7, 1, 1_700_000_000_000_000_000),
        "22 84 a46b696e64 a470696e67 a26273 07 a565706f6368 01 a9745f73656e745f6e73 cf17979cfe362a0000 af0dc00c",
    ),
    "pong": (
        Pong(7, 1, 1_700_000_000_000_000_000, 255, (1 << 64) - 1),
        "22 86 a46b696e64 a4706f6e67 a26273 07 a565706f6368 01 a9745f73656e745f6e73 cf17979cfe362a0000"
        "ad745f72656365697665645f6e73 ccff ad745f616e7377657265645f6e73 cfffffffffffffffff eaed83a7",
    ),
}

ABORT_BODY = encode(Abort("no"))[:-CRC_BYTES]
REGISTRATION_FIELDS = {
    "kind": "registration",
    **{"bs": 0, "epoch": 0, "scheme": "s", "report": (1, 1, 0), "answer": None},
    **{"position": (0.0, 0.0, 0.0), "orientation": (0.0, 0.0, 0.0)},
}


def sealed(body: bytes) -> bytes:
    """Return `body` with the CRC that belongs to it."""
    return body + struct.pack(">I", zlib.crc32(body))


def control(fields: object) -> bytes:
    """Return a control message with any body, right down to the CRC."""
    return sealed(b"\x22" + msgpack.packb(fields))


KEYS = bytes(5) + b"\0\0\0\0\1"


MIXED_KEYS = KEYS[:5] + b"\0\0\0\1" + KEYS[5:] + b"\0\0\0\x0c"
"""Of payloads of 1 and of 12 bits."""


def mixed(count: int, lengths: int, rest: bytes) -> bytes:
    """Return a bundle of unequal payloads with any count and side length, and anything behind them."""
    return sealed(b"\x24" + bytes(8) + bytes([count, lengths]) + rest)


def bundle(count: int, lengths: int, rest: bytes) -> bytes:
    """Return a bundle with any count, padding and side length, and anything behind them."""
    return sealed(b"\x23" + bytes(8) + bytes([count, lengths]) + rest)


def reason_of(data: bytes) -> str:
    """Return why `data` is no message."""
    with pytest.raises(RemoteError) as caught:
        decode(data)
    return caught.value.reason


CASES = [pytest.param(message, bytes.fromhex(text), id=name) for name, (message, text) in GOLDEN.items()]
golden = pytest.mark.parametrize(("message", "data"), CASES)
# A frame takes its length from the transport, so that a sealed prefix of one may be another frame.
golden_control = pytest.mark.parametrize(
    ("message", "data"), [case for case in CASES if not isinstance(case.values[0], Frame)]
)


@golden
def test_golden_bytes(message: Message, data: bytes) -> None:
    assert encode(message).hex() == data.hex()
    assert decode(data) == message


@golden
def test_every_prefix_is_rejected(message: Message, data: bytes) -> None:
    for length in range(len(data)):
        expected = "truncated" if length < 1 + CRC_BYTES else "checksum"
        assert reason_of(data[:length]) == expected, length


@golden_control
def test_every_sealed_prefix_of_a_control_message_is_truncated(message: Message, data: bytes) -> None:
    for length in range(1, len(data) - CRC_BYTES):
        assert reason_of(sealed(data[:length])) == "truncated", length


@golden
def test_trailing_bytes_are_rejected(message: Message, data: bytes) -> None:
    for tail in (b"\0", b"\xff", b"\0" * 4, data):
        assert reason_of(data + tail) == "checksum"


@golden_control
def test_sealed_trailing_bytes_of_a_control_message_are_rejected(message: Message, data: bytes) -> None:
    assert reason_of(sealed(data[:-CRC_BYTES] + b"\xc0")) == "trailing"


@golden
def test_every_single_bit_flip_is_rejected_by_the_checksum(message: Message, data: bytes) -> None:
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        assert reason_of(bytes(flipped)) == "checksum", bit


@golden
def test_another_version_is_named_as_such(message: Message, data: bytes) -> None:
    body = bytes([(VERSION + 1) << 4 | data[0] & 0x0F]) + data[1:-CRC_BYTES]
    assert reason_of(sealed(body)) == "version"


@given(frames() | controls)
def test_messages_survive_the_round_trip(message: Message) -> None:
    data = encode(message)
    assert decode(data) == message
    accepted_only_as_written(data)


@given(st.lists(frames(most=1), min_size=1), st.none() | frames(least=2) | controls | st.binary())
def test_heads_are_read_of_all_messages_or_of_none(made: list[Frame], other: Message | bytes | None) -> None:
    sent = [encode(each) for each in made]
    heads = report_heads(sent)
    assert heads is not None
    assert heads.snapshots == tuple(each.reports[0].key.snapshot for each in made)
    assert heads.seqs == tuple(each.seq for each in made)
    if other is not None:
        sent.insert(len(sent) // 2, other if isinstance(other, bytes) else encode(other))
        assert report_heads(sent) is None
    assert report_heads([]) is None


@given(frames())
def test_length_of_a_frame(frame: Frame) -> None:
    count = len(frame.reports)
    body_bytes = sum(len(report.side) + len(report.payload.data) for report in frame.reports)
    key_bytes = BUNDLE_KEY_BYTES if len({report.payload.bits for report in frame.reports}) == 1 else MIXED_KEY_BYTES
    header_bytes = HEADER_BYTES if count == 1 else BUNDLE_HEADER_BYTES + count * key_bytes
    assert len(encode(frame)) == header_bytes + body_bytes + CRC_BYTES


def test_the_largest_bundle_survives_the_round_trip() -> None:
    reports = (Report(ReportKey(1, 2, i), Payload(bytes([i]) * 100, 800), bytes([i])) for i in range(MAX_BUNDLE))
    frame = Frame(5, tuple(reports))
    assert decode(encode(frame)) == frame
    unequal = Frame(5, tuple(replace(report, payload=Payload(b"", 0)) if n % 2 else report for n, report in
                             enumerate(frame.reports)))  # fmt: skip
    assert decode(encode(unequal)) == unequal
    assert [report.payload.bits for report in decode(encode(unequal)).reports] == 32 * [800, 0]  # type: ignore[union-attr]


@pytest.mark.parametrize(("bits", "count"), [(0, 1), (3072, 1), (3072, MAX_BUNDLE), (12_345, 7)])
def test_no_message_is_longer_than_is_said(bits: int, count: int) -> None:
    varying = PayloadFormat(bits, 4, fixed=False)
    most = longest_message_bytes([varying, PayloadFormat(8)], count)
    whole = [Report(ReportKey(1, 2, n), Payload(bytes((bits + 7) // 8), bits), bytes(4)) for n in range(count)]
    equal = Frame(0, tuple(whole))
    unequal = Frame(0, (*whole[1:], replace(whole[0], payload=Payload(b"", 0))))
    assert max(len(encode(equal)), len(encode(unequal))) <= most
    registration = Registration(65535, 65535, "é" * 128, varying, varying, 3 * (99999.9,), 3 * (-3.1,))
    assert max(len(encode(registration)), len(encode(Abort("x" * 256)))) < MAX_CONTROL_BYTES <= most
    if bits > 8 * MAX_CONTROL_BYTES:
        assert most - len(encode(equal)) <= 5 * count  # not much longer either


def accepted_only_as_written(data: bytes) -> None:
    """Arbitrary bytes are the one encoding of a message, or raise RemoteError; reading heads alone agrees."""
    try:
        message = decode(data)
    except RemoteError:
        assert report_heads([data]) is None
        return
    assert encode(message) == data
    heads = report_heads([data, data])
    if not isinstance(message, Frame) or len(message.reports) > 1:
        assert heads is None
        return
    bs, epoch, seq, ((snapshot, round_),), (bits,), side_bytes = message.head
    twice = [(number, number) for number in (bs, epoch, snapshot, seq, int.from_bytes(data[-CRC_BYTES:], "big"))]
    assert heads == (*twice, {(bs, epoch, round_, bits, side_bytes)})
    assert (only_report(data),) == message.reports


@given(st.binary(max_size=80), st.booleans(), st.sampled_from([0x21, 0x22, 0x23, 0x24]))
def test_no_bytes_but_messages_are_accepted(body: bytes, seal: bool, first: int) -> None:
    accepted_only_as_written(sealed(bytes([first]) + body) if seal else body)


@given(frames() | controls, st.data())
def test_no_sealed_bytes_near_a_message_are_accepted_but_messages(message: Message, data: st.DataObject) -> None:
    """Truncated anywhere, with bytes behind, with any byte changed: the CRC is made good again each time."""
    body = bytearray(encode(message)[:-CRC_BYTES])
    match data.draw(st.sampled_from(["cut", "extend", "change"])):
        case "cut":
            del body[data.draw(st.integers(0, len(body))) :]
        case "extend":
            body += data.draw(st.binary(min_size=1, max_size=8))
        case _:
            body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    accepted_only_as_written(sealed(bytes(body)))


@given(frames() | controls, st.data())
def test_any_flipped_bits_or_cut_is_refused(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 0x80 >> bit % 8
    assert reason_of(bytes(flipped)) == "checksum"
    assert reason_of(whole[: data.draw(st.integers(0, len(whole) - 1))]) in ("checksum", "truncated")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(sealed(b"\x20" + bytes(14)), "type", id="reserved type"),
        pytest.param(sealed(b"\x21" + bytes(13)), "truncated", id="short header"),
        pytest.param(sealed(b"\x21" + bytes(13) + b"\x05" + bytes(4)), "truncated", id="short side"),
        pytest.param(sealed(b"\x21" + bytes(13) + b"\x20"), "length", id="padding without payload"),
        pytest.param(sealed(b"\x21" + bytes(13) + b"\x20\x01"), "field", id="padding not zero"),
        pytest.param(bundle(0, 0, b""), "field", id="bundle of none"),
        pytest.param(bundle(1, 0, bytes(5) + b"x"), "field", id="bundle of one"),
        pytest.param(bundle(65, 0, b"".join(bytes([0, 0, 0, i, 0]) for i in range(65))), "field", id="bundle of 65"),
        pytest.param(sealed(b"\x23" + bytes(9)), "truncated", id="short bundle header"),
        pytest.param(bundle(2, 0, bytes(9)), "truncated", id="short bundle keys"),
        pytest.param(bundle(2, 1, KEYS + b"x"), "truncated", id="short bundle sides"),
        pytest.param(bundle(2, 1, KEYS + b"xypqr"), "length", id="payloads of two lengths"),
        pytest.param(bundle(2, 0x20, KEYS), "length", id="bundle with padding without payload"),
        pytest.param(bundle(2, 0x20, KEYS + b"\x02\x01"), "field", id="bundle with padding not zero"),
        pytest.param(bundle(2, 0, bytes(10) + b"pq"), "field", id="bundle of the same report twice"),
        pytest.param(mixed(1, 0, bytes(9)), "field", id="unequal bundle of one"),
        pytest.param(sealed(b"\x24" + bytes(9)), "truncated", id="short unequal bundle header"),
        pytest.param(mixed(2, 0, bytes(17)), "truncated", id="short unequal bundle keys"),
        pytest.param(mixed(2, 1, MIXED_KEYS + b"x"), "truncated", id="short unequal bundle sides"),
        pytest.param(mixed(2, 1, MIXED_KEYS + b"xy\x80\x10"), "truncated", id="short unequal payloads"),
        pytest.param(mixed(2, 1, MIXED_KEYS + b"xy\x80\x10\x10\0"), "trailing", id="bytes after unequal payloads"),
        pytest.param(mixed(2, 0x21, MIXED_KEYS + b"xy\x80\x10\x10"), "field", id="unequal bundle with padding bits"),
        pytest.param(mixed(2, 1, MIXED_KEYS + b"xy\x81\x10\x10"), "field", id="first padding not zero"),
        pytest.param(mixed(2, 1, MIXED_KEYS + b"xy\x80\x10\x11"), "field", id="second padding not zero"),
        pytest.param(mixed(2, 0, 2 * (KEYS[:5] + bytes(4))), "field", id="unequal bundle of equal payloads"),
        pytest.param(mixed(2, 0, KEYS[:5] + bytes(4) + KEYS[:5] + b"\0\0\0\x08p"), "field", id="unequal twins"),
        pytest.param(mixed(2, 0, KEYS[:5] + bytes(4) + KEYS[5:] + 4 * b"\xff"), "truncated", id="claims 512 MiB"),
        pytest.param(bytes(MAX_MESSAGE_BYTES + 1), "length", id="too long"),
        pytest.param(control([1, 2]), "field", id="no map"),
        pytest.param(control({"bs": 1, "epoch": 0}), "type", id="no kind"),
        pytest.param(control({"kind": ["abort"]}), "type", id="kind is no text"),
        pytest.param(control({"kind": "hello"}), "type", id="unknown kind"),
        pytest.param(control({"kind": "welcome", "bs": 1}), "field", id="missing field"),
        pytest.param(control({"kind": "welcome", "bs": 1, "epoch": 0, "x": 0}), "field", id="extra field"),
        pytest.param(control({"kind": "welcome", "bs": 70000, "epoch": 0}), "field", id="out of range"),
        pytest.param(control({"kind": "welcome", "bs": True, "epoch": 0}), "field", id="bool for int"),
        pytest.param(control({"kind": "welcome", "bs": 1.0, "epoch": 0}), "field", id="float for int"),
        pytest.param(control({"kind": "welcome", "epoch": 0, "bs": 1}), "field", id="other order"),
        pytest.param(control({"kind": "abort", "reason": "x" * 257}), "field", id="long text"),
        pytest.param(control({"kind": "abort", "reason": b"no"}), "field", id="bytes for text"),
        pytest.param(control({"kind": "abort", 1: "no"}), "field", id="key is no text"),
        pytest.param(
            sealed(ABORT_BODY.replace(b"\x82", b"\x83") + b"\xa6reason\xa2no"),
            "field",
            id="repeated key",
        ),
        pytest.param(
            sealed(ABORT_BODY.replace(b"\xa2no", b"\xd9\x02no")),
            "field",
            id="wasteful text length",
        ),
        pytest.param(sealed(ABORT_BODY.replace(b"no", b"\xff\xfe")), "field", id="no UTF-8"),
        pytest.param(sealed(b"\x22\xc1"), "field", id="reserved msgpack byte"),
        pytest.param(sealed(b"\x22" + b"\x91" * 2000), "field", id="deep nesting"),
        pytest.param(sealed(b"\x22\xdf\xff\xff\xff\xff"), "field", id="claims four billion entries"),
        pytest.param(
            control(REGISTRATION_FIELDS | {"position": (float("nan"), 0.0, 0.0)}),
            "field",
            id="position not finite",
        ),
        pytest.param(control(REGISTRATION_FIELDS | {"report": None}), "field", id="no format"),
        pytest.param(control(REGISTRATION_FIELDS | {"report": (1, 1)}), "field", id="format of two"),
        pytest.param(control(REGISTRATION_FIELDS | {"report": (1, 1, 0, 0)}), "field", id="format of four"),
        pytest.param(control(REGISTRATION_FIELDS | {"report": (33, 1, 0)}), "field", id="format of too wide numbers"),
        pytest.param(control(REGISTRATION_FIELDS | {"report": (0, -1, 0)}), "field", id="format of less than no bits"),
        pytest.param(control(REGISTRATION_FIELDS | {"report": (False, 1, 0)}), "field", id="format of a false width"),
        pytest.param(control(REGISTRATION_FIELDS | {"report": (0.0, 1, 0)}), "field", id="format of a float width"),
        pytest.param(control(REGISTRATION_FIELDS | {"report": (2, 1 << 31, 0)}), "field", id="format beyond u32"),
        pytest.param(control(REGISTRATION_FIELDS | {"answer": (1, 1, 32)}), "field", id="format out of range"),
        pytest.param(control(REGISTRATION_FIELDS | {"answer": ((), "x", 0)}), "field", id="format of no numbers"),
        pytest.param(control(REGISTRATION_FIELDS | {"answer": False}), "field", id="format is no array"),
        pytest.param(control({"kind": "ping", "bs": 0, "epoch": 0, "t_sent_ns": -1}), "field", id="time before zero"),
    ],
)
def test_wrong_messages_are_named(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def test_the_cases_above_fail_for_what_they_change_alone() -> None:
    assert decode(sealed(ABORT_BODY)) == Abort("no")
    assert isinstance(decode(control(REGISTRATION_FIELDS)), Registration)
    assert decode(mixed(2, 1, MIXED_KEYS + b"xy\x80\x10\x10")) == Frame(
        0,
        (
            Report(ReportKey(0, 0, 0, 0), Payload(b"\x80", 1), b"x"),
            Report(ReportKey(0, 0, 0, 1), Payload(b"\x10\x10", 12), b"y"),
        ),
    )
    assert decode(bundle(2, 0x21, KEYS + b"xy" + b"\x02\x04")) == Frame(
        0,
        (
            Report(ReportKey(0, 0, 0, 0), Payload(b"\x02", 7), b"x"),
            Report(ReportKey(0, 0, 0, 1), Payload(b"\x04", 7), b"y"),
        ),
    )


def test_a_message_over_the_limit_is_our_own_fault() -> None:
    room = MAX_MESSAGE_BYTES - HEADER_BYTES - CRC_BYTES
    key = ReportKey(0, 0, 0)
    assert len(encode(Frame(0, (Report(key, Payload(bytes(room), 8 * room)),)))) == MAX_MESSAGE_BYTES
    with pytest.raises(LocalError, match="at most"):
        encode(Frame(0, (Report(key, Payload(bytes(room + 1), 8 * room + 8)),)))


@pytest.mark.parametrize("name", ["report", "bundle", "bundle of unequal payloads"])
def test_a_claim_reads_what_decoding_would_refuse(name: str) -> None:
    message, text = GOLDEN[name]
    assert isinstance(message, Frame)
    data = bytearray.fromhex(text)
    data[-6] ^= 1
    assert claim(bytes(data)) == (message.bs, message.epoch, message.seq, int(text[-8:], 16))


def test_a_claim_of_another_type_is_read_as_of_one_report() -> None:
    data = bytearray.fromhex(GOLDEN["report"][1])
    whole = claim(bytes(data))
    for first in (0x20, 0x22, 0x2F, 0x91):
        data[0] = first
        assert claim(bytes(data)) == whole
    for first in (0x23, 0x24):
        data[0] = first
        assert claim(bytes(data)) != whole


@pytest.mark.parametrize(
    ("first", "least"),
    [(1, HEADER_BYTES + CRC_BYTES), *((kind, BUNDLE_HEADER_BYTES + CRC_BYTES) for kind in (3, 4))],
)
def test_a_stump_claims_nothing(first: int, least: int) -> None:
    assert claim(b"") is None
    assert claim(bytes([first]) + bytes(least - 2)) is None
    assert claim(bytes([first]) + bytes(least - 1)) == (0, 0, 0, 0)


@given(st.binary(max_size=40))
def test_any_bytes_claim_something_or_nothing(data: bytes) -> None:
    claimed = claim(data)
    assert claimed is None or claimed.crc32 == int.from_bytes(data[-CRC_BYTES:], "big")


@golden
def test_control_messages_are_told_from_frames_by_their_type(message: Message, data: bytes) -> None:
    assert is_control(data) == (not isinstance(message, Frame))
    assert not is_control(b"")


@golden
def test_a_head_names_the_reports(message: Message, data: bytes) -> None:
    keys = [report.key for report in message.reports] if isinstance(message, Frame) else []
    assert report_keys(data) == keys
    if isinstance(message, Frame):
        assert report_keys(head(data)) == keys
        body_bytes = sum(len(report.side) + len(report.payload.data) for report in message.reports)
        assert len(head(data)) == len(data) - CRC_BYTES - body_bytes


@golden
def test_a_frame_is_named_in_one_go(message: Message, data: bytes) -> None:
    if isinstance(message, Frame):
        claimed = claim(data)
        assert claimed is not None and named(data) == (*claimed[1:], head(data))


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(RemoteError("checksum", "no")))
    assert (error.reason, str(error)) == ("checksum", "no [checksum]")

"""Wire format: one table of messages and their bytes drives everything."""

import dataclasses
import pickle
import struct
import zlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fronthaul.errors import LocalError, RemoteError
from fronthaul.messages import (
    Abort,
    Frame,
    Goodbye,
    Message,
    Payload,
    Registration,
    Report,
    ReportKey,
    Welcome,
)
from fronthaul.wire import CRC_BYTES, HEADER_BYTES, MAX_MESSAGE_BYTES, VERSION, claim, decode, encode

GOLDEN: dict[str, tuple[Message, str]] = {
    "report": (
        Frame(
            0x0A0B0C0D, Report(ReportKey(3, 2, 0x01020304, 1), Payload(b"\xa7\x00", 9), b"\xde\xad\xbe\xef")
        ),
        "11 0003 0002 01020304 01 0a0b0c0d e4 deadbeef a700 4d840465",
    ),
    "empty report": (
        Frame(0, Report(ReportKey(0, 0, 0), Payload(b"", 0))),
        "11 0000 0000 00000000 00 00000000 00 2a4a4740",
    ),
    "largest header": (
        Frame(
            0xFFFFFFFF, Report(ReportKey(0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFF), Payload(b"\x80", 1), bytes(31))
        ),
        "11 ffff ffff ffffffff ff ffffffff ff" + 31 * "00" + "80 3a330032",
    ),
    "registration": (
        Registration(7, 1, "ecc", 4, 768, 4, (1.0, -2.5, 10.0), (0.5, 0.0, 0.0)),
        "12 89 a46b696e64 ac726567697374726174696f6e a26273 07 a565706f6368 01 a6736368656d65 a3656363"
        "a462697473 04 ac636f656666696369656e7473 cd0300 aa736964655f6279746573 04"
        "a8706f736974696f6e 93 cb3ff0000000000000 cbc004000000000000 cb4024000000000000"
        "ab6f7269656e746174696f6e 93 cb3fe0000000000000 cb0000000000000000 cb0000000000000000 26e497a2",
    ),
    "welcome": (Welcome(7, 1), "12 83 a46b696e64 a777656c636f6d65 a26273 07 a565706f6368 01 511a5484"),
    "goodbye": (
        Goodbye(7, 1, 300),
        "12 84 a46b696e64 a7676f6f64627965 a26273 07 a565706f6368 01 a66672616d6573 cd012c 2d8553c3",
    ),
    "abort": (Abort("no"), "12 82 a46b696e64 a561626f7274 a6726561736f6e a26e6f 6856f8f5"),
}

ABORT_BODY = encode(Abort("no"))[:-CRC_BYTES]
REGISTRATION_FIELDS = {
    "kind": "registration",
    **{"bs": 0, "epoch": 0, "scheme": "s", "bits": 1, "coefficients": 1, "side_bytes": 0},
    **{"position": (0.0, 0.0, 0.0), "orientation": (0.0, 0.0, 0.0)},
}

unsigned = {width: st.integers(0, (1 << width) - 1) for width in (8, 16, 32)}
angle = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=64).filter(lambda text: all(not 0xD800 <= ord(c) <= 0xDFFF for c in text))


@st.composite
def payloads(draw: st.DrawFn) -> Payload:
    """Any payload: whole bytes with the padding cleared."""
    bits = draw(st.integers(0, 400))
    value = draw(st.integers(0, (1 << bits) - 1))
    return Payload((value << -bits % 8).to_bytes(-(-bits // 8), "big"), bits)


keys = st.builds(ReportKey, unsigned[16], unsigned[16], unsigned[32], unsigned[8])
frames = st.builds(Frame, unsigned[32], st.builds(Report, keys, payloads(), st.binary(max_size=31)))
controls = st.one_of(
    st.builds(
        Registration,
        bs=unsigned[16],
        epoch=unsigned[16],
        scheme=texts.filter(bool),
        bits=st.integers(1, 32),
        coefficients=unsigned[32],
        side_bytes=st.integers(0, 31),
        position=st.tuples(angle, angle, angle),
        orientation=st.tuples(angle, angle, angle),
    ),
    st.builds(Welcome, unsigned[16], unsigned[16]),
    st.builds(Goodbye, unsigned[16], unsigned[16], unsigned[32]),
    st.builds(Abort, texts),
)


def sealed(body: bytes) -> bytes:
    """Return `body` with the CRC that belongs to it."""
    return body + struct.pack(">I", zlib.crc32(body))


def control(fields: object) -> bytes:
    """Return a control message with any body, right down to the CRC."""
    return sealed(b"\x12" + msgpack.packb(fields))


def reason_of(data: bytes) -> str:
    """Return why `data` is no message."""
    with pytest.raises(RemoteError) as caught:
        decode(data)
    return caught.value.reason


CASES = [pytest.param(message, bytes.fromhex(text), id=name) for name, (message, text) in GOLDEN.items()]
golden = pytest.mark.parametrize(("message", "data"), CASES)
# A report takes its length from the transport, so that a sealed prefix of one may be another report.
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


@given(frames | controls)
def test_messages_survive_the_round_trip(message: Message) -> None:
    data = encode(message)
    assert decode(data) == message
    assert encode(decode(data)) == data


@given(frames)
def test_length_of_a_report(frame: Frame) -> None:
    report = frame.report
    assert len(encode(frame)) == HEADER_BYTES + len(report.side) + len(report.payload.data) + CRC_BYTES


@given(st.binary(max_size=80), st.booleans(), st.sampled_from([0x11, 0x12]))
def test_no_bytes_but_messages_are_accepted(body: bytes, seal: bool, first: int) -> None:
    """Arbitrary bytes are the one encoding of a message, or raise RemoteError."""
    data = sealed(bytes([first]) + body) if seal else body
    try:
        message = decode(data)
    except RemoteError:
        return
    assert encode(message) == data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(sealed(b"\x10" + bytes(14)), "type", id="reserved type"),
        pytest.param(sealed(b"\x11" + bytes(13)), "truncated", id="short header"),
        pytest.param(sealed(b"\x11" + bytes(13) + b"\x05" + bytes(4)), "truncated", id="short side"),
        pytest.param(sealed(b"\x11" + bytes(13) + b"\x20"), "length", id="padding without payload"),
        pytest.param(sealed(b"\x11" + bytes(13) + b"\x20\x01"), "field", id="padding not zero"),
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
        pytest.param(sealed(b"\x12\xc1"), "field", id="reserved msgpack byte"),
        pytest.param(sealed(b"\x12" + b"\x91" * 2000), "field", id="deep nesting"),
        pytest.param(sealed(b"\x12\xdf\xff\xff\xff\xff"), "field", id="claims four billion entries"),
        pytest.param(
            control(REGISTRATION_FIELDS | {"position": (float("nan"), 0.0, 0.0)}),
            "field",
            id="position not finite",
        ),
    ],
)
def test_wrong_messages_are_named(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def test_the_cases_above_fail_for_what_they_change_alone() -> None:
    assert decode(sealed(ABORT_BODY)) == Abort("no")
    assert isinstance(decode(control(REGISTRATION_FIELDS)), Registration)


def test_a_message_over_the_limit_is_our_own_fault() -> None:
    room = MAX_MESSAGE_BYTES - HEADER_BYTES - CRC_BYTES
    key = ReportKey(0, 0, 0)
    assert len(encode(Frame(0, Report(key, Payload(bytes(room), 8 * room))))) == MAX_MESSAGE_BYTES
    with pytest.raises(LocalError, match="at most"):
        encode(Frame(0, Report(key, Payload(bytes(room + 1), 8 * room + 8))))


def test_a_claim_reads_what_decoding_would_refuse() -> None:
    message, text = GOLDEN["report"]
    assert isinstance(message, Frame)
    data = bytearray.fromhex(text)
    data[20] ^= 1
    claimed = claim(bytes(data))
    assert claimed is not None
    assert claimed[:4] == dataclasses.astuple(message.report.key)
    assert claimed.seq == message.seq
    assert claimed.crc32 == int(text[-8:], 16)
    assert claim(bytes(HEADER_BYTES + CRC_BYTES - 1)) is None


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(RemoteError("checksum", "no")))
    assert (error.reason, str(error)) == ("checksum", "no [checksum]")

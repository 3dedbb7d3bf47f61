"""Payload of `ecc-total`: budgets are kept exactly, an independent quantiser agrees, a report says its length."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fronthaul.codec.bitstream import with_prefix, without_prefix
from fronthaul.codec.codebook import gaussian_step
from fronthaul.errors import RemoteError
from fronthaul.message.messages import Payload
from fronthaul.payload.rate import shared_out
from fronthaul.payload.total import OPTIONS, shared_lengths, total_payload

STATIONS, CLASSES, NUMBERS, KNOWN = 3, 8, 40, 6


def tensors(seed: int = 1) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        "worth": np.sort(draw.exponential(size=NUMBERS))[::-1],
        "gain_classes": np.sort(draw.uniform(-120, -60, CLASSES - 1)),
        "class_mean": draw.normal(size=(CLASSES, KNOWN)),
        "class_deviation": draw.uniform(0.1, 1, (CLASSES, KNOWN)),
        "order_1": np.concatenate([np.arange(STATIONS), draw.integers(0, STATIONS, 381)]),
        "order_8": np.concatenate(
            [draw.integers(1, STATIONS * CLASSES, 200), draw.integers(0, STATIONS * CLASSES, 2800)]
        ),
    }


@pytest.mark.parametrize("classes", [1, 8])
def test_lengths_have_the_budget_as_their_mean_and_grow_with_it(classes: int) -> None:
    order, named = tensors()[f"order_{classes}"], {1: 0, 8: 3}[classes]
    before = np.zeros((STATIONS, classes), int)
    for bits in range(24, 385):
        lengths = shared_lengths(order, STATIONS, classes, bits)
        assert (named + lengths).mean(1).sum() == bits and (lengths >= before).all()
        before = lengths


@pytest.mark.parametrize("coded", [0, 1])
@pytest.mark.parametrize("bits", [24, 96, 200])
def test_reports_are_those_of_an_independent_computation(bits: int, coded: int) -> None:
    own, draw = tensors(), np.random.default_rng(2)
    payloads = [total_payload(k, STATIONS, own, {"total_bits": bits, "entropy": coded}) for k in range(STATIONS)]
    assert len({payload.format for payload in payloads}) == 1
    given = own["order_8"][: 8 * (bits - 9)].tolist()
    for gain, k in itertools.product([*(own["gain_classes"] - 0.1), 0.0], range(STATIONS)):
        c = sum(gain > border for border in own["gain_classes"])
        y = draw.normal(size=NUMBERS).astype(np.float32)
        mean, deviation = np.zeros(NUMBERS), np.ones(NUMBERS)
        mean[:KNOWN], deviation[:KNOWN] = own["class_mean"][c], own["class_deviation"][c]
        widths = shared_out(own["worth"] * deviation.astype(np.float32).astype(float) ** 2, given.count(8 * k + c))
        text, expected = f"{c:03b}", mean.copy()
        for i, width in enumerate(widths.tolist()):
            if width:
                step, half = gaussian_step(width), 2 ** (width - 1)
                at = int(np.clip(np.floor((y[i] - mean[i]) / deviation[i] / step), -half, half - 1))
                expected[i] = mean[i] + deviation[i] * step * (at + 0.5)
                text += f"{at + half:0{width}b}"
        sent = payloads[k].encode(gain, y)
        if not coded:
            data = np.packbits([int(bit) for bit in text]).tobytes()
            assert sent == Payload(data, len(text))
        assert sent.bits <= len(text) <= payloads[k].format.max_bits
        np.testing.assert_allclose(payloads[k].decode(sent), expected, rtol=1e-4, atol=1e-5)


def test_one_length_a_station_names_no_class() -> None:
    own = tensors()
    payload = total_payload(1, STATIONS, own, {"total_bits": 100, "classes": 1})
    lengths = {payload.encode(gain, np.zeros(NUMBERS, np.float32)).bits for gain in (-130.0, -90.0, 0.0)}
    assert lengths == {int((own["order_1"][:100] == 1).sum())}


def test_what_a_base_station_does_not_make_is_refused() -> None:
    payload = total_payload(0, STATIONS, tensors(), {"total_bits": 120})
    sent = payload.encode(-90.0, np.zeros(NUMBERS, np.float32))
    other = with_prefix(without_prefix(sent, 3)[1], (sent.data[0] >> 5) ^ 1, 3)
    for wrong in (Payload(b"\x40", 2), with_prefix(sent, 0, 1), other):
        with pytest.raises(RemoteError):
            payload.decode(wrong)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"total_bits": 23}, "3 base stations together have 24 to 384 bits, not 23"),
        ({"total_bits": 385, "classes": 1}, "3 base stations together have 24 to 384 bits, not 385"),
        ({"classes": 4}, "a base station has 1 or 8 classes, not 4"),
        ({"entropy": 2}, "the option entropy is 0 or 1, not 2"),
    ],
)
def test_bad_options_are_one_sentence(options: dict[str, int], sentence: str) -> None:
    assert options.keys() <= OPTIONS.keys()
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        total_payload(0, STATIONS, tensors(), options)


@given(st.binary(max_size=9), st.integers(0, 7), st.integers(0, 12), st.integers(0))
def test_a_prefix_comes_off_again(data: bytes, cut: int, width: int, index: int) -> None:
    bits = max(8 * len(data) - cut, 0)
    text = "".join(f"{byte:08b}" for byte in data)[:bits]
    payload = Payload(np.packbits([int(bit) for bit in text]).tobytes() if text else b"", bits)
    index %= 1 << width
    whole = with_prefix(payload, index, width)
    expected = (f"{index:0{width}b}" if width else "") + text
    assert whole.bits == len(expected)
    assert "".join(f"{byte:08b}" for byte in whole.data)[: whole.bits] == expected
    assert without_prefix(whole, width) == (index, payload)

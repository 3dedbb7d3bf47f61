"""Payload of `twin`: exact lengths, errors within half a step, and what is not sent."""

import math

import numpy as np
import pytest

from fronthaul.errors import RemoteError
from fronthaul.message.messages import Payload
from fronthaul.payload.twin import LEVEL_BITS, RELATIVE_DB, TwinPayload, report_widths, steps, variances

WIDTHS = ((7, 0, 14, 9, 12), (5, 6, 11, 7, 8), (4, 5, 10, 6, 6))
RANGE_DB = (-140.0, -70.0)
DRAW = np.random.default_rng(2)


def some(count: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    level = np.column_stack([DRAW.uniform(*RANGE_DB, count), *DRAW.uniform(-40, 0, (2, count))])
    level[:, 1:] += level[:, :1]
    gain = 10 ** (level / 20) * np.exp(1j * DRAW.uniform(-math.pi, math.pi, level.shape))
    place = np.stack([DRAW.uniform(0, 1, level.shape), *DRAW.uniform(-math.pi, math.pi, (2, *level.shape))], -1)
    return place, gain, 10 ** DRAW.uniform(-4, 0, count)


def test_every_parameter_comes_back_to_half_a_step() -> None:
    payload, (place, gain, share) = TwinPayload(WIDTHS, RANGE_DB), some()
    sent = payload.encode(place, gain, share)
    assert {one.bits for one in sent} == {sum(map(sum, WIDTHS)) + LEVEL_BITS} == {payload.format.max_bits}
    got, step = payload.decode(sent), steps(WIDTHS, RANGE_DB)
    assert (np.abs(got.place - place) <= step[:, 2:] / 2 * (1 + 1e-4)).all()
    level = 20 * np.log10(np.abs(gain))
    apart = np.abs(20 * np.log10(np.abs(got.gain)) - level)
    assert (apart[:, 0] <= step[0, 0] / 2 * (1 + 1e-4)).all()
    inside = (level[:, 1:] - 20 * np.log10(np.abs(got.gain[:, :1])) < RELATIVE_DB[1]) & (apart[:, 1:] > -1)
    assert (apart[:, 1:] <= step[1:, 0] / 2 * (1 + 1e-4))[inside].all()
    turn = np.angle(got.gain / gain * np.exp(1j * np.angle(gain[:, :1])))
    assert (np.abs(turn) <= step[:, 1] / 2 * (1 + 1e-4) * (np.arange(3) > 0) + 1e-6).all()


def test_variances_are_those_of_the_errors() -> None:
    payload, (place, gain, share) = TwinPayload(WIDTHS, RANGE_DB), some(4000)
    got = payload.decode(payload.encode(place, gain, share))
    error = got.place - place
    assert (error**2 / got.variance[..., 2:]).mean((0, 1)) == pytest.approx(1, abs=0.06)
    size = np.abs(gain)
    apart = (np.abs(got.gain) - size) ** 2 / variances(size, steps(WIDTHS, RANGE_DB))[..., 0]
    assert apart.mean() == pytest.approx(1, abs=0.15)


def test_what_has_no_bits_is_the_middle_of_its_range() -> None:
    widths = ((3, 0, 5, 0, 2),)
    payload, (place, gain, share) = TwinPayload(widths, RANGE_DB), some(5)
    got = payload.decode(payload.encode(place[:, :1], gain[:, :1], share))
    assert (got.place[..., 1] == 0).all()
    assert got.variance[0, 0, 3] == pytest.approx((2 * math.pi) ** 2 / 12)


def test_an_amplitude_below_its_range_may_be_none() -> None:
    payload, (place, gain, share) = TwinPayload(WIDTHS, RANGE_DB), some(5)
    gain[:, 2] = 1e-9 * gain[:, 0]
    got = payload.decode(payload.encode(place, gain, share))
    assert got.variance[:, 2, 0] == pytest.approx(np.abs(got.gain[:, 2]) ** 2 / 3)


@pytest.mark.parametrize("data", [b"", b"\0", bytes(40)])
def test_a_payload_of_another_length_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        TwinPayload(WIDTHS, RANGE_DB).decode([Payload(data, 8 * len(data))])


ALLOCATION = {
    "lengths": [12, 20, 64],
    "atoms": [1, 2, 2],
    "orders": {
        "1": {"least": [3, 0, 4, 1, 2], "then": [2, 3, 2, 4, 2, 2, 2]},
        "2": {"least": [1, 0, 2, 1, 1, 2, 2, 3, 1, 1], "then": [2, 7, 3, 8, 4, 9] * 10},
    },
}


@pytest.mark.parametrize("bits", range(12, 65))
def test_a_report_has_the_length_that_was_asked_for(bits: int) -> None:
    widths = report_widths({"allocation": ALLOCATION}, bits)
    assert TwinPayload(widths, RANGE_DB).format.max_bits == bits
    assert len(widths) == (1 if bits < 20 else 2)


@pytest.mark.parametrize("bits", [0, 11, 65])
def test_other_lengths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"12 to 64 bits, not {bits}"):
        report_widths({"allocation": ALLOCATION}, bits)

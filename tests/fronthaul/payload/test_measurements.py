"""Measurements as whole numbers: NRPPa's ranges, cells of the stated width, and nothing lost but what a cell hides."""

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fronthaul.errors import RemoteError
from fronthaul.message.messages import Payload
from fronthaul.payload.first_path import FirstPathPayload
from fronthaul.payload.measurements import (
    AZIMUTH,
    POWER_DBM,
    TC_S,
    ZENITH,
    Path,
    angle_deviation,
    angle_quality,
    relative_scale,
    rtoa_scale,
    timing_deviation_s,
    timing_quality,
)

RTOA = (1970049, 985025, 492513, 246257, 123129, 61565)
RELATIVE = (16351, 8176, 4088, 2044, 1022, 511)
"""Largest values of ULRTOAMeas and RelativePathDelay in TS 38.455, for k = 0 … 5."""


@pytest.mark.parametrize("k", range(6))
def test_times_have_the_ranges_of_nrppa(k: int) -> None:
    assert rtoa_scale(k).count == RTOA[k] + 1 and relative_scale(k).count == RELATIVE[k] + 1
    assert rtoa_scale(k).step == pytest.approx(2**k / (480e3 * 4096))
    assert rtoa_scale(k).index(-985024.5 * TC_S) == 0 and rtoa_scale(k).index(1.0) == RTOA[k]


def test_powers_and_angles_have_theirs() -> None:
    assert (POWER_DBM.index(-156.1), POWER_DBM.index(-155.9), POWER_DBM.index(-31.1)) == (0, 1, 125)
    assert POWER_DBM.index(-30.9) == POWER_DBM.count - 1 == 126
    assert (AZIMUTH.count, ZENITH.count, AZIMUTH.index(-math.pi), AZIMUTH.index(math.pi)) == (3600, 1800, 0, 3599)
    assert ZENITH.index(math.radians(90.04)) == 900


@given(st.sampled_from(range(6)), st.floats(-4e-6, 4e-6))
def test_a_time_comes_back_to_within_half_a_cell(k: int, time_s: float) -> None:
    for scale in (rtoa_scale(k), relative_scale(k)):
        assert abs(scale.value(scale.index(time_s)) - time_s) <= scale.step / 2 * (1 + 1e-6)


@given(st.floats(0, 3e-6))
def test_a_quality_is_rounded_up_and_not_by_more_than_its_unit(deviation_s: float) -> None:
    value, unit = timing_quality(deviation_s)
    assert 0 <= value <= 31 and 0 <= unit <= 3
    found = timing_deviation_s(value, unit)
    assert deviation_s * (1 - 1e-6) - 1e-15 <= found <= deviation_s + timing_deviation_s(1, unit) * (1 + 1e-6)


def test_the_quality_of_an_angle_ends_at_its_largest() -> None:
    assert angle_quality(math.radians(0.11)) == 2 and angle_quality(3.0) == 255
    assert angle_deviation(255) == pytest.approx(math.radians(25.5))


@pytest.mark.parametrize(("timed", "angled", "bits"), [(True, False, 28), (False, True, 39), (True, True, 67)])
def test_a_first_path_takes_the_bits_of_its_numbers(timed: bool, angled: bool, bits: int) -> None:
    coder = FirstPathPayload(timed=timed, angled=angled)
    path = Path(4.2e-7, -2.0, 1.7, delay_sd_s=3e-9, azimuth_sd=0.01, zenith_sd=0.02)
    payload = coder.encode(path)
    assert payload.bits == bits == coder.format.max_bits
    found = coder.decode(payload)
    assert math.isnan(found.delay_s) != timed and math.isnan(found.azimuth) != angled
    if timed:
        assert found.delay_s == pytest.approx(path.delay_s, abs=TC_S / 2)
        assert path.delay_sd_s <= found.delay_sd_s < 1.2 * path.delay_sd_s
    if angled:
        assert (found.azimuth, found.zenith) == pytest.approx((path.azimuth, path.zenith), abs=math.radians(0.05))
    assert sum(field.bits for field in coder.fields(payload)) == bits
    assert coder.fields(Payload(b"", 0)) == []
    with pytest.raises(RemoteError):
        coder.decode(Payload(b"\0", 8))


@pytest.mark.parametrize("k", [-1, 6])
def test_there_are_six_granularities(k: int) -> None:
    with pytest.raises(ValueError, match=f"k from 0 to 5, not {k}"):
        FirstPathPayload(timed=True, angled=False, k=k)

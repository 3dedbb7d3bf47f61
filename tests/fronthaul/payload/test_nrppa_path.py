"""Reports of `nrppa-path`, bit for bit against pycrate's NRPPa, and what is not such a report."""

import contextlib
import math
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from pycrate_asn1dir.NRPPa import NRPPA_IEs as elements

from fronthaul.codec.per import PerReader, PerWriter
from fronthaul.errors import LocalError, RemoteError
from fronthaul.message.messages import Payload
from fronthaul.payload.measurements import TC_S, Path
from fronthaul.payload.nrppa_path import NrppaPathPayload, PathChoice

RTOA = (1970049, 985025, 492513, 246257, 123129, 61565)
RELATIVE = (16351, 8176, 4088, 2044, 1022, 511)
"""Largest values of ULRTOAMeas and RelativePathDelay in TS 38.455, for k = 0 … 5."""


def cell(k: int, time_s: float, most_tc: int, most: int) -> tuple[str, int]:
    """TS 38.133: value 0 is below the range, 1 the first cell of 2^k T_c."""
    return f"k{k}", min(max(int((time_s / TC_S + most_tc) // 2**k) + 1, 0), most)


def oracle(choice: PathChoice, paths: list[Path]) -> bytes:
    """Pack the same values by pycrate."""

    def pack(element: Any, value: Any) -> bytes:
        element.set_val(value)
        return element.to_aper() if choice.aligned else element.to_uper()  # type: ignore[no-any-return]

    def direction(path: Path) -> dict[str, int]:
        return {"azimuthAoA": int((path.azimuth * 180 / math.pi + 180) * 10),
                "zenithAoA": int(path.zenith * 1800 / math.pi)}  # fmt: skip

    def power(path: Path) -> dict[str, int]:
        return {"firstPathRSRPP": int(path.power_dbm + 156) + 1}

    k = choice.k
    time = cell(k, paths[0].delay_s, 985024, RTOA[k])
    whole: dict[str, Any] = {"uLRTOAmeas": time}
    further = []
    for path in paths[1 : 1 + choice.paths]:
        start = (-985024 + (time[1] - 0.5) * 2**k) * TC_S
        item: dict[str, Any] = {"relativeTimeOfPath": cell(k, path.delay_s - start, 8175, RELATIVE[k])}
        if choice.angles:
            item["multipleULAoA"] = {"multipleULAoA": [("uL-AoA", direction(path))]}
        if choice.powers:
            item["pathPower"] = power(path)
        further.append(item)
    if further:
        value = ("ExtendedAdditionalPathList", further)
        whole["iE-extensions"] = [{"id": 77, "criticality": "ignore", "extensionValue": value}]
    made = pack(elements.UL_RTOAMeasurement, whole)
    made += pack(elements.UL_SRS_RSRPP, power(paths[0])) if choice.powers else b""
    made += pack(elements.UL_AoA, direction(paths[0])) if choice.angles else b""
    return made


many = st.builds(
    Path,
    delay_s=st.integers(-2000, 4000).map(lambda n: (n + 0.37) * TC_S),
    azimuth=st.integers(-1799, 1798).map(lambda n: (n + 0.3) * math.pi / 1800),
    zenith=st.integers(1, 1798).map(lambda n: (n + 0.3) * math.pi / 1800),
    power_dbm=st.integers(-150, -40).map(lambda n: n + 0.4),
)
choices = st.builds(
    PathChoice, st.integers(0, 8), st.integers(0, 5), st.booleans(), st.booleans(), st.booleans(), st.booleans()
)


@given(choices, st.lists(many, min_size=1, max_size=9))
@example(PathChoice(8, 0, True, True, True, True), [Path(1e-6, 1.0, 1.0, -80.5)] * 9)
def test_every_report_is_packed_as_pycrate_packs_it_and_comes_back(choice: PathChoice, paths: list[Path]) -> None:
    coder = NrppaPathPayload(choice)
    payload = coder.encode(paths)
    assert payload.data == oracle(choice, paths)
    assert payload.bits <= coder.format.max_bits
    found = coder.decode(payload)
    assert len(found) == min(len(paths), 1 + choice.paths)
    for path, sent in zip(found, paths, strict=False):
        assert abs(path.delay_s - sent.delay_s) <= (0.5 * 2**choice.k + 1e-3) * TC_S * 1.01
        if choice.powers:
            assert abs(path.power_dbm - sent.power_dbm) <= 0.5
        if choice.angles:
            assert abs(path.azimuth - sent.azimuth) < 9e-4 and abs(path.zenith - sent.zenith) < 9e-4


@pytest.mark.parametrize(("aligned", "bits"), [(True, 32), (False, 27)])
def test_a_time_alone(aligned: bool, bits: int) -> None:
    assert NrppaPathPayload(PathChoice(0, 0, False, False, aligned, True)).encode([Path(1e-6)]).bits == bits


@given(st.binary(max_size=60), choices)
def test_what_is_no_report_is_an_error_of_the_peer(data: bytes, choice: PathChoice) -> None:
    with contextlib.suppress(RemoteError):
        NrppaPathPayload(choice).decode(Payload(data, 8 * len(data)))


def test_every_prefix_of_a_report_and_more_than_it_are_refused() -> None:
    coder = NrppaPathPayload(PathChoice(3, 0, True, True, True, True))
    whole = coder.encode([Path(1e-6, 0.1, 1.0, -80.0)] * 3)
    for bits in (*range(0, len(whole.data) * 8 - 8, 8), len(whole.data) * 8 + 8):
        with pytest.raises(RemoteError):
            coder.decode(Payload((whole.data + b"\0")[: bits // 8], bits))


@pytest.mark.parametrize(("name", "value"), [("paths", 9), ("powers", 2), ("aligned", 7)])
def test_options_out_of_range_are_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{value}"):
        PathChoice.of({name: value})


def test_a_number_out_of_range_is_our_own_error() -> None:
    with pytest.raises(LocalError, match="is not in 0 … 6"):
        PerWriter(aligned=True).whole(7, 6)
    with pytest.raises(RemoteError, match="is not in 0 … 4"):
        PerReader(Payload(b"\xff", 8), aligned=False).whole(4)

"""Reports of `nrppa-sample`, bit for bit as pycrate encodes the structure that the module's docstring has."""

import contextlib
import math
import re
import runpy
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from pycrate_asn1c.asnproc import compile_text, generate_modules
from pycrate_asn1c.generator import PycrateGenerator
from pycrate_asn1dir.NRPPa import NRPPA_IEs as elements

from fronthaul.errors import RemoteError
from fronthaul.message.messages import Payload
from fronthaul.payload import nrppa_sample
from fronthaul.payload.measurements import TC_S, Path
from fronthaul.payload.nrppa_sample import NrppaSamplePayload, SampleChoice, SampledChannel

RTOA = (1970049, 985025, 492513, 246257, 123129, 61565)
"""Largest values of ULRTOAMeas in TS 38.455, for k = 0 … 5."""


@pytest.fixture(scope="module")
def structure(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The structure that the module states, compiled, with NRPPa's own choice of times."""
    [stated] = re.findall(r"    SampledChannel ::= .*?\n    }\n", nrppa_sample.__doc__ or "", re.S)
    times = ", ".join(f"k{k} INTEGER (0..{most})" for k, most in enumerate(RTOA))
    text = f"ULRTOAMeas ::= CHOICE {{ {times}, choice-extension NULL }}\n{stated}"
    compile_text(f"Sampled DEFINITIONS AUTOMATIC TAGS ::= BEGIN\n{text}\nEND\n")
    path = tmp_path_factory.mktemp("asn1") / "sampled.py"
    generate_modules(PycrateGenerator, str(path))
    return runpy.run_path(str(path))["Sampled"].SampledChannel


def oracle(structure: Any, choice: SampleChoice, sampled: SampledChannel) -> bytes:
    """Pack the same values by pycrate."""

    def pack(element: Any, value: Any) -> bytes:
        element.set_val(value)
        return element.to_aper() if choice.aligned else element.to_uper()  # type: ignore[no-any-return]

    k = choice.k
    start = min(max(int((sampled.start_s / TC_S + 985024) // 2**k) + 1, 0), RTOA[k])
    bits = sum(1 << (choice.window - 1 - n) for n in sampled.index)
    value: dict[str, Any] = {
        "windowStart": (f"k{k}", start),
        "reported": (f"n{choice.window}", (bits, choice.window)),
        "powers": [int(power + 156) + 1 for power in sampled.power_dbm],
    }
    if choice.phases:
        value["phases"] = [int(math.degrees(phase % (2 * math.pi)) * 10) for phase in sampled.phase]
    made = pack(structure, value)
    if choice.angles:
        azimuth, zenith = math.degrees(sampled.first.azimuth), math.degrees(sampled.first.zenith)
        made += pack(elements.UL_AoA, {"azimuthAoA": int((azimuth + 180) * 10), "zenithAoA": int(zenith * 10)})
    return made


choices = st.builds(
    SampleChoice, st.integers(1, 24), st.sampled_from((32, 64, 128)), st.integers(0, 5),
    st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip


@st.composite
def chosen_samples(draw: st.DrawFn) -> tuple[SampleChoice, SampledChannel]:
    choice = draw(choices)
    index = sorted(draw(st.sets(st.integers(0, choice.window - 1), min_size=1, max_size=choice.samples)))
    power = [draw(st.integers(-150, -40)) + 0.4 for _ in index]
    phase = [math.radians(draw(st.integers(-3599, 3599)) / 10 + 0.04) for _ in index]
    first = Path(azimuth=math.radians(draw(st.integers(-1799, 1798)) / 10 + 0.03), zenith=1.2)
    start_s = (draw(st.integers(-2000, 4000)) + 0.37) * TC_S
    return choice, SampledChannel(start_s, tuple(index), tuple(power), tuple(phase), first)


FULL = SampledChannel(1e-6, tuple(range(24)), (-80.6,) * 24, (1.0,) * 24, Path(azimuth=1.0, zenith=1.2))


@given(chosen_samples())
@example((SampleChoice(24, 128, 0, True, True, True), FULL))
def test_every_report_is_packed_as_pycrate_packs_it_and_comes_back(
    structure: Any, given: tuple[SampleChoice, SampledChannel]
) -> None:
    choice, sampled = given
    coder = NrppaSamplePayload(choice)
    payload = coder.encode(sampled)
    assert payload.data == oracle(structure, choice, sampled)
    assert payload.bits <= coder.format.max_bits
    found = coder.decode(payload)
    assert found.index == sampled.index
    assert abs(found.start_s - sampled.start_s) <= 0.5 * 2**choice.k * TC_S * 1.01
    assert found.power_dbm == pytest.approx(sampled.power_dbm, abs=0.5)
    turns = [(a - b + math.pi) % (2 * math.pi) - math.pi for a, b in zip(found.phase, sampled.phase, strict=False)]
    assert len(turns) == (len(sampled.index) if choice.phases else 0) and all(abs(turn) < 9e-4 for turn in turns)
    assert math.isnan(found.first.azimuth) != choice.angles
    apart_s = [
        path.delay_s - found.start_s - n * 2**choice.k * TC_S
        for path, n in zip(coder.paths(found), found.index, strict=True)
    ]
    assert max(map(abs, apart_s)) < 1e-12


@pytest.mark.parametrize(("samples", "window", "bits"), [(9, 64, 164), (24, 128, 333)])
def test_powers_alone_take_about_seven_bits_a_sample_and_one_for_each_of_the_window(
    samples: int, window: int, bits: int
) -> None:
    choice = SampleChoice.of({"samples": samples, "window": window, "angles": 0})
    assert NrppaSamplePayload(choice).format.max_bits == bits


@given(st.binary(max_size=80), choices)
def test_what_is_no_report_is_an_error_of_the_peer(data: bytes, choice: SampleChoice) -> None:
    with contextlib.suppress(RemoteError):
        NrppaSamplePayload(choice).decode(Payload(data, 8 * len(data)))


def test_every_prefix_of_a_report_and_more_than_it_are_refused() -> None:
    coder = NrppaSamplePayload(SampleChoice(24, 128, 0, True, True, True))
    whole = coder.encode(FULL)
    for bits in (*range(0, len(whole.data) * 8 - 8, 8), len(whole.data) * 8 + 8):
        with pytest.raises(RemoteError):
            coder.decode(Payload((whole.data + b"\0")[: bits // 8], bits))


def test_more_samples_than_agreed_are_refused() -> None:
    with pytest.raises(RemoteError, match="24 samples are reported, not 1 to 9"):
        NrppaSamplePayload(SampleChoice(9, 32, 5, False, False, True)).decode(
            NrppaSamplePayload(SampleChoice(24, 32, 5, False, False, True)).encode(FULL)
        )


@pytest.mark.parametrize(("name", "value"), [("samples", 25), ("window", 48), ("phases", 2)])
def test_options_out_of_range_are_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{value}"):
        SampleChoice.of({name: value})

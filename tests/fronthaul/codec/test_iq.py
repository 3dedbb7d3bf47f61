"""IQ codecs, held against a reference that writes every bit as text, and against what theory says of their error."""

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fronthaul.codec.iq import FULL_SCALE, Coded, Csi, block_float, compress, decompress, iq_codec, of_norm
from fronthaul.errors import LocalError, RemoteError
from fronthaul.message.messages import Payload

WIDTHS = range(1, 17)
NAMES = ["complex64", "iq16", *(f"bfp{width}" for width in WIDTHS)]
SCALED = NAMES[1:]


@st.composite
def reports(draw: st.DrawFn) -> Csi:
    """Draw a report (R, F): levels of any size, PRBs full or not, entries far apart and equal ones."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 26)))
    component = st.floats(-1, 1, width=32)
    parts = draw(arrays.arrays(np.float32, (*shape, 2), elements=component, fill=component))
    level = draw(st.integers(-126, 127))
    return (parts * np.float32(2.0**level)).view(np.complex64)[..., 0]


def noise(rows: int = 40, tones: int = 24, seed: int = 0) -> Csi:
    parts = np.random.default_rng(seed).standard_normal((rows, tones, 2), np.float32)
    return parts.view(np.complex64)[..., 0]


def bit_text(payload: Payload) -> str:
    return "".join(f"{byte:08b}" for byte in payload.data)[: payload.bits]


def numeral(value: int, width: int) -> str:
    """Two's complement, most significant bit first."""
    return f"{value % (1 << width):0{width}b}"


def reference_fixed(csi: Csi, scale: float) -> list[list[tuple[int, int]]]:
    """16 bit numbers, one division and Python's own rounding (ties to even) each."""

    def fixed(value: float) -> int:
        return max(-FULL_SCALE, min(FULL_SCALE, round(value / scale)))

    return [[(fixed(float(entry.real)), fixed(float(entry.imag))) for entry in row] for row in csi]


def reference_exponent(block: list[int], width: int) -> int:
    """O-RAN CUS annex A.1, as its pseudo code has it; log2 by counting bits."""
    largest = max(max(block), abs(min(block)) - 1)
    raw = 0
    while largest >> raw:
        raw += 1
    return max(raw - width + 1, 0)


def reference_mantissa(value: int, exponent: int, width: int) -> int:
    rounded = math.floor(value / (1 << exponent) + 0.5)  # exact: 16 bit numbers in double precision
    return min(rounded, (1 << (width - 1)) - 1)


def reference_bfp(csi: Csi, scale: float, width: int) -> tuple[str, list[list[tuple[int, int]]]]:
    """Return the payload's bits as text, and the 16 bit numbers that a receiver gets from them."""
    text, received = "", []
    for row in reference_fixed(csi, scale):
        back: list[tuple[int, int]] = []
        for first in range(0, len(row), 12):
            tones = row[first : first + 12]
            filled = tones + [(0, 0)] * (12 - len(tones))
            block = [part for tone in filled for part in tone]
            exponent = reference_exponent(block, width)
            mantissas = [reference_mantissa(part, exponent, width) for part in block]
            text += "0000" + numeral(exponent, 4) + "".join(numeral(m, width) for m in mantissas)
            values = [m * 2**exponent for m in mantissas]
            back += [(values[2 * tone], values[2 * tone + 1]) for tone in range(len(tones))]
        received.append(back)
    return text, received


def parts_of(csi: Csi) -> np.ndarray:
    return csi.view(np.float32).reshape(*csi.shape, 2).astype(np.float64)


@pytest.mark.parametrize(
    ("name", "bits"), [("complex64", 61_440), ("iq16", 30_720), ("bfp9", 17_920), ("bfp8", 16_000), ("bfp16", 31_360)]
)
def test_bits_of_a_report_of_ten_slots_four_antennas_and_24_tones(name: str, bits: int) -> None:
    codec = iq_codec(name, 40, 24)
    assert codec.bits * codec.words == bits
    assert compress(codec, noise()).payload.bits == bits


@pytest.mark.parametrize("width", WIDTHS)
def test_a_prb_takes_3w_plus_1_bytes(width: int) -> None:
    assert len(compress(iq_codec(f"bfp{width}", 1, 12), noise(1, 12)).payload.data) == 3 * width + 1


def test_golden_bytes() -> None:
    """Largest component 32767, so that s = 1: by hand, exponent 15 - 9 + 1 = 7."""
    csi = np.zeros((1, 12), np.complex64)
    csi[0, 0] = 32767 - 128j  # 32767 / 128 = 255.99 would round up to 256: saturates at 255; -128 is -1
    csi[0, 1] = 64 + 63j  # a tie goes up, to 1; 63 falls to 0
    coded = compress(iq_codec("bfp9", 1, 12), csi)
    assert coded.scale == 1.0
    first = "0000 0111" + "011111111" + "111111111" + "000000001" + "000000000"
    assert bit_text(coded.payload) == first.replace(" ", "").ljust(224, "0")
    assert compress(iq_codec("iq16", 1, 12), csi).payload.data[:8] == bytes.fromhex("7fffff80 0040003f")
    assert compress(iq_codec("complex64", 1, 12), csi).payload.data[:8].hex() == "46fffe00c3000000"


@given(reports(), st.sampled_from(WIDTHS))
def test_block_floating_point_is_the_reference_bit_by_bit(csi: Csi, width: int) -> None:
    codec = iq_codec(f"bfp{width}", *csi.shape)
    coded = compress(codec, csi)
    text, received = reference_bfp(csi, coded.scale, width)
    assert bit_text(coded.payload) == text
    expected = np.float32(np.array(received) * coded.scale)
    np.testing.assert_array_equal(parts_of(decompress(codec, *coded)), expected)


@given(reports())
def test_fixed_point_is_the_reference_bit_by_bit(csi: Csi) -> None:
    coded = compress(iq_codec("iq16", *csi.shape), csi)
    numbers = [part for row in reference_fixed(csi, coded.scale) for entry in row for part in entry]
    assert bit_text(coded.payload) == "".join(numeral(part, 16) for part in numbers)


@given(reports())
def test_complex64_comes_back_exactly_and_tone_by_tone(csi: Csi) -> None:
    codec = iq_codec("complex64", *csi.shape)
    coded = compress(codec, csi)
    assert coded.scale == 1.0
    assert decompress(codec, *coded).tobytes() == csi.tobytes()
    assert coded.payload.data == csi.T.astype(">c8").tobytes()


@given(reports())
def test_fixed_point_errs_by_half_a_step(csi: Csi) -> None:
    codec = iq_codec("iq16", *csi.shape)
    coded = compress(codec, csi)
    error = np.abs(parts_of(decompress(codec, *coded)) - parts_of(csi))
    # The rest is the rounding of s and of the result to float32.
    assert error.max() <= coded.scale * (0.5 + 2 * FULL_SCALE * 2.0**-24)


@given(reports(), st.sampled_from(WIDTHS))
def test_block_floating_point_errs_by_half_a_step_of_its_block(csi: Csi, width: int) -> None:
    """Against the 16 bit numbers: 2^(e-1), but 2^e - 1 where a positive number saturates; exact for e = 0."""
    scale = compress(iq_codec("iq16", *csi.shape), csi).scale
    for row in reference_fixed(csi, scale):
        block = np.array([part for tone in row[:12] for part in tone] + [0] * (24 - 2 * len(row[:12])), np.int32)
        (exponent,), (mantissa,) = block_float(block[None], width)
        assert -(1 << (width - 1)) <= mantissa.min() <= mantissa.max() < 1 << (width - 1)
        error = np.abs((mantissa << exponent) - block)
        saturates = (block + ((1 << exponent) >> 1)) >> exponent == 1 << (width - 1)
        assert error[~saturates].max(initial=0) <= (1 << exponent) / 2
        assert error[saturates].max(initial=0) <= (1 << exponent) - 1
        if exponent == 0:
            assert not error.any()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_exponent_is_the_least_that_fits_every_number(width: int) -> None:
    """All 16 bit numbers, each the only one of its block, the asymmetric ends of the range among them."""
    value = np.arange(-32768, 32768, dtype=np.int32)
    block = np.zeros((len(value), 24), np.int32)
    block[:, 7] = value
    exponent, mantissa = block_float(block, width)
    half = 1 << (width - 1)
    assert exponent.max() == 16 - width  # hence four bits are enough
    fits = (value >> exponent >= -half) & (value >> exponent < half)
    assert fits.all()
    finer = np.maximum(exponent - 1, 0)
    assert ((exponent == 0) | (value >> finer < -half) | (value >> finer >= half)).all()
    assert mantissa.min() == -half
    assert mantissa.max() == half - 1


@pytest.mark.parametrize("width", range(4, 15))
def test_noise_follows_the_uniform_model(width: int) -> None:
    """Mean square a component: s²/12 from the 16 bit grid; from e dropped bits of a whole number, ties up,
    s² (4^e + 2)/12 (the mean of r² over r = 1 - 2^(e-1) ... 2^(e-1)). Averaged over blocks: within 15 %.
    """
    csi = noise(2000, 12)
    codec = iq_codec(f"bfp{width}", *csi.shape)
    words, scale = codec.encode(csi)
    exponent = words.reshape(-1, 3 * width + 1)[:, 0].astype(np.float64)
    predicted = scale**2 / 12 * (1 + np.where(exponent > 0, 4.0**exponent + 2, 0.0).mean())
    measured = np.mean((parts_of(codec.decode(words, float(scale))) - parts_of(csi)) ** 2)
    assert measured == pytest.approx(predicted, rel=0.15)


@given(reports(), st.sampled_from(NAMES))
def test_reports_are_coded_alike_alone_and_together(csi: Csi, name: str) -> None:
    codec = iq_codec(name, *csi.shape)
    other = np.roll(csi, 1, axis=1) * np.float32(0.5)
    words, scale = codec.encode(np.stack([csi, other]))
    for report, own, its in zip((csi, other), words, scale, strict=True):
        alone, alone_scale = codec.encode(report)
        np.testing.assert_array_equal(alone, own)
        assert alone_scale == its


@pytest.mark.parametrize("name", [name for name in SCALED if name not in ("bfp1", "bfp2", "bfp3")])
def test_the_norm_stands_in_for_the_scale(name: str) -> None:
    """The scale differs from the sent one by the share of rounding noise in the norm: 4^-w, and its cross term."""
    csi = noise()
    codec = iq_codec(name, *csi.shape)
    coded = compress(codec, csi)
    with_scale = decompress(codec, *coded)
    with_norm = of_norm(decompress(codec, coded.payload), float(np.linalg.norm(csi)))
    assert np.linalg.norm(with_norm) == pytest.approx(np.linalg.norm(csi), rel=1e-6)
    rounding = float(np.linalg.norm(with_scale - csi) / np.linalg.norm(csi))
    assert np.linalg.norm(with_norm - with_scale) <= rounding * np.linalg.norm(csi)


@pytest.mark.parametrize("name", SCALED)
def test_the_scale_of_a_report_does_not_change_its_bits(name: str) -> None:
    codec = iq_codec(name, 40, 24)
    assert compress(codec, noise()).payload == compress(codec, noise() * np.float32(2.0**-20)).payload


@pytest.mark.parametrize("name", NAMES)
def test_zeros_stay_zeros(name: str) -> None:
    codec = iq_codec(name, 3, 13)
    csi = np.zeros((3, 13), np.complex64)
    coded = compress(codec, csi)
    assert set(coded.payload.data) <= {0}
    assert not decompress(codec, *coded).any()
    assert not of_norm(decompress(codec, coded.payload), 4.0).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_floats_do_not_overflow(name: str) -> None:
    largest = np.finfo(np.float32).max
    codec = iq_codec(name, 1, 1)
    coded = compress(codec, np.array([[complex(largest, -largest)]], np.complex64))
    assert np.isfinite(decompress(codec, *coded)).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_report_takes_well_under_a_millisecond(name: str) -> None:
    csi, codec = noise(), iq_codec(name, 40, 24)

    def best_s(call: Callable[[], object]) -> float:
        def once() -> float:
            begin = time.thread_time()
            call()
            return time.thread_time() - begin

        return min(once() for _ in range(20))

    coded: Coded = compress(codec, csi)
    assert best_s(lambda: compress(codec, csi)) < 1e-3
    assert best_s(lambda: decompress(codec, *coded)) < 1e-3


@pytest.mark.parametrize("bad", [np.nan, np.inf, complex(0, -np.inf)])
def test_what_is_not_finite_crosses_as_a_float_only(bad: complex) -> None:
    csi = np.array([[1, bad]], np.complex64)
    for name in SCALED:
        with pytest.raises(LocalError, match="finite"):
            iq_codec(name, 1, 2).encode(csi)
    codec = iq_codec("complex64", 1, 2)
    assert decompress(codec, *compress(codec, csi)).tobytes() == csi.tobytes()


@pytest.mark.parametrize("name", ["", "iq8", "bfp", "bfp0", "bfp17", "bfp09", "bfp9 ", "bfp-1", "BFP9", "bfp٩"])
def test_another_codec_is_refused(name: str) -> None:
    with pytest.raises(LocalError, match="bfp1 to bfp16"):
        iq_codec(name, 40, 24)


@pytest.mark.parametrize("shape", [(0, 24), (40, 0)])
def test_an_empty_report_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(LocalError, match="at least one entry"):
        iq_codec("iq16", *shape)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("csi", [noise(24, 40), noise(40, 24).astype(np.complex128), np.complex64(1)])
def test_another_shape_or_dtype_is_our_fault(name: str, csi: Csi) -> None:
    with pytest.raises(LocalError):
        iq_codec(name, 40, 24).encode(csi)


@pytest.mark.parametrize("name", NAMES)
def test_another_length_is_the_peers_fault(name: str) -> None:
    with pytest.raises(RemoteError) as caught:
        decompress(iq_codec(name, 40, 24), Payload(bytes(5), 40))
    assert caught.value.reason == "length"


@pytest.mark.parametrize("header", [0x10, 0x80, 8, 15])
def test_a_header_that_no_encoder_writes_is_the_peers_fault(header: int) -> None:
    """Reserved bits, or an exponent that would take 9 bit mantissas beyond 16 bit."""
    data = bytes([7]) + bytes(27) + bytes([header]) + bytes(27)
    with pytest.raises(RemoteError) as caught:
        decompress(iq_codec("bfp9", 1, 24), Payload(data, 8 * len(data)))
    assert caught.value.reason == "field"

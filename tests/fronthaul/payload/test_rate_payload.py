"""Payload of `ecc-klt` and `ecc-rd`: exact lengths, an independent transform and quantiser, and optimal shares."""

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fronthaul.codec.codebook import gaussian_step
from fronthaul.errors import RemoteError
from fronthaul.message.messages import Payload
from fronthaul.payload.rate import (
    CELLS,
    MOST_BITS,
    RatePayload,
    Transform,
    cell_counts,
    rate_payload,
    shared_out,
    symbols,
)

TONES, COEFFICIENTS, MIXED = 6, 5, 9
NUMBERS = 1 + TONES * COEFFICIENTS


def some(seed: int = 1) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    turn = [np.linalg.qr(draw.normal(size=(COEFFICIENTS, COEFFICIENTS)))[0] for _ in range(TONES)]
    return {
        "centre": draw.normal(size=NUMBERS) * 3,
        "scale": draw.uniform(0.2, 2, NUMBERS),
        "order": draw.permutation(NUMBERS - 1).astype(np.int16),
        "tones": np.linalg.qr(draw.normal(size=(TONES, TONES)))[0],
        "modes": np.concatenate(turn),
        "mixing": draw.normal(size=(MIXED, MIXED)) + 3 * np.eye(MIXED),
        "worth": np.sort(draw.exponential(size=NUMBERS))[::-1],
    }


def numbers_of(own: dict[str, np.ndarray], gain_db: float, latent: np.ndarray) -> np.ndarray:
    """y (1 + L,) of one report, number by number, in float64."""
    z = latent - own["centre"][1:].reshape(TONES, COEFFICIENTS)
    apart = np.zeros((TONES, COEFFICIENTS))
    for g in range(TONES):
        mode = sum(own["tones"][f, g] * z[f] for f in range(TONES))
        turn = own["modes"][g * COEFFICIENTS : (g + 1) * COEFFICIENTS]
        for c in range(COEFFICIENTS):
            apart[g, c] = mode @ turn[:, c]
    t = np.concatenate([[gain_db - own["centre"][0]], apart.ravel()[own["order"]]]) / own["scale"]
    return np.concatenate([own["mixing"] @ t[:MIXED], t[MIXED:]])


@pytest.mark.parametrize("bits", [16, 40, 120])
def test_reports_are_those_of_an_independent_computation(bits: int) -> None:
    own, draw = some(), np.random.default_rng(2)
    gain_db = draw.normal(size=40).astype(np.float32) * 5
    latent = draw.normal(size=(40, TONES, COEFFICIENTS)).astype(np.float32)
    transform, payload = Transform(own), RatePayload(own["worth"], bits)
    y = transform.analyse(gain_db, latent)
    wrong = 0
    for row in range(40):
        expected = numbers_of(own, float(gain_db[row]), latent[row].astype(np.float64))
        np.testing.assert_allclose(y[row], expected, rtol=1e-4, atol=1e-5)
        word = ""
        found = np.zeros(NUMBERS)
        for i, width in enumerate(payload.widths):
            if width:
                step, half = gaussian_step(int(width)), 2 ** (width - 1)
                cell = min(max(math.floor(expected[i] / step), -half), half - 1)
                word += format(cell + half, f"0{width}b")
                found[i] = step * (cell + 0.5)
        sent = payload.encode(y[row])
        assert sent.bits == bits == len(word)
        wrong += "".join(f"{octet:08b}" for octet in sent.data)[:bits] != word
        np.testing.assert_allclose(payload.decode(payload.encode(found.astype(np.float32))), found, rtol=1e-5)
    assert wrong <= 1  # a number that lies on the border of two cells


def test_what_is_sent_in_full_comes_back() -> None:
    own, draw = some(), np.random.default_rng(3)
    gain_db = draw.normal(size=7).astype(np.float32) * 5
    latent = draw.normal(size=(7, TONES, COEFFICIENTS)).astype(np.float32)
    rounded = {name: np.round(value * 64) / 64 if name in ("tones", "modes") else value for name, value in own.items()}
    for tensors in (own, rounded):  # stored in few bits, matrices are not orthogonal
        transform = Transform(tensors)
        back_db, back = transform.synthesise(transform.analyse(gain_db, latent))
        np.testing.assert_allclose(back_db, gain_db, atol=1e-3)
        np.testing.assert_allclose(back, latent, atol=1e-3)


def test_the_cloud_may_undo_the_mixing_in_its_own_way() -> None:
    own = some()
    y = np.random.default_rng(4).normal(size=(3, NUMBERS)).astype(np.float32)
    half = Transform({**own, "unmixing": np.linalg.inv(own["mixing"]) / 2}).synthesise(y)
    whole = Transform(own).synthesise(y)
    of_first = own["scale"][0] * (np.linalg.inv(own["mixing"]) @ y[:, :MIXED].T)[0]
    np.testing.assert_allclose(whole[0] - half[0], of_first / 2, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bits", range(16, MOST_BITS * NUMBERS + 1))
def test_every_length_is_exact_and_comes_back(bits: int) -> None:
    payload = RatePayload(some()["worth"], bits)
    y = np.random.default_rng(bits).normal(size=NUMBERS).astype(np.float32)
    sent = payload.encode(y)
    assert sent.bits == bits == payload.format.max_bits and not payload.format.side_bytes
    got = payload.decode(sent)
    assert payload.encode(got) == sent
    assert (got[payload.widths == 0] == 0).all()
    step = np.array([gaussian_step(int(width)) if width else np.inf for width in payload.widths])
    inside = np.abs(y) < step * 2.0 ** (payload.widths - 1)
    assert (np.abs(got - y) <= step / 2 * (1 + 1e-5))[inside].all()


@pytest.mark.parametrize("bits", [16, 64, 777, 4096])
def test_lengths_of_a_latent_as_large_as_the_shipped_one(bits: int) -> None:
    worth = np.exp(-np.arange(769) / 60)
    widths = shared_out(worth, bits)
    assert widths.sum() == bits and widths.max() <= MOST_BITS
    shorter = shared_out(worth, bits - 1)
    assert (widths >= shorter).all()  # nested: a longer report refines a shorter one


def measured_error(width: int) -> float:
    """Mean squared error of a unit Gaussian, by quadrature on a fine grid."""
    z = np.linspace(-8, 8, 160_001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    if not width:
        return 1.0
    step, half = gaussian_step(width), 2 ** (width - 1)
    found = step * (np.clip(np.floor(z / step), -half, half - 1) + 0.5)
    return float(((z - found) ** 2 * density).sum() * (z[1] - z[0]))


def test_no_other_share_of_the_bits_has_a_lower_error() -> None:
    error = [measured_error(width) for width in range(MOST_BITS + 1)]
    worth = some(5)["worth"]
    widths = shared_out(worth, 60)
    lost = [worth[i] * (error[w - 1] - error[w]) if w else np.inf for i, w in enumerate(widths)]
    won = [worth[i] * (error[w] - error[w + 1]) if w < MOST_BITS else 0 for i, w in enumerate(widths)]
    assert min(lost) >= max(won) * (1 - 5e-3)  # exact where the error is convex, which it is


@pytest.mark.parametrize("bits", [0, 15, 8 * NUMBERS + 1, 5000])
def test_other_lengths_are_one_sentence(bits: int) -> None:
    with pytest.raises(ValueError, match=f"a report has 16 to 248 bits, not {bits}"):
        RatePayload(some()["worth"], bits)


def test_what_is_worth_nothing_is_not_sent() -> None:
    worth = np.where(np.arange(20) < 4, 1.0, 0.0)
    assert shared_out(worth, 32).tolist() == [8] * 4 + [0] * 16
    with pytest.raises(ValueError, match="16 to 32 bits, not 33"):
        RatePayload(worth, 33)


@pytest.mark.parametrize("bits", [0, 63, 65])
def test_a_payload_of_another_length_is_refused(bits: int) -> None:
    with pytest.raises(RemoteError):
        RatePayload(some()["worth"], 64).decode(Payload(bytes((bits + 7) // 8), bits))


def numbers(count: int) -> np.ndarray:
    """Numbers of unit variance, the first ones skewed, without any function of a library in floating point."""
    draw = np.random.default_rng(7).integers(-1000, 1001, (count, 6, NUMBERS)).sum(1) / 1414
    draw[:, ::2] = abs(draw[:, ::2]) - 0.8
    return draw.astype(np.float32)


def coded(bits: int, counts: np.ndarray | None) -> RatePayload:
    return RatePayload(1.2 ** -np.arange(NUMBERS), bits, counts)


@pytest.mark.parametrize("bits", [16, 64, 200])
def test_entropy_coded_reports_say_the_same_in_fewer_bits(bits: int) -> None:
    y = numbers(400)
    counts = cell_counts(y[:200])
    plain, gaussian, fitted = coded(bits, None), coded(bits, counts[:0]), coded(bits, counts)
    size = dict.fromkeys(("gaussian", "fitted"), 0)
    for row in y[200:]:
        expected = plain.decode(plain.encode(row))
        for name, payload in (("gaussian", gaussian), ("fitted", fitted)):
            sent = payload.encode(row)
            assert 1 <= sent.bits <= bits and payload.format.admits(sent.bits, 0)
            np.testing.assert_array_equal(payload.decode(sent), expected)
            size[name] += sent.bits
    assert size["fitted"] < 0.99 * size["gaussian"] and size["fitted"] < 0.9 * 200 * bits


def test_a_rare_report_is_sent_as_it_is() -> None:
    """So no report is longer than was asked for; the length says which it is."""
    rare = np.full(NUMBERS, 9, np.float32)
    plain, gaussian = coded(64, None), coded(64, np.zeros((0, CELLS), np.uint8))
    assert gaussian.encode(rare) == plain.encode(rare)
    usual = plain.encode(np.zeros(NUMBERS, np.float32))
    with pytest.raises(RemoteError, match="shorter code"):  # a second form of what has a code
        gaussian.decode(usual)
    good = gaussian.encode(np.zeros(NUMBERS, np.float32))
    longer = Payload(good.data if good.bits % 8 else good.data + b"\0", good.bits + 1)
    with pytest.raises(RemoteError, match="not the code of"):
        gaussian.decode(longer)
    with pytest.raises(RemoteError, match="not the code of"):
        gaussian.decode(Payload(b"", 0))


@pytest.mark.parametrize("width", range(1, MOST_BITS + 1))
def test_tables_are_those_of_the_quantisers_cells(width: int) -> None:
    """A Gaussian's, against its distribution: they cost hardly more than its entropy."""
    roots = np.round(255 * np.sqrt(_masses(4) / _masses(4).max())).astype(np.uint8)
    mass, sums = _masses(width), np.array(symbols(roots, width))
    loss = (mass * (np.log2(mass) - np.log2(np.diff(sums) / sums[-1]))).sum()
    assert 0 <= loss < 0.04


def _masses(width: int) -> np.ndarray:
    step, half = gaussian_step(width), 2 ** (width - 1)
    borders = [-math.inf, *(k * step for k in range(1 - half, half)), math.inf]
    return np.diff([0.5 * (1 + math.erf(border / math.sqrt(2))) for border in borders])


def test_an_option_that_is_neither_on_nor_off() -> None:
    with pytest.raises(ValueError, match="entropy is 0 or 1, not 2"):
        rate_payload({"worth": np.ones(NUMBERS)}, {"entropy": 2})


def coded_digest() -> str:
    """SHA-256 of coded reports."""
    payload = coded(64, cell_counts(numbers(200)))
    return hashlib.sha256(b"".join(payload.encode(row).data for row in numbers(100))).hexdigest()


def test_codes_are_the_same_bytes_on_any_machine() -> None:
    root = Path(__file__).parents[3]
    script = "import test_rate_payload; print(test_rate_payload.coded_digest())"
    paths = os.pathsep.join(map(str, (root, Path(__file__).parent)))
    narrow = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OPENBLAS_CORETYPE": "Prescott"}
    found = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **narrow, "PYTHONPATH": paths},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    golden = "98edf14097dc6fda1586842d0626c3d54b1a5434054416f9e28643ba1ab9dd95"
    assert found.stdout.strip() == coded_digest() == golden

"""Payloads of `diffloc`: how numbers are encoded in B bits each, and how many there are.

Notation of `fronthaul.payload.noise_levels`: states x = a p + s ε at a level, coordinates normalised; D dimensions,
P particles.

    state     x / √(a² + s²) on ±4, the range of x at every level                                      P D
    answer    ε̂ on ± `answer_range` (diffusion), or f − c_skip x of a consistency model                 P D
              f = c_skip x + c_out F, on its range for p in the box widened by 25 % and noise to ±4 σ
    Jacobian  s ∂ε̂/∂x, symmetric, eigenvalues in 0 … 1: diagonal on 0 … 1, the rest on ±½               P D (D + 1) / 2
    covariance  log of deviations, and correlations                                                    D (D + 1) / 2
    mixture   three times weight, mean on the widened box, covariance                         3 (1 + D + D (D + 1) / 2)

    embedding (e − centre) / scale on ±4, `EmbeddingPayload`                                           E

Beside every report of round 0 is a byte that says whether the user is heard. All but the state reserve an index for
"not finite" (`codebook.OptionalCodebook`). A deviation σ is sent as log σ on log 0.001 … log 2, so it is reconstructed
within a factor exp(3.8 / (2^B − 1)): 1.5 % at 8 bits, 29 % at 4; correlations within 1 / (2^B − 1).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fronthaul.codec.bitstream import pack, unpack
from fronthaul.codec.codebook import OptionalCodebook, UniformCodebook
from fronthaul.errors import LocalError
from fronthaul.message.messages import Payload, PayloadFormat
from fronthaul.payload.hearing import HEARD
from fronthaul.payload.noise_levels import Level, noise_schedule
from fronthaul.payload.score_rules import RULES

Kind = Literal["diffusion", "consistency"]
Where = Literal["edge", "central", "one-shot"]
WHERE: tuple[Where, ...] = ("edge", "central", "one-shot")
EXACT = "exact"
"""The rule that multiplies the base stations' own posteriors."""
OPTIONS: dict[str, type] = {"steps": int, "fusion": str, "where": str, "particles": int, "local": int}

SIGMA_DATA = 0.5
"""σ_d, deviation of normalised positions that consistency models assume; `edge.score_network` has it too."""
STATE_RANGE = 4.0
EMBEDDING_RANGE = 4.0
DEVIATION = (1e-3, 2.0)
WIDENED = 1.25
COMPONENTS = 3
MOST_PARTICLES, MOST_LOCAL, SAMPLES = 64, 1024, 64
LOSSLESS_BITS = 16
_MOST_CORRELATION = 0.999

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture: weights (C,), means (C, D) and covariances (C, D, D)."""

    weight: Floats
    mean: Floats
    covariance: Floats


@dataclass(frozen=True)
class ScoreFormat:
    """The payload format that follows from a run's options and the weights' configuration; the same at both ends.

    Attributes:
        kind: how the networks were trained, "diffusion" or "consistency".
        levels: noise levels of the sampler, from most noise to least.
        where: "edge" exchanges states and answers, "central" sends embeddings to networks at the cloud, "one-shot"
            sends each base station's own posterior.
        fusion: one of `RULES`, or `EXACT`.
        particles: P, number of states sampled at once, or of samples drawn from each base station's own posterior.
        local: number of samples from which a base station estimates its own covariance; 0 uses the constant in the
            weights.
        bits: B.
        low: lower corner of the service area (D,).
        high: upper corner (D,).
        answer_range: the largest |ε̂| that can be encoded (D,).
        sigma_min: smallest noise level of a consistency model, at which it returns its input; 0 for diffusion.
    """

    kind: Kind
    levels: tuple[Level, ...]
    where: Where
    fusion: str
    particles: int
    local: int
    bits: int
    low: Floats
    high: Floats
    answer_range: Floats
    sigma_min: float = 0.0

    @property
    def dimensions(self) -> int:
        """Number of dimensions D."""
        return len(self.low)

    @property
    def pairs(self) -> int:
        """Number of distinct entries of a symmetric D × D matrix."""
        return self.dimensions * (self.dimensions + 1) // 2

    @property
    def has_jacobians(self) -> bool:
        """Whether answers include Jacobians."""
        return RULES.get(self.fusion, False)

    @property
    def state_size(self) -> int:
        """Count of numbers in a state."""
        return self.particles * self.dimensions

    @property
    def answer_size(self) -> int:
        """Count of numbers in an answer."""
        return self.state_size + (self.particles * self.pairs if self.has_jacobians else 0)

    @property
    def mixture_size(self) -> int:
        """Count of numbers in a mixture."""
        return COMPONENTS * (1 + self.dimensions + self.pairs)

    @property
    def chosen(self) -> dict[str, str | int]:
        """The options in effect, defaults included."""
        table: dict[str, str | int] = {"steps": len(self.levels), "fusion": self.fusion, "where": self.where}
        return table | {"particles": self.particles} | ({"local": self.local} if self.local else {})

    @property
    def _wide(self) -> tuple[Floats, Floats]:
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return middle - WIDENED * half, middle + WIDENED * half

    @property
    def report_format(self) -> PayloadFormat:
        """Format of round 0: empty, a covariance or a mixture; embeddings use `EmbeddingPayload.format` instead."""
        spread = self.pairs if self.local else 0
        return PayloadFormat.uniform(self.bits, self.mixture_size if self.where == "one-shot" else spread, len(HEARD))

    @property
    def answer_format(self) -> PayloadFormat:
        """Format of every answer."""
        return PayloadFormat.uniform(self.bits, self.answer_size)

    # -- states and answers; every method that decodes a payload raises RemoteError for one of another size

    def encode_state(self, x: Floats, level: Level) -> Payload:
        """Return the payload of states x (P, D)."""
        held = np.clip(x / _size(level), -2 * STATE_RANGE, 2 * STATE_RANGE)  # or it may overflow float32
        return pack(self._state_book.index(held.astype(np.float32).ravel()), self.bits)

    def decode_state(self, payload: Payload, level: Level) -> Floats:
        """Return the states (P, D) of a payload."""
        index = unpack(payload, self.bits, self.state_size)
        found = self._state_book.reconstruct(index).astype(np.float64) * _size(level)
        return found.reshape(self.particles, self.dimensions)

    def encode_answer(self, raw: Floats, x: Floats, level: Level, jacobian: Floats | None = None) -> Payload:
        """Return the payload of a network's output for states x (P, D), and of Jacobians (P, D, D) if given."""
        numbers = [_unit(raw - self._skip(level) * x, *self._answer_ends(level)).ravel()]
        if jacobian is not None:
            rows, columns = np.triu_indices(self.dimensions)
            numbers.append(
                np.where(rows == columns, jacobian[:, rows, columns], jacobian[:, rows, columns] + 0.5).ravel()
            )
        return self._pack(np.concatenate(numbers))

    def decode_answer(self, payload: Payload, x: Floats, level: Level) -> tuple[Floats, Floats | None]:
        """Return a network's output (P, D) for states x, and Jacobians (P, D, D) or None; missing numbers are NaN.

        The states x may differ from those that the network received: the output of a consistency model is shifted with
        its input by c_skip, while ε̂ is used unchanged.
        """
        number = self._unpack(payload, self.answer_size)
        sent = _from_unit(number[: self.state_size].reshape(self.particles, -1), *self._answer_ends(level))
        raw = sent + self._skip(level) * x
        if not self.has_jacobians:
            return raw, None
        rows, columns = np.triu_indices(self.dimensions)
        half = number[self.state_size :].reshape(self.particles, self.pairs) - np.where(rows == columns, 0.0, 0.5)
        jacobian = np.empty((self.particles, self.dimensions, self.dimensions))
        jacobian[:, rows, columns] = jacobian[:, columns, rows] = half
        return raw, jacobian

    # -- posteriors

    def encode_covariance(self, covariance: Floats) -> Payload:
        """Return the payload of a covariance (D, D)."""
        return self._pack(self._covariance_numbers(covariance))

    def decode_covariance(self, payload: Payload) -> Floats:
        """Return the covariance (D, D) of a payload, positive definite; all NaN if a number is missing."""
        return self._covariance_of(self._unpack(payload, self.pairs))

    def encode_mixture(self, mixture: Mixture) -> Payload:
        """Return the payload of a mixture of three components."""
        parts = [
            np.concatenate([[weight], _unit(mean, *self._wide), self._covariance_numbers(covariance)])
            for weight, mean, covariance in zip(mixture.weight, mixture.mean, mixture.covariance, strict=True)
        ]
        return self._pack(np.concatenate(parts))

    def decode_mixture(self, payload: Payload) -> Mixture | None:
        """Return the mixture of a payload; None if a number is missing."""
        number = self._unpack(payload, self.mixture_size).reshape(COMPONENTS, -1)
        if not np.isfinite(number).all():
            return None
        weight, mean = number[:, 0], _from_unit(number[:, 1 : 1 + self.dimensions], *self._wide)
        covariance = np.stack([self._covariance_of(row) for row in number[:, 1 + self.dimensions :]])
        return Mixture(weight / weight.sum(), mean, covariance)

    def _covariance_numbers(self, covariance: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            deviation = np.sqrt(np.diag(covariance))
            correlation = (covariance / np.outer(deviation, deviation))[np.triu_indices(self.dimensions, 1)]
            low, high = np.log(DEVIATION)
            return np.concatenate([(np.log(deviation) - low) / (high - low), (np.clip(correlation, -1, 1) + 1) / 2])

    def _covariance_of(self, number: Floats) -> Floats:
        size = self.dimensions
        if not np.isfinite(number).all():
            return np.full((size, size), np.nan)
        deviation = np.exp(_from_unit(number[:size], *np.log(DEVIATION)))
        correlation = np.eye(size)
        correlation[np.triu_indices(size, 1)] = (2 * number[size:] - 1) * _MOST_CORRELATION
        correlation = correlation + np.triu(correlation, 1).T
        value, vector = np.linalg.eigh(correlation)  # with three axes, rounding may make it indefinite
        whole = (vector * np.maximum(value, 1 - _MOST_CORRELATION)) @ vector.T
        return np.asarray(whole * np.outer(deviation, deviation), np.float64)

    def _skip(self, level: Level) -> float:
        """Return c_skip of a consistency model, 1 at σ_min; 0 for diffusion, whose answers are sent unchanged."""
        if self.kind == "diffusion":
            return 0.0
        return SIGMA_DATA**2 / ((level.noise - self.sigma_min) ** 2 + SIGMA_DATA**2)

    def _answer_ends(self, level: Level) -> tuple[Floats, Floats]:
        """Return the range of an answer's numbers: of ε̂, or of f − c_skip x = (1 − c_skip) p − c_skip σ z."""
        if self.kind == "diffusion":
            return -self.answer_range, self.answer_range
        skip = self._skip(level)
        low, high = self._wide
        reach = STATE_RANGE * skip * level.noise
        return (1 - skip) * low - reach, (1 - skip) * high + reach

    @property
    def _state_book(self) -> UniformCodebook:
        return _uniform(self.bits)

    def _pack(self, number: Floats) -> Payload:
        return pack(_optional(self.bits).index(number.astype(np.float32)), self.bits)

    def _unpack(self, payload: Payload, count: int) -> Floats:
        return _optional(self.bits).reconstruct(unpack(payload, self.bits, count)).astype(np.float64)


class EmbeddingPayload:
    """Payload of an embedding, with B bits per number.

    Attributes:
        format: format of every report.
    """

    def __init__(self, centre: npt.NDArray[np.float32], scale: npt.NDArray[np.float32], bits: int) -> None:
        """Set the centre (E,) and scale (E,) that normalise embeddings, and B."""
        self._centre, self._scale, self._bits = centre, scale, bits
        self._book = OptionalCodebook(-EMBEDDING_RANGE, EMBEDDING_RANGE, bits)
        self.format = PayloadFormat.uniform(bits, len(centre), len(HEARD))

    def encode(self, embedding: npt.NDArray[np.float32]) -> Payload:
        """Return the payload of an embedding (E,)."""
        return pack(self._book.index((embedding - self._centre) / self._scale), self._bits)

    def decode(self, payload: Payload) -> npt.NDArray[np.float32] | None:
        """Return the embedding (E,) of a report; None if a number is missing.

        Raises:
            RemoteError: a payload of another size.
        """
        number = self._book.reconstruct(unpack(payload, self._bits, len(self._centre)))
        return number * self._scale + self._centre if np.isfinite(number).all() else None


def score_format(config: Mapping[str, Any], options: Mapping[str, str | int], bits: int | None) -> ScoreFormat:
    """Return the format for a run's options, checked against the weights' configuration.

    Raises:
        ValueError: an impossible option, named in one sentence.
        KeyError: the configuration lacks a key.
    """
    where = _one_of("where", str(options.get("where", "edge")), WHERE)
    fusion = str(options.get("fusion", EXACT if where == "one-shot" else config["fusion"]))
    _one_of("fusion", fusion, (*RULES, EXACT))
    if where == "edge" and fusion == EXACT:
        raise ValueError("--fusion exact multiplies posteriors, which --where edge does not provide: "
                         "use --where central or one-shot")  # fmt: skip
    if where == "one-shot" and fusion != EXACT:
        raise ValueError(f"--where one-shot sends posteriors, which --fusion exact multiplies, not {fusion}")
    local = _within("local", options.get("local", 0), 0, MOST_LOCAL)
    if local and where != "edge":
        raise ValueError("the option local is for --where edge, where base stations may send their covariance")
    if local == 1:
        raise ValueError("the option local must be 0, or 2 or more samples to measure a covariance of")
    if bits is not None and bits < 2:
        raise ValueError("--bits 1 is too few, because one index marks a missing value: use 2 to 8, or lossless")
    sampler = config["sampler"]
    try:
        levels = noise_schedule(sampler, int(options.get("steps", config["steps"])))
    except LocalError as error:
        raise ValueError(str(error)) from error
    low = np.asarray(config["low"], np.float64)
    return ScoreFormat(
        kind="consistency" if sampler["kind"] == "consistency" else "diffusion",  # the noise schedule knows no other
        levels=levels,
        where=where,
        fusion=fusion,
        particles=_within("particles", options.get("particles", SAMPLES if fusion == EXACT else 1), 1, MOST_PARTICLES),
        local=local,
        bits=bits or LOSSLESS_BITS,
        low=low,
        high=np.asarray(config["high"], np.float64),
        answer_range=np.broadcast_to(np.asarray(config.get("answer_range", 4.0), np.float64), low.shape),
        sigma_min=float(sampler["sigma"][0]) if sampler["kind"] == "consistency" else 0.0,
    )


def _size(level: Level) -> float:
    return math.hypot(level.signal, level.noise)


def _unit(value: Floats, low: Any, high: Any) -> Floats:
    return np.asarray((value - low) / (high - low), np.float64)


def _from_unit(number: Floats, low: Any, high: Any) -> Floats:
    return np.asarray(low + number * (high - low), np.float64)


def _one_of(name: str, value: str, known: tuple[Any, ...]) -> Any:
    if value not in known:
        raise ValueError(f"--{name} must be one of {', '.join(known)}, it is {value!r}")
    return value


def _within(name: str, value: str | int, low: int, high: int) -> int:
    number = int(value)
    if not low <= number <= high:
        raise ValueError(f"the option {name} must lie in {low}..{high}, it is {number}")
    return number


@functools.cache
def _optional(bits: int) -> OptionalCodebook:
    return OptionalCodebook(0.0, 1.0, bits)


@functools.cache
def _uniform(bits: int) -> UniformCodebook:
    return UniformCodebook(-STATE_RANGE, STATE_RANGE, bits)

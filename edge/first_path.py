"""Classical positioning at the base station: time and angles of the first path, from the delay profile.

Notation: ĥ[t, m, f] the channel at slot t, antenna m and tone f of F, tones ν apart. The delay profile is its mean
power over slots and antennas at a delay,

    P(τ) = mean over t, m of |1/F Σ_f ĥ[t, m, f] e^{j2πfντ}|² − σ²/F

on a grid 16 times finer than its resolution 1 / (F ν), σ² the variance of noise in ĥ. Noise alone makes P a gamma
variable: a mean of T M exponential ones. A *peak* is a maximum of P above the sum of

  - the level that noise exceeds in one profile of ten thousand, and
  - the strongest maximum less 9 dB, which the profile's own side lobes, at −13 dB, stay below.

The first path is the earliest peak. Other paths within the resolution pull a maximum along, the rise before it less:
its time is that at which P rises through half of the peak (by linear interpolation of log P), plus the time that a lone
path takes from there to its maximum. Delays are known modulo 1/ν; they are taken from −5 % of that on, so that a user's
clock may be somewhat ahead.

The angles are those of the strongest direction in the channel at the delay of the peak, by MUSIC over the slots
(`edge.music`). The qualities that go with them are what noise alone would cause in a single path of the peak's power
(Cramér-Rao): for the time 1 / (2πν √(2 T M P/σ² Σ f²)), f counted from the middle tone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import gammainccinv
from torch import Tensor

from edge.music import arrivals, azimuth_elevation, planar_positions, require_plane
from edge.scheme import EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec, emptied
from fronthaul.message.messages import Payload
from fronthaul.payload.fields import PayloadField
from fronthaul.payload.first_path import DEFAULT_K, OPTIONS, FirstPathPayload
from fronthaul.payload.measurements import Path
from fronthaul.payload.orientation import axes_of

Real = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]

OVERSAMPLING = 16
FALSE_ALARM = 1e-4
"""Probability that noise alone exceeds its threshold somewhere in a profile."""
GUARD_DB = 9.0
EARLY = 0.05
"""Share of the delays that lies before zero."""
_EDGE_DB = 3.0
_LEAST_SPREAD = 1e-6
"""Of antennas [wavelengths]: the deviation of an angle that a line of them does not measure is large, not infinite."""


@dataclass(frozen=True)
class Profiles:
    """Delay profiles of B snapshots, from `EARLY` before zero on.

    Attributes:
        power: P (B, N).
        step_s: time between two samples [s].
        start: number of the first sample, counted from delay zero.
        threshold: least power of a peak (B,).
    """

    power: Real
    step_s: float
    start: int
    threshold: Real


class ProfileMeter:
    """Delay profiles of one array and numerology.

    Attributes:
        tones: F.
        spacing_hz: ν [Hz].
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Take `tones`, `tone_spacing_hz` and `noise`, σ² of a channel estimate, from the weights' configuration."""
        self.tones, self.spacing_hz = int(config["tones"]), float(config["tone_spacing_hz"])
        self._noise = float(config["noise"])
        self._size = OVERSAMPLING * self.tones
        self._rise = _lone_rise(self.tones)

    def profiles(self, channel: Complex) -> Profiles:
        """Return the delay profiles of channels (B, slot, antenna, tone)."""
        looks = channel.shape[1] * channel.shape[2]
        taps = np.fft.ifft(channel, self._size, axis=3) * OVERSAMPLING
        early = round(EARLY * self._size)
        mean = self._noise / self.tones
        power = np.roll((taps.real**2 + taps.imag**2).mean((1, 2)), early, 1) - mean
        noise = (gammainccinv(looks, FALSE_ALARM / self.tones) / looks - 1) * mean
        threshold = noise + power.max(1) * 10 ** (-GUARD_DB / 10)
        return Profiles(power, 1 / (self._size * self.spacing_hz), -early, threshold)

    def first(self, profiles: Profiles) -> tuple[Real, Real, Real]:
        """Return time [s], delay of the peak [s] and its power, each (B,), of the first paths.

        Where nothing exceeds the threshold, the strongest sample stands in.
        """
        power, row = profiles.power, np.arange(len(profiles.power))
        tops = (power >= np.roll(power, 1, 1)) & (power > np.roll(power, -1, 1))
        tops &= power > profiles.threshold[:, None]
        peak = np.where(tops.any(1), tops.argmax(1), power.argmax(1))
        level = np.log(np.maximum(power, 1e-300))
        before, top, after = (level[row, (peak + shift) % self._size] for shift in (-1, 0, 1))
        bend = before - 2 * top + after
        offset = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, -1), 0.0)
        top = top - 0.25 * (before - after) * offset
        wanted = top - _EDGE_DB / 10 * math.log(10)
        # Walk back from the peak to the first sample below the wanted level; a flat profile has none.
        back = np.arange(1, self._size // 2)
        below = level[row[:, None], (peak[:, None] - back) % self._size] <= wanted[:, None]
        steps = np.where(below.any(1), below.argmax(1) + 1, 1)
        low, high = level[row, (peak - steps) % self._size], level[row, (peak - steps + 1) % self._size]
        share = np.where(high > low, (wanted - low) / np.where(high > low, high - low, 1), 0.0).clip(0, 1)
        edge = peak - steps + share
        origin = profiles.start
        time = (edge + origin + self._rise * OVERSAMPLING) * profiles.step_s
        return time, (peak + offset + origin) * profiles.step_s, np.exp(top)

    def at(self, channel: Complex, delay_s: Real) -> Complex:
        """Return the channels (B, slot, antenna) of channels (B, slot, antenna, tone) at delays (B,) [s]."""
        turn = np.exp(2j * np.pi * self.spacing_hz * delay_s[:, None] * np.arange(self.tones))
        found: Complex = (channel @ turn[:, None, :, None])[..., 0] / self.tones
        return found

    def deviation_s(self, power: Real, looks: int) -> Real:
        """Return the least standard deviation [s] of a lone path's time, from its power (B,) and T M."""
        number = np.arange(self.tones) - (self.tones - 1) / 2
        ratio = 2 * looks * np.maximum(power, 1e-300) / max(self._noise, 1e-300) * np.square(number).sum()
        found: Real = 1 / (2 * math.pi * self.spacing_hz * np.sqrt(ratio))
        return found


def _lone_rise(tones: int) -> float:
    """Return the time from half of a lone path's peak to the peak itself, in units of 1 / (F ν)."""
    time = np.linspace(0, 1, 100_001)
    number = np.arange(tones) - (tones - 1) / 2
    power = np.square(np.cos(2 * np.pi / tones * time[:, None] * number).mean(1))
    return float(time[(power < 10 ** (-_EDGE_DB / 10)).argmax()])


class Angles:
    """Azimuth and zenith in space from an array's samples."""

    def __init__(self, config: Mapping[str, Any], orientation: Tensor) -> None:
        """Take `rows`, `columns`, `spacing` [wavelengths], and yaw and pitch (2,) [rad]."""
        shape = int(config["rows"]), int(config["columns"]), float(config["spacing"])
        self._antenna = planar_positions(*shape)
        spread = self._antenna.square().sum(0).sqrt().numpy()
        self._spread = np.maximum(spread, _LEAST_SPREAD)
        self._axes = axes_of(*orientation.double().tolist())

    def measure(self, samples: Complex) -> tuple[Real, Real, Real]:
        """Return azimuth, zenith [rad], and their deviations, (B, 2) together, of samples (B, slot, antenna)."""
        cosine, deviation = arrivals(torch.from_numpy(samples)[..., None], self._antenna)
        local = azimuth_elevation(cosine).numpy()
        azimuth, zenith = self.in_space(cosine.numpy())
        sides = np.maximum(np.stack([np.cos(local[:, 0]) * np.cos(local[:, 1]), np.cos(local[:, 1])], 1), 0.05)
        return azimuth, zenith, deviation.numpy()[:, None] / self._spread / sides

    def in_space(self, cosine: Real) -> tuple[Real, Real]:
        """Return azimuth and zenith (…) [rad] of cosines (…, 2) along the array's columns and rows."""
        ahead = np.sqrt(np.maximum(1 - np.square(cosine).sum(-1), 0))
        unit = np.concatenate([ahead[..., None], cosine], -1) @ self._axes.T
        unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
        return np.arctan2(unit[..., 1], unit[..., 0]), np.arccos(np.clip(unit[..., 2], -1, 1))


class FirstPathEdge:
    """Measures the first path and sends its time, its angles, or both."""

    def __init__(self, name: str, setup: EdgeSetup) -> None:
        """Build scheme `name`, whose parts between hyphens say what it sends.

        Raises:
            ValueError: `setup` asks for a granularity of times that there is not.
        """
        self.name = name
        self._meter = ProfileMeter(setup.config)
        self._angles = Angles(setup.config, setup.tensors["orientation"])
        self._payload = payload_of(name, setup.options)
        self.format = self._payload.format

    @torch.inference_mode()
    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone)."""
        return Encoded([self._payload.encode(path) for path in self.paths(channel)])

    def paths(self, channel: Tensor) -> list[Path]:
        """Return the first path of each of Ĥ (B, slot, antenna, tone)."""
        array = channel.numpy().astype(np.complex128)
        time, delay, power = self._meter.first(self._meter.profiles(array))
        columns = {"delay_s": time, "delay_sd_s": self._meter.deviation_s(power, array.shape[1] * array.shape[2])}
        if self._payload.angled:
            azimuth, zenith, deviation = self._angles.measure(self._meter.at(array, delay))
            columns |= {"azimuth": azimuth, "zenith": zenith}
            columns |= {"azimuth_sd": deviation[:, 0], "zenith_sd": deviation[:, 1]}
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [Path(**dict(zip(columns, row, strict=True))) for row in rows]

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Empty the payloads of snapshots in which the user is not heard."""
        return emptied(encoded, heard)


def payload_of(name: str, options: Mapping[str, str | int]) -> FirstPathPayload:
    """Return the payload of scheme `name`.

    Raises:
        ValueError: there is no such granularity of times.
    """
    parts = name.split("-")
    timed = parts[0] in ("toa", "tdoa")
    return FirstPathPayload(timed=timed, angled="aoa" in parts, k=int(options.get("k", DEFAULT_K)))


def _builder(name: str) -> EdgeBuilder:
    def make(setup: EdgeSetup) -> EdgeScheme:
        if payload_of(name, setup.options).angled:
            require_plane(setup.config)
        return FirstPathEdge(name, setup)

    def fields(setup: EdgeSetup, payload: Payload) -> list[PayloadField]:
        return payload_of(name, setup.options).fields(payload)

    options = OPTIONS if name != "aoa" else {}
    return EdgeBuilder(SchemeSpec(weights="toa", options=options, resolution="own", fields=fields), make)


build_toa, build_tdoa, build_aoa = _builder("toa"), _builder("tdoa"), _builder("aoa")
build_toa_aoa, build_tdoa_aoa = _builder("toa-aoa"), _builder("tdoa-aoa")

"""`nrppa-sample` at the base station: the strongest samples of the impulse response, and the first path's direction.

The window begins `LEAD` samples before the first path of the delay profile (`edge.first_path`). The power of a sample
is that of the profile, the mean over slots and antennas; those N_t' with the most are reported. The phase of a sample
is that of the impulse response of the strongest antenna, in the channel's principal direction over the slots
(`edge.atom_fit`): phases of one report are to be compared with each other only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from edge.atom_fit import slot_reduced
from edge.first_path import Complex, FirstPathEdge, Real
from edge.music import require_plane
from edge.scheme import EdgeBuilder, EdgeScheme, EdgeSetup, Encoded, SchemeSpec, emptied
from fronthaul.payload.nrppa_sample import OPTIONS, NrppaSamplePayload, SampleChoice, SampledChannel

LEAD = 2
"""Samples of the window before the first path."""


class NrppaSampleEdge:
    """Samples the impulse response."""

    def __init__(self, setup: EdgeSetup, name: str = "nrppa-sample") -> None:
        """Build from the array, the tones and the options.

        Raises:
            ValueError: an option is out of range, or the array does not measure the angles that are to be sent.
        """
        self.name = name
        self._first = FirstPathEdge("toa-aoa", replace(setup, options={}))
        self._tones, self._spacing_hz = int(setup.config["tones"]), float(setup.config["tone_spacing_hz"])
        self._noise, self._power_dbm = float(setup.config["noise"]), float(setup.config["power_dbm"])
        self._payload = NrppaSamplePayload(SampleChoice.of(setup.options))
        if self._payload.choice.angles:
            require_plane(setup.config)
        self.format = self._payload.format

    @torch.inference_mode()
    def encode(self, channel: Tensor) -> Encoded:
        """Encode Ĥ (B, slot, antenna, tone)."""
        return Encoded([self._payload.encode(sampled) for sampled in self.samples(channel)])

    def samples(self, channel: Tensor) -> list[SampledChannel]:
        """Return the samples of each of Ĥ (B, slot, antenna, tone)."""
        choice, start = self._payload.choice, self._payload.start
        paths = self._first.paths(channel)
        begin = np.array([start.value(start.index(path.delay_s - LEAD * start.step)) for path in paths])
        delay = begin[:, None] + start.step * np.arange(choice.window)
        array = channel.numpy().astype(np.complex128)
        turn = np.exp(2j * np.pi * self._spacing_hz * np.arange(self._tones)[:, None] * delay[:, None]) / self._tones
        response = array.reshape(len(array), -1, self._tones) @ turn
        power = np.square(np.abs(response)).mean(1) - self._noise / self._tones
        level = 10 * np.log10(np.maximum(power, 1e-30)) + self._power_dbm
        kept = np.sort(np.argsort(-power, axis=1, kind="stable")[:, : choice.samples], axis=1)
        phase = self._phases(array, turn) if choice.phases else np.zeros_like(level)
        rows = zip(begin.tolist(), kept, level, phase, paths, strict=True)
        return [
            SampledChannel(
                start_s, tuple(own.tolist()), tuple(one[own].tolist()),
                tuple(turned[own].tolist()) if choice.phases else (), path,
            )
            for start_s, own, one, turned, path in rows
        ]  # fmt: skip

    def _phases(self, array: Complex, turn: Complex) -> Real:
        """Return phases (B, window) of Ĥ (B, slot, antenna, tone), whose tones turn as in (B, tone, window)."""
        reduced = slot_reduced(array.reshape(*array.shape[:2], -1)).reshape(len(array), -1, self._tones) @ turn
        strongest = np.square(np.abs(reduced)).sum(2).argmax(1)
        found: Real = np.angle(reduced[np.arange(len(reduced)), strongest])
        return found

    def mark(self, encoded: Encoded, heard: Sequence[bool]) -> Encoded:
        """Empty the payloads of snapshots in which the user is not heard."""
        return emptied(encoded, heard)


def _builder(name: str, weights: str) -> EdgeBuilder:
    def make(setup: EdgeSetup) -> EdgeScheme:
        return NrppaSampleEdge(setup, name)

    return EdgeBuilder(SchemeSpec(weights=weights, options=OPTIONS, resolution="own"), make)


build, build_learned = _builder("nrppa-sample", "toa"), _builder("nrppa-sample-learned", "nrppa")

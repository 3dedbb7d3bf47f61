"""Channel synthesis: paths to channel frequency responses, and pilots as a site receives them.

Notation: H (…, slot, antenna, tone); path p has coefficient g_p, delay τ_p, direction u_p seen from the site and
q_p seen from the user; antenna m sits at r_m from the array's centre; slot t is sampled at time s_t around the
snapshot's instant; tone f lies at offset ν_f from the carrier f_c:

    H[t, m, f] = Σ_p g_p e^{−j2π f_c τ_p} · e^{j2π/λ (q_p·v) s_t} · e^{j2π/λ u_p·r_m} · e^{−j2π ν_f τ_p}

One torch implementation serves the emulator (one snapshot at a time) and training (batches, moved users).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fronthaul.draws import generator
from sim.world.paths import PathSet, mirror_matrix, unit_vector
from sim.world.scenario import SPEED_OF_LIGHT, Array, Numerology, Scenario, Site


@dataclass(frozen=True)
class PaddedPaths:
    """Paths of N snapshots and K sites, padded to P paths a link (coefficient zero where there is none).

    `coefficient` (N, K, P) complex64 with the carrier's propagation phase; `distance` (N, K, P) [m];
    `site_direction`, `user_direction` (N, K, P, 3) unit vectors; `mirror` (N, K, P, 3, 3) or None.
    Holds no position: this is what crosses to a base station.
    """

    coefficient: Tensor
    distance: Tensor
    site_direction: Tensor
    user_direction: Tensor
    mirror: Tensor | None = None

    def __getitem__(self, index: Tensor | slice | list[int]) -> PaddedPaths:
        mirror = None if self.mirror is None else self.mirror[index]
        return PaddedPaths(
            self.coefficient[index],
            self.distance[index],
            self.site_direction[index],
            self.user_direction[index],
            mirror,
        )

    def site(self, k: int) -> PaddedPaths:
        """Return the paths of site k alone, shapes (N, 1, P, …)."""
        part = slice(k, k + 1)
        mirror = None if self.mirror is None else self.mirror[:, part]
        return PaddedPaths(
            self.coefficient[:, part],
            self.distance[:, part],
            self.site_direction[:, part],
            self.user_direction[:, part],
            mirror,
        )

    def to(self, device: torch.device) -> PaddedPaths:
        """Move all tensors."""
        mirror = None if self.mirror is None else self.mirror.to(device)
        return PaddedPaths(
            self.coefficient.to(device),
            self.distance.to(device),
            self.site_direction.to(device),
            self.user_direction.to(device),
            mirror,
        )


def pad_paths(paths: PathSet, carrier_hz: float, limit: int | None = None, *, mirrors: bool = False) -> PaddedPaths:
    """Pad a path set to the longest link, or to the `limit` strongest paths of each link (V to V polarisation)."""
    counts = paths.paths_per_link().ravel()
    link = np.repeat(np.arange(len(counts)), counts)
    strength = np.abs(paths.matrix[:, 0, 0])
    order = np.lexsort((-strength, link))  # by link, strongest first
    slot = np.arange(len(link)) - paths.offset[:-1][link]
    width = int(min(counts.max(initial=1), limit or counts.max(initial=1)))
    keep = slot < width
    row, link, slot = order[keep], link[keep], slot[keep]
    shape = (len(counts), width)

    def padded(values: npt.NDArray[np.generic], dtype: type) -> Tensor:
        out = np.zeros((*shape, *values.shape[1:]), dtype)
        out[link, slot] = values
        return torch.from_numpy(out).reshape(len(paths), paths.sites, width, *values.shape[1:])

    delay = paths.delay[row].astype(np.float64)
    coefficient = paths.matrix[row, 0, 0] * np.exp(-2j * np.pi * np.mod(carrier_hz * delay, 1.0))
    return PaddedPaths(
        padded(coefficient, np.complex64),
        padded(delay * SPEED_OF_LIGHT, np.float32),
        padded(unit_vector(paths.site_angle[row]), np.float32),
        padded(unit_vector(paths.user_angle[row]), np.float32),
        padded(mirror_matrix(paths.mirror[row], paths.bounces[row]), np.float32) if mirrors else None,
    )


def move_users(paths: PaddedPaths, step: Tensor, carrier_hz: float) -> PaddedPaths:
    """Move each user by `step` (N, 3) [m], keeping the set of paths (image-source extrapolation).

    A specular path is a straight line from the site to the user's mirror image, and a user step d moves that
    image by R d (`sim.world.paths.mirror_matrix`): delay, carrier phase and direction at the site follow exactly,
    to 1e-4 m against a new trace, as long as no path appears or vanishes. Reflection coefficients are kept.
    """
    if paths.mirror is None:
        raise ValueError("moving users needs the paths' mirrors")
    image = (paths.mirror @ step[:, None, None, :, None])[..., 0]
    along = (image * paths.site_direction).sum(-1)
    distance = paths.distance
    # |u + R d| − |u| without cancellation: (2 u·Rd + |d|²) / (|u + Rd| + |u|)
    moved = torch.sqrt((distance**2 + 2 * distance * along + (step**2).sum(-1)[:, None, None]).clamp_min(1e-6))
    growth = (2 * distance * along + (step**2).sum(-1)[:, None, None]) / (moved + distance).clamp_min(1e-6)
    phase = -2 * math.pi * carrier_hz / SPEED_OF_LIGHT * growth
    scale = distance / moved
    direction = (paths.site_direction * distance[..., None] + image) / moved[..., None]
    return PaddedPaths(
        paths.coefficient * torch.polar(scale, phase), moved, direction, paths.user_direction, paths.mirror
    )


@dataclass(frozen=True)
class Motion:
    """What else a snapshot's channel depends on, drawn per snapshot.

    `velocity` (N, 3) [m/s]; `clock_s` (N, K) clock error between user and site [s]; `slot_phase` (N, K, T) [rad].
    """

    velocity: Tensor
    clock_s: Tensor
    slot_phase: Tensor

    @classmethod
    def draw(cls, scenario: Scenario, users: int, draw: torch.Generator) -> Self:
        """Draw for a batch (training); the emulator draws keyed, see `Radio`."""
        sites, slots = len(scenario.sites), scenario.numerology.slots
        heading = torch.rand(users, generator=draw) * 2 * math.pi
        velocity = scenario.users.speed_mps * torch.stack([heading.cos(), heading.sin(), 0 * heading], -1)
        clock = scenario.clock
        bias = torch.randn(users, 1, generator=draw) * clock.ue_bias_ns
        own = torch.randn(users, sites, generator=draw) * clock.bs_sigma_ns
        phase = torch.zeros(users, sites, slots)
        if clock.per_slot_phase:
            phase = torch.rand(users, sites, slots, generator=draw) * 2 * math.pi
        return cls(velocity, (bias + own) * 1e-9, phase)


class Synthesizer:
    """Turns padded paths into channel frequency responses for one scenario's arrays and numerology."""

    def __init__(self, scenario: Scenario, sites: list[int] | None = None) -> None:
        numerology = scenario.numerology
        chosen = [scenario.sites[k] for k in (range(len(scenario.sites)) if sites is None else sites)]
        self._wavenumber = 2 * math.pi / numerology.wavelength_m
        antenna = np.stack([antenna_positions(scenario.array, site, numerology) for site in chosen])
        self._antenna = torch.from_numpy(antenna)
        self._tone_hz = torch.from_numpy(tone_offsets(numerology)).float()
        self._slot_s = torch.from_numpy(slot_times(numerology)).float()

    def response(self, paths: PaddedPaths, motion: Motion) -> Tensor:
        """Return H (N, K, slot, antenna, tone) complex64 [amplitude gain between isotropic antennas]."""
        device = paths.coefficient.device
        n, k, p = paths.coefficient.shape
        antenna, tone, slot = self._antenna.to(device), self._tone_hz.to(device), self._slot_s.to(device)
        doppler = self._wavenumber * (paths.user_direction @ motion.velocity[:, None, :, None])[..., 0]
        in_time = doppler[..., None, :] * slot[:, None] + motion.slot_phase[..., None]  # (N, K, T, P)
        in_space = self._wavenumber * (antenna.float() @ paths.site_direction.transpose(-1, -2))  # (N, K, M, P)
        delay = paths.distance / SPEED_OF_LIGHT + motion.clock_s[..., None]
        in_frequency = -2 * math.pi * delay[..., None] * tone  # (N, K, P, F)
        left = (in_time[..., :, None, :] + in_space[..., None, :, :]).reshape(n, k, -1, p)
        one = torch.ones((), device=device)
        steering = torch.polar(one.expand_as(left), left) * paths.coefficient[:, :, None, :]
        ramp = torch.polar(one.expand_as(in_frequency), in_frequency)
        return (steering @ ramp).reshape(n, k, len(slot), antenna.shape[1], len(tone))


def antenna_positions(array: Array, site: Site, numerology: Numerology) -> npt.NDArray[np.float64]:
    """Antenna positions relative to the array's centre (M, 3) [m], rows along the tilted z axis, columns along y.

    Order as in Sionna RT's PlanarArray: column by column from left to right, each from top to bottom.
    """
    spacing = array.spacing_wavelengths * numerology.wavelength_m
    column, row = np.meshgrid(np.arange(array.columns), np.arange(array.rows), indexing="ij")
    y = (column.ravel() - (array.columns - 1) / 2) * spacing
    z = -(row.ravel() - (array.rows - 1) / 2) * spacing
    local = np.stack([np.zeros_like(y), y, z], -1)
    yaw, pitch = math.radians(site.yaw_deg), math.radians(site.pitch_deg)
    about_z = np.array([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
    about_y = np.array([[math.cos(pitch), 0, math.sin(pitch)], [0, 1, 0], [-math.sin(pitch), 0, math.cos(pitch)]])
    turned: npt.NDArray[np.float64] = local @ (about_z @ about_y).T
    return turned


def tone_offsets(numerology: Numerology) -> npt.NDArray[np.float64]:
    """Offsets ν_f of the measured tones from the carrier (F,) [Hz], symmetric around it."""
    return (np.arange(numerology.tones, dtype=np.float64) - (numerology.tones - 1) / 2) * numerology.tone_spacing_hz


def slot_times(numerology: Numerology) -> npt.NDArray[np.float64]:
    """Sampling times s_t of the slots around the snapshot's instant (T,) [s]."""
    return (np.arange(numerology.slots, dtype=np.float64) - (numerology.slots - 1) / 2) * numerology.slot_spacing_s


class Radio:
    """One site's air interface: what its receiver gets from the UE's pilots, snapshot by snapshot.

    It knows the paths and not the position. Noise and clock errors are keyed by (seed, stream, site, snapshot),
    those that sites share by (seed, stream, snapshot).
    """

    def __init__(self, scenario: Scenario, paths: PaddedPaths, site: int, seed: int) -> None:
        self._scenario = scenario
        self._paths = paths  # (N, 1, P, …)
        self._site = site
        self._seed = seed
        self._synthesizer = Synthesizer(scenario, [site])
        self.pilots = pilot_sequence(scenario.numerology.tones)

    def __len__(self) -> int:
        return len(self._paths.coefficient)

    def observe(self, snapshot: int) -> Tensor:
        """Return received pilots Y = √P H∘s + N (slot, antenna, tone) complex64 [√W]. ECC Eq. 2.

        The snapshot's paths are those of test position ``snapshot % len(self)``; draws are fresh for each snapshot.
        """
        index = snapshot % len(self)
        response = self._synthesizer.response(self._paths[index : index + 1], self._motion(snapshot))[0, 0]
        draw = generator(self._seed, "noise", self._site, snapshot)
        noise = torch.from_numpy(draw.standard_normal((*response.shape, 2), dtype=np.float32))
        sigma = math.sqrt(self._scenario.tone_noise_w / 2)
        amplitude = math.sqrt(self._scenario.tone_power_w)
        return amplitude * response * self.pilots + sigma * torch.view_as_complex(noise)

    def _motion(self, snapshot: int) -> Motion:
        clock, slots = self._scenario.clock, self._scenario.numerology.slots
        shared = generator(self._seed, "user", snapshot)
        heading = float(shared.uniform(0, 2 * math.pi))
        bias_ns = float(shared.standard_normal()) * clock.ue_bias_ns
        own = generator(self._seed, "clock", self._site, snapshot)
        own_ns = float(own.standard_normal()) * clock.bs_sigma_ns
        phase = own.uniform(0, 2 * math.pi, slots) if clock.per_slot_phase else np.zeros(slots)
        speed = self._scenario.users.speed_mps
        return Motion(
            torch.tensor([[speed * math.cos(heading), speed * math.sin(heading), 0.0]]),
            torch.full((1, 1), (bias_ns + own_ns) * 1e-9),
            torch.from_numpy(phase.astype(np.float32))[None, None],
        )


def pilot_sequence(tones: int) -> Tensor:
    """Unit-modulus pilots s (tone,) complex64: a Zadoff-Chu sequence, known to both ends."""
    index = np.arange(tones, dtype=np.float64)
    return torch.from_numpy(np.exp(-1j * np.pi * index * (index + tones % 2) / tones).astype(np.complex64))

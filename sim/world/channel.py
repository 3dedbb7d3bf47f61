"""Channel synthesis: paths to channel frequency responses or taps, and pilots as a site receives them.

Notation: H (…, slot, pair, tone); path p has coefficient g_p, delay τ_p, direction u_p seen from the site and
q_p seen from the user, who moves at velocity v; site antenna m is at r_m and user antenna j at o_j relative to its
array's centre; slot t is sampled at time s_t relative to the snapshot's instant; tone f is offset by ν_f from the
carrier f_c:

    H[t, mU + j, f] = Σ_p g_p[a(m), b(j)] e^{−j2π f_c τ_p} · e^{j2π/λ (q_p·v) s_t}
                          · e^{j2π/λ (u_p·r_m + q_p·o_j)} · e^{−j2π ν_f τ_p}

Pair mU + j is from the user's antenna j of U to the site's antenna m. g_p is the 2×2 matrix between polarisations,
a(m) and b(j) the polarisations of antennas m and j; single-polarised arrays use g_p[V, V] alone. With
`numerology.taps` the last axis is taps, see `sim.world.taps`.

The same torch implementation serves the emulator (`sim.world.radio`) and training (batches, moved users).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fronthaul.draws import generator
from sim.errors import UserError
from sim.world.clocks import site_errors_ns
from sim.world.paths import PathSet, mirror_matrix, unit_vector
from sim.world.scenario import SPEED_OF_LIGHT, Array, Numerology, Scenario, Site
from sim.world.taps import dirichlet_taps, tones_to_taps, white_to_taps

PATH_LIMIT = 12
"""Number of strongest paths of a link that trainings keep; few links have more."""
_FORWARD = Site((0.0, 0.0, 0.0))  # an array without rotation


@dataclass(frozen=True)
class PaddedPaths:
    """Paths of N snapshots and K sites, padded to P paths per link (padding has coefficient zero).

    `coefficient` (N, K, P) complex64 between vertical polarisations, with the carrier's propagation phase; `distance`
    (N, K, P) [m]; `site_direction`, `user_direction` (N, K, P, 3) unit vectors; `mirror` (N, K, P, 3, 3) or None;
    `matrix` (N, K, P, 2, 2) complex64, as `coefficient` between all polarisations (site, user), or None; `velocity`
    (N, 3) [m/s] where it is known, or None; `csi` (N, K, T, A, F) complex64, measured channels instead of paths, or
    None. Contains no positions, so that it can be handed to a base station.
    """

    coefficient: Tensor
    distance: Tensor
    site_direction: Tensor
    user_direction: Tensor
    mirror: Tensor | None = None
    matrix: Tensor | None = None
    velocity: Tensor | None = None
    csi: Tensor | None = None

    @property
    def heading(self) -> Tensor | None:
        """Headings (N,) [rad] from the x axis towards y, where velocities are known."""
        return None if self.velocity is None else torch.atan2(self.velocity[:, 1], self.velocity[:, 0])

    def __getitem__(self, index: Tensor | slice | list[int]) -> PaddedPaths:
        return self._each(lambda tensor: tensor[index])

    @classmethod
    def join(cls, parts: Sequence[PaddedPaths]) -> PaddedPaths:
        """Return the snapshots of several sets of paths, one after the other; they are padded to the same length."""
        tensors = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}
        return cls(**{name: torch.cat(each) for name, each in tensors.items() if each[0] is not None})

    def site(self, k: int) -> PaddedPaths:
        """Return the paths of site k alone, shapes (N, 1, P, …)."""
        return replace(self._each(lambda tensor: tensor[:, k : k + 1]), velocity=self.velocity)

    def to(self, device: torch.device) -> PaddedPaths:
        """Move all tensors to a device."""
        return self._each(lambda tensor: tensor.to(device))

    def clone(self) -> PaddedPaths:
        """Copy all tensors, so that a view no longer keeps its base tensor alive."""
        return self._each(lambda tensor: tensor.clone())

    def _each(self, change: Callable[[Tensor], Tensor]) -> PaddedPaths:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items() if tensor is not None})


def pad_paths(
    paths: PathSet, carrier_hz: float, limit: int | None = None, *, mirrors: bool = False, matrices: bool = False
) -> PaddedPaths:
    """Pad a path set to the longest link, or to the `limit` strongest paths of each link.

    Args:
        paths: N positions and K sites.
        carrier_hz: carrier frequency [Hz].
        limit: number of paths to keep per link; all by default.
        mirrors: whether to keep what `move_users` needs.
        matrices: whether to keep what dual-polarised arrays need (`Scenario.polarized`). Paths are then ranked by
            the norm of their matrix, otherwise by the magnitude of their V-to-V coefficient.

    Raises:
        UserError: `mirrors` are wanted, and the path set has none.
    """
    if mirrors and not paths.movable:
        raise UserError("The path data hold no mirrors, without which users cannot be moved: trace the paths again.")
    counts = paths.paths_per_link().ravel()
    link = np.repeat(np.arange(len(counts)), counts)
    strength = np.linalg.norm(paths.matrix, axis=(1, 2)) if matrices else np.abs(paths.matrix[:, 0, 0])
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
    phasor = propagation_phasor(carrier_hz, delay)
    coefficient = paths.matrix[row, 0, 0] * phasor
    return PaddedPaths(
        padded(coefficient, np.complex64),
        padded(delay * SPEED_OF_LIGHT, np.float32),
        padded(unit_vector(paths.site_angle[row]), np.float32),
        padded(unit_vector(paths.user_angle[row]), np.float32),
        padded(mirror_matrix(paths.mirror[row], paths.bounces[row]), np.float32) if mirrors else None,
        padded(paths.matrix[row] * phasor[:, None, None], np.complex64) if matrices else None,
        torch.from_numpy(paths.velocity.copy()) if len(paths.velocity) else None,
        torch.from_numpy(paths.csi) if len(paths.csi) else None,
    )


def propagation_phasor(carrier_hz: float, delay_s: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
    """Return e^{−j2π f_c τ} of paths' delays τ [s]: traced coefficients are without it."""
    phasor: npt.NDArray[np.complex128] = np.exp(-2j * np.pi * np.mod(carrier_hz * delay_s, 1.0))
    return phasor


def move_users(paths: PaddedPaths, step: Tensor, carrier_hz: float) -> PaddedPaths:
    """Move each user by `step` (N, 3) [m], keeping the set of paths (image-source extrapolation).

    A specular path is a straight line from the site to the user's mirror image, and a user step d moves that
    image by R d (`sim.world.paths.mirror_matrix`): delay, carrier phase and direction at the site follow exactly,
    to within 1e-4 m of a new trace, as long as no path appears or vanishes. Reflection coefficients are kept.

    Raises:
        ValueError: `paths` without mirrors.
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
    turn = torch.polar(scale, phase)
    return replace(
        paths,
        coefficient=paths.coefficient * turn,
        distance=moved,
        site_direction=direction,
        matrix=None if paths.matrix is None else paths.matrix * turn[..., None, None],
    )


def redrawn_phases(paths: PaddedPaths, sites: Sequence[int], seed: int) -> PaddedPaths:
    """Draw a uniform carrier phase for each path (`Scenario.phases` "drawn").

    Draws are keyed by (seed, site, rank of the path in its link), one per user in order. They depend neither on
    padding, nor on the number of users that follow, nor on other sites.

    Args:
        paths: N users, K sites, P paths per link, strongest first.
        sites: numbers of the K sites in the scenario.
        seed: of the scenario's draws.
    """
    n, k, width = paths.coefficient.shape
    phase = np.empty((n, k, width))
    for column, site in enumerate(sites):
        for rank in range(width):
            phase[:, column, rank] = generator(seed, "phases", site, rank).uniform(0, 2 * math.pi, n)
    turn = torch.from_numpy(np.exp(1j * phase).astype(np.complex64)).to(paths.coefficient.device)
    matrix = None if paths.matrix is None else paths.matrix * turn[..., None, None]
    return replace(paths, coefficient=paths.coefficient * turn, matrix=matrix)


@dataclass(frozen=True)
class Motion:
    """Random quantities, drawn per snapshot, that a channel depends on besides its paths.

    `velocity` (N, 3) [m/s]; `clock_s` (N, K) clock error between user and site [s]; `slot_phase` (N, K, T) [rad].
    """

    velocity: Tensor
    clock_s: Tensor
    slot_phase: Tensor

    @classmethod
    def draw(cls, scenario: Scenario, users: int, draw: torch.Generator, velocity: Tensor | None = None) -> Self:
        """Draw for a batch (training) on the device of `draw`; the emulator's are keyed, see `sim.world.radio`.

        `velocity` (N, 3) [m/s] is the velocity at the positions where it is known (`PaddedPaths.velocity`).
        """
        sites, slots = len(scenario.sites), scenario.numerology.slots
        place: dict[str, Any] = {"generator": draw, "device": draw.device}
        if velocity is None:
            heading = torch.rand(users, **place) * 2 * math.pi
            velocity = scenario.users.speed_mps * torch.stack([heading.cos(), heading.sin(), 0 * heading], -1)
        clock = scenario.clock
        bias = torch.randn(users, 1, **place) * clock.ue_bias_ns
        own = site_errors_ns(clock, torch.randn(users, sites, **place))
        phase = torch.zeros(users, sites, slots, device=draw.device)
        if clock.per_slot_phase:
            phase = torch.rand(users, sites, slots, **place) * 2 * math.pi
        return cls(velocity, (bias + own) * 1e-9, phase)


class Synthesizer:
    """Synthesis of channel frequency responses, or taps, from padded paths, for a scenario's arrays and numerology.

    Attributes:
        antenna: antenna positions of the sites (K, M, 3) float32 [m], each from its array's centre.
    """

    def __init__(self, scenario: Scenario, sites: list[int] | None = None) -> None:
        self._numerology = numerology = scenario.numerology
        chosen = [scenario.sites[k] for k in (range(len(scenario.sites)) if sites is None else sites)]
        self._wavenumber = 2 * math.pi / numerology.wavelength_m
        antenna = np.stack([antenna_positions(scenario.array, site, numerology) for site in chosen])
        self.antenna = torch.from_numpy(antenna).float()
        self._user_antenna = torch.from_numpy(antenna_positions(scenario.user_array, _FORWARD, numerology)).float()
        self._polarizations = (scenario.array.polarizations, scenario.user_array.polarizations)
        self._tone_hz = torch.from_numpy(tone_offsets(numerology)).float()
        self._slot_s = torch.from_numpy(slot_times(numerology)).float()

    def response(self, paths: PaddedPaths, motion: Motion, antenna: Tensor | None = None) -> Tensor:
        """Return H (N, K, slot, pair, tone or tap) complex64 [amplitude gain between isotropic antennas].

        Args:
            paths: N snapshots, K sites.
            motion: of the same snapshots.
            antenna: antenna positions (N, K, M, 3) where sites differ from snapshot to snapshot; else `antenna`.

        Raises:
            ValueError: the arrays are dual-polarised and `paths` has no matrices.
        """
        if paths.csi is not None:
            return self._measured(paths.csi, motion)
        n, k, _ = paths.coefficient.shape
        slot = self._slot_s.to(paths.coefficient.device)
        doppler = self._wavenumber * (paths.user_direction @ motion.velocity[:, None, :, None])[..., 0]
        in_time = doppler[..., None, :] * slot[:, None] + motion.slot_phase[..., None]  # (N, K, T, P)
        delay = paths.distance / SPEED_OF_LIGHT + motion.clock_s[..., None]
        steering = self._polarized(self._steering(paths, in_time, antenna), paths)  # (N, K, T, pair, P)
        made = steering.flatten(2, 3) @ self._over_frequency(delay)
        return made.reshape(n, k, len(slot), steering.shape[3], -1)

    def _measured(self, csi: Tensor, motion: Motion) -> Tensor:
        """Return measured channels (N, K, T, A, F) under the scenario's clock errors, as tones or taps.

        The user's motion and the sites' arrays are in them.
        """
        tone = -2 * math.pi * motion.clock_s[..., None] * self._tone_hz.to(csi.device)  # (N, K, F)
        phase = tone[..., None, None, :] + motion.slot_phase[..., None, None]
        turned = csi * torch.polar(torch.ones_like(phase), phase)
        return turned @ tones_to_taps(self._numerology).to(csi.device) if self._numerology.taps else turned

    def _steering(self, paths: PaddedPaths, in_time: Tensor, antenna: Tensor | None) -> Tensor:
        """Return phasors (N, K, T, site element, user element, P) over time and space."""
        antenna = self.antenna.to(in_time.device) if antenna is None else antenna
        at_site = self._wavenumber * (antenna @ paths.site_direction.transpose(-1, -2))  # (N, K, M, P)
        phase = in_time[..., :, None, None, :] + at_site[..., None, :, None, :]
        if len(self._user_antenna) > 1:
            direction = paths.user_direction
            if paths.heading is not None:  # in the frame of an array rotated by the heading
                direction = _turned_back(direction, paths.heading[:, None, None])
            at_user = self._wavenumber * (self._user_antenna.to(in_time.device) @ direction.transpose(-1, -2))
            phase = phase + at_user[..., None, None, :, :]
        return torch.polar(torch.ones((), device=in_time.device).expand_as(phase), phase)

    def _polarized(self, steering: Tensor, paths: PaddedPaths) -> Tensor:
        """Weight phasors with the paths' coefficients: (N, K, T, pair, P), ordered by polarisation, then element.

        The user's heading does not change the matrices: V and H of a direction are its unit vectors of zenith and
        azimuth about the vertical axis, and rotating the array about that axis leaves both unchanged.
        """
        if self._polarizations == (1, 1):
            return steering.flatten(3, 4) * paths.coefficient[:, :, None, None, :]
        if paths.matrix is None:
            raise ValueError("dual-polarised arrays need the paths' matrices: pad_paths(..., matrices=True)")
        a, b = self._polarizations
        matrix = paths.matrix[..., :a, :b].movedim(2, -1)  # (N, K, a, b, P)
        pairs = steering[:, :, :, None, :, None] * matrix[:, :, None, :, None, :, None]  # (N, K, T, a, M/a, b, U/b, P)
        return pairs.flatten(3, 6)

    def _over_frequency(self, delay: Tensor) -> Tensor:
        """Return the responses (N, K, P, tone or tap) of paths with delays (N, K, P) [s]."""
        if self._numerology.taps:
            return dirichlet_taps(delay, self._numerology)
        phase = -2 * math.pi * delay[..., None] * self._tone_hz.to(delay.device)
        return torch.polar(torch.ones((), device=delay.device).expand_as(phase), phase)


def _turned_back(direction: Tensor, heading: Tensor) -> Tensor:
    """Return directions (…, 3) in a frame that is rotated about z by `heading` (…) [rad]."""
    x, y, z = direction.unbind(-1)
    cos, sin = heading.cos(), heading.sin()
    return torch.stack([x * cos + y * sin, y * cos - x * sin, z], -1)


def antenna_positions(array: Array, site: Site, numerology: Numerology) -> npt.NDArray[np.float64]:
    """Return antenna positions (M, 3) [m] from the array's centre, rows along the tilted z axis, columns along y.

    For a dual-polarised array: element positions (M/2, 3), each with a V and an H antenna. Order as in Sionna RT's
    PlanarArray: column by column from left to right, each from top to bottom.
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
    """Return offsets ν_f of the measured tones from the carrier (F,) [Hz], symmetric around it."""
    return (np.arange(numerology.tones, dtype=np.float64) - (numerology.tones - 1) / 2) * numerology.tone_spacing_hz


def slot_times(numerology: Numerology) -> npt.NDArray[np.float64]:
    """Return sampling times s_t of the slots relative to the snapshot's instant (T,) [s]."""
    return (np.arange(numerology.slots, dtype=np.float64) - (numerology.slots - 1) / 2) * numerology.slot_spacing_s


def pilot_sequence(tones: int) -> Tensor:
    """Return unit-modulus pilots s (tone,) complex64: a Zadoff-Chu sequence, known to both ends."""
    index = np.arange(tones, dtype=np.float64)
    return torch.from_numpy(np.exp(-1j * np.pi * index * (index + tones % 2) / tones).astype(np.complex64))


def scenario_pilots(scenario: Scenario) -> Tensor:
    """Return the pilots s (tone or tap,) complex64 for a site's channel estimation.

    For taps they are ones, since the front end has already divided by the pilots.
    """
    numerology = scenario.numerology
    return torch.ones(numerology.taps, dtype=torch.complex64) if numerology.taps else pilot_sequence(numerology.tones)


def silence_w(scenario: Scenario) -> float:
    """Return the energy of a snapshot's pilots at a site up to which they may be noise alone [W].

    It is the mean energy of noise over slots, pairs and tones, or taps, plus five standard deviations, which noise
    exceeds about once in 10^5 snapshots; zero where sites that no path reaches receive nothing at all.
    """
    if scenario.link_budget.noise != "thermal":
        return 0.0
    slots, pairs, width = scenario.csi_shape
    mean, variance = float(width), float(width)  # of the energy of `width` numbers of unit variance
    if scenario.numerology.taps:
        root = white_to_taps(scenario.numerology).to(torch.complex128)
        covariance = root @ root.mH
        mean, variance = float(covariance.trace().real), float(covariance.abs().square().sum())
    rows = slots * pairs
    return scenario.tone_noise_w * (rows * mean + 5 * math.sqrt(rows * variance))


def receiver_noise(scenario: Scenario, signal: Tensor, white: Tensor) -> Tensor:
    """Return noise N (…, slot, pair, tone or tap) complex64 [√W] of a scenario's receivers.

    Args:
        scenario: link budget and numerology.
        signal: √P H∘s [√W], same shape; its mean power sets the noise power where noise is given as an SNR.
        white: independent standard normal draws (…, slot, pair, tone or tap, 2) float32.
    """
    budget, unit = scenario.link_budget, torch.view_as_complex(white)
    if budget.noise == "thermal":
        if scenario.numerology.taps:
            unit = unit @ white_to_taps(scenario.numerology).to(unit.device).T
        return torch.view_as_complex(math.sqrt(scenario.tone_noise_w / 2) * torch.view_as_real(unit))
    if budget.noise == "none":
        return torch.zeros_like(signal)
    power = signal.abs().square().mean((-3, -2, -1), keepdim=True)  # zero without paths: so is the noise
    return torch.sqrt(power / 2 * 10 ** (-budget.snr_db / 10)) * unit

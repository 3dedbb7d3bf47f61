"""The air interface of sites: pilots as their receivers get them, snapshot by snapshot.

    paths of the snapshot's user -> response -> × √P, antenna errors, pilots -> + noise -> received

Noise and clock errors are keyed by (seed, stream, site, snapshot), draws that sites share by (seed, stream, snapshot).
So a snapshot at a site is the same to the bit whether it is synthesised alone or with others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from fronthaul.draws import Stream
from sim.world.channel import Motion, PaddedPaths, Synthesizer, receiver_noise, scenario_pilots
from sim.world.clocks import site_errors_ns
from sim.world.perturbed import antenna_errors
from sim.world.pilot_store import PilotStore, Shelf
from sim.world.scenario import Scenario

CACHED = 1 << 18
"""Numbers in the largest array of a piece of work: many snapshots share its fixed cost of 0.4 ms, and it stays in a
core's cache."""

_Row = tuple["Radio", int]  # and a snapshot


class Radio:
    """Air interface of one site. It knows the paths but not the user's position."""

    def __init__(
        self, scenario: Scenario, paths: PaddedPaths, site: int, seed: int, store: PilotStore | None = None
    ) -> None:
        """Take the paths (N, 1, P, …) of one site.

        With a `store`, what it or a radio like it has received before is not made again; such a radio stays in its
        process.
        """
        self._scenario = scenario
        self._paths = paths
        self._site = site
        self._seed = seed
        self._synthesizer = Synthesizer(scenario, [site])
        errors = antenna_errors(scenario, site).repeat(scenario.user_array.antennas)  # pair m·U + j
        self._antennas = torch.from_numpy(errors)[:, None]
        self.pilots = scenario_pilots(scenario)
        self._store = store
        self._shelf: Shelf = {} if store is None else store.shelf(scenario, paths, site, seed)

    def __len__(self) -> int:
        return len(self._paths.coefficient)

    def kept_in(self, store: PilotStore) -> Radio:
        """Return this radio with a store, for the process that it has come to."""
        return Radio(self._scenario, self._paths, self._site, self._seed, store)

    def observe(self, snapshot: int) -> Tensor:
        """Return received pilots Y = √P H∘s + N (slot, pair, tone or tap) complex64 [√W]. ECC Eq. 2.

        The snapshot's paths are those of test position ``snapshot % len(self)``; draws are fresh for each snapshot.
        The user's antennas send orthogonal pilots, which the front end has separated into antenna pairs.
        """
        return self.observe_together([(self, [snapshot])])[0][0]

    @staticmethod
    def observe_together(asked: Sequence[tuple[Radio, Sequence[int]]]) -> list[Tensor]:
        """Return what radios of one plan `observe`, each in its own snapshots: (B, slot, pair, tone or tap) of each."""
        rows = [(radio, snapshot) for radio, snapshots in asked for snapshot in snapshots]
        some = asked[0][0]
        received = torch.empty(len(rows), *some._scenario.csi_shape, dtype=torch.complex64)
        if some._store is None:
            _receive(rows, received)
        else:
            _recall(rows, received, some._store)
        return list(received.split([len(snapshots) for _, snapshots in asked]))

    @property
    def _piece(self) -> int:
        """Number of snapshots that are synthesised at once.

        Where an operation takes several snapshots as one row of numbers, or as rows of one matrix, the last bit of a
        result depends on its place in the row or on the number of rows. Such snapshots are synthesised one by one.
        """
        slots, pairs, bins = self._scenario.csi_shape
        if self._paths.csi is not None or (slots * pairs == 1 and self._scenario.clock.per_slot_phase):
            return 1
        return max(1, CACHED // max(slots * pairs * bins, self._paths.coefficient.shape[-1] * bins))


def _recall(rows: Sequence[_Row], received: Tensor, store: PilotStore) -> None:
    """Do as `_receive`, but take from a store what is there, and add to it what is not."""
    known = [radio._shelf.get(snapshot) for radio, snapshot in rows]
    fresh = [row for row, pilots in zip(rows, known, strict=True) if pilots is None]
    made = torch.empty(len(fresh), *received.shape[1:], dtype=received.dtype)
    _receive(fresh, made)
    new = iter(made.numpy())
    for (radio, snapshot), pilots, out in zip(rows, known, received.numpy(), strict=True):
        if pilots is None:
            pilots = next(new)
            store.keep(radio._shelf, snapshot, pilots)
        out[...] = pilots


def _receive(rows: Sequence[_Row], received: Tensor) -> None:
    """Write what R pairs of a radio and a snapshot receive into `received` (R, slot, pair, tone or tap)."""
    size = rows[0][0]._piece if rows else 1
    for begin in range(0, len(rows), size):
        _receive_piece(rows[begin : begin + size], received[begin : begin + size])


def _receive_piece(rows: Sequence[_Row], received: Tensor) -> None:
    some = rows[0][0]
    scenario = some._scenario
    each = [(radio, [snapshot for _, snapshot in own]) for radio, own in groupby(rows, key=lambda row: row[0])]
    paths = PaddedPaths.join([radio._paths[_users(radio, snapshots)] for radio, snapshots in each])
    counts = torch.tensor([len(snapshots) for _, snapshots in each])
    antenna = torch.stack([radio._synthesizer.antenna for radio, _ in each]).repeat_interleave(counts, 0)
    errors = torch.stack([radio._antennas for radio, _ in each]).repeat_interleave(counts, 0)[:, None]
    response = some._synthesizer.response(paths, drawn_motion(rows, paths), antenna)[:, 0]
    torch.view_as_real(response).mul_(math.sqrt(scenario.tone_power_w))
    signal = response.mul_(errors).mul_(some.pilots)
    if scenario.link_budget.noise == "none":
        received.copy_(signal)
        return
    noise = Stream(some._seed, "noise")
    white = torch.view_as_real(received)  # drawn where it ends up
    for (radio, snapshot), own in zip(rows, white.numpy(), strict=True):
        noise.at(radio._site, snapshot).standard_normal(dtype=np.float32, out=own)
    if scenario.link_budget.noise == "thermal" and not scenario.numerology.taps:
        torch.add(signal, receiver_noise(scenario, signal, white), out=received)
        return
    for one, own, made in zip(signal, white, received, strict=True):
        torch.add(one, receiver_noise(scenario, one, own), out=made)


def _users(radio: Radio, snapshots: Sequence[int]) -> slice | Tensor:
    """Return the test positions of snapshots, as a slice where they follow each other."""
    users = [snapshot % len(radio) for snapshot in snapshots]
    begin, end = users[0], users[0] + len(users)
    return slice(begin, end) if users == [*range(begin, end)] else torch.tensor(users)


def drawn_motion(rows: Sequence[_Row], paths: PaddedPaths) -> Motion:
    """Draw motion and clocks of R pairs of a radio and a snapshot; velocities are the paths', where they have any."""
    some = rows[0][0]
    clock, slots, speed = some._scenario.clock, some._scenario.numerology.slots, some._scenario.users.speed_mps
    user, own = Stream(some._seed, "user"), Stream(some._seed, "clock")
    velocity_of, bias_of = {}, {}
    for snapshot in dict.fromkeys(snapshot for _, snapshot in rows):
        shared = user.at(snapshot)
        heading = float(shared.uniform(0, 2 * math.pi))
        velocity_of[snapshot] = speed * math.cos(heading), speed * math.sin(heading), 0.0
        bias_of[snapshot] = float(shared.standard_normal()) * clock.ue_bias_ns
    normal = np.zeros(len(rows))
    phase = np.zeros((len(rows), slots))
    drifts = clock.bs_sigma_ns or clock.per_slot_phase or paths.csi is not None  # else draws are scaled to zero
    for k, (radio, snapshot) in enumerate(rows if drifts else ()):
        drawn = own.at(radio._site, snapshot)
        normal[k] = drawn.standard_normal()
        if clock.per_slot_phase:
            phase[k] = drawn.uniform(0, 2 * math.pi, slots)
    bias_ns = torch.tensor([bias_of[snapshot] for _, snapshot in rows], dtype=torch.float64)
    clock_s = (bias_ns + site_errors_ns(clock, torch.from_numpy(normal))) * 1e-9
    velocity = paths.velocity
    if velocity is None:
        velocity = torch.tensor([velocity_of[snapshot] for _, snapshot in rows])
    return Motion(velocity, clock_s.float()[:, None], torch.from_numpy(phase.astype(np.float32))[:, None])

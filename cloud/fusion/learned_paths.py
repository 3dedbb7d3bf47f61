"""Learned fusion of standard reports: least squares whose weights and starting point a network chooses.

Notation: base station k at p_k reports slots j = 0 … J−1, each with a range ρ, an azimuth φ, a zenith θ, a power and a
phase, or some of them; the first `trusted` of them are measurements of the line of sight, as in
`cloud.fusion.lateration`, the others only inform. One network reads all reports,

    e_k = E(slots of k)          x₀, Λ, c = G(e_1, …, e_K)          w_kj, δ_kj = H_k(e_k, c, r_kj)

with the residuals r of ρ, φ and θ against the lines of sight from the position so far. That of the next iteration is

    x ← x + (Σ w ∇m ∇mᵀ + Λ)⁻¹ (Σ w ∇m (r + δ) + Λ (x₀ − x))

with the models m of ρ, φ and θ: reweighted least squares in which the weight of a measurement, and by how much it is
off, depend on all that is reported rather than on its residual alone, and which fall back to the network's own estimate
x₀ where no measurement can be trusted. Scales are those of the classical error model. There is no covariance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cloud.fusion.scheme import NOTHING_HEARD, CloudSetup, Fix
from fronthaul.message.messages import Payload, Report
from fronthaul.payload.measurements import SPEED_OF_LIGHT, Path

COLUMNS = 5
"""Numbers of a slot: range [m], azimuth, zenith [rad], power [dBm], phase [rad]; NaN where not reported."""
_KINDS = 3
_STEP_M = 20.0
_RANGE_M, _LATER_M, _LEVEL_DBM, _SPREAD_DB, _LOWER_DB = 100.0, 30.0, -100.0, 20.0, 10.0  # sizes of inputs, about 1


@dataclass(frozen=True)
class PathShape:
    """Dimensions of a network: slots, those that are measurements, widths, iterations."""

    slots: int
    trusted: int
    own: int = 24
    hidden: int = 48
    shared: int = 96
    context: int = 24
    iterations: int = 3


def slot_table(paths: Sequence[Path], slots: int) -> Tensor:
    """Return a report's paths as numbers (slots, COLUMNS)."""
    rows = [[p.delay_s * SPEED_OF_LIGHT, p.azimuth, p.zenith, p.power_dbm, p.phase] for p in paths[:slots]]
    return torch.tensor(rows + [[math.nan] * COLUMNS] * (slots - len(rows)), dtype=torch.float64)


class PathNetwork(nn.Module):
    """The network of the module's docstring."""

    place: Tensor
    low: Tensor
    high: Tensor
    scale: Tensor

    def __init__(self, shape: PathShape, place: Tensor, config: Mapping[str, Any]) -> None:
        """Make it for base stations at `place` (K, 3) [m], and the service area and errors of `config`."""
        super().__init__()
        count = len(place)
        self.shape = shape
        errors = config["errors"]
        fixed = {
            "place": place.float(),
            "low": torch.tensor(config["low"], dtype=torch.float32),
            "high": torch.tensor(config["high"], dtype=torch.float32),
            "scale": torch.tensor([errors[kind][1] for kind in ("range_m", "azimuth", "zenith")]),
        }
        for name, value in fixed.items():
            self.register_buffer(name, value, persistent=False)
        inputs = 11 * shape.trusted + 5 * (shape.slots - shape.trusted)
        self.first = nn.Linear(inputs, shape.hidden)
        self.site = nn.Parameter(0.1 * torch.randn(count, shape.hidden))
        self.second = nn.Linear(shape.hidden, shape.own)
        self.join = nn.Linear(count * shape.own, shape.shared)
        self.middle = nn.Linear(shape.shared, shape.shared)
        self.out = nn.Linear(shape.shared, 6 + shape.context)
        self.head = nn.Linear(shape.own + shape.context + _KINDS * shape.trusted, shape.hidden)
        self.head_site = nn.Parameter(0.1 * torch.randn(count, shape.hidden))
        self.verdict = nn.Linear(shape.hidden, 2 * _KINDS * shape.trusted)

    def forward(self, table: Tensor) -> Tensor:
        """Return the positions of all iterations (B, iterations + 1, 3) [m] from slots (B, K, J, COLUMNS)."""
        shape = self.shape
        b, k = table.shape[:2]
        value = table[:, :, : shape.trusted, :_KINDS]
        known = value.isfinite()
        value = torch.where(known, value, 0.0)
        heard = table[..., 0].isfinite().any(2)
        own = functional.relu(self.first(self._inputs(table)) + self.site)
        own = self.second(own) * heard[..., None]
        joint = functional.relu(self.join(own.flatten(1)))
        joint = joint + functional.relu(self.middle(joint))
        start, precision, context = self.out(joint).split([3, 3, shape.context], 1)
        centre, extent = (self.low + self.high) / 2, (self.high - self.low) / 2
        start = centre + extent * start
        prior = (precision - 1.0).clamp(-8.0, 6.0).exp()
        given = torch.cat([own, context[:, None].expand(-1, k, -1)], 2)
        x, found = start, [start]
        for _ in range(shape.iterations):
            model, slope = _line_of_sight(x[:, None] - self.place)
            residual = value - model[:, :, None]
            turns = torch.tensor([0.0, 1.0, 1.0]) * torch.round(residual / (2 * math.pi))
            residual = torch.where(known, residual - 2 * math.pi * turns, 0.0)
            relative = residual / self.scale
            seen = torch.cat([given, torch.asinh(relative).flatten(2) / 4], 2)
            verdict = self.verdict(functional.relu(self.head(seen) + self.head_site))
            weight, shift = verdict.view(b, k, shape.trusted, 2, _KINDS).unbind(3)
            weight = weight.clamp(-12.0, 6.0).exp() * known
            scaled = slope[:, :, None] / self.scale[:, None]  # (B, K, 1, kind, axis)
            leaning = (weight[..., None] * scaled).flatten(1, 3)  # (B, K·T·kind, axis)
            flat = scaled.expand(b, k, shape.trusted, _KINDS, 3).flatten(1, 3)
            normal = leaning.mT @ flat + torch.diag_embed(prior)
            right = (leaning * (relative + shift).flatten(1)[..., None]).sum(1) + prior * (start - x)
            move = torch.linalg.solve(normal, right)
            move = move * (_STEP_M / move.norm(dim=1, keepdim=True).clamp_min(_STEP_M))
            x = torch.minimum(torch.maximum(x + move, self.low), self.high)
            found.append(x)
        return torch.stack(found, 1)

    def _inputs(self, table: Tensor) -> Tensor:
        """Return what the network reads of each base station (B, K, ·)."""
        count = self.shape.trusted
        present = table[..., 0].isfinite().float()
        distance, azimuth, zenith, power, phase = table.unbind(3)
        strongest = torch.where(power.isfinite(), power, -math.inf).argmax(2, keepdim=True)
        reference = torch.where(phase.isfinite(), power, -math.inf).argmax(2, keepdim=True)
        later = (distance - distance[..., :1]) / _LATER_M
        lower = (power - power.gather(2, strongest)) / _LOWER_DB
        turn = phase - phase.gather(2, reference)
        unit = torch.stack([azimuth.cos() * zenith.sin(), azimuth.sin() * zenith.sin(), zenith.cos()], 3)[:, :, :count]
        centre, extent = (self.low + self.high) / 2, (self.high - self.low) / 2
        point = (self.place[:, None] + distance[:, :, :count, None] * unit - centre) / extent
        of_trusted = torch.stack(
            [present, distance / _RANGE_M, (power - _LEVEL_DBM) / _SPREAD_DB, lower, later], 3
        )[:, :, :count]  # fmt: skip
        others = torch.stack([present, later, lower, turn.cos(), turn.sin()], 3)[:, :, count:]
        whole = [of_trusted.flatten(2), unit.flatten(2), point.clamp(-4, 4).flatten(2), others.flatten(2)]
        return torch.nan_to_num(torch.cat(whole, 2))


def _line_of_sight(line: Tensor) -> tuple[Tensor, Tensor]:
    """Return range, azimuth and zenith (…, 3) of lines (…, 3) from base stations, and their slopes (…, 3, 3)."""
    square = line[..., :2].square().sum(-1).clamp_min(1.0)
    flat, distance = square.sqrt(), (square + line[..., 2].square()).sqrt()
    x, y, z = line.unbind(-1)
    model = torch.stack([distance, torch.atan2(y, x), torch.acos((z / distance).clamp(-0.999999, 0.999999))], -1)
    by_range = line / distance[..., None]
    by_azimuth = torch.stack([-y / square, x / square, torch.zeros_like(x)], -1)
    lean = z / (distance.square() * flat)
    by_zenith = torch.stack([x * lean, y * lean, -flat / distance.square()], -1)
    return model, torch.stack([by_range, by_azimuth, by_zenith], -2)


class LearnedFusion:
    """Makes fixes with a `PathNetwork`."""

    def __init__(
        self, setup: CloudSetup, name: str, read: Callable[[Payload], Sequence[Path]], reports: Mapping[str, int]
    ) -> None:
        """Load network `name`.

        Args:
            setup: `config` has the network's dimensions under "networks", `tensors` its weights as ``<name>.…``.
            name: of the network.
            read: gets the slots of a payload that is not empty.
            reports: what the reports hold.

        Raises:
            ValueError: the network was not trained for such reports.
        """
        config = setup.config["networks"][name]
        for option, value in config["reports"].items():
            if reports[option] != value:
                raise ValueError(f"the network was trained for {option}={value}, not {int(reports[option])}")
        self._read = read
        self._count = int(config["stations"])
        place = torch.zeros(self._count, 3)
        for k, position in setup.stations.items():
            place[k] = torch.tensor(position)
        network = PathNetwork(PathShape(**config["shape"]), place, setup.config)
        prefix = f"{name}."
        own = {key.removeprefix(prefix): v.float() for key, v in setup.tensors.items() if key.startswith(prefix)}
        network.load_state_dict(own)
        self._device = torch.device(setup.device)
        self._network = network.eval().to(self._device)

    @torch.inference_mode()
    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group of reports."""
        slots = self._network.shape.slots
        table = torch.full((len(groups), self._count, slots, COLUMNS), math.nan, dtype=torch.float64)
        for row, group in enumerate(groups):
            for report in group:
                if report.payload.bits:
                    table[row, report.key.bs] = slot_table(self._read(report.payload), slots)
        heard = table[..., 0].isfinite().any(2).any(1)
        position = self._network(table.float().to(self._device))[:, -1].cpu().double()
        position[~heard] = math.nan
        silent = [{one.key.bs: NOTHING_HEARD for one in group if not one.payload.bits} for group in groups]
        return [Fix((x, y, z), None, own) for (x, y, z), own in zip(position.tolist(), silent, strict=True)]

"""Fit of positions to reported atoms with a map: the paths' gains are free, their geometry is the map's.

For a link, ŷ is the reported channel and J its derivatives by the reported parameters. The report's error is
structured. Within span J it comes from quantisation, J V Jᵀ, and thermal noise: the base station's fit is stationary,
so that what its atoms left of the channel is orthogonal to J. What they left has the reported energy; it is made of the
few paths that have no atom, and so lies in a few unknown directions outside span J, each with the variance e. With
gains of mean power P_j, the cost of a position p is

    c(p) = min_g (ŷ − A(p) g)ᵀ Σ⁻¹ (ŷ − A(p) g) + Σ_j |g_j|² / (P_j / 2),

with columns A(p) of the anchors' atoms. Links add as Student-t losses, and Levenberg-Marquardt descends on p; as gains
are free, there are no minima a wavelength apart. Errors of the map and of clocks, where their deviations are given, are
further columns beside A, with a prior of unit variance. Arrays are complex, all products those of their real forms; Σ,
e and P_j / 2 are variances of real numbers, half those of complex ones, so that the cost is twice a negative log
likelihood and half its Hessian is the Fisher information.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from cloud.fusion.twin_map import SPEED_OF_LIGHT, Images, Ints, Places, TwinMap
from fronthaul.payload.atoms import AtomGrid, Complex, Real
from fronthaul.payload.twin import Atoms

LEFT_DIMENSIONS = 2
"""Real dimensions in which the energy lies that a report's atoms left: the strongest path of what is left has most."""
_LEAST = 1e-3  # directions of J weaker than this, in energy, count as left over: no atom determines them
_STEP_M = 3.0  # longest step
_ENDED = 1e-4  # a step that is expected to lower half the cost by less ends a fit: a hundredth of a deviation
_OF_LINKS = ("misfit", "evidence")  # of a state; its other numbers are of fixes


@dataclass(frozen=True)
class Tolerances:
    """Standard deviations of errors that a fit estimates or eliminates; zero for none.

    Attributes:
        clock_ns: of the user's clock.
        bs_ns: of each base station's clock.
        site_m: of a site's surveyed coordinates, each.
        wall_m: of the coordinates of a user's image, each, for every reflected path.
    """

    clock_ns: float = 0.0
    bs_ns: float = 0.0
    site_m: float = 0.0
    wall_m: float = 0.0

    @property
    def unknowns(self) -> int:
        """Number of unknowns of a fix: three coordinates, and the user's clock error [m] if it has one."""
        return 4 if self.clock_ns else 3

    @property
    def clock_m(self) -> float:
        """`clock_ns` as a distance."""
        return self.clock_ns * 1e-9 * SPEED_OF_LIGHT


@dataclass(frozen=True)
class Observed:
    """Reports of B links with their structured errors.

    Attributes:
        channel: ŷ (B, M·F).
        basis: orthonormal U (B, M·F, r) complex; a zero column has no effect.
        mixing: UᵀJ (B, r, 5L).
        variance: of the reported parameters (B, 5L).
        rest: further variance along each column of U (B, r).
        outer: variance e (B,) along a direction outside span U.
        power: mean power of ŷ (B,).
    """

    channel: Complex
    basis: Complex
    mixing: Real
    variance: Real
    rest: Real
    outer: Real
    power: Real

    def __getitem__(self, links: Ints) -> Observed:
        return Observed(*(getattr(self, field.name)[links] for field in fields(self)))

    def inner(self, floor: Real | float, variance: Real | None = None) -> Real:
        """Return the covariance Q (B, r, r) within span U.

        Args:
            floor: variance of the map's own error, as a share of a link's power; one, or each link's (B,).
            variance: of the parameters (B, 5L), if other than `self.variance`.
        """
        parameters = self.variance if variance is None else variance
        found: Real = (self.mixing * parameters[:, None, :]) @ self.mixing.swapaxes(-1, -2)
        diagonal = np.arange(found.shape[-1])
        found[:, diagonal, diagonal] += self.rest + (floor / 2 * self.power)[:, None]
        return found


def observed(grid: AtomGrid, reported: Atoms, noise: float) -> Observed:
    """Return what reports say of channels, whose complex numbers have noise of power `noise`."""
    atoms = grid.atoms(reported.place)
    channel = (atoms @ reported.gain[..., None])[..., 0]
    jacobian = grid.jacobian(atoms, reported.gain)
    length = np.sqrt((jacobian.real**2 + jacobian.imag**2).sum(1))
    unit = jacobian / np.maximum(length, 1e-300)[:, None, :]
    strength, rotation = np.linalg.eigh((unit.conj().swapaxes(-1, -2) @ unit).real)
    kept = strength > _LEAST
    root = np.where(kept, np.sqrt(np.maximum(strength, _LEAST)), 0)
    inverse = np.where(kept, 1 / np.where(kept, root, 1), 0)
    basis = unit @ (rotation * inverse[:, None, :])
    mixing = root[:, :, None] * rotation.swapaxes(-1, -2) * length[:, None, :]
    power = (channel.real**2 + channel.imag**2).mean(-1)
    outer = np.maximum(grid.size * power * reported.share / LEFT_DIMENSIONS, noise / 2)
    rest = np.where(kept, noise / 2, outer[:, None])  # regular where U has a zero column
    variance = reported.variance.reshape(len(power), -1)
    return Observed(channel, basis, mixing, variance, rest, outer, power)


@dataclass(frozen=True)
class State:
    """Estimates of N fixes.

    Attributes:
        unknown: coordinates [m], and the user's clock error [m] if it is one of the unknowns (N, 3 or 4).
        cost: sum of the links' losses (N,).
        information: Fisher information of the unknowns, half the cost's Hessian (N, D, D).
        slope: half the negative gradient of the cost (N, D).
        misfit: costs of links (B,), before the loss.
        evidence: log likelihoods of links (B,), integrated over gains and errors, by which floors compare.
    """

    unknown: Real
    cost: Real
    information: Real
    slope: Real
    misfit: Real
    evidence: Real

    def replaced(self, better: npt.NDArray[np.bool_], other: State, fix: Ints) -> State:
        """Return the state with the fixes `better` (N,) of another; links belong to fixes `fix` (B,)."""
        found = {}
        for field in fields(self):
            chosen = better[fix] if field.name in _OF_LINKS else better
            own, new = getattr(self, field.name), getattr(other, field.name)
            found[field.name] = np.where(chosen.reshape(-1, *[1] * (own.ndim - 1)), new, own)
        return State(**found)

    def replaced_at(self, fixes: Ints, other: State, links: npt.NDArray[np.bool_]) -> State:
        """Return the state with the fixes numbered `fixes`, which have the links `links` (B,), from another."""
        found = {}
        for field in fields(self):
            found[field.name] = getattr(self, field.name).copy()
            found[field.name][links if field.name in _OF_LINKS else fixes] = getattr(other, field.name)
        return State(**found)

    def of_fixes(self, kept: npt.NDArray[np.bool_], fix: Ints) -> State:
        """Return the state of the fixes `kept` (N,)."""
        rows = {field.name: kept[fix] if field.name in _OF_LINKS else kept for field in fields(self)}
        return State(**{name: getattr(self, name)[row] for name, row in rows.items()})


@dataclass(frozen=True)
class Linear:
    """Columns X of the model of B links, linear in gains, errors and unknowns: their real products.

    Attributes:
        whole: XᵀX (B, n, n).
        within: UᵀX (B, r, n).
        match: Xᵀŷ (B, n, 1).
        nuisances: number of leading columns that are eliminated, of unit prior variance.
    """

    whole: Real
    within: Real
    match: Real
    nuisances: int


class Fitting:
    """Costs of positions, for links sorted by fix, and the descent on them."""

    def __init__(
        self,
        world: TwinMap,
        seen: Observed,
        images: Images,
        site: Ints,
        fix: Ints,
        fixes: int,
        floor: Real | float,
        tolerances: Tolerances,
    ) -> None:
        """Prepare a fit of `fixes` fixes.

        Args:
            world: map.
            seen: reports of B links.
            images: anchors of the links.
            site: site of each link (B,).
            fix: fix that each link belongs to (B,), sorted.
            fixes: number of fixes N.
            floor: variance of the map's own error, as a share of a link's power; one, or each link's (B,).
            tolerances: further errors.
        """
        self._world, self._images, self._site, self._fix, self._fixes = world, images, site, fix, fixes
        self._tolerances = tolerances
        self._outer = 1 / (seen.outer + floor / 2 * seen.power)
        inner = seen.inner(floor)
        self._inner = correction(inner, self._outer)
        self._channel, self._basis = seen.channel, seen.basis.conj().swapaxes(-1, -2)
        self._within = (self._basis @ seen.channel[..., None]).real  # Uᵀ ŷ (B, r, 1)
        self._energy = self._outer * seen.power * world.grid.size
        self._energy += (self._within * (self._inner @ self._within)).sum((-1, -2))
        self._scale = float(4 * world.grid.size)
        # Columns of U that are zero have the outer variance: they are no dimensions of a report.
        outside = LEFT_DIMENSIONS - (~seen.mixing.any(-1)).sum(-1)
        self._spread = np.linalg.slogdet(inner)[1] - outside * np.log(self._outer)

    def descend(self, state: State, steps: int) -> State:
        """Take at most `steps` Levenberg-Marquardt steps; a fix ends with a step far below its deviation."""
        diagonal = np.arange(state.unknown.shape[1])
        damping = np.full(self._fixes, 1e-2)
        ended, going, problem = state, np.arange(self._fixes), self
        for _ in range(steps):
            normal = state.information.copy()
            normal[:, diagonal, diagonal] += damping[:, None] * normal[:, diagonal, diagonal] + 1e-9
            step = np.linalg.solve(normal, state.slope[..., None])[..., 0]
            left = (step * state.slope).sum(1)
            step *= np.minimum(1, _STEP_M / np.maximum(np.sqrt((step[:, :3] ** 2).sum(1)), 1e-12))[:, None]
            found = problem.state(state.unknown + step)
            better = found.cost < state.cost
            state = state.replaced(better, found, problem._fix)
            damping = np.where(better, np.maximum(damping * 0.3, 1e-6), np.minimum(damping * 6, 1e6))
            goes_on = left > _ENDED
            if not goes_on.all():
                ended = ended.replaced_at(going, state, np.isin(self._fix, going))
                going, damping = going[goes_on], damping[goes_on]
                if not len(going):
                    return ended
                state, problem = state.of_fixes(goes_on, problem._fix), problem.of_fixes(goes_on)
        return ended.replaced_at(going, state, np.isin(self._fix, going))

    def of_fixes(self, kept: npt.NDArray[np.bool_]) -> Fitting:
        """Return the fit of some of the fixes."""
        links = kept[self._fix]
        part = copy(self)
        for name in ("_site", "_outer", "_inner", "_channel", "_basis", "_within", "_energy", "_spread"):
            setattr(part, name, getattr(self, name)[links])
        part._images = Images(*(getattr(self._images, field.name)[links] for field in fields(Images)))
        part._fix, part._fixes = (np.cumsum(kept) - 1)[self._fix[links]], int(kept.sum())
        return part

    def state(self, unknown: Real) -> State:
        """Return cost, information and slope at unknowns (N, D)."""
        model = self.linear(unknown)
        nuisances = model.nuisances
        square = self._products(model.whole, model.within, model.within)
        diagonal = np.arange(nuisances)
        square[:, diagonal, diagonal] += 1
        right = self._products(model.match, model.within, self._within)
        normal, both = square[:, :nuisances, :nuisances], square[:, :nuisances, nuisances:]
        solved = np.linalg.solve(normal, np.concatenate([right[:, :nuisances], both], -1))
        misfit = np.maximum(self._energy - (right[:, :nuisances, 0] * solved[..., 0]).sum(-1), 0)
        information = square[:, nuisances:, nuisances:] - both.swapaxes(-1, -2) @ solved[..., 1:]
        slope = right[:, nuisances:, 0] - (both.swapaxes(-1, -2) @ solved[..., :1])[..., 0]
        weight = 1 / (1 + misfit / self._scale)  # of a Student-t loss
        cost = self._sum(self._scale * np.log1p(misfit / self._scale))
        total = self._sum(weight[:, None, None] * information)
        down = self._sum(weight[:, None] * slope)
        if unknown.shape[1] > 3:  # the prior of the user's clock
            precision = self._tolerances.clock_m**-2
            cost = cost + unknown[:, 3] ** 2 * precision
            total[:, 3, 3] += precision
            down[:, 3] -= unknown[:, 3] * precision
        evidence = -0.5 * (misfit + self._spread + np.linalg.slogdet(normal)[1])
        return State(unknown, cost, total, down, misfit, evidence)

    def linear(self, unknown: Real) -> Linear:
        """Return the model's columns at unknowns (N, D), with the most likely gains."""
        own = unknown[self._fix]
        places = self._world.places(self._images, self._site, own[:, :3])
        place = places.place
        if unknown.shape[1] > 3:
            place = place + np.array([1 / self._world.period_m, 0, 0]) * own[:, None, 3:]
        atoms = self._world.grid.atoms(place) * places.amplitude[:, None, :]
        dual = atoms.conj().swapaxes(-1, -2)
        projected = self._basis @ atoms  # (B, r, P)
        within = np.concatenate([projected.real, -projected.imag], -1)  # Uᵀ [A, jA]
        whole = _real_form(dual @ atoms)
        heard = dual @ self._channel[..., None]
        match = np.concatenate([heard.real, heard.imag], -2)
        normal = self._products(whole, within, within)
        paths = atoms.shape[-1]
        normal[:, np.arange(2 * paths), np.arange(2 * paths)] += 1
        gain = np.linalg.solve(normal, self._products(match, within, self._within))[..., 0]

        moving = self._columns(atoms, gain[:, :paths] + 1j * gain[:, paths:], self._slopes(places, unknown.shape[1]))
        dual_moving = moving.conj().swapaxes(-1, -2)
        shared = dual @ moving
        cross = np.concatenate([shared.real, shared.imag], -2)
        top = np.concatenate([whole, cross], -1)
        bottom = np.concatenate([cross.swapaxes(-1, -2), (dual_moving @ moving).real], -1)
        return Linear(
            np.concatenate([top, bottom], -2),
            np.concatenate([within, (self._basis @ moving).real], -1),
            np.concatenate([match, (dual_moving @ self._channel[..., None]).real], -2),
            2 * paths + moving.shape[-1] - unknown.shape[1],
        )

    def _products(self, whole: Real, left: Real, right: Real) -> Real:
        """Return XᵀΣ⁻¹Y from XᵀY, UᵀX and UᵀY."""
        found: Real = self._outer[:, None, None] * whole + left.swapaxes(-1, -2) @ (self._inner @ right)
        return found

    def _slopes(self, places: Places, unknowns: int) -> Real:
        """Return the derivatives of places (B, P, 3, E + D) by errors, in units of their deviations, and unknowns."""
        allowed, parts = self._tolerances, []
        delay = np.zeros((*places.place.shape, 1))
        delay[..., 0, 0] = 1 / self._world.period_m
        if allowed.site_m:
            parts.append(-allowed.site_m * places.by_image)
        if allowed.bs_ns:
            parts.append(allowed.bs_ns * 1e-9 * SPEED_OF_LIGHT * delay)
        if allowed.wall_m:
            links, paths = places.place.shape[:2]
            alone = np.zeros((links, paths, 3, paths, 3))
            number = np.arange(paths)
            reflected = allowed.wall_m * self._images.reflected[..., None, None]
            alone[:, number, :, number] = (reflected * places.by_image).swapaxes(0, 1)
            parts.append(alone.reshape(links, paths, 3, -1))
        parts.append(places.by_position)
        if unknowns > 3:
            parts.append(delay)
        return np.concatenate(parts, -1)

    def _columns(self, atoms: Complex, gain: Complex, slope: Real) -> Complex:
        """Return the derivatives of A g (B, M·F, E + D): j Σ_θ number_θ ∘ A (g ∂θ)."""
        turned = 1j * gain[:, :, None, None] * slope  # (B, P, 3, E + D)
        made: Complex = self._world.grid.number[0][:, None] * (atoms @ turned[:, :, 0])
        for number, part in zip(self._world.grid.number[1:], (turned[:, :, 1], turned[:, :, 2]), strict=True):
            made += number[:, None] * (atoms @ part)
        return made

    def _sum(self, values: Real) -> Real:
        """Sum values of links (B, …) over the links of each fix."""
        made = np.zeros((self._fixes, *values.shape[1:]))
        np.add.at(made, self._fix, values)
        return made


def correction(inner: Real, outer: Real) -> Real:
    """Return C of Σ⁻¹ = I/e + U C Uᵀ from Q (B, r, r) and 1/e (B,)."""
    found: Real = np.linalg.inv(inner) - outer[:, None, None] * np.eye(inner.shape[-1])
    return found


def _real_form(gram: Complex) -> Real:
    """Return the products of [A, jA] in real form from the complex Gram matrix AᴴA."""
    top = np.concatenate([gram.real, -gram.imag], -1)
    bottom = np.concatenate([gram.imag, gram.real], -1)
    return np.concatenate([top, bottom], -2)

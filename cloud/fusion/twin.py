"""`twin` at the cloud: a position at which the map explains the reported atoms.

Coarse: the strongest atom of each report is compared with the strongest paths of every stored position. Fits begin at
the best few positions, apart from each other, and trust the map little; the best result is refined with the anchors
that the stored positions around it see, and more trust each time (`cloud.fusion.twin_fit`). How much trust each link
deserves, the reports tell themselves (`likely_floors`), so that the covariance allows for what they show of the map's
errors; docs/twin.md has how far that goes. A fix that does not fit its reports, by a limit from training positions, or
that they do not determine, is none. One whose error may exceed the alert limit is marked: the protection level, a
multiple of the predicted deviation, is above the limit, as in the integrity monitoring of satellite navigation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import logsumexp

from cloud.fusion.scheme import CloudSetup, Fix, OneRoundFusion
from cloud.fusion.twin_fit import Fitting, Observed, State, Tolerances, observed
from cloud.fusion.twin_map import Ints, TwinMap
from fronthaul.message.messages import Report
from fronthaul.payload.atoms import Real
from fronthaul.payload.twin import DEFAULT_BITS, Atoms, TwinPayload, report_widths

CANDIDATES, FINALISTS = 6, 2
"""Positions of the coarse search from which fits begin, and those that are followed to their end."""
_BATCH = 32  # fixes fitted at once
_FLOORS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # variances of the map's own error that are tried, as shares of a link's power
_ODD = 0.1  # probability that a link's differs from that of the others
_AROUND, _PATHS = 8, 10  # stored positions whose anchors a fit uses, and most anchors of a link
_ROUGH_AROUND, _ROUGH_PATHS = 3, 6
_LEAST_CERTAIN_M = 20.0  # a position with a larger deviation is none
ALERT_MM, PROTECTION = 1000, 3.0
"""Alert limit by default, and the deviations of a protection level."""
UNCERTAIN = "uncertain"
"""Note of a fix whose protection level is above the alert limit."""
_SCOUT, _STEPS, _FINER = 3, 10, 5  # Levenberg-Marquardt steps before the finalists are known, after, and at each floor


def build(setup: CloudSetup) -> OneRoundFusion:
    """Build the rule from the map.

    Raises:
        ValueError: the map has no report of this length.
    """
    return TwinFusion(setup)


class TwinFusion:
    """Fits positions to reports with a map."""

    def __init__(self, setup: CloudSetup) -> None:
        self._world = TwinMap(setup.config, setup.tensors)
        widths = report_widths(setup.config, int(setup.options.get("bits_per_report", DEFAULT_BITS)))
        ranges = setup.tensors["gain_db"].tolist()
        self._payload = {bs: TwinPayload(widths, (low, high)) for bs, (low, high) in enumerate(ranges)}
        self._noise = float(setup.config["noise"]) / int(setup.config["slots"])
        self._tolerances = tolerances(setup.options)
        self._certain_m = float(setup.options.get("alert_mm", ALERT_MM)) / 1e3 / PROTECTION
        self._tree = cKDTree(self._world.position)
        limits = setup.config.get("misfit", {"bits": [0], "most": [math.inf]})
        self._most_misfit = float(np.interp(sum(map(sum, widths)), limits["bits"], limits["most"]))

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        """Make one fix from each group of reports."""
        fixes: list[Fix] = []
        for begin in range(0, len(groups), _BATCH):
            fixes += self._fuse(groups[begin : begin + _BATCH])
        return fixes

    def _fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        silent = [{r.key.bs: fault for r in group if (fault := self._fault(r))} for group in groups]
        heard = [
            sorted((r for r in group if r.key.bs not in out), key=lambda r: r.key.bs)
            for group, out in zip(groups, silent, strict=True)
        ]
        rows = [row for row, reports in enumerate(heard) if reports]
        position = np.full((len(groups), 3), np.nan)
        covariance = np.zeros((len(groups), 3, 3))
        deviation = np.zeros(len(groups))
        if rows:
            found, misfit = self.estimate([heard[row] for row in rows])
            covariance[rows] = np.linalg.inv(found.information)[:, :3, :3]
            deviation = np.sqrt(np.trace(covariance, axis1=1, axis2=2))
            held = (misfit <= self._most_misfit) & (deviation[rows] < _LEAST_CERTAIN_M)
            position[rows] = np.where(held[:, None], found.unknown[:, :3], np.nan)
        notes = [UNCERTAIN if uncertain else None for uncertain in deviation > self._certain_m]
        return [
            Fix((float(x), float(y), float(z)), spread, excluded, note=note)
            for (x, y, z), spread, excluded, note in zip(position, covariance, silent, notes, strict=True)
        ]

    def estimate(self, groups: Sequence[Sequence[Report]]) -> tuple[State, Real]:
        """Return the estimates of fixes from reports that hear the user, ordered by base station, and their misfits.

        A misfit is a fix's cost for each of its reports (N,).
        """
        reports = [report for group in groups for report in group]
        each = np.array([len(group) for group in groups])
        site = np.array([report.key.bs for report in reports])
        found = self._fit(self._read(reports), site, np.repeat(np.arange(len(groups)), each), len(groups))
        return found, found.cost / each

    def _fault(self, report: Report) -> str | None:
        """Return why a report cannot be used; None if it can."""
        bits, wanted = report.payload.bits, self._payload[report.key.bs].format.max_bits
        if bits == wanted:
            return None
        return f"sent {bits} bit, where reports have {wanted}" if bits else "it does not hear the user"

    def _read(self, reports: Sequence[Report]) -> Atoms:
        site = np.array([report.key.bs for report in reports])
        order = np.argsort(site, kind="stable")  # those of a base station are decoded together
        back = np.argsort(order)
        read = [
            self._payload[bs].decode([reports[n].payload for n in order if site[n] == bs]) for bs in np.unique(site)
        ]
        names = Atoms.__dataclass_fields__
        return Atoms(*(np.concatenate([getattr(one, name) for one in read])[back] for name in names))

    def _fit(self, reported: Atoms, site: Ints, fix: Ints, fixes: int) -> State:
        """Return the estimates of fixes from the reports of links, sorted by fix."""
        seen = observed(self._world.grid, reported, self._noise)
        start = self._starts(reported, site, fix, fixes)  # (N, C, D)
        link, trial = _repeated(fix, fixes, start.shape[1])
        state = self._stage(seen[link], site[link], trial, start.reshape(-1, start.shape[-1]), None, _SCOUT)
        order = np.argsort(state.cost.reshape(fixes, -1), axis=1, kind="stable")[:, :FINALISTS]
        best = (order + np.arange(fixes)[:, None] * start.shape[1]).ravel()
        link, trial = _repeated(fix, fixes, FINALISTS)
        state = self._stage(seen[link], site[link], trial, state.unknown[best], None, _STEPS)
        winner = state.cost.reshape(fixes, -1).argmin(1) + np.arange(fixes) * FINALISTS
        unknown = state.unknown[winner]
        evidence = np.empty((len(_FLOORS), len(fix)))
        for number, floor in enumerate(_FLOORS):
            state = self._stage(seen, site, fix, unknown, floor, _FINER)
            evidence[number], unknown = state.evidence, state.unknown
        likely = np.array(_FLOORS)[likely_floors(evidence, fix, fixes)]
        return self._stage(seen, site, fix, unknown, likely, _STEPS)

    def _stage(
        self, seen: Observed, site: Ints, fix: Ints, start: Real, floor: Real | float | None, steps: int
    ) -> State:
        """Descend with the map's error `floor`; with none, roughly, with few anchors and the largest floor."""
        around, most = (_AROUND, _PATHS) if floor is not None else (_ROUGH_AROUND, _ROUGH_PATHS)
        trust = floor if floor is not None else _FLOORS[0]
        near = self._tree.query(start[:, :3], k=around)[1].reshape(len(start), -1)
        images = self._world.images(near[fix], site, start[fix, :3], most)
        fitting = Fitting(self._world, seen, images, site, fix, len(start), trust, self._tolerances)
        return fitting.descend(fitting.state(start), steps)

    def _starts(self, reported: Atoms, site: Ints, fix: Ints, fixes: int) -> Real:
        size = np.abs(reported.gain[:, 0])
        level = 20 * np.log10(size)
        variance = reported.variance[:, 0, [0, 2, 3, 4]]
        variance[:, 0] *= (20 / (math.log(10) * size)) ** 2  # of the level [dB²]
        start = np.zeros((fixes, CANDIDATES, self._tolerances.unknowns))
        for number in range(fixes):
            own = np.flatnonzero(fix == number)
            own = own[np.argsort(-level[own], kind="stable")]
            stored, error = self._world.candidates(
                site[own], reported.place[own, 0], level[own], variance[own], CANDIDATES, self._tolerances.clock_m
            )
            start[number, :, :3] = self._world.position[stored]
            if start.shape[-1] > 3:
                start[number, :, 3] = error
        return start


def tolerances(options: Mapping[str, str | int]) -> Tolerances:
    """Return the tolerances that a run's options ask for, in the units of their names."""
    return Tolerances(
        clock_ns=float(options.get("clock_ns", 0)),
        bs_ns=float(options.get("bs_ps", 0)) / 1e3,
        site_m=float(options.get("site_mm", 0)) / 1e3,
        wall_m=float(options.get("wall_mm", 0)) / 1e3,
    )


def likely_floors(evidence: Real, fix: Ints, fixes: int) -> Ints:
    """Return which floor each link has (B,), from the evidence of F floors (F, B).

    The links of a fix have one floor, but each with the probability `_ODD` another one, all equally likely: a link with
    a path that the map lacks does not spoil the others.
    """
    any_floor = logsumexp(evidence, axis=0) + math.log(_ODD / len(evidence))
    common = math.log(1 - _ODD) + evidence
    total = np.zeros((fixes, len(evidence)))
    np.add.at(total, fix, np.logaddexp(common, any_floor).T)
    shared = total.argmax(1)[fix]
    own = evidence.argmax(0)
    link = np.arange(len(fix))
    odd = evidence[own, link] + math.log(_ODD / len(evidence)) > common[shared, link]
    found: Ints = np.where(odd, own, shared)
    return found


def _repeated(fix: Ints, fixes: int, times: int) -> tuple[Ints, Ints]:
    """Return links and fixes of links when each of the fixes is tried `times` times: fix n becomes n·times + trial."""
    trial = (fix[:, None] * times + np.arange(times)).ravel()
    link = np.repeat(np.arange(len(fix)), times)
    order = np.argsort(trial, kind="stable")
    return link[order], trial[order]

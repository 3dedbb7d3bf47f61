"""Making of a twin: traced paths to the file that scheme `twin` uses. Nothing is trained.

The cloud's twin and the world that makes the channels are different things in different files: the twin is made of
training positions alone, and may be of another map than the world (docs/twin.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cloud.fusion.scheme import CloudSetup
from cloud.fusion.twin import TwinFusion
from cloud.fusion.twin_fit import State
from cloud.fusion.twin_map import LEVEL_OFFSET_DB, Ints
from edge.atom_fit import fit_atoms
from fronthaul.message.messages import Report, ReportKey
from fronthaul.payload.atoms import AtomGrid, Complex, Real
from fronthaul.payload.choice import PayloadChoice
from fronthaul.payload.twin import TwinPayload, report_widths
from sim.errors import UserError
from sim.learn.splits import SplitName, split_positions
from sim.learn.twin.allocation import ATOMS, FLOORS, Allocator, short_reports
from sim.learn.twin.prediction import heard_channels
from sim.plan.weights import Weights, load_weights, save_weights
from sim.world.anchors import Anchors, find_anchors
from sim.world.made_for import made_for
from sim.world.paths import PathSet
from sim.world.scenario import MEASURED_SCENE, Scenario

POSITIONS = 5000
"""Stored positions of a twin, by default."""
LEARNED = ("ecc-klt", "ecc-rd")
"""Schemes whose reports `twin-ecc` falls back upon."""
_CALIBRATION, _ALLOCATION, _SHORT = 240, 60, 100  # further training positions: all limit the misfit, some allocate bits
MOST_ERROR_M = 30.0
"""Error beyond which a fix is as bad as any other."""
_CHOSEN_AT = 64  # length of the reports by whose error the floor of the allocation is chosen [bit]
_LENGTHS = (16, 32, 48, 64, 96, 128, 256, 512)  # at which the misfit is measured
_QUANTILE, _MARGIN = 0.99, 1.3  # of the misfits, and of the limit above it
_MARGIN_DB = (15.0, 6.0)  # below the weakest and above the strongest first path of a base station


def make_twin(
    scenario: Scenario,
    paths: PathSet,
    output: Path,
    *,
    positions: int = POSITIONS,
    split: SplitName = "random",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Anchors:
    """Make a twin of the training positions of a path data set, and write it.

    Args:
        scenario: sites, arrays and numerology.
        paths: path set with mirrors.
        output: file to write.
        positions: number of stored positions at most.
        split: which positions are held out.
        on_progress: called with the steps done, of how many.

    Raises:
        UserError: the scenario is not one that a twin describes, or the paths have no mirrors.
    """
    require_mapped(scenario)
    train = split_positions(scenario, paths.position, split).train
    if len(train) <= _CALIBRATION:
        raise UserError(f"A twin needs more than {_CALIBRATION} training positions, there are {len(train)}.")
    stored = train[: min(positions, len(train) - _CALIBRATION)]
    further = train[len(stored) : len(stored) + _CALIBRATION]
    anchors = find_anchors(paths.select(stored))
    weights = Weights(_config(scenario, anchors, split), _tensors(scenario, paths.select(stored), anchors))
    users = paths.select(further)
    steps = ATOMS * len(FLOORS) + 1 + len(_LENGTHS)
    allocator = Allocator(scenario, weights, users.select(np.arange(_ALLOCATION)))
    few = _Users(scenario, weights, users.select(np.arange(_SHORT)))
    tables, errors = [], []
    for number, floor in enumerate(FLOORS):
        tables.append(allocator.table(floor, partial(_on_atoms, on_progress, number * ATOMS, steps)))
        weights.config["allocation"] = tables[-1]
        errors.append(few.error_m(_CHOSEN_AT))
    weights.config["allocation"] = tables[int(np.argmin(errors))]
    weights.config["allocation"]["short"] = short_reports(weights.config, few.error_m)
    on_progress(steps - len(_LENGTHS), steps)
    most = []
    all_of_them = _Users(scenario, weights, users)
    for done, bits in enumerate(_LENGTHS, steps - len(_LENGTHS) + 1):
        most.append(_MARGIN * float(np.quantile(all_of_them.misfits(bits), _QUANTILE)))
        on_progress(done, steps)
    weights.config["misfit"] = {"bits": list(_LENGTHS), "most": [round(value, 3) for value in most]}
    save_weights(output, weights)
    return anchors


def _on_atoms(on_progress: Callable[[int, int], None], before: int, steps: int, done: int, _: int) -> None:
    on_progress(before + done, steps)


def with_learned(twin: Path, learned: Path, output: Path) -> None:
    """Write the weights of `twin-ecc`, which build on a twin and on weights of `ecc-klt` in the same folder.

    Raises:
        UserError: a file is missing, or they are not in one folder.
    """
    if not twin.resolve().parent == learned.resolve().parent == output.resolve().parent:
        raise UserError(f"{twin}, {learned} and {output} must be in one folder.")
    if (scheme := load_weights(learned).config.get("scheme")) not in LEARNED:
        raise UserError(f"{learned} has weights of scheme {scheme!r}, not of {' or '.join(LEARNED)}.")
    bases = [{"file": file.name, "digest": load_weights(file, alone=True).digest} for file in (twin, learned)]
    save_weights(output, Weights({"scheme": "twin-ecc", "base": bases}, {}))


def require_mapped(scenario: Scenario) -> None:
    """Check that a scenario is one that a twin describes.

    Raises:
        UserError: it is not.
    """
    reasons = {
        "measured channels without paths": scenario.scene == MEASURED_SCENE,
        "sites that differ from layout to layout": scenario.layouts is not None,
        "an indoor factory, whose paths follow no map": scenario.factory is not None,
        "taps instead of tones": bool(scenario.numerology.taps),
        "dual polarisation or several antennas at the user": scenario.polarized or scenario.user_array.antennas > 1,
    }
    for reason, holds in reasons.items():
        if holds:
            raise UserError(f"Scenario {scenario.name!r} has {reason}: no twin describes that.")


def _config(scenario: Scenario, anchors: Anchors, split: str) -> dict[str, object]:
    numerology = scenario.numerology
    return {
        "scheme": "twin",
        "scenario": scenario.name,
        "made_for": made_for(scenario),
        "estimator": "ls",
        "columns": scenario.array.columns,
        "rows": scenario.array.rows,
        "tones": numerology.tones,
        "slots": numerology.slots,
        "tone_spacing_hz": float(numerology.tone_spacing_hz),
        "spacing_wavelengths": scenario.array.spacing_wavelengths,
        "noise": scenario.tone_noise_w / scenario.tone_power_w,
        "record": {"positions": len(anchors.position), "anchors": len(anchors.site), "split": split},
    }


def _tensors(scenario: Scenario, paths: PathSet, anchors: Anchors) -> dict[str, Tensor]:
    axes = np.stack([array_axes(site.yaw_deg, site.pitch_deg) for site in scenario.sites])
    tensors = {
        "axes": axes.astype(np.float32),
        "mirror": anchors.mirror,
        "bounces": anchors.bounces,
        "offset": anchors.offset,
        "position": anchors.position,
        "count": anchors.count,
        "path": anchors.anchor.view(np.int16),
        "level": np.clip(np.round(2 * (anchors.level_db + LEVEL_OFFSET_DB)), 0, 255).astype(np.uint8),
    }
    found = {f"cloud.anchor.{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}
    ranges = torch.tensor(_gain_ranges(paths), dtype=torch.float32)
    found["cloud.gain_db"] = ranges
    return found | {f"edge.{k}.gain_db": row.clone() for k, row in enumerate(ranges)}


def array_axes(yaw_deg: float, pitch_deg: float) -> npt.NDArray[np.float64]:
    """Return the unit vectors (2, 3) along an array's columns and, upwards, along its rows."""
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    along = [-math.sin(yaw), math.cos(yaw), 0.0]
    upwards = [math.cos(yaw) * math.sin(pitch), math.sin(yaw) * math.sin(pitch), math.cos(pitch)]
    return np.array([along, upwards])


def _gain_ranges(paths: PathSet) -> npt.NDArray[np.float64]:
    """Return the range of the strongest path's amplitude at each site, with a margin (K, 2) [dB]."""
    level = 20 * np.log10(np.maximum(np.abs(paths.matrix[:, 0, 0]), 1e-15))
    link = np.repeat(np.arange(len(paths) * paths.sites), paths.paths_per_link().ravel())
    strongest = np.full(len(paths) * paths.sites, -np.inf)
    np.maximum.at(strongest, link, level)
    by_site = strongest.reshape(len(paths), paths.sites)
    ranges = []
    for column in by_site.T:
        heard = column[np.isfinite(column)]
        low, high = (heard.min(), heard.max()) if len(heard) else (-150.0, -60.0)
        ranges.append([math.floor(low - _MARGIN_DB[0]), math.ceil(high + _MARGIN_DB[1])])
    return np.array(ranges)


class _Users:
    """Training users whose reports are made and fused as in a run."""

    def __init__(self, scenario: Scenario, weights: Weights, paths: PathSet) -> None:
        self._scenario, self._weights = scenario, weights
        self._grid = AtomGrid(scenario.array.columns, scenario.array.rows, scenario.numerology.tones)
        self._channel, link = heard_channels(scenario, paths)
        self._user, self._site = np.divmod(link, paths.sites)
        self._position = paths.position
        self._fitted: dict[int, tuple[Real, Complex, Real]] = {}

    def misfits(self, bits: int) -> Real:
        """Return the misfits (N,) of fixes whose reports have `bits` bits."""
        return self._fixes(bits)[1]

    def error_m(self, bits: int) -> float:
        """Return the mean error of fixes whose reports have `bits` bits, none taken for more than `MOST_ERROR_M`."""
        found, _, users = self._fixes(bits)
        error = np.linalg.norm(found.unknown[:, :3] - self._position[users], axis=1)
        return float(np.minimum(error, MOST_ERROR_M).mean())

    def _fixes(self, bits: int) -> tuple[State, Real, Ints]:
        weights, scenario = self._weights, self._scenario
        widths = report_widths(weights.config, bits)
        if len(widths) not in self._fitted:
            self._fitted[len(widths)] = fit_atoms(self._grid, self._channel, len(widths))
        place, gain, share = self._fitted[len(widths)]
        groups: dict[int, list[Report]] = {}
        for row, (n, k) in enumerate(zip(self._user.tolist(), self._site.tolist(), strict=True)):
            low, high = weights.tensors["cloud.gain_db"][k].tolist()
            one = slice(row, row + 1)
            [payload] = TwinPayload(widths, (low, high)).encode(place[one], gain[one], share[one])
            groups.setdefault(n, []).append(Report(ReportKey(k, 0, n), payload))
        stations = {k: site.position for k, site in enumerate(scenario.sites)}
        options = {"bits_per_report": bits}
        setup = CloudSetup(stations, PayloadChoice(), weights.config, weights.cloud(), options=options)
        found, misfit = TwinFusion(setup).estimate([*groups.values()])
        return found, misfit, np.array([*groups])

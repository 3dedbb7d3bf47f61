"""The contract of `import`: named arrays with checked axes and units become a scenario and its data set.

Axes: N positions, K sites, T slots, A antenna pairs, F tones, P paths. Signs and orders are those of
`sim.world.channel`: a delay τ is e^{−j2πντ}, tones ascend in frequency around the carrier, pair m·U + j is from the
user's antenna j of U to the site's antenna m, antennas go column by column from left to right, each from top to
bottom. `docs/own-data.md` describes every field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any

import numpy as np
import numpy.typing as npt

from fronthaul.message.messages import MAX_POSITION_M
from sim.errors import UserError, nearest_hint
from sim.world.paths import MOST_DELAY_S, MOST_GAIN, PathSet, unit_vector
from sim.world.scenario import (
    BOLTZMANN,
    IMPORTED_SCENE,
    MEASURED_SCENE,
    SPEED_OF_LIGHT,
    LinkBudget,
    Scenario,
    scenario_from_table,
)

Fields = Mapping[str, npt.NDArray[Any]]

LEAST_POSITIONS = 10
"""Positions of a data set, of which some are held out."""
_STRAY_M, _STRAY = 1.0, 0.01  # by how much a straight path may be longer than the line, or as a share of it
_AHEAD = math.cos(math.radians(5))  # how far its direction may be from that of the line
_SILENT = ", zeros where a site heard nothing"
_DIGITS = 2  # of the users' box [m], which is rounded outwards


@dataclass(frozen=True)
class Field:
    """One field of the contract: its axes (letters or lengths), its type, and bounds of its values in its unit."""

    axes: tuple[str | int, ...]
    kind: type
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""
    needed: bool = True


_PLACE = Field(("N", 3), np.float64, -MAX_POSITION_M, MAX_POSITION_M, "m")
_RADIO = {
    "position": _PLACE,
    "site_position": replace(_PLACE, axes=("K", 3)),
    "site_yaw_deg": Field(("K",), np.float64, -360, 360, "°"),
    "site_pitch_deg": Field(("K",), np.float64, -90, 90, "°"),
    "carrier_hz": Field((), np.float64, 1e6, 1e13, "Hz"),
    "bandwidth_hz": Field((), np.float64, 1e3, 1e12, "Hz"),
    "tone_spacing_hz": Field((), np.float64, 1, 1e12, "Hz"),
    "array": Field((3,), np.int64, 1, 4096),
    "array_spacing": Field((), np.float64, 1e-3, 1e3, "wavelengths", needed=False),
    "user_array": Field((3,), np.int64, 1, 4096, needed=False),
    "slot_spacing_s": Field((), np.float64, 1e-9, 1e4, "s", needed=False),
    "user": Field(("N",), np.int32, 0, 2**31 - 1, needed=False),
}
PATH_FIELDS = {
    **_RADIO,
    "offset": Field(("L",), np.int64, 0, 2**62),
    "delay": Field(("P",), np.float32, 0, MOST_DELAY_S, "s"),
    "matrix": Field(("P", 2, 2), np.complex64),
    "site_angle": Field(("P", 2), np.float32, -7, 7, "rad"),
    "user_angle": Field(("P", 2), np.float32, -7, 7, "rad"),
    "bounces": Field(("P",), np.uint8, 0, 255),
    "mirror": Field(("P", 4), np.float32, -1.01, 1.01, needed=False),
    "velocity": Field(("N", 3), np.float32, -1e4, 1e4, "m/s", needed=False),
}
"""Fields of paths; those of `sim.world.paths.PathSet` have its meaning."""
MEASURED_FIELDS = {
    **_RADIO,
    "csi": Field(("N", "K", "T", "A", "F"), np.complex64),
    "snr_db": Field((), np.float64, -50, 200, "dB", needed=False),
}
"""Fields of measured channels."""


@dataclass(frozen=True)
class OwnData:
    """What is imported: the table of the scenario's file, the scenario of it, and its data set."""

    table: dict[str, Any]
    scenario: Scenario
    paths: PathSet


def take(fields: Fields, known: Mapping[str, Field], where: str) -> dict[str, npt.NDArray[Any]]:
    """Return the fields with the types of the contract.

    Args:
        fields: as they were read.
        known: the contract.
        where: source, for errors.

    Raises:
        UserError: one sentence on the first field that is unknown, missing or impossible.
    """
    for name in fields:
        if name not in known:
            raise UserError(f"{where}: there is no field {name!r}{nearest_hint(name, known)}.")
    lengths: dict[str, tuple[int, str]] = {}
    taken = {}
    for name, field in known.items():
        if name in fields:
            taken[name] = _checked(name, field, np.asarray(fields[name]), lengths, where)
        elif field.needed:
            raise UserError(f"{where}: the field {name!r} is missing; it may also be given by --field.")
    return taken


def _checked(
    name: str, field: Field, array: npt.NDArray[Any], lengths: dict[str, tuple[int, str]], where: str
) -> npt.NDArray[Any]:
    wanted = f"({', '.join(map(str, field.axes))}{',' * (len(field.axes) == 1)})"
    if not field.axes and array.size == 1:  # MATLAB has no scalars, and HDF5's may be arrays of one
        array = array.reshape(())
    if len(field.axes) == 1 and array.ndim == 2 and 1 in array.shape:  # nor vectors
        array = array.ravel()
    if array.ndim != len(field.axes):
        raise UserError(f"{where}: {name} has the shape {array.shape}, {wanted} is needed.")
    for axis, length in zip(field.axes, array.shape, strict=True):
        if isinstance(axis, int) and axis != length:
            raise UserError(f"{where}: {name} has the shape {array.shape}, {wanted} is needed.")
        if isinstance(axis, str) and lengths.setdefault(axis, (length, name))[0] != length:
            other, elsewhere = lengths[axis]
            raise UserError(f"{where}: {name} has {length} along its axis {axis} of {wanted}, {elsewhere} has {other}.")
    return _converted(name, field, array, where)


def _converted(name: str, field: Field, array: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """Return an array with the type of its field, if its numbers have that type and lie within bounds."""
    kind = np.dtype(field.kind).kind.replace("u", "i")
    whole = kind == "i" and array.dtype.kind == "f" and np.array_equal(array, np.round(array))  # MATLAB's numbers
    if array.dtype.kind not in {"c": "c", "f": "fiu", "i": "iu"}[kind] and not whole:
        words = {"c": "complex numbers", "f": "real numbers", "i": "whole numbers"}[kind]
        raise UserError(f"{where}: {name} holds {array.dtype}, {words} are needed.")
    good = np.isfinite(array)
    if kind != "c":
        good &= (array >= field.low) & (array <= field.high)
    with np.errstate(over="ignore", invalid="ignore"):
        made: npt.NDArray[Any] = array.astype(field.kind)
    good &= np.isfinite(made)  # what single precision does not hold is infinite
    if not good.all():
        at = np.unravel_index(int(np.argmin(good)), good.shape)
        place = f"[{', '.join(map(str, at))}]" if at else ""
        bounds = "finite numbers" if math.isinf(field.high) else f"{field.low:g} to {field.high:g} {field.unit}".strip()
        raise UserError(f"{where}: {name}{place} is {array[at]:g}, {bounds} are needed{_SILENT * (name == 'csi')}.")
    return made


def measured(fields: Fields, name: str, where: str) -> OwnData:
    """Return channels as they were measured as a world without paths.

    Args:
        fields: by the names of `MEASURED_FIELDS`; `csi` may be (N, K, A, F), of one slot; real, with real and
            imaginary parts along one more axis at the end; and NaN all over a link that was not heard.
        name: of the scenario.
        where: source, for errors.

    Raises:
        UserError: one sentence on the first thing that is wrong; it names the field.
    """
    if "csi" in fields:
        fields = {**fields, "csi": _channels(np.asarray(fields["csi"]))}
    found = take(fields, MEASURED_FIELDS, where)
    csi = found["csi"]
    slots, pairs, tones = csi.shape[2:]
    array, user_array = found["array"], found.get("user_array", np.ones(3, np.int64))
    if pairs != array.prod() * user_array.prod():
        raise UserError(
            f"{where}: csi has {pairs} antenna pairs, but array and user_array have {array.prod()} and "
            f"{user_array.prod()} antennas."
        )
    if slots > 1 and "slot_spacing_s" not in found:
        raise UserError(f"{where}: the field 'slot_spacing_s' is missing, which csi of {slots} slots need.")
    heard = csi.any((2, 3, 4))
    if not heard.any(0).all():
        raise UserError(f"{where}: csi of site {int(np.argmin(heard.any(0)))} is zero or NaN at all positions.")
    # No noise is added; the estimator takes the channels to have this SNR, whatever their unit.
    power = float(np.square(np.abs(csi[heard]).astype(np.float64)).mean())
    floor = BOLTZMANN * LinkBudget().temperature_k * float(found["tone_spacing_hz"])
    floor *= 10 ** (LinkBudget().noise_figure_db / 10)
    share = floor / power * tones * int(user_array.prod())
    budget = float(found.get("snr_db", 30.0)) + 10 * math.log10(share) + 30
    table = _table(found, name, where, MEASURED_SCENE, slots, tones)
    table["link_budget"] = {"tx_power_dbm": round(budget, 3), "noise": "none"}
    return _own(table, where, _positions_only(found, csi))


def _channels(csi: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return channels as complex numbers with an axis of slots, and zeros on links that are NaN all over."""
    if csi.dtype.kind == "f" and csi.ndim in (5, 6) and csi.shape[-1] == 2:
        csi = csi[..., 0] + 1j * csi[..., 1]
    if csi.ndim == 4:
        csi = csi[:, :, None]
    if csi.ndim == 5 and csi.dtype.kind == "c":
        silent = np.isnan(csi).all((2, 3, 4))
        if silent.any():
            csi = np.where(silent[:, :, None, None, None], 0, csi)
    return csi


def traced(fields: Fields, name: str, where: str) -> OwnData:
    """Return paths that something else traced as a world whose channels are synthesised.

    Args:
        fields: by the names of `PATH_FIELDS`.
        name: of the scenario.
        where: source, for errors.

    Raises:
        UserError: one sentence on the first thing that is wrong; it names the field.
    """
    found = take(fields, PATH_FIELDS, where)
    table = _table(found, name, where, IMPORTED_SCENE, 1, int(found["bandwidth_hz"] // found["tone_spacing_hz"]))
    links = len(found["position"]) * len(found["site_position"])
    if len(found["offset"]) != links + 1:
        raise UserError(f"{where}: offset has {len(found['offset'])} rows, N·K + 1 = {links + 1} are needed.")
    if (np.abs(found["matrix"]) > MOST_GAIN).any():
        raise UserError(f"{where}: matrix has amplitude gains above {MOST_GAIN:g}.")
    kept = {f.name: found[f.name] for f in dataclass_fields(PathSet) if f.name in found}
    try:
        paths = PathSet(**{"mirror": np.zeros((0, 4), np.float32)} | kept)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if not paths.heard.any():
        raise UserError(f"{where}: offset leaves all links without paths.")
    _require_straight(paths, found["site_position"], where)
    return _own(table, where, paths)


def _require_straight(paths: PathSet, site: npt.NDArray[np.float64], where: str) -> None:
    """Check that paths without reflections are the straight lines from site to user, in metres, seconds and radians."""
    counts = paths.paths_per_link().ravel()
    user, column = np.divmod(np.repeat(np.arange(len(counts)), counts), len(site))
    straight = np.flatnonzero(paths.bounces == 0)
    line = (paths.position[user] - site[column])[straight]
    length = np.linalg.norm(line, axis=1)
    travelled = paths.delay[straight] * SPEED_OF_LIGHT
    ahead = (unit_vector(paths.site_angle[straight]) * line).sum(1)
    for name, wrong in {
        "delay": np.abs(travelled - length) > np.maximum(_STRAY_M, _STRAY * length),
        "site_angle": ahead < _AHEAD * length,
    }.items():
        if wrong.any():
            at = straight[int(np.argmax(wrong))]
            raise UserError(
                f"{where}: {name}[{at}] is not that of the straight line from site {column[at]} to position "
                f"{user[at]}, which bounces = 0 says the path is."
            )


def _positions_only(found: Fields, csi: npt.NDArray[np.complex64]) -> PathSet:
    return PathSet(
        position=found["position"],
        offset=np.zeros(csi.shape[0] * csi.shape[1] + 1, np.int64),
        matrix=np.zeros((0, 2, 2), np.complex64),
        delay=np.zeros(0, np.float32),
        site_angle=np.zeros((0, 2), np.float32),
        user_angle=np.zeros((0, 2), np.float32),
        bounces=np.zeros(0, np.uint8),
        mirror=np.zeros((0, 4), np.float32),
        user=found.get("user", np.zeros(0, np.int32)),
        csi=csi,
    )


def _own(table: dict[str, Any], where: str, paths: PathSet) -> OwnData:
    scenario = scenario_from_table(table, where)
    return OwnData(table, scenario, replace(paths, digest=scenario.tracing_digest()))


def _table(found: Fields, name: str, where: str, scene: str, slots: int, tones: int) -> dict[str, Any]:
    """Return the scenario's table, without a link budget."""
    position, spacing = found["position"], float(found["tone_spacing_hz"])
    if len(position) < LEAST_POSITIONS:
        raise UserError(f"{where}: position has {len(position)} rows, at least {LEAST_POSITIONS} are needed.")
    if not np.ptp(position, 0).any():
        raise UserError(f"{where}: position is the same point in all rows.")
    if tones * spacing > found["bandwidth_hz"]:
        raise UserError(
            f"{where}: {tones} tones at tone_spacing_hz = {spacing:g} do not fit bandwidth_hz = "
            f"{found['bandwidth_hz']:g}."
        )
    if found["bandwidth_hz"] >= 2 * found["carrier_hz"]:
        raise UserError(
            f"{where}: bandwidth_hz = {found['bandwidth_hz']:g} does not fit around carrier_hz = "
            f"{found['carrier_hz']:g}."
        )
    scale = 10**_DIGITS
    columns = (found["site_position"], found["site_yaw_deg"], found["site_pitch_deg"])
    array = {"spacing_wavelengths": float(found.get("array_spacing", np.float64(0.5)))}
    return {
        "name": name,
        "scene": scene,
        "sites": [
            {"position": place.tolist(), "yaw_deg": float(yaw), "pitch_deg": float(pitch), "name": f"site-{k}"}
            for k, (place, yaw, pitch) in enumerate(zip(*columns, strict=True))
        ],
        "users": {
            "low": (np.floor(position.min(0) * scale) / scale).tolist(),
            "high": (np.ceil(position.max(0) * scale) / scale).tolist(),
            "speed_mps": 0.0,
            "outdoor": "any",
            "min_links": 0,
        },
        "numerology": {
            "carrier_hz": float(found["carrier_hz"]),
            "bandwidth_hz": float(found["bandwidth_hz"]),
            "subcarrier_spacing_hz": spacing,
            "subcarriers": tones,
            "tones": tones,
            "tone_stride": 1,
            "slots": slots,
            **({"slot_spacing_s": float(found["slot_spacing_s"])} if "slot_spacing_s" in found else {}),
        },
        "array": _shape(found["array"]) | array,
        "user_array": _shape(found.get("user_array", np.ones(3, np.int64))),
        "tracing": {"positions": len(position)},
    }


def _shape(array: npt.NDArray[np.int64]) -> dict[str, Any]:
    rows, columns, polarizations = array.tolist()
    return {"rows": rows, "columns": columns, "polarizations": polarizations}

"""Path data sets: ray tracing results, stored so that channels of any array and numerology can be synthesised later.

Notation: N user positions, K sites, P paths in total. The paths of link (n, k) are the rows
``offset[n*K + k] : offset[n*K + k + 1]`` (a ragged layout: a link has 0 … 20 paths).

===============  ============  =============================================================================
array            shape         meaning
===============  ============  =============================================================================
``position``     (N, 3) f64    user positions [m]
``offset``       (N*K+1) i64   first path of each link
``matrix``       (P, 2, 2) c64 coefficient between polarisations (site V/H, user V/H) at the carrier, without
                               the propagation phase of ``delay``
``delay``        (P,) f32      propagation delay [s]
``site_angle``   (P, 2) f32    zenith and azimuth [rad] of the path as seen from the site
``user_angle``   (P, 2) f32    zenith and azimuth [rad] of the path as seen from the user
``bounces``      (P,) u8       number of specular reflections (0: line of sight)
``mirror``       (P, 4) f32    the path's reflections as one rotation quaternion (w, x, y, z), see `mirror_matrix`
``user``         (N,) i32      walks: user of each position; positions of a user are in order of time
``velocity``     (N, 3) f32    walks: velocity at each position [m/s]
``csi``          (N, K, T, A,  measured channels instead of paths (P = 0): slots T, antenna pairs A, tones F as in
                 F) c64        `sim.world.channel`, all zero where a site heard nothing
===============  ============  =============================================================================

``mirror``, ``user``, ``velocity`` and ``csi`` may be absent (length 0).
"""

from __future__ import annotations

import json
import lzma
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fronthaul.documents import parse_json
from fronthaul.errors import LocalError
from fronthaul.message.messages import MAX_POSITION_M
from sim.errors import UserError
from sim.world.arrays import DAMAGED, save_arrays

_FORMAT = 1
_MANTISSA_BITS = 12
_PER_PATH = ("matrix", "delay", "site_angle", "user_angle", "bounces", "mirror")
_PER_POSITION = ("user", "velocity", "csi")
_ROWS: dict[str, tuple[type, tuple[int, ...] | None]] = {
    "position": (np.float64, (3,)),
    "offset": (np.int64, ()),
    "matrix": (np.complex64, (2, 2)),
    "delay": (np.float32, ()),
    "site_angle": (np.float32, (2,)),
    "user_angle": (np.float32, (2,)),
    "bounces": (np.uint8, ()),
    "mirror": (np.float32, (4,)),
    "user": (np.int32, ()),
    "velocity": (np.float32, (3,)),
    "csi": (np.complex64, None),
}
"""Type of each array, and shape of one of its rows; None: four axes of any lengths."""
MOST_DELAY_S = 1.0
"""Longest delay: seven times around the Earth. Longer ones are in other units."""
MOST_GAIN = 1e3
"""Highest amplitude gain of a path: above one already creates power."""


@dataclass(frozen=True)
class PathSet:
    """Paths between N user positions and K sites; see the module docstring for shapes."""

    position: npt.NDArray[np.float64]
    offset: npt.NDArray[np.int64]
    matrix: npt.NDArray[np.complex64]
    delay: npt.NDArray[np.float32]
    site_angle: npt.NDArray[np.float32]
    user_angle: npt.NDArray[np.float32]
    bounces: npt.NDArray[np.uint8]
    mirror: npt.NDArray[np.float32]
    digest: str = ""
    user: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    velocity: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    csi: npt.NDArray[np.complex64] = field(default_factory=lambda: np.zeros((0, 0, 0, 0, 0), np.complex64))

    def __post_init__(self) -> None:
        paths = len(self.delay)
        if len(self.offset) == 0 or (len(self.offset) - 1) % max(len(self.position), 1):
            raise UserError("A path data set has an offset table that does not fit its number of positions.")
        if self.offset[0] != 0 or self.offset[-1] != paths or np.any(np.diff(self.offset) < 0):
            raise UserError("A path data set has an offset table that does not fit its paths.")
        needed = dict.fromkeys(_PER_PATH, paths) | dict.fromkeys(_PER_POSITION, len(self.position))
        for name, rows in needed.items():
            absent = 0 if name in ("mirror", *_PER_POSITION) else rows
            if len(getattr(self, name)) not in (rows, absent):
                raise UserError(f"A path data set has {len(getattr(self, name))} rows of {name}, {rows} are needed.")
        if len(self.csi) and (paths or self.csi.shape[1] != self.sites):
            raise UserError("A path data set has measured channels that do not fit its sites, or paths beside them.")

    def __len__(self) -> int:
        return len(self.position)

    @property
    def sites(self) -> int:
        """Number of sites K."""
        return (len(self.offset) - 1) // max(len(self.position), 1)

    def paths_per_link(self) -> npt.NDArray[np.int64]:
        """Number of paths of each link, (N, K)."""
        return np.diff(self.offset).reshape(len(self), self.sites)

    @property
    def heard(self) -> npt.NDArray[np.bool_]:
        """Whether a site hears a user (N, K): over a path, or in measured channels."""
        found: npt.NDArray[np.bool_] = self.paths_per_link() > 0 if not len(self.csi) else np.any(self.csi, (2, 3, 4))
        return found

    @property
    def movable(self) -> bool:
        """Whether the paths say how the channel changes with the user's position: all have mirrors."""
        return not len(self.csi) and len(self.mirror) == len(self.delay)

    def select(self, users: npt.NDArray[np.int64], sites: Sequence[int] | None = None) -> PathSet:
        """Return the data set of the given users (and sites), in the given order."""
        chosen = np.arange(self.sites) if sites is None else np.asarray(sites)
        links = (np.asarray(users)[:, None] * self.sites + chosen).ravel()
        counts = np.diff(self.offset)[links]
        offset = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(self.offset[links] - offset[:-1], counts) + np.arange(offset[-1])
        index = dict.fromkeys(_PER_PATH, rows) | dict.fromkeys(("user", "velocity"), np.asarray(users))
        chosen_rows = {name: array[i] if len(array := getattr(self, name)) else array for name, i in index.items()}
        if len(self.csi):
            chosen_rows["csi"] = self.csi[np.ix_(np.asarray(users), chosen)]
        return replace(self, position=self.position[np.asarray(users)], offset=offset, **chosen_rows)

    def keep(self, chosen: npt.NDArray[np.bool_]) -> PathSet:
        """Return the data set with only the chosen ones (P,) of its paths."""
        links = len(self.offset) - 1
        left = np.bincount(np.repeat(np.arange(links), np.diff(self.offset))[chosen], minlength=links)
        rows = {name: array[chosen] for name in _PER_PATH if len(array := getattr(self, name))}
        return replace(self, offset=np.concatenate([[0], np.cumsum(left)]), **rows)

    def save(self, path: Path, *, smallest: bool = False) -> None:
        """Write an NPZ file (temporary name, then rename); `smallest`: see `save_arrays`."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "digest"}
        arrays = {name: array for name, array in arrays.items() if name not in _PER_POSITION or len(array)}
        meta = json.dumps({"format": _FORMAT, "digest": self.digest})
        save_arrays(path, smallest=smallest, meta=np.frombuffer(meta.encode(), np.uint8), **arrays)


def load_paths(path: Path) -> PathSet:
    """Read a path data set.

    Raises:
        UserError: the file is missing, truncated, or not a path data set.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            meta = parse_json(archive["meta"].tobytes().decode())
            if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
                form = meta.get("format") if isinstance(meta, dict) else None
                raise UserError(f"{path} has path data format {form}, this version reads {_FORMAT}.")
            arrays = {name: _array(name, archive) for name in _ROWS}
    except FileNotFoundError as error:
        raise UserError(f"The path data {path} is missing; make it with `python cli.py trace`.") from error
    except (*DAMAGED, LocalError, lzma.LZMAError, zlib.error, NotImplementedError) as error:
        sentence = f"The path data {path} is truncated or damaged ({error}); restore or trace it again."
        raise UserError(sentence) from error
    try:
        paths = PathSet(**arrays, digest=str(meta.get("digest")))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    _require_possible(paths, path)
    return paths


def _array(name: str, archive: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return an array of a data set with its type; mirrors, and what is known of each position, may be absent.

    Raises:
        ValueError: it has another type or shape.
    """
    kind, row = _ROWS[name]
    if name in ("mirror", *_PER_POSITION) and name not in archive:
        return np.zeros((0, *(row if row is not None else (0,) * 4)), kind)
    array = archive[name]
    fits = array.ndim == 5 if row is None else array.ndim > 0 and array.shape[1:] == row
    if not fits or not np.can_cast(array.dtype, kind, "same_kind"):
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
    return array.astype(kind, copy=False)


def _require_possible(paths: PathSet, path: Path) -> None:
    """Check the numbers of a data set.

    Raises:
        UserError: one sentence on the first position or path that cannot be, with the position and BS that it is of.
    """
    good = np.isfinite(paths.position).all(1) & (np.abs(paths.position) <= MAX_POSITION_M).all(1)
    if not good.all():
        first = int(np.argmin(good))
        where = ", ".join(f"{value:g}" for value in paths.position[first])
        raise UserError(
            f"{path}: position {first} is ({where}) m; positions are finite and within {MAX_POSITION_M / 1e3:g} km."
        )
    if not np.isfinite(paths.velocity).all():
        raise UserError(f"{path}: a velocity is not finite.")
    if not np.isfinite(paths.csi).all():
        raise UserError(f"{path}: a measured channel is not finite.")
    rules = {
        "delay": ((paths.delay >= 0) & (paths.delay <= MOST_DELAY_S), f"0 to {MOST_DELAY_S:g} s"),
        "matrix": ((np.abs(paths.matrix) <= MOST_GAIN).all((1, 2)), f"finite gains up to {MOST_GAIN:g}"),
        "site_angle": (np.isfinite(paths.site_angle).all(1), "finite angles"),
        "user_angle": (np.isfinite(paths.user_angle).all(1), "finite angles"),
        "mirror": (np.isfinite(paths.mirror).all(1), "finite numbers"),
    }
    for name, (holds, wanted) in rules.items():
        if not holds.all():
            row = int(np.argmin(holds))
            link = int(np.searchsorted(paths.offset, row, side="right")) - 1
            position, bs = divmod(link, paths.sites)
            value = np.ravel(getattr(paths, name)[row])[0]
            raise UserError(
                f"{path}: position {position}, BS {bs}: a path has {name} {value:.6g}…, where {wanted} are needed."
            )


def concatenate(parts: Sequence[PathSet]) -> PathSet:
    """Join data sets of the same sites, in order."""
    if len({part.digest for part in parts}) != 1:
        raise UserError("Path data of different scenarios cannot be joined.")
    starts = np.cumsum([0] + [part.offset[-1] for part in parts])
    offset = np.concatenate([parts[0].offset[:1]] + [p.offset[1:] + s for p, s in zip(parts, starts, strict=False)])
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("position", *_PER_PATH, *_PER_POSITION)
    }
    return PathSet(offset=offset, digest=parts[0].digest, **joined)


def join_sites(parts: Sequence[PathSet]) -> PathSet:
    """Join data sets of the same users and different sites, in order."""
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([part.paths_per_link() for part in parts], axis=1)
    rows = np.concatenate([np.repeat(np.arange(len(part)), part.paths_per_link().sum(1)) for part in parts])
    order = np.argsort(rows, kind="stable")  # by user; sites, and paths within, keep their order
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_PATH}
    by_user = {name: array[order] if len(array) else array for name, array in joined.items()}
    return replace(parts[0], offset=np.concatenate([[0], np.cumsum(counts)]), **by_user)


def join_links(parts: Sequence[PathSet]) -> PathSet:
    """Join the paths of data sets of the same users and sites, link by link; mirrors are kept if all have them."""
    link = np.concatenate([np.repeat(np.arange(len(part.offset) - 1), np.diff(part.offset)) for part in parts])
    order = np.argsort(link, kind="stable")
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_PATH}
    mirrored = len(joined["mirror"]) == len(order)
    rows = {name: array[order] for name, array in joined.items() if name != "mirror" or mirrored}
    if not mirrored:
        rows["mirror"] = np.zeros((0, 4), np.float32)
    return replace(parts[0], offset=np.sum([part.offset for part in parts], 0), **rows)


def rounded(coefficient: npt.NDArray[np.complex64], mantissa_bits: int = _MANTISSA_BITS) -> npt.NDArray[np.complex64]:
    """Round coefficients to so many mantissa bits, by default a relative error of 1e-4: halves the size of files."""
    mantissa, exponent = np.frexp(np.ascontiguousarray(coefficient).view(np.float32))
    short = np.ldexp(np.rint(np.ldexp(mantissa, mantissa_bits)), exponent - mantissa_bits)
    made: npt.NDArray[np.complex64] = short.astype(np.float32).view(np.complex64)
    return made


def unit_vector(angle: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Convert zenith and azimuth [rad] (…, 2) to unit vectors (…, 3)."""
    zenith, azimuth = np.moveaxis(angle.astype(np.float64), -1, 0)
    return np.stack([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)], -1)


def angles_of(vector: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Convert vectors (…, 3) of any length to zenith and azimuth [rad] (…, 2)."""
    x, y, z = np.moveaxis(vector.astype(np.float64), -1, 0)
    found: npt.NDArray[np.float32] = np.stack([np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)], -1).astype(np.float32)
    return found


def mirror_matrix(mirror: npt.NDArray[np.floating], bounces: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Return R (…, 3, 3): how the user's mirror image, seen from the site, moves when the user moves.

    A specular path of n reflections is a straight line from the site to the user's image. A user step d moves
    the image by R d, with R the product of the n Householder reflections; det R = (-1)^n, so that (-1)^n R is
    the rotation that the quaternion stores. For line of sight R is the identity.
    """
    w, x, y, z = np.moveaxis(mirror.astype(np.float64), -1, 0)
    rotation = np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
            np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
            np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
        ],
        -2,
    )
    signed: npt.NDArray[np.float64] = np.where(bounces % 2, -1.0, 1.0)[..., None, None] * rotation
    return signed

"""Ray tracing of a scenario with Sionna RT, in resumable shards.

The sites are the tracer's sources and the users its targets (reciprocity): rays are launched from few sites and
reused for many users. Only specular reflections and line of sight are traced, as in the ECC paper's setting, unless
the mismatch of a scenario asks for a world that has more.

A pitfall for data quality: Sionna RT by default de-duplicates candidate paths in a table of 1e6 counters per source,
shared by all targets of a call. With a few hundred targets entries collide, and paths vanish depending on which users
share the call. `CANDIDATE_SLOTS` and `_USERS_PER_CALL` keep the loss below 0.2 %
(measured against 5e7 slots).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fronthaul.draws import generator
from sim.errors import UserError
from sim.world.mismatch import Mismatch
from sim.world.paths import PathSet, concatenate, join_links, join_sites, load_paths
from sim.world.scenario import Scenario, Site
from sim.world.sionna_rt import import_sionna, load_scene
from sim.world.store import GroundPlan
from sim.world.walks import area_test, draw_walks

_USERS_PER_CALL = 100
_SITES_PER_CALL = 16  # 4 GB; memory grows with the number of sources per call
_FEWEST_IN_CALL = 10  # a smaller call costs about as much
_SHARD_USERS = 1000
_DIFFUSE_RAYS = 2000  # from each site; each surface that one meets gives a path to every user who sees it
_MAX_DRAWS_PER_SHARD = 200  # calls; a region that yields no valid user after this many is rejected

_NONE = Mismatch()


@dataclass(frozen=True, slots=True)
class TraceProgress:
    """Progress of `trace_scenario`: users done, users in total, whether this shard was found on disk."""

    done: int
    total: int
    resumed: bool


def shard_users(scenario: Scenario) -> int:
    """Return the number of positions in one shard, which holds whole walks."""
    return _SHARD_USERS if scenario.walk is None else _SHARD_USERS - _SHARD_USERS % scenario.walk.snapshots


def trace_scenario(
    scenario: Scenario, folder: Path, on_progress: Callable[[TraceProgress], None] = lambda _: None
) -> PathSet:
    """Trace all positions of `scenario`; finished shards in `folder` are reused, so an interrupted trace resumes.

    Raises:
        UserError: Sionna RT or its LLVM library is missing, the scene is unknown, no outdoor position was found,
            or the folder holds shards of another scenario.
    """
    total = scenario.tracing.positions
    digest = scenario.tracing_digest()
    tracer: Tracer | None = None
    parts: list[PathSet] = []
    size = shard_users(scenario)
    for shard in range(math.ceil(total / size)):
        path = folder / f"shard-{shard:04d}.npz"
        wanted = min(size, total - shard * size)
        part = load_paths(path) if path.is_file() else None
        if part is not None and part.digest != digest:
            raise UserError(f"{folder} holds paths of another scenario; name another folder or remove it.")
        resumed = part is not None and len(part) >= wanted
        if part is None or not resumed:  # the last shard of a smaller trace has fewer positions
            tracer = tracer or Tracer(scenario)
            part = replace(tracer.shard(shard, wanted), digest=digest)
            part.save(path)
        parts.append(part)
        on_progress(TraceProgress(min((shard + 1) * size, total), total, resumed))
    return concatenate(parts).select(np.arange(total))


def trace_world(
    scenario: Scenario, known: PathSet, on_progress: Callable[[TraceProgress], None] = lambda _: None
) -> PathSet:
    """Trace the users of a path set again, in the world that the scenario's mismatch asks for.

    Raises:
        UserError: Sionna RT or its LLVM library is missing, or the scene is unknown.
    """
    tracer, total = Tracer(scenario, scenario.mismatch), len(known)
    parts = []
    for begin in range(0, total, _USERS_PER_CALL):
        parts.append(tracer.at(known.position[begin : begin + _USERS_PER_CALL]))
        on_progress(TraceProgress(min(begin + _USERS_PER_CALL, total), total, False))
    made = replace(concatenate(parts), digest=scenario.world_digest())
    return replace(made, user=known.user, velocity=known.velocity)


def trace_ground_plan(
    scenario: Scenario, margin_m: float = 60.0, step_m: float = 1.0, tracer: Tracer | None = None
) -> GroundPlan:
    """Return where something stands above the ground in and around the scenario, on a grid; for maps."""
    tracer = tracer or Tracer(scenario)
    corners = [scenario.users.low[:2], scenario.users.high[:2]]
    points = np.array([site.position[:2] for site in scenario.sites] + corners)
    if scenario.layouts is not None:
        points = np.concatenate([points, scenario.layouts.region.corners()])
    low, high = points.min(0) - margin_m, points.max(0) + margin_m
    counts = [8 * math.ceil((b - a) / step_m / 8) for a, b in zip(low, high, strict=True)]  # whole bytes when packed
    x, y = (a + step_m * (np.arange(n) + 0.5) for a, n in zip(low, counts, strict=True))
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
    covered = ~tracer.sees_sky(np.column_stack([grid, np.full(len(grid), 0.5)]))
    west, south = map(float, low)
    extent = (west, west + counts[0] * step_m, south, south + counts[1] * step_m)
    return GroundPlan(covered.reshape(counts[0], counts[1]), extent)


class Tracer:
    """A loaded scene with its sites; users are moved through it call by call."""

    def __init__(self, scenario: Scenario, mismatch: Mismatch = _NONE) -> None:
        """Load the scene of a scenario, with the errors of `mismatch` that need a trace."""
        self._scenario, self._mismatch = scenario, mismatch
        self._rt = import_sionna()
        self._scene = load_scene(self._rt, scenario.scene, merge=not mismatch.wall_m)
        try:
            self._scene.frequency = scenario.numerology.carrier_hz
        except ValueError as error:  # ITU-R P.2040 gives each material's properties for a range of frequencies
            raise UserError(
                f"Scenario {scenario.name!r}: numerology.carrier_hz does not suit the scene: {error}"
            ) from error
        self._perturb()
        single = self._rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="VH")
        self._scene.tx_array = self._scene.rx_array = single
        self._sources: Sequence[Site] = ()
        self._solver = self._rt.PathSolver()
        self._inside = area_test(scenario)

    def _perturb(self) -> None:
        """Move mesh parts, and change materials, by draws that depend on their names' order."""
        mismatch, scene = self._mismatch, self._scene
        if mismatch.wall_m:
            # All at once: each update of the scene builds its search tree anew.
            vertices = scene.mi_scene_params
            for number, key in enumerate(sorted(name for name, _ in vertices if name.endswith(".vertex_positions"))):
                step = mismatch.wall_m * generator(mismatch.seed, "mismatch walls", number).standard_normal(3)
                vertices[key] = type(vertices[key])((np.array(vertices[key]).reshape(-1, 3) + step).ravel())
            vertices.update()
        for number, (_, material) in enumerate(sorted(scene.radio_materials.items())):
            share = generator(mismatch.seed, "mismatch materials", number).uniform(-1, 1, 2) * mismatch.materials
            if mismatch.materials:
                permittivity, conductivity = np.ravel(material.relative_permittivity), np.ravel(material.conductivity)
                material.relative_permittivity = max(1.0, float(permittivity[0] * (1 + share[0])))
                material.conductivity = float(conductivity[0] * (1 + share[1]))
            if mismatch.diffuse:
                material.scattering_coefficient = mismatch.diffuse

    def shard(self, shard: int, wanted: int | None = None) -> PathSet:
        """Trace the first `wanted` valid users of shard number `shard`, by default all of it."""
        walk = self._scenario.walk
        snapshots = 1 if walk is None else walk.snapshots
        size = shard_users(self._scenario)
        wanted = size if wanted is None else wanted
        parts: list[PathSet] = []
        found = 0
        for candidates, velocity in self._candidates(shard):
            calls = np.split(candidates, len(candidates) // _USERS_PER_CALL)
            part = replace(concatenate([self._trace(call) for call in calls]), velocity=velocity.astype(np.float32))
            reached = (part.paths_per_link() > 0).sum(1) >= self._scenario.users.min_links
            whole = reached.reshape(-1, snapshots).all(1).repeat(snapshots)
            part = part.select(np.flatnonzero(whole))
            parts.append(part)
            found += len(part)
            if found >= wanted:
                part = concatenate(parts).select(np.arange(wanted))
                first = shard * size // snapshots
                user = first + np.arange(wanted, dtype=np.int32) // snapshots
                return part if walk is None else replace(part, user=user)
        raise self._hardly_any()

    def users(self, wanted: int, draw: np.random.Generator) -> PathSet:
        """Trace the given number of users who satisfy the rules of `Scenario.users`, without walks.

        Raises:
            UserError: hardly any position satisfies them.
        """
        users = self._scenario.users
        parts: list[PathSet] = []
        pool = np.zeros((0, 3))
        missing = wanted
        for _ in range(_MAX_DRAWS_PER_SHARD):
            batch = draw.uniform(users.low, users.high, (4 * _USERS_PER_CALL, 3))
            pool = np.concatenate([pool, batch[self._admits(batch)]])
            while missing > 0 and len(pool) >= (size := min(max(missing, _FEWEST_IN_CALL), _USERS_PER_CALL)):
                part = self._trace(pool[:size])
                pool = pool[size:]
                reached = (part.paths_per_link() > 0).sum(1) >= users.min_links
                parts.append(part.select(np.flatnonzero(reached)))
                missing -= len(parts[-1])
            if missing <= 0:
                return concatenate(parts).select(np.arange(wanted))
        raise self._hardly_any()

    def at(self, position: npt.NDArray[np.float64]) -> PathSet:
        """Trace users at the given positions (N, 3) [m], whatever the rules of `Scenario.users` say of them."""
        calls = np.split(position, range(_USERS_PER_CALL, len(position), _USERS_PER_CALL))
        return concatenate([self._trace(call) for call in calls])

    def surface_m(self, place: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the height (N,) [m] of the topmost surface at points (N, 2 or 3) [m]; -inf where there is none."""
        import mitsuba as mi

        top = float(self._scene.mi_scene.bbox().max.z) + 1.0
        start = np.column_stack([place[:, :2], np.full(len(place), top)])
        ray = mi.Ray3f(_point(mi, start), mi.Vector3f(0.0, 0.0, -1.0))
        return top - np.array(self._scene.mi_scene.ray_intersect_preliminary(ray).t).astype(np.float64)

    def _hardly_any(self) -> UserError:
        return UserError(
            f"Scenario {self._scenario.name!r}: hardly any position satisfies the outdoor rule; "
            "check users.low/high, users.outdoor and users.min_links."
        )

    def _candidates(self, shard: int) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
        """Draw batches of positions (n·100, 3) that satisfy the area and outdoor rules, and velocities (n·100 or 0, 3).

        Draws are keyed by shard, so they do not depend on earlier calls. Batches hold whole walks.
        """
        users, walk = self._scenario.users, self._scenario.walk
        draw = generator(self._scenario.tracing.seed, "users", shard)
        size = _USERS_PER_CALL
        if walk is not None:
            size = math.lcm(_USERS_PER_CALL, walk.snapshots)
        pool, velocity = np.zeros((0, 3)), np.zeros((0, 3))
        for _ in range(_MAX_DRAWS_PER_SHARD):
            batch = draw.uniform(users.low, users.high, (4 * _USERS_PER_CALL, 3))
            batch = batch[self._admits(batch)]
            if walk is not None:
                walks = draw_walks(walk, batch, self._admits, self.clear, draw)
                batch = walks.position.reshape(-1, 3)
                velocity = np.concatenate([velocity, walks.velocity.reshape(-1, 3)])
            pool = np.concatenate([pool, batch])
            while len(pool) >= size:
                yield pool[:size], velocity[:size]
                pool, velocity = pool[size:], velocity[size:]

    def _admits(self, position: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return whether users may be at these points (N, 3), by area and outdoor rule."""
        admitted = self._inside(position)
        if self._scenario.users.outdoor == "sky":
            admitted &= self.sees_sky(position)
        return admitted

    def clear(self, start: npt.NDArray[np.float64], end: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return whether the straight lines from `start` to `end` (N, 3) meet no surface."""
        import mitsuba as mi

        if not len(start):
            return np.zeros(0, bool)
        step = end - start
        length = np.maximum(np.linalg.norm(step, axis=1), 1e-6)
        direction = mi.Vector3f(_point(mi, step / length[:, None]))
        reach: Any = mi.Float(length.astype(np.float32))  # the type stubs declare another Float
        ray = mi.Ray3f(mi.Ray3f(_point(mi, start), direction), reach)
        return ~np.array(self._scene.mi_scene.ray_test(ray))

    def sees_sky(self, position: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return whether a vertical ray from each position meets no surface."""
        import mitsuba as mi

        if not len(position):
            return np.zeros(0, bool)
        ray = mi.Ray3f(_point(mi, position), mi.Vector3f(0.0, 0.0, 1.0))
        return ~np.array(self._scene.mi_scene.ray_test(ray))

    def _trace(self, position: npt.NDArray[np.float64]) -> PathSet:
        """Trace the users (N, 3) of one call to all sites."""
        # Sionna RT keeps scene coordinates in single precision: record the positions as traced.
        position = position.astype(np.float32).astype(np.float64)
        sites = self._scenario.sites
        groups = np.array_split(np.arange(len(sites)), math.ceil(len(sites) / _SITES_PER_CALL))
        return join_sites([self._trace_from([sites[k] for k in group], position) for group in groups])

    def _trace_from(self, sites: Sequence[Site], position: npt.NDArray[np.float64]) -> PathSet:
        """Trace the users (N, 3) of one call to the given sites."""
        self._place(sites, position)
        tracing, mismatch = self._scenario.tracing, self._mismatch
        site = np.array([s.position for s in sites])
        solve = partial(self._solver, self._scene, synthetic_array=True, refraction=False, seed=tracing.seed)
        paths = solve(
            max_depth=tracing.depth,
            samples_per_src=tracing.samples_per_source,
            los=True,
            specular_reflection=True,
            diffuse_reflection=False,
            diffraction=mismatch.diffraction,
        )
        found = _to_path_set(position, site, paths, specular=not mismatch.diffraction)
        if not mismatch.diffuse:
            return found
        paths = solve(
            max_depth=1,
            samples_per_src=_DIFFUSE_RAYS,
            los=False,
            specular_reflection=False,
            diffuse_reflection=True,
            diffraction=False,
        )
        return join_links([found, _to_path_set(position, site, paths, specular=False)])

    def _place(self, sites: Sequence[Site], position: npt.NDArray[np.float64]) -> None:
        """Put the sites, and users at `position` (N, 3), into the scene."""
        scene = self._scene
        if self._sources != sites:
            for index in range(len(self._sources)):
                scene.remove(f"site-{index}")
            for index, site in enumerate(sites):
                angles = [math.radians(site.yaw_deg), math.radians(site.pitch_deg), 0.0]
                here = list(site.position)
                scene.add(self._rt.Transmitter(name=f"site-{index}", position=here, orientation=angles))
            self._sources = sites
        for index in range(len(position), len(scene.receivers)):
            scene.remove(f"user-{index}")
        for index in range(len(scene.receivers), len(position)):
            scene.add(self._rt.Receiver(name=f"user-{index}", position=[0.0, 0.0, 1.5]))
        for index, point in enumerate(position):
            scene.receivers[f"user-{index}"].position = [float(x) for x in point]


def _point(mi: Any, position: npt.NDArray[np.float64]) -> Any:
    """Convert points (N, 3) to Mitsuba's type, in single precision."""
    return mi.Point3f(*(mi.Float(position[:, axis].astype(np.float32)) for axis in range(3)))


def _to_path_set(
    position: npt.NDArray[np.float64], site: npt.NDArray[np.float64], paths: Any, *, specular: bool
) -> PathSet:
    """Convert Sionna RT's padded arrays [user, site, path] to the ragged layout; only specular paths have mirrors."""
    users, sites = len(position), len(site)
    valid = np.array(paths.valid).reshape(users, sites, -1)
    coefficient = np.array(paths.a[0]) + 1j * np.array(paths.a[1])  # [user, user pol, site, site pol, path]
    matrix = np.moveaxis(coefficient, (2, 4, 3, 1), (1, 2, 3, 4))[valid]  # [.., site pol, user pol]
    counts = valid.sum(-1).ravel()
    n, k, _ = np.nonzero(valid)
    depth = np.array(paths.interactions).shape[0] if paths.interactions.shape[0] else 0
    interactions = np.moveaxis(np.array(paths.interactions), 0, -1)[valid] if depth else np.zeros((len(n), 0))
    vertices = np.moveaxis(np.array(paths.vertices), 0, -2)[valid] if depth else np.zeros((len(n), 0, 3))
    bounces = (interactions != 0).sum(-1)
    return PathSet(
        position=position,
        offset=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        matrix=matrix.astype(np.complex64),
        delay=np.array(paths.tau).reshape(valid.shape)[valid].astype(np.float32),
        site_angle=_angles(paths.theta_t, paths.phi_t, valid),
        user_angle=_angles(paths.theta_r, paths.phi_r, valid),
        bounces=bounces.astype(np.uint8),
        mirror=_mirrors(site[k], vertices, bounces, position[n]) if specular else np.zeros((0, 4), np.float32),
    )


def _angles(zenith: Any, azimuth: Any, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    pair = np.stack([np.array(zenith).reshape(valid.shape), np.array(azimuth).reshape(valid.shape)], -1)
    found: npt.NDArray[np.float32] = pair[valid].astype(np.float32)
    return found


def _mirrors(
    site: npt.NDArray[np.float64],
    vertices: npt.NDArray[np.floating],
    bounces: npt.NDArray[np.integer],
    user: npt.NDArray[np.float64],
) -> npt.NDArray[np.float32]:
    """Return the product of each path's Householder reflections, as a quaternion (`sim.world.paths.mirror_matrix`).

    The mirror's normal at a vertex bisects the ray: n ∝ d_in − d_out.
    """
    from scipy.spatial.transform import Rotation

    product = np.broadcast_to(np.eye(3), (len(site), 3, 3)).copy()
    for i in range(vertices.shape[1]):
        here = vertices[:, i]
        before = vertices[:, i - 1] if i else site
        last = bounces == i + 1
        after = np.where(last[:, None], user, vertices[:, min(i + 1, vertices.shape[1] - 1)])
        normal = _unit(here - before) - _unit(after - here)
        normal = _unit(normal)
        step = np.eye(3) - 2 * normal[:, :, None] * normal[:, None, :]
        product = np.where((bounces > i)[:, None, None], product @ step, product)
    proper = product * np.where(bounces % 2, -1.0, 1.0)[:, None, None]
    if not len(proper):
        return np.zeros((0, 4), np.float32)
    quaternion: npt.NDArray[np.float32] = Rotation.from_matrix(proper).as_quat(scalar_first=True).astype(np.float32)
    return quaternion


def _unit(vector: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    norm = np.linalg.norm(vector, axis=-1, keepdims=True)
    unit: npt.NDArray[np.float64] = vector.astype(np.float64) / np.maximum(norm, 1e-12)
    return unit

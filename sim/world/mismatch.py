"""Scenario keys by which the world of a run differs from what was made beforehand: maps, weights, tables.

All draws depend on `seed` and on what they are of. Clock errors are keys of `[clock]`: they differ from snapshot to
snapshot, and trainings may take them into account.

Three parts, by who applies them:

- what follows from stored paths: `sim.world.perturbed`, and the radio for arrays;
- what needs another trace of the test positions: `sim.world.tracer.trace_world`, by `python cli.py trace`;
- errors of the map that the cloud has, in a world that is as traced: `sim.plan.wrong_map`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

_TRACED = ("wall_m", "materials", "diffraction", "diffuse")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Errors; zero, false or none: no error.

    From stored paths:

    Attributes:
        seed: of all draws.
        site_m: standard deviation of each coordinate of a site, around where the survey has it [m].
        left_out: share of the sequences of reflecting surfaces that reflect nothing in the world.
        scattering_db: power of single scatterers' paths at a site, relative to the link's specular power [dB].
        antenna_deg: standard deviation of the phase error of each antenna of a site [degree].
        antenna_db: standard deviation of the amplitude error of each antenna of a site [dB].
        wall_m: traced: standard deviation of each coordinate of every mesh part of the scene [m].
        materials: traced: largest relative deviation of each material's permittivity and conductivity.
        diffraction: traced: edges diffract.
        diffuse: traced: scattering coefficient of all materials, 0 to 1; its square is the share of the reflected power
            that is reflected diffusely.
        map_image_m: of the map: standard deviation of each coordinate of the user's image, for each sequence of
            reflecting surfaces [m].
        map_left_out: of the map: share of the sequences of reflecting surfaces that it does not have.
    """

    seed: int = 1
    site_m: float = 0.0
    left_out: float = 0.0
    scattering_db: float | None = None
    antenna_deg: float = 0.0
    antenna_db: float = 0.0
    wall_m: float = 0.0
    materials: float = 0.0
    diffraction: bool = False
    diffuse: float = 0.0
    map_image_m: float = 0.0
    map_left_out: float = 0.0

    def traced(self) -> dict[str, Any]:
        """Return the keys that need another trace, with the seed if anything is drawn for it; none if none does."""
        keys = {name: value for name, value in asdict(self).items() if name in _TRACED and value}
        return {**keys, "seed": self.seed} if self.wall_m or self.materials else keys

    def words(self) -> list[str]:
        """Return a phrase for each error in force."""
        said = {
            f"sites {self.site_m:g} m off on each axis": self.site_m,
            f"{100 * self.left_out:g} % of the reflections missing": self.left_out,
            f"unmapped scattering at {self.scattering_db or 0:g} dB": self.scattering_db is not None,
            f"antennas {self.antenna_deg:g}° and {self.antenna_db:g} dB off": self.antenna_deg or self.antenna_db,
            f"mesh parts {self.wall_m:g} m off on each axis": self.wall_m,
            f"materials up to {100 * self.materials:g} % off": self.materials,
            "diffraction at edges": self.diffraction,
            f"diffuse reflection with a scattering coefficient of {self.diffuse:g}": self.diffuse,
            f"images of reflected paths in the map {self.map_image_m:g} m off on each axis": self.map_image_m,
            f"{100 * self.map_left_out:g} % of the reflections missing in the map": self.map_left_out,
        }
        return [phrase for phrase, holds in said.items() if holds]

    def rules(self) -> list[tuple[bool, str]]:
        """Return rules: whether each holds, and its error message."""
        deviations = ("site_m", "antenna_deg", "antenna_db", "wall_m", "map_image_m")
        sequences = self.left_out and (self.diffraction or self.diffuse)
        return [
            (self.seed >= 0, "mismatch.seed must not be negative"),
            *((getattr(self, name) >= 0, f"mismatch.{name} must not be negative") for name in deviations),
            (self.scattering_db is None or -200 <= self.scattering_db <= 40,
             "mismatch.scattering_db must lie between -200 and 40"),
            *((0 <= getattr(self, name) < 1, f"mismatch.{name} must be at least 0 and below 1")
              for name in ("left_out", "materials", "map_left_out")),
            (0 <= self.diffuse <= 1, "mismatch.diffuse must lie between 0 and 1"),
            (not sequences, "mismatch.left_out: with diffraction or diffuse reflection no path has a known sequence of "
                            "surfaces; leave one of them out"),
        ]  # fmt: skip

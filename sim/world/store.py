"""Locations of a scenario's files: shipped ones in the package's assets, traced and trained ones under ``data/``."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from sim.errors import UserError
from sim.world.arrays import save_arrays
from sim.world.deployment import Layouts
from sim.world.paths import PathSet, load_paths
from sim.world.perturbed import perturbed
from sim.world.scenario import Scenario

ASSET_FOLDER = Path(__file__).resolve().parent.parent / "assets"
DATA_FOLDER = Path("data")
CHECKPOINT_FOLDER = Path("checkpoints")
"""Where `train` writes a scenario's weights, and where they are looked for if none are shipped."""

SITES_FILE = "sites.npz"
TEST_LAYOUTS_FILE = "test-layouts.npz"

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
Sites = npt.NDArray[np.float64]
"""Positions of the sites of one layout (K, 3), or of many (…, K, 3) [m]."""


def data_folder(scenario: Scenario) -> Path:
    """Return the folder of the scenario's test set: shipped if there is one, else ``data/<name>``."""
    shipped = ASSET_FOLDER / scenario.data_name
    return shipped if (shipped / "test.npz").is_file() else DATA_FOLDER / scenario.data_name


@dataclass(frozen=True)
class GroundPlan:
    """The scene seen from above: `covered` (X, Y) bool, True where something is above the ground.

    `extent` (west, east, south, north) [m].
    """

    covered: npt.NDArray[np.bool_]
    extent: tuple[float, float, float, float]

    def save(self, path: Path) -> None:
        """Write an NPZ file (temporary name, then rename)."""
        save_arrays(path, covered=np.packbits(self.covered, axis=1), extent=np.array(self.extent))


def load_ground_plan(scenario: Scenario) -> GroundPlan | None:
    """Return the scene seen from above; None if missing or unreadable, as it only serves the map picture."""
    path = data_folder(scenario) / "ground-plan.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            west, east, south, north = map(float, archive["extent"])
            return GroundPlan(np.unpackbits(archive["covered"], axis=1).astype(bool), (west, east, south, north))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def world_file(scenario: Scenario) -> Path:
    """Return the file of the test positions' paths where the scenario's mismatch needs another trace of them."""
    return DATA_FOLDER / scenario.data_name / "worlds" / f"{scenario.world_digest()}.npz"


def load_test_paths(
    scenario: Scenario, path: Path | None = None, read: Callable[[Path], PathSet] = load_paths
) -> PathSet:
    """Return the paths of the test positions in the scenario's world, or of those in the file `path`.

    Args:
        scenario: the scenario.
        path: another file than its own.
        read: reads it; who asks for many worlds that are made from one file may keep what was read.

    Raises:
        UserError: the file is missing, damaged, or traced for another version of the scenario.
    """
    if path is None:
        path = world_file(scenario) if scenario.mismatch.traced() else data_folder(scenario) / "test.npz"
    if not path.is_file():
        raise UserError(
            f"There is no test data for scenario {scenario.name!r} ({path}); "
            f"make it with `python cli.py {_make(scenario)}`."
        )
    paths = read(path)
    if paths.digest != scenario.world_digest():
        raise UserError(f"{path} is of another version of scenario {scenario.name!r}; {_make(scenario)} it again.")
    return perturbed(scenario, paths)


def load_traced(scenario: Scenario, path: Path | None = None) -> PathSet:
    """Return the whole data set of a scenario, from which trainings take theirs.

    Args:
        scenario: its ``data/NAME/paths.npz`` is read by default.
        path: another file.

    Raises:
        UserError: the file is missing, damaged, or of another scenario.
    """
    paths = load_paths(path or DATA_FOLDER / scenario.data_name / "paths.npz")
    if paths.digest != scenario.tracing_digest():
        raise UserError(f"The path data are of another scenario than {scenario.name!r}: {_make(scenario)} them again.")
    return paths


def _make(scenario: Scenario) -> str:
    return "import" if scenario.is_own else "trace"


def load_training_positions(scenario: Scenario, test: Path | None = None) -> npt.NDArray[np.float64] | None:
    """Return the training positions (N, 3) [m] of a split; None if there is no file of them.

    Args:
        scenario: its random split is used by default.
        test: file of a split's test paths; ``train-positions-block.npz`` lies beside ``test-block.npz``.

    Raises:
        UserError: the file is damaged.
    """
    test = test or data_folder(scenario) / "test.npz"
    path = test.with_name(f"train-positions{test.stem.removeprefix('test')}.npz")
    if not test.stem.startswith("test") or not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return np.asarray(archive["position"], np.float64)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"The training positions {path} are damaged ({error}); restore or trace them again.") from error


def require_layouts(scenario: Scenario) -> Layouts:
    """Return the scenario's layouts.

    Raises:
        UserError: it has none.
    """
    if scenario.layouts is None:
        raise UserError(f"Scenario {scenario.name!r} has no layouts: its sites are listed.")
    return scenario.layouts


def layout_file(part: Part, number: int) -> str:
    """Return the name of the file with one layout's paths, in the folder ``layouts``."""
    return f"{part}-{number:04d}.npz"


def load_test_layout(scenario: Scenario, number: int) -> tuple[Scenario, PathSet]:
    """Return the scenario with the sites of test layout `number`, and the paths of that layout's users to them.

    Raises:
        UserError: there is no such layout, or its data are missing, damaged, or of another version of the scenario.
    """
    require_layouts(scenario)
    path = data_folder(scenario) / TEST_LAYOUTS_FILE
    paths = load_test_paths(scenario)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            sites, users = np.asarray(archive["site"], np.float64), int(archive["users"])
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"The test layouts {path} are missing or damaged ({error}); trace them again.") from error
    if sites.ndim != 3 or sites.shape[1:] != (paths.sites, 3) or len(sites) * users != len(paths):
        raise UserError(f"The test layouts {path} do not fit the test paths beside them; trace the scenario again.")
    if not 0 <= number < len(sites):
        raise UserError(
            f"There is no test layout {number} of scenario {scenario.name!r}; there are 0 to {len(sites) - 1}."
        )
    return scenario.at_layout(sites[number]), paths.select(np.arange(number * users, (number + 1) * users))


def load_layouts(folder: Path, part: Part, count: int | None = None) -> list[tuple[Sites, PathSet]]:
    """Return, for each layout of a part, the sites (K, 3) [m], for training (P, 3), and the paths of its users to them.

    Args:
        folder: ``data/NAME/layouts``.
        part: "train", "validation" or "test".
        count: number of layouts, from the first; by default all in the file of sites.

    Raises:
        UserError: files are missing or damaged, or belong to different scenarios.
    """
    sites, digest = load_sites(folder / SITES_FILE, part)
    found = []
    for number, places in enumerate(sites[:count]):
        paths = load_paths(folder / layout_file(part, number))
        if paths.digest != digest or paths.sites != len(places):
            raise UserError(f"{folder / layout_file(part, number)} is of another scenario than the files beside it.")
        found.append((places, paths))
    return found


def load_sites(path: Path, part: Part) -> tuple[Sites, str]:
    """Return the sites (L, K, 3) [m] of all layouts of a part, and the scenario's tracing digest.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            sites, digest = np.asarray(archive[part], np.float64), str(archive["digest"])
    except FileNotFoundError as error:
        raise UserError(f"The layouts' sites {path} are missing; make them with `python cli.py trace`.") from error
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"The layouts' sites {path} are damaged ({error}); remove the file and trace again.") from error
    if sites.ndim != 3 or sites.shape[2] != 3:
        raise UserError(f"The layouts' sites {path} have the shape {sites.shape}; remove the file and trace again.")
    return sites, digest

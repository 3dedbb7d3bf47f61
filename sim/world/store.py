"""Where a scenario's files lie: shipped ones in the package's assets, traced and trained ones under ``data/``."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sim.errors import UserError
from sim.world.paths import PathSet, load_paths
from sim.world.scenario import Scenario

ASSET_FOLDER = Path(__file__).resolve().parent.parent / "assets"
DATA_FOLDER = Path("data")


def data_folder(scenario: Scenario) -> Path:
    """The folder of the scenario's test set: shipped if there is one, else ``data/<name>``."""
    shipped = ASSET_FOLDER / scenario.data_name
    return shipped if (shipped / "test.npz").is_file() else DATA_FOLDER / scenario.data_name


@dataclass(frozen=True)
class GroundPlan:
    """What stands in the scene, seen from above: `covered` (X, Y) bool, True where something is above the ground.

    `extent` (west, east, south, north) [m].
    """

    covered: npt.NDArray[np.bool_]
    extent: tuple[float, float, float, float]

    def save(self, path: Path) -> None:
        """Write an NPZ file (temporary name, then rename)."""
        temporary = path.with_name(f".{path.name}.part")
        with temporary.open("wb") as file:
            np.savez_compressed(file, covered=np.packbits(self.covered, axis=1), extent=self.extent)
        temporary.replace(path)


def load_ground_plan(scenario: Scenario) -> GroundPlan | None:
    """The scene seen from above, None where it is not at hand or not readable: it only serves the picture."""
    path = data_folder(scenario) / "ground-plan.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            west, east, south, north = map(float, archive["extent"])
            return GroundPlan(np.unpackbits(archive["covered"], axis=1).astype(bool), (west, east, south, north))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def load_test_paths(scenario: Scenario, path: Path | None = None) -> PathSet:
    """Paths of the test positions, or those of the file `path`.

    Raises:
        UserError: missing, damaged, or traced for another version of the scenario.
    """
    path = path or data_folder(scenario) / "test.npz"
    if not path.is_file():
        raise UserError(
            f"There is no test data for scenario {scenario.name!r} ({path}); "
            "make it with `python cli.py trace` on the same scenario."
        )
    paths = load_paths(path)
    if paths.digest != scenario.tracing_digest():
        raise UserError(f"{path} was traced for another version of scenario {scenario.name!r}; trace it again.")
    return paths


def load_training_positions(scenario: Scenario, test: Path | None = None) -> npt.NDArray[np.float64] | None:
    """Coordinates (N, 3) [m] of the training positions of a split, None where they are not at hand.

    Args:
        scenario: whose random split is meant without `test`.
        test: file of a split's test paths; ``train-positions-block.npz`` lies beside ``test-block.npz``.
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

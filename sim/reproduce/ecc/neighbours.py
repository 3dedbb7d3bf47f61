"""How many neighbours should the look-ups of ECC's fingerprints take? ``python -m sim.reproduce.ecc.neighbours``.

Prints mean 3D errors on the validation positions of ``data/paris-6``, by the number of neighbours and, of the linear
one, by the ridge. The best ones are the defaults of `sim.learn.fingerprints`.
"""

from __future__ import annotations

import torch

from sim.errors import UserError
from sim.learn.ecc.train import make_sources
from sim.learn.fingerprints import FingerprintTable
from sim.world.paths import load_paths
from sim.world.scenario import load_scenario
from sim.world.store import ASSET_FOLDER, DATA_FOLDER

WEIGHTED = (1, 2, 3, 4, 5, 6, 8, 10, 15)
LINEAR = (40, 50, 70, 100, 140, 200, 280, 400)
RIDGES = (1e-6, 1e-3, 0.01, 0.03, 0.1, 1.0)


def main() -> None:
    """Print the errors."""
    scenario = load_scenario("paris-6")
    paths = load_paths(DATA_FOLDER / scenario.name / "paths.npz")
    table = FingerprintTable.load(ASSET_FOLDER / scenario.name / "fingerprints.npz")
    source = make_sources(scenario, paths, "random", 0.0, 0, torch.device("cpu")).validation
    source.reseed(0, 0)
    made = [source.batch(index) for index in torch.arange(len(source)).split(500)]
    channel = torch.cat([batch.channel for batch in made])
    truth = torch.cat([batch.position for batch in made]).double()
    grid = scenario.array.rows, scenario.array.columns

    def error(found: object) -> float:
        return float((torch.as_tensor(found) - truth).norm(dim=1).mean())

    print("weighted", *(f"{k}: {error(table.locate(channel, *grid, k)):.3f} m" for k in WEIGHTED), sep="  ")
    for ridge in RIDGES:
        errors = (f"{k}: {error(table.locate_linear(channel, *grid, k, ridge)):.3f} m" for k in LINEAR)
        print(f"linear, ridge {ridge:g}", *errors, sep="  ")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from error

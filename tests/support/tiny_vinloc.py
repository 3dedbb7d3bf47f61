"""VIn-Loc small enough to emulate in seconds: straight paths, 256 taps, small networks that nobody trained."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tiny_world
import torch

from cloud.fusion.loc_token import LocTokenNetwork
from edge.cir_embedding import CirEmbedding
from sim.plan.settings import EmulateSettings
from sim.plan.weights import Weights, save_weights
from sim.toml.write import toml_text
from sim.world.paths import PathSet
from sim.world.scenario import Array, LinkBudget, Scenario, load_scenario, scenario_table

CENTRE, EXTENT = (10.0, -20.0, 1.5), (100.0, 50.0, 1.0)
SCALE = 2e-12
"""Far below what taps are: with larger ones random weights would let nothing of a channel through."""
EMBEDDING: dict[str, Any] = {"channels": [4, 4, 4, 4, 4], "hidden": 16}
NETWORK: dict[str, Any] = {"width": 264, "blocks": 1, "feedforward": 32, "hidden": 16}


def scenario(sites: int = 3) -> Scenario:
    """paris-6 with so many sites of one antenna, and 256 taps; none of its channels has noise."""
    paris = load_scenario("paris-6")
    first = paris.sites[0]
    ring = [(60.0 * np.cos(k), 60.0 * np.sin(k), 20.0 + k) for k in range(sites)]
    numerology = dataclasses.replace(paris.numerology, tones=288, tone_stride=1, slots=1, ifft=512, taps=256)
    return dataclasses.replace(
        paris,
        name="tiny-vinloc",
        sites=tuple(dataclasses.replace(first, name=f"s{k}", position=place) for k, place in enumerate(ring)),
        array=Array(rows=1, columns=1),
        numerology=numerology,
        users=dataclasses.replace(paris.users, min_links=1, low=(-80.0, -80.0, 1.5), high=(80.0, 80.0, 1.5)),
        link_budget=LinkBudget(noise="none"),
        data="",
    )


def weights(antennas: int = 1) -> Weights:
    """One set for any number of base stations."""
    torch.manual_seed(5)
    shape = EMBEDDING | {"antennas": antennas, "rows": 2 if antennas > 1 else 1}
    embedding, network = CirEmbedding(**shape), LocTokenNetwork(**NETWORK)
    with torch.no_grad():
        embedding.scale.fill_(SCALE)
        network.output[-1].weight.mul_(10.0)  # type: ignore[operator]
    made = {f"edge.all.embedding.{name}": value.clone() for name, value in embedding.state_dict().items()}
    made |= {f"cloud.network.{name}": value.clone() for name, value in network.state_dict().items()}
    made |= {"cloud.centre": torch.tensor(CENTRE), "cloud.extent": torch.tensor(EXTENT)}
    return Weights({"scheme": "vinloc", "estimator": "ls", "embedding": shape, "network": NETWORK}, made)


def silenced(paths: PathSet, heard: np.ndarray[Any, Any]) -> PathSet:
    """Take away the paths of the links that are not `heard` (position, site), True or False."""
    count = paths.paths_per_link().ravel()
    kept = np.repeat(heard.ravel(), count)
    names = ["matrix", "delay", "site_angle", "user_angle", "bounces", *["mirror"] * bool(len(paths.mirror))]
    rows = {name: getattr(paths, name)[kept] for name in names}
    offset = np.concatenate([[0], np.cumsum(count * heard.ravel())]).astype(np.int64)
    return dataclasses.replace(paths, offset=offset, **rows)


def write(folder: Path, sites: int = 3, world: Scenario | None = None) -> EmulateSettings:
    """Write scenario, assets and weights; return settings for a short run in process. See `tiny_world.write`."""
    world = scenario(sites) if world is None else world
    (folder / "tiny-vinloc.toml").write_text(toml_text(scenario_table(world)))
    traced = tiny_world.paths(world)
    assets = folder / "assets" / "tiny-vinloc"
    traced.save(assets / "test.npz")
    np.savez(assets / "train-positions.npz", position=traced.position[::2].astype(np.float32) + 1.0)
    save_weights(folder / "vinloc.safetensors", weights())
    return EmulateSettings(
        scenario=str(folder / "tiny-vinloc.toml"),
        scheme="vinloc",
        bs=len(world.sites),
        bits=4,
        snapshots=8,
        driver="process",
        weights=folder / "vinloc.safetensors",
        output=folder / "runs",
        warmup=2,
        capture=False,
        controls=False,
    )

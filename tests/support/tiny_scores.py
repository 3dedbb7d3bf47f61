"""DiffLoc small enough to emulate in seconds: straight paths, few tones, networks that are random or linear by hand."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tiny_world
import torch
from torch import Tensor

from edge.score_network import NetworkShape, ScoreNetwork
from sim.plan.settings import EmulateSettings
from sim.plan.weights import Weights, save_weights
from sim.toml.write import toml_text
from sim.world.scenario import Scenario, load_scenario, scenario_table

SIGMA = (0.01, 5.0)
TAPS, IFFT = 4, 16
SAMPLERS: dict[str, dict[str, Any]] = {
    "diffusion": {"kind": "diffusion", "timesteps": 200, "beta": [5e-4, 0.1]},
    "consistency": {"kind": "consistency", "sigma": list(SIGMA)},
}


def scenario(sites: int = 3) -> Scenario:
    """paris-6 and its first site once more, with a slot, 8 tones and so many sites."""
    paris = load_scenario("paris-6")
    again = dataclasses.replace(paris.sites[0], name="again", position=(4.0, 80.0, 24.0))
    numerology = dataclasses.replace(paris.numerology, tones=8, tone_stride=36, slots=1)
    users = dataclasses.replace(paris.users, min_links=1, low=(-80.0, -80.0, 1.5), high=(80.0, 80.0, 1.5))
    return dataclasses.replace(
        paris, name="tiny-scores", sites=(*paris.sites, again)[:sites], numerology=numerology, users=users, data=""
    )


def linear(network: ScoreNetwork, seed: int) -> None:
    """Make ε̂ = x + δ with δ linear in the fingerprint, by silu(z) − silu(−z) = z: an MLP that can be predicted."""
    size = network.shape.dimensions
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.body.parameters():
            parameter.zero_()
        for name, parameter in network.named_parameters():
            if name.endswith("norm_in.weight"):
                parameter.fill_(1.0)
            elif name.startswith(("time", "embed")):
                parameter.zero_()
        shift = 0.03 * torch.randn(network.shape.features, size, generator=draw)
        for i in range(size):
            for unit, sign in ((i, 1.0), (size + i, -1.0)):
                network.embed_position.weight[0, i, unit] = sign
                network.embed_channel.weight[0, :, unit] = sign * shift[:, i]
                network.body.skips[0].weight[0, unit, i] = sign  # type: ignore[union-attr, operator]
            network.body.skips[1].weight[0, i, i] = 1.0  # type: ignore[union-attr, operator]
            network.body.head.weight[0, i, i] = 1.0


def tensors(bs: int, kind: str, body: Any, dimensions: int) -> dict[str, Tensor]:
    """One base station's share."""
    torch.manual_seed(100 + bs)
    features = 2 * 4 * TAPS
    network = ScoreNetwork(NetworkShape(body=body, features=features, dimensions=dimensions))
    if body == "mlp" and kind == "diffusion":
        linear(network, bs)
    half = features // 2
    network.deviation[..., :half] = 1e-5
    share = {f"network.{name}": value.clone() for name, value in network.state_dict().items()}
    spread = np.random.default_rng(bs).normal(size=(dimensions, dimensions))
    share["posterior"] = torch.from_numpy(0.02 * np.eye(dimensions) + 0.01 * spread @ spread.T).float()
    width = network.shape.embedding
    return share | {"embedding.centre": torch.zeros(width), "embedding.scale": torch.full((width,), 1.0)}


def weights(sites: int = 3, kind: str = "consistency", body: str | None = None, dimensions: int = 2) -> Weights:
    """Weights of a scheme that nobody trained."""
    body = body or ("unet" if kind == "consistency" else "mlp")
    shape = NetworkShape(body=body, features=2 * 4 * TAPS, dimensions=dimensions)  # type: ignore[arg-type]
    config = {
        "scheme": "diffloc", "model": "ct" if kind == "consistency" else body, "network": dataclasses.asdict(shape),
        "sampler": SAMPLERS[kind], "centre": dimensions * [0.0], "scale": 80.0, "height_m": 1.5,
        "low": dimensions * [-1.0], "high": dimensions * [1.0], "taps": TAPS, "ifft": IFFT, "fusion": "gauss",
        "steps": 2 if kind == "consistency" else 20, "estimator": "ls", "calibration": {"gauss": 2.0},
    }  # fmt: skip
    made = {
        f"edge.{bs}.{name}": value for bs in range(sites) for name, value in tensors(bs, kind, body, dimensions).items()
    }
    return Weights(config, made)


def write(folder: Path, sites: int = 3, made: Weights | None = None) -> EmulateSettings:
    """Write scenario, assets and weights; return settings for a short run in process. See `tiny_world.write`."""
    world = scenario(sites)
    (folder / "tiny-scores.toml").write_text(toml_text(scenario_table(world)))
    traced = tiny_world.paths(world)
    assets = folder / "assets" / "tiny-scores"
    traced.save(assets / "test.npz")
    np.savez(assets / "train-positions.npz", position=traced.position[::2].astype(np.float32) + 1.0)
    save_weights(folder / "diffloc.safetensors", made or weights(sites))
    return EmulateSettings(
        scenario=str(folder / "tiny-scores.toml"),
        scheme="diffloc",
        bs=sites,
        bits=8,
        snapshots=6,
        driver="process",
        weights=folder / "diffloc.safetensors",
        output=folder / "runs",
        warmup=2,
        capture=False,
        controls=False,
    )

"""Direct regression on all unquantised channels: the control with no fronthaul limit and no fusion structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.preprocessing import Phase
from sim.learn.ecc.train import make_sources
from sim.learn.splits import SplitName
from sim.learn.trainer import OnProgress, Schedule, Trainer
from sim.world.paths import PathSet
from sim.world.scenario import Scenario


class DirectRegression(nn.Module):
    """Residual multilayer perceptron that maps K flattened channels to a position."""

    centre: Tensor
    extent: Tensor
    readout = 1

    def __init__(self, scenario: Scenario, phase: Phase, width: int = 384, depth: int = 3) -> None:
        super().__init__()
        self.phase = phase
        slots, antennas, tones = scenario.csi_shape
        self.first = nn.Linear(len(scenario.sites) * 2 * slots * antennas * tones, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 3)
        low, high = torch.tensor(scenario.users.low), torch.tensor(scenario.users.high)
        self.register_buffer("centre", (low + high) / 2)
        self.register_buffer("extent", (high - low) / 2)

    def forward(self, x: Tensor, gain: Tensor, present: Tensor) -> Tensor:
        """Return positions (B, 1, 3) [m] from inputs (B, K, 2, F, T·M), gains (B, K) and presence (B, K)."""
        share = (gain / gain.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_min(1e-3).log10()  # relative strengths
        weighted = x * (1 + 0.1 * share[:, :, None, None, None]) * present[:, :, None, None, None]
        y = functional.relu(self.first(weighted.flatten(1)))
        for block in self.blocks:
            y = y + block(y)
        estimate: Tensor = self.centre + self.extent * self.head(y)
        return estimate[:, None]


def train_direct(
    scenario: Scenario,
    paths: PathSet,
    *,
    phase: Phase,
    split: SplitName,
    jitter_m: float,
    schedule: Schedule,
    test: PathSet,
    on_progress: OnProgress,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train the control and evaluate it on `test`; return the 3D errors (N,) [m] under ``errors_3d_m``."""
    torch.manual_seed(schedule.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sources = make_sources(scenario, paths, split, jitter_m, schedule.seed, device)
    model = DirectRegression(scenario, phase).to(device)
    identity = {"direct": phase, "split": split, "schedule": str(schedule)}
    trainer = Trainer(
        {"direct": model}, sources.training, sources.validation, schedule, checkpoint=checkpoint, identity=identity
    )
    trainer.run(on_progress)
    errors = trainer.validate("direct", source=sources.like(scenario, test))
    return {"errors_3d_m": errors.cpu().double().numpy()}

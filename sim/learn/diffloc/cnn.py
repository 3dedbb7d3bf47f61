"""Convolutional regression on the fingerprints of all base stations: the paper's second baseline. DiffLoc Sec. V-B2.

Fingerprints form an image of antenna pairs × taps; magnitudes and phases of K base stations are its 2K channels.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sim.learn.diffloc.features import Features, FeatureSetting, raw_features
from sim.learn.diffloc.fit import Schedule
from sim.world.paths import PathSet
from sim.world.scenario import Scenario


class PositionCnn(nn.Module):
    """Three strided convolutions and two linear layers."""

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__()
        widths = (channels, 24, 48, 64)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Conv2d(a, b, (4, 5), stride=(4, 3), padding=(0, 2)), nn.BatchNorm2d(b), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Flatten(), nn.LazyLinear(128), nn.ReLU(), nn.Linear(128, dimensions))

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, 2K, pair, tap) to normalised positions (B, D)."""
        out: Tensor = self.head(self.convolutions(image))
        return out


@dataclass(frozen=True)
class Images:
    """Standardised fingerprints (N, 2K, pair, tap) float16 of all samples."""

    image: Tensor


def make_images(scenario: Scenario, paths: PathSet, setting: FeatureSetting, train: npt.NDArray[np.int64]) -> Images:
    """Compute the images, standardised by mean and deviation of the training samples."""
    pairs, taps = scenario.csi_shape[1], scenario.numerology.taps
    images = torch.empty(len(paths), 2 * len(setting.stations), pairs, taps, dtype=torch.float16)
    for place, station in enumerate(setting.stations):
        raw = torch.cat(list(raw_features(scenario, paths, station, setting, setting.snr_db[0])))
        for half, part in enumerate(raw.chunk(2, 1)):
            chosen = part[train]
            deviation = chosen.std(0)
            deviation = deviation + 0.03 * deviation.square().mean().sqrt() + 1e-30
            standard = ((part - chosen.mean(0)) / deviation).clamp(-10, 10)
            images[:, 2 * place + half] = standard.reshape(-1, pairs, taps).half()
    return Images(images)


def fit_cnn(images: Images, features: Features, schedule: Schedule) -> tuple[npt.NDArray[np.float64], float]:
    """Train with early stopping; return normalised estimates (N, D) of all samples, and the validation loss."""
    torch.manual_seed(schedule.seed)
    network = PositionCnn(images.image.shape[1], features.position.shape[1])
    network(images.image[:2].float())  # gives the lazy layer its size
    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.rate, fused=True)
    train, validation = features.index("train"), features.index("validation")
    draw = torch.Generator().manual_seed(schedule.seed)
    best, since, state = float("inf"), 0, {k: v.clone() for k, v in network.state_dict().items()}
    for _ in range(schedule.epochs):
        network.train()
        for index in train[torch.randperm(len(train), generator=draw)].split(schedule.batch):
            if len(index) < 8:
                continue
            loss = (network(images.image[index].float()) - features.position[index]).square().sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        error = _predict(network, images, validation) - features.position[validation]
        value = float(error.square().sum(-1).mean())
        since += 1
        if value < best:
            best, since, state = value, 0, {k: v.clone() for k, v in network.state_dict().items()}
        if since >= schedule.patience:
            break
    network.load_state_dict(state)
    return _predict(network, images, torch.arange(len(images.image))).double().numpy(), best


@torch.no_grad()
def _predict(network: PositionCnn, images: Images, index: Tensor) -> Tensor:
    network.eval()
    return torch.cat([network(images.image[chunk].float()) for chunk in index.split(100)])

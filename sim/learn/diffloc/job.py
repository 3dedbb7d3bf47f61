"""A training of DiffLoc or of one of its baselines, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from edge.score_network import Body, ScoreNetwork
from sim.learn.diffloc.features import FeatureSetting
from sim.learn.diffloc.fit import Schedule
from sim.learn.diffloc.objectives import Grid


@dataclass(frozen=True)
class Job:
    """One training of K stacked networks.

    Attributes:
        name: base name of its file.
        data: folder of the path set under ``data/``.
        model: regression, unet, ct, mlp, grid, joint-unet, joint-mlp or cnn.
        setting: settings of its features.
        soft: whether it uses dynamic soft labels.
        timesteps: number of diffusion timesteps, T.
        spacing_m: spacing of a grid [m].
        schedule: training schedule.
        start: consistency networks that are trained further, jointly by the error of their fused estimate.
        apart: control: further, but each by its own error.
    """

    name: str
    data: str
    model: str
    setting: FeatureSetting = FeatureSetting()  # noqa: RUF009 - frozen
    soft: bool = False
    timesteps: int = 200
    spacing_m: float = 0.0
    schedule: Schedule = Schedule()  # noqa: RUF009 - frozen
    start: Job | None = None
    apart: bool = False

    @property
    def body(self) -> Body:
        """Network body, ``unet`` or ``mlp``."""
        return "mlp" if self.model in ("mlp", "grid", "joint-mlp") else "unet"


@dataclass(frozen=True)
class Fit:
    """A finished job: its network on compressed features, or its estimates of all samples.

    Attributes:
        job: the job.
        network: its networks.
        estimates: normalised estimates (N, D) of all samples, of a job without networks of this kind.
        grid: grid of a classification.
        record: how it was trained.
        posterior: Σ_k (K, D, D) by which networks were fused in training; None if they were not.
    """

    job: Job
    network: ScoreNetwork | None
    estimates: Tensor | None
    grid: Grid | None
    record: dict[str, Any]
    posterior: npt.NDArray[np.float64] | None = None

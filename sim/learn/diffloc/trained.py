"""Evaluation of a finished job: its networks on the samples of each part of the split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cloud.fusion.scores.prior import BoxPrior
from edge.score_network import Denoiser
from fronthaul.payload.noise_levels import BETA
from sim.learn.diffloc.evaluate import FloatArray, Networks, posteriors, sample
from sim.learn.diffloc.features import Features
from sim.learn.diffloc.job import Fit, Job
from sim.learn.diffloc.objectives import Consistency, regress

CT_STEPS = 2
DDIM_STEPS = 20
"""DDIM steps of the estimates from which Σ_k is measured on validation samples."""


def sampler_table(job: Job) -> dict[str, Any]:
    """Return the ``sampler`` table of a job's networks."""
    if job.model == "ct":
        return {"kind": "consistency", "sigma": list(Consistency().sigma)}
    return {"kind": "diffusion", "timesteps": job.timesteps, "beta": list(BETA)}


def box_around(position: FloatArray) -> BoxPrior:
    """Return the box around training positions (N, D), normalised."""
    return BoxPrior(position.min(0), position.max(0))


@dataclass(frozen=True)
class Trained:
    """A job's networks, features, and the error covariances measured on validation samples.

    Attributes:
        fit: the job and its network.
        features: features of all samples.
        posterior: Σ_k (K, D, D), from the errors on validation samples, if not from the fit.
    """

    fit: Fit
    features: Features
    posterior: FloatArray

    def truth(self, part: str) -> FloatArray:
        """Return normalised true positions (N, D) of "train", "validation" or "test" samples."""
        return self.features.truth(part)

    def walks(self, part: str) -> npt.NDArray[np.int64]:
        """Return the numbers (N,) of the walks of a part's samples."""
        return self.features.walks(part)

    def networks(self, part: str, *, shuffled: bool = False, z: Tensor | None = None) -> Networks:
        """Return the networks on the samples of a part.

        Args:
            part: "train", "validation" or "test".
            shuffled: control: give each sample the channels of another one.
            z: compressed fingerprints (K, N, d) to use instead, for instance noisier ones.
        """
        network, table = self.fit.network, sampler_table(self.fit.job)
        assert network is not None
        inputs = self.features.z[:, self.features.index(part)] if z is None else z
        if shuffled:
            order = torch.randperm(inputs.shape[1], generator=torch.Generator().manual_seed(0))
            inputs = inputs[:, order[torch.argsort(order).add(1).remainder(len(order))]]
        with torch.no_grad():
            embedding = network.embed_channel(inputs)
        return Networks(Denoiser(network, table), table, embedding, self.posterior, box_around(self.truth("train")))

    def regressed(self, part: str) -> FloatArray:
        """Return positions (K, N, D) of networks that regress directly."""
        assert self.fit.network is not None
        with torch.no_grad():
            embedding = self.fit.network.embed_channel(self.features.z[:, self.features.index(part)])
            found: FloatArray = regress(self.fit.network, embedding).double().numpy()
        return found


def measured(fit: Fit, features: Features) -> Trained:
    """Measure Σ_k of networks on validation samples, unless they were trained with given ones.

    Diffusion and consistency models are sampled for each base station alone, regressions are evaluated; for other
    models Σ_k is the identity.
    """
    job = fit.job
    if fit.posterior is not None:
        return Trained(fit, features, fit.posterior)
    size = features.position.shape[1]
    blank = np.repeat(np.eye(size)[None], len(features.z), 0)
    trained = Trained(fit, features, blank)
    truth = trained.truth("validation")
    if job.model == "regression":
        return replace(trained, posterior=posteriors(trained.regressed("validation"), truth))
    if job.model not in ("ct", "unet", "mlp"):
        return trained
    networks = trained.networks("validation")
    steps = CT_STEPS if job.model == "ct" else min(DDIM_STEPS, job.timesteps)
    alone = [sample(networks, "sum", steps, stations=[k]).position for k in range(len(blank))]
    return replace(trained, posterior=posteriors(np.stack(alone), truth))

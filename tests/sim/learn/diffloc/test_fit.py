"""Training of stacked networks on made-up features: a budget of time, averaged weights, resumption, fused errors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ticking import Ticking

from cloud.fusion.scores.prior import BoxPrior
from cloud.fusion.scores.rule import build_rule
from edge.score_network import Denoiser, NetworkShape, ScoreNetwork
from fronthaul.payload.noise_levels import noise_schedule
from sim.errors import UserError
from sim.learn import budget
from sim.learn.diffloc.evaluate import Networks, posteriors, sample
from sim.learn.diffloc.features import Features
from sim.learn.diffloc.fit import FitProgress, Schedule, fit
from sim.learn.diffloc.objectives import Consistency, Fused, Regression
from sim.learn.splits import Split

SHAPE = NetworkShape("unet", 12, 2)
QUICK = Schedule(epochs=12, batch=20, rate=3e-3, average=0.2)
TABLE = {"kind": "consistency", "sigma": list(Consistency().sigma)}
PRIOR = BoxPrior(np.array([-2.0, -2.0]), np.array([2.0, 2.0]))
POSTERIOR = np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.5]]])


def features(samples: int = 200) -> Features:
    """Two base stations, each of which sees a linear map of the position, and noise."""
    draw = torch.Generator().manual_seed(1)
    position = 0.5 * torch.randn(samples, 2, generator=draw)
    seen = [position @ torch.randn(2, 8, generator=draw) for _ in range(2)]
    z = torch.stack([torch.cat([one, torch.randn(samples, 4, generator=draw)], 1) for one in seen])
    index = np.arange(samples)
    parts = Split(index[:120], index[120:160], index[160:])
    blank = torch.zeros(2, 1)
    return Features(z, position, np.zeros(2), 1.5, parts, index, index, blank, blank + 1, torch.zeros(2, 1, 12))


def trained(schedule: Schedule, seen: list[FitProgress], checkpoint: Path | None = None) -> ScoreNetwork:
    network, losses = fit(features(), SHAPE, Regression(), schedule, checkpoint=checkpoint, on_epoch=seen.append)
    assert max(losses) < 0.2  # of positions with a variance of 0.5
    return network


def test_a_budget_of_time_replaces_epochs_and_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "time", Ticking())
    rates: list[float] = []
    step = torch.optim.Adam.step

    def recorded(optimizer: torch.optim.Adam) -> object:
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    seen: list[FitProgress] = []
    trained(replace(QUICK, epochs=2, patience=1, budget_s=1.5), seen)
    assert 1.5 <= seen[-1].seconds < 1.6
    assert len(seen) > 10
    assert rates[0] == QUICK.rate
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.05 * QUICK.rate


def test_a_training_that_diverges_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    diverging = replace(QUICK, rate=1e9)
    with pytest.raises(
        UserError, match=r"^The training diverged before the end of epoch 1: lower the learning rate\.$"
    ):
        fit(features(), SHAPE, Regression(), diverging, checkpoint=tmp_path / "a.pt")
    assert list(tmp_path.iterdir()) == []


def test_averaged_weights_are_validated_and_kept() -> None:
    with_average: list[FitProgress] = []
    without: list[FitProgress] = []
    trained(QUICK, with_average)
    trained(replace(QUICK, average=0.0), without)
    assert [one.training for one in with_average] == [one.training for one in without]  # training is left alone
    assert [one.validation for one in with_average] != [one.validation for one in without]


def test_a_stopped_training_ends_like_one_that_was_not(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop_after_eleven(progress: FitProgress) -> None:
        if progress.epoch == 11:  # the tenth was saved
            raise Stop

    whole = trained(QUICK, [])
    with pytest.raises(Stop):
        fit(features(), SHAPE, Regression(), QUICK, checkpoint=tmp_path / "a.pt", on_epoch=stop_after_eleven)
    seen: list[FitProgress] = []
    resumed = trained(QUICK, seen, tmp_path / "a.pt")
    assert [one.epoch for one in seen] == [11, 12]
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict())


def objective(rule: str = "gauss", noise: float = 0.0, apart: bool = False) -> Fused:
    return Fused(build_rule(rule, PRIOR), POSTERIOR, noise_schedule(TABLE, 2)[0], TABLE["sigma"][0], noise, apart)


@pytest.mark.parametrize("rule", ["gauss", "precision", "mean"])
def test_the_loss_is_the_error_of_the_clouds_first_step(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = features()
    torch.manual_seed(3)
    network = ScoreNetwork(SHAPE, 2).eval()
    index = data.index("test")
    with torch.no_grad():
        embedding = network.embed_channel(data.z[:, index])
        loss = objective(rule).loss(network, embedding, data.position[index], torch.Generator().manual_seed(5))
    noise = torch.randn(len(index), 2, generator=torch.Generator().manual_seed(5)).double().numpy()
    monkeypatch.setattr(Networks, "draws", lambda *_: lambda _: noise)
    networks = Networks(Denoiser(network, TABLE), TABLE, embedding, POSTERIOR, PRIOR)
    error = sample(networks, rule, 1).position - data.truth("test")
    np.testing.assert_allclose(loss.sum().item(), np.square(error).sum(1).mean(), rtol=1e-3)
    assert loss[0] == loss[1]


def test_joint_training_lowers_the_fused_error_below_that_of_separate_training() -> None:
    data = features()
    start, _ = fit(data, SHAPE, Consistency(), QUICK)
    seen: list[FitProgress] = []
    jointly, losses = fit(data, SHAPE, objective(noise=0.3), QUICK, start=start, on_epoch=seen.append)
    assert seen[-1].best[0] == seen[-1].best[1] and losses[0] == losses[1]  # one epoch is kept for all

    def fused(network: ScoreNetwork) -> float:
        with torch.no_grad():
            embedding = network.embed_channel(data.z[:, data.index("test")])
        networks = Networks(Denoiser(network, TABLE), TABLE, embedding, POSTERIOR, PRIOR)
        return float(np.square(sample(networks, "gauss", 2).position - data.truth("test")).sum(1).mean())

    assert fused(jointly) < 0.7 * fused(start)
    moved = [(a - b).abs().amax() for a, b in zip(jointly.body.head.weight, start.body.head.weight, strict=True)]
    assert min(moved) > 0


def test_each_by_its_own_error_lowers_that_of_each() -> None:
    data = features()
    start, _ = fit(data, SHAPE, Consistency(), QUICK)
    further, _ = fit(data, SHAPE, objective(apart=True), QUICK, start=start)

    def own(network: ScoreNetwork) -> np.ndarray:
        with torch.no_grad():
            embedding = network.embed_channel(data.z[:, data.index("test")])
        networks = Networks(Denoiser(network, TABLE), TABLE, embedding, POSTERIOR, PRIOR)
        each = np.stack([sample(networks.of([k]), "sum", 2).position for k in range(2)])
        return np.trace(posteriors(each, data.truth("test")), axis1=1, axis2=2)

    assert (own(further) < own(start)).all()

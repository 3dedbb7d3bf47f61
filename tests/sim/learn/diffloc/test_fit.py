"""Training of stacked networks on made-up features: a budget of time, averaged weights, resumption."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ticking import Ticking

from edge.score_network import NetworkShape, ScoreNetwork
from sim.errors import UserError
from sim.learn import budget
from sim.learn.diffloc.features import Features
from sim.learn.diffloc.fit import FitProgress, Schedule, fit
from sim.learn.diffloc.objectives import Regression
from sim.learn.splits import Split

SHAPE = NetworkShape("unet", 12, 2)
QUICK = Schedule(epochs=12, batch=20, rate=3e-3, average=0.2)


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

"""ResNet fingerprinting: what comes into its slots, and a training that can be stopped."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_hall
import torch

from sim.errors import UserError
from sim.learn.vinloc import resnet_train
from sim.learn.vinloc.data import CirSet, Users
from sim.learn.vinloc.evaluate import kept_stations
from sim.learn.vinloc.resnet import Filling, ResNetLocator, features, filled
from sim.learn.vinloc.resnet_train import RESNET_JOBS, ResNetJob, ResNetTrainer, resnet_positions
from sim.learn.vinloc.train import Schedule, TrainProgress

TAPS = 32
LOW, HIGH = torch.tensor([0.0, 0.0, 1.5]), torch.tensor([40.0, 20.0, 1.5])


def users(count: int, seed: int, stations: int = 6) -> CirSet:
    """A pulse whose delay is the distance."""
    draw = torch.Generator().manual_seed(seed)
    position = LOW + torch.rand(count, 3, generator=draw) * (HIGH - LOW)
    site = torch.rand(stations, 3, generator=torch.Generator().manual_seed(9)) * torch.tensor([40.0, 20.0, 8.0])
    delay = (position[:, None] - site).norm(dim=2)[..., None] / 1.5
    cir = torch.exp(-((torch.arange(TAPS) - delay) ** 2) / 2).to(torch.complex64)
    present = torch.ones(count, stations, dtype=torch.bool)
    made = torch.view_as_real(cir)[:, :, None].half()
    return CirSet(made, site.expand(count, -1, -1), present, position, 1.0)


def network(slots: int, seed: int = 0) -> ResNetLocator:
    torch.manual_seed(seed)
    return ResNetLocator(slots, TAPS, LOW, HIGH, channels=(8, 8, 8, 12, 16), hidden=16)


def job(filling: Filling, size: int, **changes: float) -> ResNetJob:
    made = Schedule(epochs=2, batch=20, warmup_steps=2, subset=(size,), half=False)
    return ResNetJob("tiny", "inf-dh-18", filling, replace(made, **changes))  # type: ignore[arg-type]


def test_slots_are_filled_with_what_is_kept() -> None:
    made = users(30, 1)
    chosen = kept_stations(30, 6, 4)
    draw = torch.Generator().manual_seed(1)
    whole = made.response()[:, :, 0]
    rows = filled(made, chosen, "rows", draw)
    assert rows.shape == (30, 6, TAPS)
    packed = filled(made, chosen, "packed", draw)
    mixed = filled(made, chosen, "shuffled", draw)
    assert packed.shape == mixed.shape == (30, 4, TAPS)
    orders = set()
    for n in range(30):
        left_out = sorted({*range(6)} - {*chosen[n].tolist()})
        assert not rows[n, left_out].any()
        assert torch.equal(rows[n, chosen[n]], whole[n, chosen[n]])
        assert torch.equal(packed[n], whole[n, chosen[n]])
        order = [next(s for s in range(4) if torch.equal(mixed[n, k], packed[n, s])) for k in range(4)]
        assert sorted(order) == [0, 1, 2, 3]
        orders.add(tuple(order))
    assert len(orders) > 5


def test_features_are_companded_and_keep_the_phase() -> None:
    slots = torch.tensor([[[4.0 + 0j, -9j, 0j]]])
    torch.testing.assert_close(features(slots)[0], torch.tensor([[2.0, 0, 0], [0, -3.0, 0], [2.0, 3.0, 0]]))


def test_features_are_those_of_vinlocs_own_network() -> None:
    from edge.cir_embedding import CirEmbedding

    cir = users(3, 1).response()
    theirs = CirEmbedding(taps=TAPS).features(cir.flatten(0, 1))
    torch.testing.assert_close(features(cir[:, :, 0]).reshape(-1, 3, TAPS), theirs)


@pytest.mark.parametrize(("filling", "share"), [("rows", 0.75), ("packed", 0.75), ("shuffled", 1.0)])
def test_a_network_positions_users_and_learns(filling: Filling, share: float, tmp_path: Path) -> None:
    parts = Users(users(300, 1), users(60, 2), users(60, 3))
    told: list[TrainProgress] = []
    made = network(6 if filling == "rows" else 4)
    what = job(filling, 4, epochs=4, rate=3e-3)
    before = float((resnet_positions(made, parts.validation, what) - parts.validation.position).norm(dim=1).mean())
    after = ResNetTrainer(made, parts, what, tmp_path / "tiny.pt").run(told.append)
    assert after < share * before
    assert told[-1].step == told[-1].steps == 4 * 15
    assert told[-1].validation_m == after
    found = resnet_positions(made, parts.test, what)
    assert found.shape == (60, 3)
    assert torch.equal(resnet_positions(made, parts.test, what), found)


def test_a_stopped_training_ends_like_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Users(users(60, 1), users(10, 2), users(10, 3))
    what = job("shuffled", 4)
    whole, cut = network(4), network(4)
    ResNetTrainer(whole, parts, what, tmp_path / "whole.pt").run()
    trainer = ResNetTrainer(cut, parts, what, tmp_path / "cut.pt", save_seconds=0.0)
    steps = iter(range(4))
    step = trainer._step

    def stopped(*arguments: object) -> float:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    resumed = network(4, seed=7)
    ResNetTrainer(resumed, parts, what, tmp_path / "cut.pt").run()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)
    with pytest.raises(UserError, match="belongs to another training"):
        ResNetTrainer(network(4), parts, replace(what, filling="packed"), tmp_path / "cut.pt").run()


def test_the_shipped_trainings_fit_the_hall() -> None:
    scenario = tiny_hall.load_scenario("inf-dh-18")
    for one in RESNET_JOBS.values():
        made = resnet_train.make_resnet(scenario, one)
        assert made.entry[0].in_channels == 3 * (18 if one.filling == "rows" else one.size)
        count = sum(parameter.numel() for parameter in made.parameters())
        assert 0.5e6 < count < 2e6
        slots = torch.zeros(2, made.entry[0].in_channels // 3, 256, dtype=torch.complex64)
        assert made.eval()(slots).shape == (2, 3)

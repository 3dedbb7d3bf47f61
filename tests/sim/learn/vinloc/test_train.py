"""Training of VIn-Loc on straight paths in a hall, small enough to learn something within seconds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from straight_world import trace
from ticking import Ticking

from edge.cir_embedding import CirEmbedding, channels_last
from sim.errors import UserError
from sim.learn import budget
from sim.learn.vinloc import jobs, train
from sim.learn.vinloc.data import CirSet, delayed, drawn_users, join, load_users, synthesise
from sim.learn.vinloc.evaluate import network_of
from sim.learn.vinloc.export import factored
from sim.learn.vinloc.model import VinLocModel, quantised
from sim.learn.vinloc.train import Schedule, TrainProgress, VinLocTrainer, errors_of, subset
from sim.plan.weights import load_weights
from sim.world.factory import draw_factory
from sim.world.scenario import ClockErrors, Scenario, load_scenario
from sim.world.store import ASSET_FOLDER

HALL = load_scenario("inf-dh-18")
WORLD = replace(HALL, sites=HALL.sites[:6])
FEW = replace(
    WORLD,
    tracing=replace(WORLD.tracing, positions=60),
    splits=replace(WORLD.splits, test=8, validation=6),
)
EMBEDDING: dict[str, Any] = {"channels": (4, 6, 8, 8, 8), "hidden": 64}
NETWORK = {"width": 64, "blocks": 2, "feedforward": 64, "hidden": 32}


def users(count: int, seed: int = 1, world: Scenario = WORLD, **changes: Any) -> CirSet:
    draw = np.random.default_rng(seed)
    position = draw.uniform(world.users.low, world.users.high, (count, 3))
    return synthesise(replace(world, **changes), trace(world, position), **({"scale": 1e-4} if changes else {}))


def model(seed: int = 0, *, alone: bool = False) -> VinLocModel:
    torch.manual_seed(seed)
    low, high = torch.tensor(HALL.users.low), torch.tensor(HALL.users.high)
    return VinLocModel(EMBEDDING, NETWORK, low, high, alone=alone)


def test_responses_hold_a_line_of_sight_at_its_tap() -> None:
    made = users(5)
    site = torch.tensor([site.position for site in WORLD.sites])
    distance_m = (made.position[:, None] - site).norm(dim=-1)
    tap_m = 299_792_458.0 / (6667 * 30e3)
    strongest = made.response()[:, :, 0].abs().argmax(-1)
    assert (strongest - distance_m / tap_m).abs().max() <= 0.51
    assert made.present.all()
    assert float(made.response().abs().square().mean()) == pytest.approx(1.0, rel=1e-3)


def test_delaying_taps_is_close_to_synthesising_them_anew() -> None:
    still = users(8, clock=ClockErrors())
    late = users(8, clock=ClockErrors(ue_bias_ns=40.0))
    # The same draws of the clock as `synthesise` makes, read off the strongest path's tap instead of repeated here.
    tap_s = 1 / (6667 * 30e3)
    best = min(
        (float((delayed(still.response()[n : n + 1], torch.full((1, 6), tau * 1e-9), tap_s)
                - late.response()[n : n + 1]).abs().square().sum()), tau, n)
        for n in range(8) for tau in np.arange(-100.0, 100.0, 0.5)
    )  # fmt: skip
    error, tau, n = best
    assert abs(tau) > 1
    assert error < 0.01 * float(late.response()[n].abs().square().sum())


@pytest.mark.parametrize(("bits", "levels"), [(1, 2), (3, 8), (8, 256)])
def test_quantised_values_are_the_midpoints_of_equal_cells(bits: int, levels: int) -> None:
    values = torch.linspace(-1, 1, 4001)
    found = quantised(values, torch.tensor(bits)).unique()
    torch.testing.assert_close(found, (torch.arange(levels) + 0.5) * 2 / levels - 1)
    torch.testing.assert_close(quantised(values, torch.tensor(0)), values)


def test_gradients_go_straight_through_the_quantiser() -> None:
    values = torch.tensor([0.1, -0.7], requires_grad=True)
    quantised(values, torch.tensor(1)).sum().backward()
    torch.testing.assert_close(values.grad, torch.ones(2))


def test_what_training_quantises_is_what_the_fronthaul_carries() -> None:
    from fronthaul.codec.codebook import MidriseCodebook

    values = torch.rand(1000, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for bits in range(1, 9):
        codebook = MidriseCodebook(2.0 / 2**bits, bits)
        sent = codebook.reconstruct(codebook.index(values.numpy()))
        np.testing.assert_allclose(quantised(values, torch.tensor(bits)).numpy(), sent, atol=1e-6)


def test_each_user_keeps_a_subset_of_its_own_and_the_whole_set_keeps_its_order() -> None:
    made = users(64)
    draw = torch.Generator().manual_seed(1)
    chosen = subset(made, 4, draw)
    assert chosen.cir.shape[1] == chosen.site.shape[1] == chosen.present.shape[1] == 4
    kept = {tuple(map(tuple, sites.tolist())) for sites in chosen.site}
    assert len(kept) > 5
    known = [tuple(np.float32(x) for x in site.position) for site in WORLD.sites]
    for n in range(64):
        for slot in range(4):
            k = known.index(tuple(np.float32(x) for x in chosen.site[n, slot].tolist()))
            assert torch.equal(chosen.cir[n, slot], made.cir[n, k])
    assert subset(made, 6, draw) is made


def test_it_learns_and_knows_less_with_fewer_base_stations() -> None:
    training, validation = users(600, 1), users(200, 2)
    validation = replace(validation, cir=(validation.cir.float() * validation.scale / training.scale).half(),
                         scale=training.scale)  # fmt: skip
    schedule = Schedule(epochs=6, batch=50, rate=4e-3, warmup_steps=10, subset=(2, 4, 6), half=False)
    made = model()
    trainer = VinLocTrainer(made, training, validation, schedule)
    before = float(trainer.validate().mean())
    after = trainer.run()
    assert before > 25
    assert after < 8
    two, six = (float(errors_of(made, validation, size, 0, 3).mean()) for size in (2, 6))
    assert two > six
    coarse = float(errors_of(made, validation, 6, 1, 3).mean())
    assert coarse > six
    assert coarse < before


def test_the_further_loss_teaches_what_one_base_station_says_of_its_user() -> None:
    training = users(400)

    def error_m(made: VinLocModel) -> float:
        assert made.alone is not None
        with torch.inference_mode():
            read = made.eval().alone(made.values(training.response(), None))
        return float((training.site + read * made.extent - training.position[:, None]).norm(dim=-1).mean())

    found = []
    for weight in (0.0, 1.0):
        made = model(alone=True)
        schedule = Schedule(epochs=4, batch=50, rate=3e-3, warmup_steps=5, subset=(6,), half=False, alone=weight)
        VinLocTrainer(made, training, training, schedule).run()
        found.append(error_m(made))
    assert found[1] < 0.9 * found[0]


def test_a_stopped_training_ends_like_one_that_was_not(tmp_path: Path) -> None:
    training, validation = users(40, 1), users(10, 2)
    schedule = Schedule(epochs=3, batch=10, rate=1e-3, warmup_steps=2, subset=(2, 6), half=False, sync_ns=10.0)
    whole = model()
    VinLocTrainer(whole, training, validation, schedule).run()

    class Stop(Exception):
        pass

    def stop_once(progress: TrainProgress) -> None:
        raise Stop

    cut = model()
    path = tmp_path / "cut.pt"
    trainer = VinLocTrainer(cut, training, validation, schedule, checkpoint=path, save_seconds=0.0)
    step = trainer._step
    calls: list[int] = []

    def counted(*arguments: Any) -> float:
        calls.append(1)
        if len(calls) == 6:
            raise Stop
        return step(*arguments)

    trainer._step = counted
    with pytest.raises(Stop):
        trainer.run(stop_once)
    resumed = model(seed=9)
    VinLocTrainer(resumed, training, validation, schedule, checkpoint=path).run()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)
    with pytest.raises(UserError, match="another training"):
        VinLocTrainer(model(), training, validation, replace(schedule, seed=5), checkpoint=path).run()


def test_sets_of_layouts_are_joined_in_order() -> None:
    first, second = users(3, 1, clock=ClockErrors()), users(4, 2, clock=ClockErrors())
    joined = join([first, second])
    assert len(joined) == 7
    assert torch.equal(joined.position[3:], second.position)


def test_missing_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trace"):
        load_users(HALL, folder=tmp_path)


def test_a_cut_first_layer_is_the_layer_itself_at_full_rank_and_near_it_below() -> None:
    torch.manual_seed(1)
    whole = CirEmbedding(**EMBEDDING).eval()
    cir = users(6).response()[:, 0]
    expected = whole(cir)
    for rank, most in ((64, 1e-4), (48, 0.2)):
        cut = CirEmbedding(**EMBEDDING, bottleneck=rank).eval()
        cut.load_state_dict(factored(whole.state_dict(), rank))
        assert float((cut(cir) - expected).abs().max().detach()) < most


def unlikeness(one: CirSet, other: CirSet) -> torch.Tensor:
    """Relative squared difference of two sets' responses, by user."""
    first, second = one.response() * one.scale, other.response() * other.scale
    return (second - first).abs().square().sum((1, 2, 3)) / first.abs().square().sum((1, 2, 3))


def test_a_job_starts_from_shipped_weights_in_the_units_of_its_users() -> None:
    unit, heard = 1e-4, users(4)
    response = heard.response() * heard.scale
    bits = torch.zeros(4)
    started = jobs._started(jobs.find_job("hall"), unit, lambda _: None, torch.device("cpu"))
    shipped = network_of(load_weights(ASSET_FOLDER / "inf-dh-18/vinloc.safetensors"), jobs.tap_s(HALL)).model
    expected = shipped(response, heard.site, heard.present, bits)
    torch.testing.assert_close(started(response / unit, heard.site, heard.present, bits), expected, rtol=0, atol=1e-2)


def test_users_drawn_on_a_device_are_those_of_the_data_set(tmp_path: Path) -> None:
    draw_factory(FEW, tmp_path / "shards").save(tmp_path / "paths.npz")
    loaded = load_users(FEW, folder=tmp_path)
    drawn = drawn_users(FEW, torch.device("cpu"), 0)
    for part in ("train", "validation", "test"):
        one, other = getattr(loaded, part), getattr(drawn, part)
        assert torch.equal(one.position, other.position) and torch.equal(one.present, other.present)
        assert float(unlikeness(one, other).max()) < 1e-5  # half precision, and gains rounded in files


def test_responses_under_anothers_name_are_refused(tmp_path: Path) -> None:
    draw_factory(FEW, tmp_path / "shards").save(tmp_path / "paths.npz")
    load_users(FEW, folder=tmp_path)
    stored = tmp_path / "vinloc"
    (own,) = stored.glob("test-*")
    late = replace(FEW, clock=ClockErrors(ue_bias_ns=40.0))
    load_users(late, folder=tmp_path)
    (other,) = {*stored.glob("test-*")} - {own}
    other.replace(own)
    with pytest.raises(UserError, match=r"made for another scenario; remove it, it will be made again\.$"):
        load_users(FEW, folder=tmp_path)


def test_further_users_are_trained_on_and_nothing_else() -> None:
    own, more = (drawn_users(FEW, torch.device("cpu"), further) for further in (0, 25))
    assert (len(own.validation), len(own.test)) == (len(more.validation), len(more.test)) == (6, 8)
    count = len(own.train)  # of 46, without those of the shipped test set, which such a small data set has, too
    assert 40 <= count < 46 and len(more.train) == count + 25
    assert float(unlikeness(own.test, more.test).max()) < 1e-3  # a picosecond is 0.02 rad
    assert torch.equal(more.train.position[:count], own.train.position)
    with pytest.raises(UserError, match="cannot be drawn"):
        drawn_users(replace(FEW, factory=None), torch.device("cpu"), 0)


def test_a_budget_of_time_ends_a_training_and_spends_its_cosine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Ticking()
    for module in (budget, train):
        monkeypatch.setattr(module, "time", clock)
    training, validation = users(40, 1), users(10, 2)
    schedule = Schedule(batch=10, warmup_steps=2, subset=(6,), half=False, budget_s=3.0, average=0.1)
    seen: list[TrainProgress] = []
    saved: list[float] = []
    made = model()
    trainer = VinLocTrainer(made, training, validation, schedule, checkpoint=tmp_path / "a.pt", save_seconds=0.3)
    rates: list[float] = []
    descend = trainer._optimizer.descend

    def recorded(loss: torch.Tensor, rate: float) -> None:
        rates.append(rate)
        descend(loss, rate)

    trainer._optimizer.descend = recorded  # type: ignore[method-assign]
    error = trainer.run(seen.append, lambda: saved.append(float(trainer.validate().mean())))
    assert 3.0 <= seen[-1].seconds < 3.2
    assert seen[-1].validation_m == error == saved[-1]  # what was written last is what is kept
    assert len(saved) >= 3
    assert len(rates) > 20
    assert max(rates[:5]) > 0.9 * schedule.rate
    assert rates[-1] < 0.01 * schedule.rate
    # Resumed, it has no time left.
    resumed = VinLocTrainer(model(seed=9), training, validation, schedule, checkpoint=tmp_path / "a.pt")
    assert resumed.run() == pytest.approx(error)


@pytest.mark.parametrize("training", [True, False])
def test_maps_as_rows_of_images_are_the_maps(training: bool) -> None:
    torch.manual_seed(1)
    network, other = CirEmbedding(**EMBEDDING), CirEmbedding(**EMBEDDING)
    other.load_state_dict(network.state_dict())
    x = network.features(users(6).response().flatten(0, 1)).requires_grad_()
    row = channels_last(x.detach()).requires_grad_()
    assert row.is_contiguous(memory_format=torch.channels_last)
    expected, made = network.train(training).unet(x), other.train(training).unet(row)
    torch.testing.assert_close(made[:, :, 0], expected, rtol=1e-3, atol=1e-4)
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    (other_gradient,) = torch.autograd.grad(made.square().sum(), row)
    torch.testing.assert_close(other_gradient[:, :, 0], gradient, rtol=1e-2, atol=1e-2 * float(gradient.abs().max()))
    torch.testing.assert_close(
        {name: value for name, value in other.state_dict().items() if "running" in name},
        {name: value for name, value in network.state_dict().items() if "running" in name},
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip

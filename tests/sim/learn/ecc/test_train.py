"""Training on a hand-made world: it learns, stops, resumes, and writes weights that can be read."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import straight_world
import torch
from torch import Tensor, nn

from cloud.fusion.ecc import EccFusion
from cloud.fusion.scheme import CloudSetup
from edge.ecc import EccEdge
from edge.estimation import LmmseEstimator
from edge.preprocessing import channel_gain
from edge.scheme import EdgeSetup
from fronthaul.payload.choice import PayloadChoice
from sim.errors import UserError
from sim.learn.ecc.model import EccModel, EccShape, calibrated_steps
from sim.learn.ecc.train import EccTraining, Sources, make_sources, train_ecc
from sim.learn.optimizer import MatrixOptimizer, orthogonalised
from sim.learn.trainer import Schedule, Trainer, TrainProgress, random_presence, weighted_loss
from sim.plan.weights import Weights, load_weights, save_weights
from sim.world.channel import pad_paths
from sim.world.radio import Radio

WORLD = straight_world.scenario()
PATHS = straight_world.trace(WORLD, straight_world.positions(WORLD, 400), [((1.0, 0.0, 0.0), 170.0)])
SHAPE = EccShape(coefficients=8, encoder_width=16, encoder_depth=1, fusion_width=32, hidden=32)
PRIOR_M = float(np.linalg.norm(PATHS.position - PATHS.position.mean(0), axis=1).mean())


def sources(jitter_m: float = 0.5) -> Sources:
    return make_sources(WORLD, PATHS, "random", jitter_m, 0, torch.device("cpu"))


def model(bits: int | None = 5) -> EccModel:
    torch.manual_seed(1)
    return EccModel(WORLD, "slot", bits, SHAPE)


class Stopped(Exception):
    """What ends a training from outside."""


def trainer(network: nn.Module, epochs: float, checkpoint: Path | None = None, **identity: Any) -> Trainer:
    made = sources()
    schedule = Schedule(epochs=epochs, batch=8, warmup_steps=10)
    return Trainer({"": network}, made.training, made.validation, schedule, checkpoint=checkpoint, identity=identity)


def ignore(_: TrainProgress) -> None:
    pass


def test_a_short_training_leaves_the_prior_far_behind() -> None:
    seen: list[TrainProgress] = []
    (error,) = trainer(model(), 8).run(seen.append).values()
    assert error < 0.4 * PRIOR_M
    validated = [p.validation_m for p in seen if p.validation_m is not None]
    assert len(validated) == 8 and validated[-1] == error < validated[0]
    assert seen[-1].step == seen[-1].steps == 8 * 25


def test_a_stopped_and_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    straight = model()
    trainer(straight, 3).run(ignore)

    def stop(progress: TrainProgress) -> None:
        if progress.step == 40:  # in the second of three epochs of 25 steps
            raise Stopped

    checkpoint = tmp_path / "deeper" / "training.pt"
    with pytest.raises(Stopped):
        trainer(model(), 3, checkpoint).run(stop)
    torch.manual_seed(99)
    resumed = EccModel(WORLD, "slot", 5, SHAPE)  # fresh, of other random weights
    steps: list[int] = []
    trainer(resumed, 3, checkpoint).run(lambda progress: steps.append(progress.step))
    assert min(steps) > 25  # the first epoch was not repeated
    for (name, one), other in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert [p.name for p in checkpoint.parent.iterdir()] == ["training.pt"]


def test_a_finished_training_is_only_validated(tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.pt"
    trainer(model(), 1, checkpoint).run(ignore)
    steps: list[int] = []
    (error,) = trainer(model(), 1, checkpoint).run(lambda progress: steps.append(progress.step)).values()
    assert not steps and math.isfinite(error)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "training.pt"
    trainer(model(), 0.5, checkpoint, bits=5).run(ignore)
    with pytest.raises(UserError, match="another training"):
        trainer(model(), 0.5, checkpoint, bits=4).run(ignore)


@pytest.mark.parametrize(("bits", "phase"), [(4, "slot"), (None, "tone")])
def test_train_ecc_writes_weights_that_emulation_can_use(tmp_path: Path, bits: int | None, phase: Any) -> None:
    schedule = Schedule(epochs=1, batch=16)
    training = EccTraining(bits=bits, phase=phase, stage_one_epochs=0.5, shape=SHAPE, schedule=schedule)
    output = tmp_path / "ecc.safetensors"
    seen: list[TrainProgress] = []
    file = tmp_path / "checkpoints" / "ecc.pt"
    (error,) = train_ecc(WORLD, PATHS, {output: training}, seen.append, checkpoint=file).values()
    assert {progress.stage for progress in seen} == {"train"} | ({"local"} if bits else set())
    weights = load_weights(output)
    assert weights.config["record"]["validation_mean_3d_m"] == pytest.approx(error, abs=1e-3)
    assert weights.config["phase"] == phase and weights.digest
    _, antennas, tones = WORLD.csi_shape
    for k in range(len(WORLD.sites)):
        share = weights.edge(k)
        covariance = share["covariance"]
        assert covariance.shape == (tones, antennas, antennas, 2) and covariance.dtype == torch.float32
        for b in range(1, 9) if bits else []:
            assert torch.equal(share[f"step.{b}"], weights.cloud()[f"step.{k}.{b}"])
            edge = EccEdge(EdgeSetup(k, PayloadChoice(b), weights.config, share), b)
            assert edge.format.max_bits == b * tones * SHAPE.coefficients
    stations = {k: site.position for k, site in enumerate(WORLD.sites)}
    payloads: list[int | None] = [1, 4, 8] if bits else [None]
    for payload in payloads:
        assert EccFusion(CloudSetup(stations, PayloadChoice(payload), weights.config, weights.cloud())).fuse([]) == []


def test_training_continues_from_weights_of_another_payload(tmp_path: Path) -> None:
    first = EccTraining(bits=5, stage_one_epochs=0, shape=SHAPE, schedule=Schedule(epochs=4, batch=8, warmup_steps=10))
    start = tmp_path / "five.safetensors"
    (learnt,) = train_ecc(WORLD, PATHS, {start: first}, ignore).values()
    brief = Schedule(epochs=0.01, batch=8, rate=1e-9)
    second = EccTraining(bits=4, stage_one_epochs=0, start_from=start, shape=SHAPE, schedule=brief)
    (tuned,) = train_ecc(WORLD, PATHS, {tmp_path / "four.safetensors": second}, ignore).values()
    assert tuned < 1.2 * learnt < 0.6 * PRIOR_M
    wrong = dataclasses.replace(second, phase="tone")
    with pytest.raises(UserError, match="phase"):
        train_ecc(WORLD, PATHS, {tmp_path / "other.safetensors": wrong}, ignore)
    narrow = dataclasses.replace(second, shape=dataclasses.replace(SHAPE, encoder_width=24))
    with pytest.raises(UserError, match="do not fit"):
        train_ecc(WORLD, PATHS, {tmp_path / "other.safetensors": narrow}, ignore)


def test_variants_learn_on_the_same_snapshots_as_they_would_alone(tmp_path: Path) -> None:
    short = EccTraining(bits=4, stage_one_epochs=0.5, shape=SHAPE, schedule=Schedule(epochs=0.5, batch=16))
    variants = {
        tmp_path / "four.safetensors": short,
        tmp_path / "two.safetensors": dataclasses.replace(short, bits=2),
        tmp_path / "tone.safetensors": dataclasses.replace(short, phase="tone"),
    }
    seen: list[TrainProgress] = []
    together = train_ecc(WORLD, PATHS, variants, seen.append)
    assert {progress.name for progress in seen if progress.validation_m is not None} == {"four", "two", "tone"}
    assert sum(progress.stage == "local" and progress.step == progress.steps for progress in seen) == 2  # of each phase
    for file, training in variants.items():
        whole = load_weights(file)
        alone = tmp_path / "alone" / file.name
        assert train_ecc(WORLD, PATHS, {alone: training}, ignore)[alone] == together[file]
        for name, value in load_weights(alone).tensors.items():
            assert torch.equal(value, whole.tensors[name]), name
    other = dataclasses.replace(short, jitter_m=0.1)
    with pytest.raises(ValueError, match="same snapshots"):
        train_ecc(WORLD, PATHS, {**variants, tmp_path / "other.safetensors": other}, ignore)


def test_frozen_encoders_stay_as_stage_one_made_them(tmp_path: Path) -> None:
    joint = EccTraining(bits=4, stage_one_epochs=0.5, shape=SHAPE, schedule=Schedule(epochs=1, batch=16))
    files = {name: tmp_path / f"{name}.safetensors" for name in ("joint", "split", "again")}
    train_ecc(WORLD, PATHS, {files["joint"]: joint, files["split"]: dataclasses.replace(joint, frozen=True)}, ignore)
    train_ecc(WORLD, PATHS, {files["again"]: dataclasses.replace(joint, frozen=True, bits=2)}, ignore)
    weights = {name: load_weights(file) for name, file in files.items()}
    assert weights["split"].config["record"]["frozen"]
    for k in range(len(WORLD.sites)):
        joint_one, split, again = (weights[name].edge(k) for name in files)
        encoder = [name for name in split if name.startswith("encoder.")]
        assert any("running_var" in name for name in encoder)
        assert all(torch.equal(split[name], again[name]) for name in encoder)  # whatever Stage II was
        assert any(not torch.equal(split[name], joint_one[name]) for name in encoder)
    fusion = [weights[name].cloud()["fusion.head.0.weight"] for name in ("split", "again")]
    assert not torch.equal(*fusion)  # the cloud did learn


def test_curves_are_kept_and_change_nothing(tmp_path: Path) -> None:
    plain = EccTraining(bits=4, stage_one_epochs=1.0, shape=SHAPE, schedule=Schedule(epochs=1, batch=8))
    watched = dataclasses.replace(plain, schedule=dataclasses.replace(plain.schedule, validate_every=10))
    made = {}
    for name, training in {"plain": plain, "watched": watched}.items():
        train_ecc(WORLD, PATHS, {tmp_path / f"{name}.safetensors": training}, ignore)
        made[name] = load_weights(tmp_path / f"{name}.safetensors")
    for name, value in made["plain"].tensors.items():
        assert torch.equal(value, made["watched"].tensors[name]), name
    curves = made["watched"].config["record"]["curves"]
    assert [step for step, _ in curves["validation_m"]] == [10, 20, 25]
    assert curves["validation_m"][-1:] == made["plain"].config["record"]["curves"]["validation_m"]
    assert [step for step, _ in curves["stage_one_loss"]] == [20, 25]
    assert all(-1 <= loss <= 0 for _, loss in curves["stage_one_loss"])


def test_a_budget_of_time_ends_a_training(tmp_path: Path) -> None:
    made = sources()
    schedule = Schedule(batch=8, warmup_steps=2, budget_s=1.0)
    network = model()
    seen: list[TrainProgress] = []
    Trainer({"": network}, made.training, made.validation, schedule).run(seen.append)
    assert 1.0 <= seen[-1].seconds < 10 and seen[-1].step == seen[-1].steps > 1


def test_the_average_of_the_weights_is_kept() -> None:
    made = sources()
    kept, last = model(), model()
    for network, average in ((kept, 0.5), (last, 0.0)):
        schedule = Schedule(epochs=1, batch=8, warmup_steps=2, average=average)
        Trainer({"": network}, made.training, made.validation, schedule).run(ignore)
    assert any(not torch.equal(a, b) for a, b in zip(kept.parameters(), last.parameters(), strict=True))


def test_a_training_that_diverges_says_so(tmp_path: Path) -> None:
    wild = EccTraining(bits=4, stage_one_epochs=0, shape=SHAPE, schedule=Schedule(epochs=4, batch=8, rate=1e9))
    with pytest.raises(UserError, match=r"diverged before .*: lower the learning rate"):
        train_ecc(WORLD, PATHS, {tmp_path / "ecc.safetensors": wild}, ignore)
    assert not (tmp_path / "ecc.safetensors").exists()


def test_too_few_positions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few"):
        train_ecc(WORLD, PATHS.select(np.arange(5)), {tmp_path / "ecc.safetensors": EccTraining()}, ignore)


# Snapshots made for training


def test_an_epochs_snapshots_depend_on_its_key_alone() -> None:
    one, other = sources().training, sources().training
    other.batch(torch.arange(7))  # a different history
    batches = []
    for source in (one, other):
        source.reseed(3, 4)
        batches.append(source.batch(source.permutation()[:5]))
    assert torch.equal(batches[0].channel, batches[1].channel)
    assert torch.equal(batches[0].position, batches[1].position)
    one.reseed(3, 5)
    assert not torch.equal(one.batch(one.permutation()[:5]).channel, batches[0].channel)


def test_training_hears_what_a_radio_hears() -> None:
    """Noise is simulated behind the matched filter in training, and before it in emulation."""
    made = sources(0.0)
    users = np.arange(40)
    training = made.like(WORLD, PATHS.select(users)).batch(torch.from_numpy(users)).channel
    padded = pad_paths(PATHS.select(users), WORLD.numerology.carrier_hz)
    for k in range(len(WORLD.sites)):
        radio = Radio(WORLD, padded.site(k), k, seed=1)
        estimator = LmmseEstimator(made.covariance[k], WORLD.tone_noise_w, WORLD.tone_power_w, radio.pilots)
        emulated = estimator.estimate(torch.stack([radio.observe(int(n)) for n in users]))
        middle = [h[:, 1:3].mean(1) for h in (training[:, k], emulated)]  # the users' headings differ
        product = (middle[0].conj() * middle[1]).sum((1, 2)).abs()
        similar = product / (middle[0].norm(dim=(1, 2)) * middle[1].norm(dim=(1, 2)))
        assert similar.min() > 0.98
        torch.testing.assert_close(channel_gain(training[:, k]), channel_gain(emulated), rtol=0.03, atol=0)
    loud = dataclasses.replace(WORLD, link_budget=dataclasses.replace(WORLD.link_budget, tx_power_dbm=-90.0))
    deaf = make_sources(loud, PATHS, "random", 0.0, 0, torch.device("cpu"))  # hears nothing but noise
    noise = deaf.like(loud, PATHS.select(users)).batch(torch.from_numpy(users)).channel
    for k in range(len(WORLD.sites)):
        radio = Radio(loud, padded.site(k), k, seed=1)
        estimator = LmmseEstimator(deaf.covariance[k], loud.tone_noise_w, loud.tone_power_w, radio.pilots)
        emulated = estimator.estimate(torch.stack([radio.observe(int(n)) for n in users]))
        power = emulated.abs().square().mean()
        torch.testing.assert_close(noise[:, k].abs().square().mean(), power, rtol=0.05, atol=0)


def test_users_move_by_at_most_the_jitter_and_stay_in_the_area() -> None:
    made = sources(jitter_m=2.0).training
    index = torch.arange(len(made))
    moved, again = made.batch(index).position, made.batch(index).position
    assert 2 < float((moved - again).abs().max()) <= 4
    low, high = torch.tensor(WORLD.users.low), torch.tensor(WORLD.users.high)
    assert (moved >= low - 1e-4).all() and (moved <= high + 1e-4).all()


# Parts


@pytest.mark.parametrize("steps", [1, 5])
def test_the_weighted_loss_in_float64(steps: int) -> None:  # ECC Eq. 34
    draw = torch.Generator().manual_seed(0)
    estimate = 30 * torch.randn(4, steps, 3, generator=draw)
    position = 30 * torch.randn(4, 3, generator=draw)
    error = np.linalg.norm(estimate.double().numpy() - position.double().numpy()[:, None], axis=2)
    omega = np.arange(1, steps + 1) / np.arange(1, steps + 1).sum()
    assert (np.diff(omega) >= 0).all() and omega.sum() == pytest.approx(1)
    squared = (omega * error**2).sum(1).mean() / 20**2
    distance = (omega * np.sqrt(error**2 + 0.01)).sum(1).mean() / 20
    assert float(weighted_loss(estimate, position, "squared")) == pytest.approx(squared, rel=1e-5)
    assert float(weighted_loss(estimate, position, "distance")) == pytest.approx(distance, rel=1e-5)


def test_the_loss_has_a_gradient_where_it_is_zero() -> None:
    estimate = torch.zeros(2, 3, 3, requires_grad=True)
    weighted_loss(estimate, torch.zeros(2, 3), "distance").backward()
    assert estimate.grad is not None and estimate.grad.isfinite().all()


@pytest.mark.parametrize("stations", [1, 2, 6])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_random_presence_keeps_at_least_one_base_station(stations: int, share: float) -> None:
    present = random_presence(torch.ones(4000, stations), share, torch.Generator().manual_seed(0))
    count = present.sum(1)
    assert present.dtype == torch.bool and int(count.min()) >= 1
    missing = (count < stations).float().mean()
    assert float(missing) == pytest.approx(share if stations > 1 else 0.0, abs=0.03)
    if share == 1 and stations > 1:  # every subset's size and every base station alike
        assert set(count.tolist()) == set(range(1, stations))
        assert float(present.float().mean(0).std()) < 0.03


@pytest.mark.parametrize("shape", [(8, 8), (16, 48), (48, 16)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(0)
    stretched = torch.randn(3, *shape, generator=draw) * torch.logspace(-0.5, 0.5, shape[1])
    made = orthogonalised(stretched)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.5 and values.max() < 1.3
    # The singular directions stay.
    left, _, right = torch.linalg.svd(stretched, full_matrices=False)
    aligned = left.mT @ made @ right.mT
    off_diagonal = aligned - torch.diag_embed(aligned.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < 1e-4


def test_the_optimizer_moves_every_parameter_and_keeps_its_state() -> None:
    def fresh() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 9), nn.LayerNorm(9), nn.Linear(9, 12), nn.Linear(12, 2))

    def learn(network: nn.Module, optimizer: MatrixOptimizer, steps: range) -> None:
        for step in steps:
            x = torch.randn(16, 12, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            (network(x) - x[:, :2]).square().mean().backward()
            optimizer.set_rate(1e-2)
            optimizer.step()

    whole = fresh()
    learn(whole, MatrixOptimizer(whole), range(6))
    assert all((a != b).any() for a, b in zip(whole.parameters(), fresh().parameters(), strict=True))
    halfway = fresh()
    first = MatrixOptimizer(halfway)
    learn(halfway, first, range(3))
    second = MatrixOptimizer(halfway)
    second.load_state_dict(first.state_dict())
    learn(halfway, second, range(3, 6))
    for one, other in zip(whole.parameters(), halfway.parameters(), strict=True):
        assert torch.equal(one, other)


def test_calibrated_steps_follow_the_latents_deviation() -> None:
    latent = torch.randn(400, 2, 6, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.5, 1.0, 4.0])
    steps = calibrated_steps(latent, [2, 4])
    gaussian = {2: 0.996, 4: 0.335}  # steps of least error for a unit Gaussian
    for bits, step in steps.items():
        expected = gaussian[bits] * torch.tensor([0.5, 1.0, 4.0]).expand(2, 3)
        torch.testing.assert_close(step, expected, rtol=0.12, atol=0)


# Weights files


def some_weights() -> Weights:
    tensors: dict[str, Tensor] = {
        "edge.0.encoder.body.weight": torch.randn(3, 4),
        "edge.0.encoder.scale.running_mean": torch.randn(4),
        "edge.0.covariance": torch.randn(2, 2, 2, 2) * 1e-11,
        "edge.10.step.4": torch.rand(4),
        "cloud.fusion.gain_mean": torch.randn(3),
        "cloud.fusion.head": torch.randn(3),
    }
    return Weights({"scheme": "ecc", "list": [1, 2.5, None]}, tensors)


def test_weights_come_back_networks_in_half_precision_everything_else_exactly(tmp_path: Path) -> None:
    weights, file = some_weights(), tmp_path / "deeper" / "weights.safetensors"
    save_weights(file, weights)
    back = load_weights(file)
    assert back.config == weights.config and back.tensors.keys() == weights.tensors.keys()
    for name, value in back.tensors.items():
        halved = name in ("edge.0.encoder.body.weight", "cloud.fusion.head")
        assert value.dtype == (torch.float16 if halved else torch.float32)
        assert torch.equal(value, weights.tensors[name].to(value.dtype))
    assert [p.name for p in file.parent.iterdir()] == ["weights.safetensors"]


def test_shares_are_told_apart_by_whole_numbers(tmp_path: Path) -> None:
    weights = some_weights()
    assert set(weights.edge(0)) == {"encoder.body.weight", "encoder.scale.running_mean", "covariance"}
    assert set(weights.edge(1)) == set() and set(weights.edge(10)) == {"step.4"}
    assert set(weights.cloud()) == {"fusion.gain_mean", "fusion.head"}


def test_damaged_weights_are_the_users_to_restore(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    with pytest.raises(UserError, match="missing"):
        load_weights(file)
    save_weights(file, some_weights())
    whole = file.read_bytes()
    for length in (0, 7, 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError):
            load_weights(file)

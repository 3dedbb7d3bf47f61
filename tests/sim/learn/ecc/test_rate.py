"""ECC at any number of bits: transforms that fit, one training for all lengths, and halves that agree with it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import straight_world
import torch

from cloud.fusion.cma import read_out
from cloud.fusion.ecc_rate import RateFusion
from cloud.fusion.ecc_total import TotalFusion
from cloud.fusion.scheme import CloudSetup
from edge.ecc_rate import build_klt, build_rd
from edge.ecc_total import build as build_total
from edge.preprocessing import preprocess
from edge.quantizer import quantise_mixed_straight_through, quantise_straight_through
from edge.scheme import EdgeSetup
from fronthaul.codec.codebook import gaussian_step
from fronthaul.message.messages import Report, ReportKey
from fronthaul.payload.choice import PayloadChoice
from fronthaul.payload.rate import QUANTISER_ERROR, Transform
from sim.learn.ecc.allocation import bit_order
from sim.learn.ecc.model import EccShape
from sim.learn.ecc.rate import RateModel, RateTraining, fit_klt, fit_total, train_rd
from sim.learn.ecc.train import EccTraining, make_sources, train_ecc
from sim.learn.ecc.transform import fit_transform, position_metric
from sim.learn.trainer import Schedule
from sim.plan.weights import load_weights

WORLD = straight_world.scenario()
PATHS = straight_world.trace(WORLD, straight_world.positions(WORLD, 400), [((1.0, 0.0, 0.0), 170.0)])
SHAPE = EccShape(coefficients=8, encoder_width=16, encoder_depth=1, fusion_width=32, hidden=32)
SCHEDULE = Schedule(epochs=3, batch=16, warmup_steps=10)
LENGTHS = (16, 48, 96)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights of `ecc`, of `ecc-klt` and `ecc-total` beside them, and of `ecc-rd`."""
    folder = tmp_path_factory.mktemp("weights")
    made = {name: folder / f"{name}.safetensors" for name in ("ecc-b4", "ecc-klt", "ecc-total", "ecc-rd")}
    training = EccTraining(bits=4, shape=SHAPE, schedule=SCHEDULE, stage_one_epochs=0.1)
    train_ecc(WORLD, PATHS, {made["ecc-b4"]: training}, lambda _: None, device=torch.device("cpu"))
    fit_klt(WORLD, PATHS, RateTraining(made["ecc-b4"]), made["ecc-klt"])
    fit_total(WORLD, PATHS, RateTraining(made["ecc-klt"]), made["ecc-total"])
    rates = RateTraining(made["ecc-klt"], lengths=LENGTHS, schedule=SCHEDULE)
    errors = train_rd(WORLD, PATHS, rates, made["ecc-rd"], lambda _: None, device=torch.device("cpu"))
    assert list(errors) == sorted(LENGTHS)
    return made


def run(file: Path, scheme: str, bits: int, count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Fixes of both halves, and those of the training network, on the same channels (count, 3)."""
    weights = load_weights(file)
    stations = {k: site.position for k, site in enumerate(WORLD.sites)}
    source = make_sources(WORLD, PATHS, "random", 0.0, 0, torch.device("cpu")).validation
    channel = source.batch(torch.arange(count)).channel
    options = {"bits_per_report": bits}
    groups: list[list[Report]] = [[] for _ in range(count)]
    for k in stations:
        build = build_rd if scheme == "ecc-rd" else build_klt
        edge = build(EdgeSetup(k, PayloadChoice(), weights.config, weights.edge(k), options=options))
        payloads = edge.encode(channel[:, k]).payloads
        assert {payload.bits for payload in payloads} == {bits}
        for n, payload in enumerate(payloads):
            groups[n].append(Report(ReportKey(k, 0, n), payload))
    setup = CloudSetup(stations, PayloadChoice(), weights.config, weights.cloud(), options=options)
    found = np.array([fix.position for fix in RateFusion(setup).fuse(groups)])
    model = RateModel(WORLD, weights, (bits,)).eval()
    model.bits = bits
    x, gain = preprocess(channel, model.phase)
    with torch.no_grad():
        own = read_out(model(x, gain, torch.ones(gain.shape, dtype=torch.bool)), model.readout)
    return found, own.double().numpy()


@pytest.mark.parametrize("bits", [16, 32, 96])
@pytest.mark.parametrize("scheme", ["ecc-klt", "ecc-rd"])
def test_both_halves_make_the_training_networks_fixes(files: dict[str, Path], scheme: str, bits: int) -> None:
    found, own = run(files[scheme], scheme, bits)
    apart = np.linalg.norm(found - own, axis=1)
    assert np.median(apart) < 1e-3
    assert (apart < 1e-2).mean() >= 0.9  # an index on the border of two cells moves a fix


def test_a_file_beside_the_networks_refers_to_them_another_one_holds_them(
    files: dict[str, Path], tmp_path: Path
) -> None:
    beside, whole = files["ecc-klt"], tmp_path / "klt.safetensors"
    fit_klt(WORLD, PATHS, RateTraining(files["ecc-b4"]), whole)
    assert all(name.startswith("rate.") for name in load_weights(beside, alone=True).tensors)
    trained = set(load_weights(files["ecc-rd"], alone=True).tensors)
    assert "rate.0.mixing" in trained and "edge.0.encoder.scale.running_mean" in trained
    assert not {"rate.0.modes", "rate.0.order", "rate.0.centre"} & trained
    first, second = load_weights(beside), load_weights(whole)
    assert first.config == second.config and first.config["scheme"] == "ecc-klt"
    assert all(torch.equal(value, second.tensors[name]) for name, value in first.tensors.items())


@pytest.mark.parametrize("scheme", ["ecc-klt", "ecc-rd"])
def test_files_hold_counts_that_shorten_reports(files: dict[str, Path], scheme: str) -> None:
    weights = load_weights(files[scheme])
    build = build_rd if scheme == "ecc-rd" else build_klt
    source = make_sources(WORLD, PATHS, "random", 0.0, 0, torch.device("cpu")).validation
    channel = source.batch(torch.arange(30)).channel[:, 1]

    def bits(share: Mapping[str, torch.Tensor]) -> int:
        options = {"bits_per_report": 96, "entropy": 1}
        edge = build(EdgeSetup(1, PayloadChoice(), weights.config, share, options=options))
        return sum(payload.bits for payload in edge.encode(channel).payloads)

    share = weights.edge(1)
    without = {name: value for name, value in share.items() if name != "rate.counts"}
    assert share["rate.counts"].dtype is torch.uint8 and share["rate.counts"].max() == 255
    assert bits(share) < bits(without) and bits(share) < 0.95 * 30 * 96


def test_a_budget_is_met_on_training_snapshots(files: dict[str, Path]) -> None:
    """By each number of classes, without a fix that the other half would not make of the same numbers."""
    weights = load_weights(files["ecc-total"])
    assert all(name.startswith("rate.") for name in load_weights(files["ecc-total"], alone=True).tensors)
    source = make_sources(WORLD, PATHS, "random", 0.0, 0, torch.device("cpu")).training
    channel = source.batch(torch.arange(len(source))).channel
    stations = {k: site.position for k, site in enumerate(WORLD.sites)}
    for classes in (1, 8):
        options = {"total_bits": 40 * len(stations), "classes": classes}
        edges = [
            build_total(EdgeSetup(k, PayloadChoice(), weights.config, weights.edge(k), options=options))
            for k in stations
        ]
        sent = np.array([[one.bits for one in edge.encode(channel[:, k]).payloads] for k, edge in enumerate(edges)])
        assert sent.mean(1).sum() == pytest.approx(40 * len(stations), abs=1.0)
        assert all(len(set(row)) == 1 if classes == 1 else len(set(row)) > 4 for row in sent.tolist())
        setup = CloudSetup(stations, PayloadChoice(), weights.config, weights.cloud(), options=options)
        groups = [
            [Report(ReportKey(k, 0, n), edge.encode(channel[n : n + 1, k]).payloads[0]) for k, edge in enumerate(edges)]
            for n in range(3)
        ]
        assert all(not fix.excluded and np.isfinite(fix.position).all() for fix in TotalFusion(setup).fuse(groups))


def test_each_bit_goes_where_it_saves_most() -> None:
    value = np.random.default_rng(3).exponential(size=(2, 8, 30)) ** 3
    error = [float(QUANTISER_ERROR[width]) for width in range(9)]
    widths = np.zeros(value.shape, int)
    for owner in bit_order(value)[:400].tolist():
        saved = value * np.array([error[w] - error[w + 1] if w < 8 else 0 for w in widths.ravel()]).reshape(value.shape)
        best = np.unravel_index(int(saved.argmax()), value.shape)
        assert owner == 8 * best[0] + best[1]
        widths[best] += 1
    single = bit_order(np.array([[[1.0, 1.0]], [[1e-9, 1e-9]]]))
    assert sorted(single[:2].tolist()) == [0, 1]  # a report of no bits would say that nobody is heard


def test_training_pays_at_few_bits(files: dict[str, Path]) -> None:
    source = make_sources(WORLD, PATHS, "random", 0.0, 0, torch.device("cpu")).validation
    truth = source.batch(torch.arange(30)).position.double().numpy()
    error = {
        scheme: np.linalg.norm(run(files[scheme], scheme, 16, 30)[0] - truth, axis=1).mean()
        for scheme in ("ecc-klt", "ecc-rd")
    }
    assert error["ecc-rd"] < 0.9 * error["ecc-klt"]


def test_a_stopped_training_ends_like_one_that_was_not(files: dict[str, Path], tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    training = RateTraining(files["ecc-klt"], lengths=LENGTHS, schedule=dataclasses.replace(SCHEDULE, epochs=2))
    where = {"checkpoint": tmp_path / "a.pt", "device": torch.device("cpu")}
    whole = train_rd(WORLD, PATHS, training, tmp_path / "a.safetensors", lambda _: None, device=torch.device("cpu"))

    def after_an_epoch(progress: object) -> None:
        if (tmp_path / "a.pt").is_file():
            raise Stopped

    with pytest.raises(Stopped):
        train_rd(WORLD, PATHS, training, tmp_path / "b.safetensors", after_an_epoch, **where)  # type: ignore[arg-type]
    resumed = train_rd(WORLD, PATHS, training, tmp_path / "b.safetensors", lambda _: None, **where)  # type: ignore[arg-type]
    assert resumed == whole


def test_a_transform_decorrelates_what_it_mixes_and_orders_it_by_what_errors_cost() -> None:
    draw = np.random.default_rng(1)
    latent = np.einsum("nk,kfc->nfc", draw.normal(size=(3000, 12)), draw.normal(size=(12, 6, 5)))
    gain_db = 10 * latent[:, 0, 0] + draw.normal(size=3000)
    root = draw.normal(size=(31, 4))
    made = fit_transform(gain_db, latent, root @ root.T, mixed=20)
    y = Transform(made).analyse(gain_db.astype(np.float32), latent.astype(np.float32))
    np.testing.assert_allclose(y.T[:12] @ y[:, :12] / 3000, np.eye(12), atol=0.02)
    worth = made["worth"][:21]
    assert (np.diff(worth) <= 0).all() and worth[14:].max() < 1e-3 * worth[0]
    # One more unit of y_i costs worth_i in the metric that was asked for, its even share included.
    weight = root @ root.T / (np.trace((root @ root.T)[1:, 1:]) / 30)
    even = 0.3 * np.diag([1 / gain_db.var(), *[1.0] * 30])
    zero = Transform(made).synthesise(np.zeros((1, 31), np.float32))
    for i in range(4):
        unit = Transform(made).synthesise(np.eye(31, dtype=np.float32)[[i]])
        step = np.concatenate([unit[0] - zero[0], (unit[1] - zero[1]).ravel()]).astype(np.float64)
        assert step @ (weight + even) @ step == pytest.approx(worth[i], rel=0.02)


def test_the_metric_is_that_of_finite_differences(files: dict[str, Path]) -> None:
    model = RateModel(WORLD, load_weights(files["ecc-klt"]), LENGTHS)
    fusion, readout = model._ecc.fusion.double(), model.readout
    draw = torch.Generator().manual_seed(1)
    latent = torch.randn(1, 3, *model._ecc.latent(torch.zeros(1, 3, 2, 8, 16)).shape[2:], generator=draw).double()
    gain_db = -80 + 5 * torch.randn(1, 3, generator=draw).double()
    metric = position_metric(fusion, readout, gain_db.clone(), latent.clone())

    def fix(g: torch.Tensor, z: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return read_out(fusion(z, 10 ** (g / 20), torch.ones(1, 3, dtype=torch.bool)), readout)[0].numpy()

    for k, place in ((0, 3), (2, 10)):
        step = torch.zeros_like(latent)
        step[0, k].flatten()[place] = 1e-2
        slope = (fix(gain_db, latent + step) - fix(gain_db, latent - step)) / 2e-2
        assert metric[k][1 + place, 1 + place] == pytest.approx(float(slope @ slope), rel=0.05, abs=1e-9)


def test_mixed_widths_quantise_like_one_width_and_stop_gradients_of_what_is_not_sent() -> None:
    numbers = torch.linspace(-4, 4, 41).requires_grad_()
    for width in (1, 3, 8):
        found = quantise_mixed_straight_through(numbers, torch.full((41,), width))
        assert torch.equal(found, quantise_straight_through(numbers, torch.tensor(gaussian_step(width)), width))
    found = quantise_mixed_straight_through(numbers, torch.arange(41) % 2)
    found.sum().backward()
    assert numbers.grad is not None
    assert (found[::2] == 0).all() and (numbers.grad[::2] == 0).all()
    step = gaussian_step(1)
    assert torch.equal(numbers.grad[1::2], ((numbers >= -step) & (numbers < step)).float()[1::2])

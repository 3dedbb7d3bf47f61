"""On a CUDA device: snapshots are made and learnt from there; encoder and cloud there do what they do on a CPU."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import straight_world
import torch
from payloads import indices

from cloud.fusion.ecc import EccFusion
from cloud.fusion.scheme import CloudSetup
from edge.ecc import EccEdge
from edge.preprocessing import channel_gain
from edge.scheme import EdgeSetup
from fronthaul.message.messages import Report, ReportKey
from fronthaul.payload.choice import PayloadChoice
from sim.learn.diffloc.features import Features
from sim.learn.diffloc.fit import Schedule as DiffLocSchedule
from sim.learn.diffloc.job import Job as DiffLocJob
from sim.learn.diffloc.jobs import train_networks
from sim.learn.ecc.model import EccModel
from sim.learn.ecc.train import EccTraining, make_sources, train_ecc
from sim.learn.splits import Split
from sim.learn.trainer import Schedule, Trainer, TrainProgress
from sim.learn.vinloc.data import drawn_users
from sim.learn.vinloc.evaluate import network_of, positions_of
from sim.learn.vinloc.export import export_weights
from sim.learn.vinloc.jobs import find_job, make_model, tap_s
from sim.learn.vinloc.train import VinLocTrainer
from sim.plan.weights import load_weights
from sim.world import factory
from sim.world.scenario import load_scenario

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = torch.device("cuda")
HALL = load_scenario("inf-dh-18")
WORLD = straight_world.scenario()
WALLS: list[straight_world.Wall] = [((1.0, 0.0, 0.0), 170.0)]
PATHS = straight_world.trace(WORLD, straight_world.positions(WORLD, 160), WALLS)


@pytest.mark.parametrize("jitter_m", [0.0, 0.5])
def test_snapshots_are_made_there_as_on_a_cpu(jitter_m: float) -> None:
    """Draws are the device's own: channels are the same but for motion and noise."""
    made = []
    for device in (DEVICE, torch.device("cpu")):
        source = make_sources(WORLD, PATHS, "random", jitter_m, 0, device).training
        source.reseed(1, 2)
        made.append(source.batch(torch.arange(64)))
        assert made[-1].channel.device.type == made[-1].position.device.type == device.type
    there, here = made
    assert float((there.position.cpu() - here.position).abs().max()) <= 2 * jitter_m
    level = [channel_gain(one.channel.cpu()).log() for one in (there, here)]
    assert float((level[0] - level[1]).abs().median()) < 0.1
    source = make_sources(WORLD, PATHS, "random", jitter_m, 0, DEVICE).training
    source.reseed(1, 2)
    assert torch.equal(source.batch(torch.arange(64)).channel, there.channel)


def test_a_few_steps_of_training_run_there(tmp_path: Path) -> None:
    sources = make_sources(WORLD, PATHS, "random", 0.5, 0, DEVICE)
    torch.manual_seed(1)
    model = EccModel(WORLD, "slot", 4, straight_world.SMALL).to(DEVICE)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    schedule = Schedule(epochs=1, batch=16, warmup_steps=2)
    trainer = Trainer({"": model}, sources.training, sources.validation, schedule, checkpoint=tmp_path / "training.pt")
    assert math.isfinite(trainer.run(lambda _: None)[""])
    assert all(parameter.device.type == "cuda" for parameter in model.parameters())
    changed = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert sum(changed) > 0.9 * len(changed)
    assert math.isfinite(trainer.run(lambda _: None)[""])  # resumes there from the checkpoint


def test_a_training_there_writes_weights_for_a_cpu(tmp_path: Path) -> None:
    schedule = Schedule(epochs=1, batch=16)
    training = EccTraining(bits=4, stage_one_epochs=0.5, shape=straight_world.SMALL, schedule=schedule)
    seen: list[TrainProgress] = []
    trained = train_ecc(WORLD, PATHS, {tmp_path / "ecc.safetensors": training}, seen.append, device=DEVICE)
    assert all(math.isfinite(error) for error in trained.values()) and seen
    weights = load_weights(tmp_path / "ecc.safetensors")
    channel = straight_world.channels(WORLD, 4)[:, 0]
    encoded = EccEdge(EdgeSetup(0, PayloadChoice(4), weights.config, weights.edge(0)), 4).encode(channel)
    assert indices(encoded, 4).shape == (4, 8 * straight_world.SMALL.coefficients)


def test_an_encoder_there_sends_what_it_sends_on_a_cpu(tmp_path: Path) -> None:
    bits, reports = 4, 1000
    _, weights = straight_world.ecc(WORLD, bits, tmp_path)
    channel = straight_world.channels(WORLD, reports)[:, 1]
    there, here = (
        EccEdge(EdgeSetup(1, PayloadChoice(bits), weights.config, weights.edge(1), device), bits).encode(channel)
        for device in ("cuda", "cpu")
    )
    assert there.side == here.side  # gains are taken before the device
    assert len(np.unique(indices(here, bits))) == 2**bits
    differ = np.abs(indices(there, bits).astype(int) - indices(here, bits).astype(int))
    flips = int(np.count_nonzero(differ))
    assert flips <= 10, f"{flips} flips in {reports} reports"
    assert differ.max() <= 1


def test_a_cloud_there_finds_what_it_finds_on_a_cpu(tmp_path: Path) -> None:
    bits, count = 4, 200
    _, weights = straight_world.ecc(WORLD, bits, tmp_path)
    stations = {k: site.position for k, site in enumerate(WORLD.sites)}
    channel = straight_world.channels(WORLD, count)
    groups: list[list[Report]] = [[] for _ in range(count)]
    for k in stations:
        edge = EccEdge(EdgeSetup(k, PayloadChoice(bits), weights.config, weights.edge(k)), bits)
        encoded = edge.encode(channel[:, k])
        for n, group in enumerate(groups):
            group.append(Report(ReportKey(k, 0, n), encoded.payloads[n], encoded.side[n]))
    there, here = (
        np.array([fix.position for fix in EccFusion(
            CloudSetup(stations, PayloadChoice(bits), weights.config, weights.cloud(), device=device)
        ).fuse(groups)])
        for device in ("cuda:0", "cpu")
    )  # fmt: skip
    np.testing.assert_allclose(there, here, rtol=0, atol=0.01)


def test_a_hall_drawn_there_is_the_one_drawn_on_a_cpu() -> None:
    hall = replace(HALL, sites=HALL.sites[:2], tracing=replace(HALL.tracing, positions=300))
    there, here = (factory.draw_links(hall, device) for device in (DEVICE, torch.device("cpu")))
    torch.testing.assert_close(there.delay_s.cpu(), here.delay_s, rtol=0, atol=5e-11)
    error = (there.gain.cpu() - here.gain).flatten(1).norm(dim=1) / here.gain.flatten(1).norm(dim=1)
    assert float(error.max()) < 1e-3


def test_a_vinloc_training_there_writes_weights_for_a_cpu(tmp_path: Path) -> None:
    hall = replace(
        HALL,
        sites=HALL.sites[:6],
        tracing=replace(HALL.tracing, positions=400),
        splits=replace(HALL.splits, test=50, validation=50),
    )
    users = drawn_users(hall, DEVICE, 2000)
    known = find_job("hall")
    schedule = replace(known.schedule, epochs=40, batch=200, warmup_steps=20, subset=(4, 6), sync_ns=1.0)
    job = replace(known, width=64, schedule=schedule)
    model = make_model(hall, job, users).to(DEVICE)
    trainer = VinLocTrainer(model, users.train, users.validation, schedule, checkpoint=tmp_path / "a.pt")
    before = float(trainer.validate().mean())
    error = trainer.run()
    assert error < before / 3
    export_weights(model, users.train.scale, hall, job, tmp_path / "vinloc.safetensors")
    network = network_of(load_weights(tmp_path / "vinloc.safetensors"), tap_s(hall))
    here = users.test.to(torch.device("cpu"))
    mean = float((positions_of(network, here, 6) - here.position).norm(dim=1).mean())
    assert mean < before / 3


@pytest.mark.parametrize("model", ["ct", "unet", "mlp", "grid"])
def test_a_diffloc_training_there_learns(tmp_path: Path, model: str) -> None:
    draw = torch.Generator().manual_seed(1)
    position = 0.5 * torch.randn(600, 2, generator=draw)
    z = torch.cat([position @ torch.randn(2, 8, generator=draw), torch.randn(600, 4, generator=draw)], 1)[None]
    index = np.arange(600)
    blank = torch.zeros(1, 1)
    split = Split(index[:400], index[400:500], index[500:])
    features = Features(z, position, np.zeros(2), 1.5, split, index, index, blank, blank + 1, torch.zeros(1, 1, 12))
    losses = []
    for epochs in (1, 20):
        schedule = DiffLocSchedule(epochs=epochs, batch=50, average=0.1)
        job = DiffLocJob(model, "paris-7", model, schedule=schedule, spacing_m=30.0)
        network, (loss,) = train_networks(job, features, tmp_path / f"{epochs}.pt", lambda _: None, DEVICE)
        assert next(network.parameters()).device.type == "cpu"
        losses.append(loss)
    assert losses[1] < 0.8 * losses[0]

"""CSI forwarded as floats, as 16-bit IQ or as block floating point: exact bits, and fixes through the same fusion."""

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import straight_world
import torch
from payloads import indices
from torch import Tensor

from cloud.fusion.ecc import EccFusion
from cloud.fusion.scheme import CloudSetup
from edge.base_station import BaseStation
from edge.ecc import build
from edge.estimation import LmmseEstimator
from edge.preprocessing import channel_gain, preprocess
from edge.scheme import EdgeSetup
from fronthaul.codec.iq import decompress, iq_codec, of_norm
from fronthaul.errors import LocalError, RemoteError
from fronthaul.message.messages import PayloadFormat, Report
from fronthaul.payload.choice import PayloadChoice
from sim.plan.weights import Weights, load_weights
from sim.world.channel import pad_paths, pilot_sequence
from sim.world.radio import Radio
from sim.world.scenario import Scenario, load_scenario
from sim.world.store import ASSET_FOLDER, load_test_paths

Errors = npt.NDArray[np.float64]

FORMS = ["complex64", "iq16", "bfp6", "bfp9", "bfp12"]
USERS = 100


@cache
def shipped() -> tuple[Scenario, Weights, list[Tensor], Errors]:
    """Scenario, lossless weights, and what each site receives from the first test users (N, …), who stand there."""
    scenario = load_scenario("paris-6")
    paths = load_test_paths(scenario)
    users = np.arange(USERS)
    sites = range(len(scenario.sites))
    padded = pad_paths(paths.select(users, sites), scenario.numerology.carrier_hz)
    radios = [Radio(scenario, padded.site(k), k, seed=1) for k in sites]
    received = [torch.stack([radio.observe(n) for n in range(USERS)]) for radio in radios]
    weights = load_weights(ASSET_FOLDER / "paris-6" / "ecc-lossless.safetensors")
    return scenario, weights, received, paths.position[users]


def reports_of(forward: str) -> list[list[Report]]:
    """All reports, one group a snapshot."""
    scenario, weights, received, _ = shipped()
    columns = []
    for k, pilots in enumerate(received):
        share = weights.edge(k)
        covariance = torch.view_as_complex(share["covariance"].contiguous())
        symbols = pilot_sequence(scenario.numerology.tones)
        estimator = LmmseEstimator(covariance, scenario.tone_noise_w, scenario.tone_power_w, symbols)
        station = BaseStation(k, 0, estimator, build(EdgeSetup(k, PayloadChoice(None, forward), weights.config, share)))
        columns.append(station.reports(range(USERS), pilots))
    return [list(group) for group in zip(*columns, strict=True)]


@cache
def positions_of(forward: str) -> Errors:
    scenario, weights, _, _ = shipped()
    stations = {k: site.position for k, site in enumerate(scenario.sites)}
    fusion = EccFusion(CloudSetup(stations, PayloadChoice(None, forward), weights.config, weights.cloud()))
    return np.array([fix.position for fix in fusion.fuse(reports_of(forward))])


def errors_of(forward: str) -> Errors:
    return np.asarray(np.linalg.norm(positions_of(forward) - shipped()[3], axis=1))


@pytest.mark.parametrize(("forward", "bits"), [("complex64", 61_440), ("iq16", 30_720), ("bfp9", 17_920)])
def test_payloads_have_the_exact_bits(forward: str, bits: int) -> None:
    for group in reports_of(forward):
        assert {report.payload.bits for report in group} == {bits}
        assert {len(report.side) for report in group} == {4}


@pytest.mark.parametrize(
    ("forward", "moved_m"), [("bfp16", 1e-3), ("iq16", 1e-3), ("bfp12", 0.01), ("bfp9", 0.05), ("bfp6", 0.4)]
)
def test_no_fix_moves_far_from_that_of_complex64(forward: str, moved_m: float) -> None:
    moved = np.linalg.norm(positions_of(forward) - positions_of("complex64"), axis=1)
    assert 0 < moved.max() < moved_m


def test_the_error_rises_as_bits_are_saved() -> None:
    """What the rate-error curve shows: nothing is lost down to 8 bit, much is at 3 and 2."""
    mean = {forward: errors_of(forward).mean() for forward in ("complex64", "iq16", "bfp9", "bfp8", "bfp3", "bfp2")}
    assert mean["complex64"] < 0.7
    assert mean["iq16"] == pytest.approx(mean["complex64"], abs=1e-3)
    assert mean["bfp9"] == pytest.approx(mean["complex64"], abs=5e-3)
    assert mean["bfp8"] == pytest.approx(mean["complex64"], abs=1e-2)
    assert mean["complex64"] * 1.3 < mean["bfp3"] < mean["bfp2"] / 1.5


@pytest.mark.parametrize("forward", FORMS)
@pytest.mark.parametrize("phase", ["slot", "tone", "none"])
def test_reports_decode_to_the_preprocessed_channel(forward: str, phase: str) -> None:
    """Eight tones: every PRB is filled up with four zeros."""
    config = {"slots": 4, "antennas": 4, "tones": 8, "phase": phase, "bits": None}
    channel = 1e-5 * torch.randn(3, 4, 4, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(2))
    scheme = build(EdgeSetup(0, PayloadChoice(None, forward), config, {}))
    encoded = scheme.encode(channel)
    codec = iq_codec(forward, 16, 8)
    assert scheme.format == PayloadFormat.uniform(codec.bits, codec.words, 4)
    assert [float(np.frombuffer(side, ">f4")[0]) for side in encoded.side] == channel_gain(channel).tolist()
    x, _ = preprocess(channel, phase)  # type: ignore[arg-type]
    width = {"complex64": 24, "iq16": 14}.get(forward) or int(forward[3:])
    for words, own in zip(indices(encoded, codec.bits), x, strict=True):
        truth = torch.complex(own[0], own[1]).T.numpy()
        got = codec.decode(words)
        got = of_norm(got, np.sqrt(got.size)) if codec.scaled else got
        assert np.linalg.norm(got - truth) / np.linalg.norm(truth) < 2.2 * 2.0**-width


@pytest.mark.parametrize("forward", FORMS)
def test_a_batch_is_its_reports(forward: str) -> None:
    config = {"slots": 2, "antennas": 4, "tones": 24, "phase": "slot", "bits": None}
    channel = torch.randn(5, 2, 4, 24, dtype=torch.complex64, generator=torch.Generator().manual_seed(3))
    scheme = build(EdgeSetup(0, PayloadChoice(None, forward), config, {}))
    together = scheme.encode(channel)
    for n in range(5):
        alone = scheme.encode(channel[n : n + 1])
        assert (alone.payloads, alone.side) == ([together.payloads[n]], [together.side[n]])


@pytest.mark.parametrize("forward", FORMS)
def test_a_channel_of_zeros_can_be_forwarded(forward: str, tmp_path: Path) -> None:
    world = straight_world.scenario()
    _, weights = straight_world.ecc(world, None, tmp_path)
    slots, antennas, tones = world.csi_shape
    covariance = torch.eye(antennas, dtype=torch.complex64).expand(tones, -1, -1)
    estimator = LmmseEstimator(covariance, 0.0, 1.0, torch.ones(tones, dtype=torch.complex64))
    scheme = build(EdgeSetup(0, PayloadChoice(None, forward), weights.config, weights.edge(0)))
    received = torch.zeros(1, slots, antennas, tones, dtype=torch.complex64)
    (report,) = BaseStation(0, 0, estimator, scheme).reports([0], received)
    assert not decompress(iq_codec(forward, slots * antennas, tones), report.payload).any()
    stations = {k: site.position for k, site in enumerate(world.sites)}
    (fix,) = EccFusion(CloudSetup(stations, PayloadChoice(None, forward), weights.config, weights.cloud())).fuse(
        [[report]]
    )
    assert np.isnan(fix.position).all() and set(fix.excluded) == {0}  # nobody hears anything


def test_both_ends_must_forward_alike() -> None:
    scenario, weights, _, _ = shipped()
    stations = {k: site.position for k, site in enumerate(scenario.sites)}
    fusion = EccFusion(CloudSetup(stations, PayloadChoice(None, "bfp9"), weights.config, weights.cloud()))
    with pytest.raises(RemoteError) as caught:
        fusion.fuse(reports_of("iq16")[:1])
    assert caught.value.reason == "length"


def test_another_form_is_refused_at_both_ends() -> None:
    weights = shipped()[1]
    with pytest.raises(LocalError, match="bfp17"):
        build(EdgeSetup(0, PayloadChoice(None, "bfp17"), weights.config, weights.edge(0)))
    with pytest.raises(LocalError, match="iq12"):
        EccFusion(CloudSetup({}, PayloadChoice(None, "iq12"), weights.config, weights.cloud()))


@pytest.mark.parametrize("bits", [2, 4])
def test_an_encoder_does_not_look_at_it(bits: int, tmp_path: Path) -> None:
    world = straight_world.scenario()
    _, weights = straight_world.ecc(world, bits, tmp_path)
    channel = straight_world.channels(world, 2)[:, 0]
    plain, other = (
        build(EdgeSetup(0, PayloadChoice(bits, forward), weights.config, weights.edge(0))).encode(channel)
        for forward in ("complex64", "bfp9")
    )
    assert plain.payloads == other.payloads

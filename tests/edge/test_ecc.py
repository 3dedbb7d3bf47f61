"""The ECC scheme at a base station: bits exact to the last, and the training network's own values."""

import struct
from pathlib import Path

import numpy as np
import pytest
import straight_world
import torch
from payloads import indices

from edge.base_station import BaseStation
from edge.ecc import EccEdge, ForwardingEdge, build
from edge.estimation import LmmseEstimator
from edge.preprocessing import channel_gain, preprocess
from edge.quantizer import quantise_straight_through
from edge.rss import RssEdge
from edge.scheme import EdgeScheme, EdgeSetup, encode_together, load_edge_scheme
from fronthaul.codec.bitstream import unpack
from fronthaul.payload.choice import PayloadChoice
from sim.plan.weights import Weights
from sim.world.scenario import load_scenario

WORLD = straight_world.scenario()


def scheme(weights: Weights, bs: int, bits: int | None) -> EdgeScheme:
    return build(EdgeSetup(bs, PayloadChoice(bits), weights.config, weights.edge(bs)))


def station(made: EdgeScheme, antennas: int, tones: int) -> BaseStation:
    covariance = torch.eye(antennas, dtype=torch.complex64).expand(tones, -1, -1)
    return BaseStation(1, 0, LmmseEstimator(covariance, 0.0, 1.0, torch.ones(tones, dtype=torch.complex64)), made)


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_the_payload_has_tones_times_coefficients_times_b_bits(tmp_path: Path, bits: int) -> None:
    _, weights = straight_world.ecc(WORLD, bits, tmp_path)
    _, antennas, tones = WORLD.csi_shape
    received = straight_world.channels(WORLD, 2)[:, 1]
    for report in station(scheme(weights, 1, bits), antennas, tones).reports([3, 4], received):
        assert report.payload.bits == tones * straight_world.SMALL.coefficients * bits
        assert len(report.side) == 4


def test_the_papers_payload_sizes() -> None:
    """ECC Sec. IV: 24 tokens of 32 coefficients, against 61 440 bits without an encoder."""
    config = {"slots": 10, "antennas": 4, "tones": 24, "phase": "tone"}
    assert load_scenario("paris-6").csi_shape == (10, 4, 24)
    received = torch.randn(1, 10, 4, 24, dtype=torch.complex64)
    (report,) = station(ForwardingEdge(config), 4, 24).reports([0], received)
    assert report.payload.bits == 61_440


@pytest.mark.parametrize("bs", [0, 2])
def test_indices_are_the_training_networks_quantised_latents(tmp_path: Path, bs: int) -> None:
    bits = 4
    model, weights = straight_world.ecc(WORLD, bits, tmp_path)
    channel = straight_world.channels(WORLD, 5)[:, bs]
    made = scheme(weights, bs, bits)
    assert isinstance(made, EccEdge)
    sent = made.payload.codebook.reconstruct(indices(made.encode(channel), bits))
    with torch.no_grad():
        latent = model.encoders[bs](preprocess(channel, model.phase)[0])
        expected = quantise_straight_through(latent, model.step[bs], bits).flatten(1)
    np.testing.assert_array_equal(sent, expected.numpy())
    assert len(np.unique(sent)) > 30  # the latents do fill the cells: the comparison means something


def test_base_stations_of_a_process_encode_as_each_alone(tmp_path: Path) -> None:
    _, weights = straight_world.ecc(WORLD, 4, tmp_path)
    made = [scheme(weights, bs, 4) for bs in range(3)]
    channels = [straight_world.channels(WORLD, 6)[bs:, bs] for bs in range(3)]  # some measure fewer snapshots
    alone = [one.encode(channel) for one, channel in zip(made, channels, strict=True)]
    assert encode_together(made, channels) == alone
    forwarding = scheme(straight_world.ecc(WORLD, None, tmp_path)[1], 0, None)  # of another class
    assert encode_together([made[1], forwarding], channels[1::-1]) == [
        made[1].encode(channels[1]),
        forwarding.encode(channels[0]),
    ]


def test_gains_of_several_base_stations_are_quantised_as_each_alone() -> None:
    made = [RssEdge(EdgeSetup(bs, PayloadChoice(8), {"gain_db": [-120.0, 20.0]}, {})) for bs in range(2)]
    channels = [straight_world.channels(WORLD, 6)[bs:, bs] for bs in range(2)]
    assert encode_together(made, channels) == [one.encode(channel) for one, channel in zip(made, channels, strict=True)]


def test_base_stations_have_their_own_weights(tmp_path: Path) -> None:
    _, weights = straight_world.ecc(WORLD, 4, tmp_path)
    channel = straight_world.channels(WORLD, 1)[:, 0]
    one, other = (scheme(weights, bs, 4).encode(channel).payloads for bs in (0, 1))
    assert one != other


@pytest.mark.parametrize("bits", [4, None])
def test_the_side_information_is_the_gain_as_float32(tmp_path: Path, bits: int | None) -> None:
    _, weights = straight_world.ecc(WORLD, bits, tmp_path)
    channel = straight_world.channels(WORLD, 3)[:, 0]
    sides = scheme(weights, 0, bits).encode(channel).side
    assert [struct.unpack(">f", side)[0] for side in sides] == channel_gain(channel).tolist()


def test_lossless_carries_every_float_exactly(tmp_path: Path) -> None:
    model, weights = straight_world.ecc(WORLD, None, tmp_path)
    slots, antennas, tones = WORLD.csi_shape
    received = straight_world.channels(WORLD, 2)[:, 0]
    edge = station(scheme(weights, 0, None), antennas, tones)
    x, _ = preprocess(received, model.phase)  # this station's estimator changes nothing
    for report, truth in zip(edge.reports([0, 1], received), x, strict=True):
        assert report.payload.bits == 64 * slots * antennas * tones
        values = unpack(report.payload, 32, 2 * slots * antennas * tones).view(np.float32)
        back = torch.from_numpy(values).reshape(tones, slots * antennas, 2).permute(2, 0, 1)
        assert torch.equal(back, truth)


def test_a_channel_of_zeros_can_be_encoded(tmp_path: Path) -> None:
    _, weights = straight_world.ecc(WORLD, 4, tmp_path)
    encoded = scheme(weights, 0, 4).encode(torch.zeros(1, *WORLD.csi_shape, dtype=torch.complex64))
    assert encoded.side == [bytes(4)]


def test_the_scheme_is_found_by_name() -> None:
    assert load_edge_scheme("ecc") is build
    with pytest.raises(LookupError, match="ecc"):
        load_edge_scheme("eec")


@pytest.mark.parametrize("missing", ["encoder.scale.running_var", "encoder.body.0.weight.weight"])
def test_weights_that_lack_a_tensor_do_not_pass_for_random_ones(tmp_path: Path, missing: str) -> None:
    _, weights = straight_world.ecc(WORLD, 4, tmp_path)
    share = weights.edge(0)
    del share[missing]
    with pytest.raises(RuntimeError, match=missing.removeprefix("encoder.")):
        build(EdgeSetup(0, PayloadChoice(4), weights.config, share))

"""VIn-Loc's halves by themselves, with networks that nobody trained: what is sent, and what becomes of it."""

import dataclasses
import gc
import math
import weakref
from collections.abc import Sequence

import numpy as np
import pytest
import tiny_vinloc
import torch
from payloads import indices
from torch import Tensor, nn

from cloud.fusion.loc_token import LocTokenNetwork
from cloud.fusion.scheme import CloudSetup, Fix, Fusion, load_fusion
from cloud.fusion.vinloc import build as build_cloud
from edge.base_station import BaseStation
from edge.cir_embedding import CirEmbedding
from edge.estimation import LeastSquaresEstimator
from edge.scheme import EdgeScheme, EdgeSetup, load_edge_scheme
from edge.vinloc import build as build_edge
from fronthaul.codec.bitstream import pack, unpack
from fronthaul.codec.codebook import MidriseCodebook
from fronthaul.errors import RemoteError
from fronthaul.message.messages import Payload, Report, ReportKey
from fronthaul.payload.choice import PayloadChoice
from sim.plan.options import scenario_of
from sim.plan.weights import Weights

WEIGHTS = tiny_vinloc.weights()
RESOLUTIONS = [*range(1, 9), None]
ROUNDING_M = 1e-3
"""What float32 may make of 100 m, with room to spare."""
MOVED_M = 10 * ROUNDING_M
"""What is no rounding any more."""


def channels(count: int = 4, antennas: int = 1, seed: int = 1) -> Tensor:
    """Ĥ (B, slot, pair, tap): a few taps of the size that they have over 100 m."""
    draw = torch.Generator().manual_seed(seed)
    full = 1e-5 * torch.randn(count, 1, antennas, 256, dtype=torch.complex64, generator=draw)
    return full * (torch.rand(count, 1, 1, 256, generator=draw) < 0.2)


def edge(bits: int | None, antennas: int = 1, bs: int = 0, **config: float) -> EdgeScheme:
    weights = tiny_vinloc.weights(antennas)
    return build_edge(EdgeSetup(bs, PayloadChoice(bits), weights.config | config, weights.edge(bs)))


def test_base_stations_with_the_same_weights_share_one_network() -> None:
    def networks(*stations: EdgeScheme) -> list[nn.Module]:
        return [part for one in stations for part in vars(one).values() if isinstance(part, nn.Module)]

    def made(bs: int, weights: Weights) -> EdgeScheme:
        return build_edge(EdgeSetup(bs, PayloadChoice(4), weights.config, weights.edge(bs)))

    own = {f"edge.2.{name.removeprefix('edge.all.')}": 2 * value for name, value in WEIGHTS.tensors.items()}
    weights = Weights(WEIGHTS.config, WEIGHTS.tensors | own)
    first, second, third = (made(bs, weights) for bs in range(3))  # the third has weights of its own
    one, same, other = networks(first, second, third)
    assert one is same and one is not other
    received = channels()
    assert first.encode(received) == second.encode(received) != third.encode(received)
    known = weakref.ref(one)
    del first, second, one, same
    gc.collect()
    assert known() is None  # nothing keeps it once its base stations are gone


def embedded(channel: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The values (B, 256) that the network itself comes to."""
    network = CirEmbedding(**WEIGHTS.config["embedding"]).eval()
    network.load_state_dict({k.removeprefix("embedding."): v for k, v in WEIGHTS.edge(0).items()})
    with torch.inference_mode():
        values: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = network(channel[:, 0]).numpy()
    return values


def sites(count: int) -> dict[int, tuple[float, float, float]]:
    draw = np.random.default_rng(3).uniform((-80, -80, 5), (80, 80, 30), (count, 3)).tolist()
    return {bs: (x, y, z) for bs, (x, y, z) in enumerate(draw)}


def cloud(bits: int | None, stations: int = 6) -> Fusion:
    return build_cloud(CloudSetup(sites(stations), PayloadChoice(bits), WEIGHTS.config, WEIGHTS.cloud()))


def reports(
    bits: int | None, stations: Sequence[int], snapshot: int = 0, *, unheard: Sequence[int] = ()
) -> list[Report]:
    """What base stations say of one snapshot, each of a channel of its own."""
    made = []
    for bs in stations:
        channel = channels(1, seed=1000 * snapshot + bs) * (bs not in unheard)
        encoded = edge(bits).encode(channel)
        made.append(Report(ReportKey(bs, 0, snapshot), encoded.payloads[0], encoded.side[0]))
    return made


def distance(one: Fix, other: Fix) -> float:
    return math.dist(one.position, other.position)


# At the base station


@pytest.mark.parametrize("antennas", [1, 8])
@pytest.mark.parametrize("bits", RESOLUTIONS)
def test_the_payload_has_256_numbers_of_b_bits_and_one_byte_beside_it(bits: int | None, antennas: int) -> None:
    station = BaseStation(3, 0, LeastSquaresEstimator(1.0, torch.ones(256)), edge(bits, antennas))
    for report in station.reports([4, 5], channels(2, antennas)):
        assert report.payload.bits == 256 * (bits or 32)
        assert report.side == b"\1"


@pytest.mark.parametrize("bits", range(1, 9))
def test_indices_are_the_networks_own_values_quantised_with_a_step_of_two_over_2_to_the_b(bits: int) -> None:
    channel = channels()
    codebook = MidriseCodebook(2.0 / 2**bits, bits)
    index, values = indices(edge(bits).encode(channel), bits), embedded(channel)
    np.testing.assert_array_equal(index, codebook.index(values))
    assert len(np.unique(index)) > 0.8 * 2**bits  # the values fill the cells: the comparison means something
    assert np.abs(codebook.reconstruct(index) - values).max() <= 2.0**-bits


def test_lossless_are_the_values_themselves() -> None:
    channel = channels()
    np.testing.assert_array_equal(indices(edge(None).encode(channel), 32).view(np.float32), embedded(channel))


def test_every_base_station_embeds_alike() -> None:
    one, other = (edge(6, bs=bs).encode(channels()) for bs in (0, 17))
    assert one.payloads == other.payloads


def test_what_is_sent_does_not_depend_on_the_batch() -> None:
    channel = channels(5)
    scheme = edge(None)
    together = indices(scheme.encode(channel), 32).view(np.float32)
    for row in range(5):
        alone = indices(scheme.encode(channel[row : row + 1]), 32).view(np.float32)
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


@pytest.mark.parametrize("bits", [4, None])
def test_who_hears_nothing_says_so_and_sends_zeros(bits: int | None) -> None:
    channel = channels()
    channel[[1, 3]] = 0
    scheme = edge(bits)
    encoded, whole = scheme.encode(channel), scheme.encode(channels())
    assert encoded.side == [b"\1", b"\0", b"\1", b"\0"]
    index = indices(encoded, bits or 32)
    assert not index[[1, 3]].any()
    assert index.shape == (4, 256) and (index[0] != index[2]).any()
    if bits:
        np.testing.assert_array_equal(index[[0, 2]], indices(whole, bits)[[0, 2]])
    nothing = scheme.encode(0 * channel)
    assert nothing.side == 4 * [b"\0"] and not indices(nothing, bits or 32).any()


def test_a_user_below_the_noise_is_not_heard() -> None:
    channel, scheme = channels(3), edge(4)
    encoded = scheme.encode(channel)
    marked = scheme.mark(encoded, [True, False, True])
    assert encoded.side == 3 * [b"\1"] and marked.side == [b"\1", b"\0", b"\1"]
    assert not indices(marked, 4)[1].any()
    np.testing.assert_array_equal(indices(marked, 4)[[0, 2]], indices(encoded, 4)[[0, 2]])


def test_a_channel_that_is_not_finite_is_not_heard() -> None:
    channel = channels(3)
    channel[0, 0, 0, 5], channel[2, 0, 0, 5] = torch.nan, torch.inf
    assert edge(4).encode(channel).side == [b"\0", b"\1", b"\0"]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2, 2, 1, 256), "not of 2 slots, 1 antenna pair, 256 taps"),
        ((2, 1, 8, 256), "not of 1 slot, 8 antenna pairs, 256 taps"),
        ((2, 1, 1, 128), "not of 1 slot, 1 antenna pair, 128 taps"),
        ((2, 1, 256), "not of shape (1, 256)"),
    ],
)
def test_channels_of_another_shape_are_one_sentence(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        edge(4).encode(torch.ones(shape, dtype=torch.complex64))
    assert str(caught.value) == f"the network takes channels of 1 slot, 1 antenna pair, 256 taps, {said}"


def test_the_scheme_is_found_by_name_and_has_a_scenario_and_no_options() -> None:
    assert load_edge_scheme("vinloc") is build_edge and load_fusion("vinloc") is build_cloud
    assert scenario_of(None, "vinloc") == "inf-dh-18"
    assert not build_edge.spec.options


@pytest.mark.parametrize("missing", ["edge.all.embedding.scale", "cloud.network.loc"])
def test_weights_that_lack_a_tensor_do_not_pass_for_random_ones(missing: str) -> None:
    weights = dataclasses.replace(WEIGHTS, tensors={k: v for k, v in WEIGHTS.tensors.items() if k != missing})
    with pytest.raises(RuntimeError, match=missing.rpartition(".")[2]):
        build_edge(EdgeSetup(0, PayloadChoice(4), weights.config, weights.edge(0)))
        build_cloud(CloudSetup(sites(3), PayloadChoice(4), weights.config, weights.cloud()))


# At the cloud


def test_a_fix_is_what_the_network_says_in_metres() -> None:
    group = reports(None, range(4))
    (fix,) = cloud(None).fuse([group])
    network = LocTokenNetwork(**WEIGHTS.config["network"]).eval()
    network.load_state_dict({k.removeprefix("network."): v for k, v in WEIGHTS.cloud().items() if "network" in k})
    values = torch.from_numpy(np.stack([unpack(r.payload, 32, 256).view(np.float32) for r in group]))
    places = (torch.tensor(list(sites(6).values())[:4]) - torch.tensor(tiny_vinloc.CENTRE)) / torch.tensor(
        tiny_vinloc.EXTENT
    )
    with torch.inference_mode():
        out = network(values[None], places[None], torch.ones(1, 4, dtype=torch.bool))[0].numpy()
    np.testing.assert_allclose(fix.position, tiny_vinloc.CENTRE + np.array(tiny_vinloc.EXTENT) * out, atol=ROUNDING_M)
    assert not fix.excluded and fix.covariance is None


@pytest.mark.parametrize("stations", [1, 2, 18, 1023, 1024])
def test_one_set_of_weights_serves_one_to_1024_base_stations(stations: int) -> None:
    template = reports(4, range(8))
    group = [dataclasses.replace(template[bs % 8], key=ReportKey(bs, 0, 0)) for bs in range(stations)]
    (fix,) = cloud(4, stations).fuse([group])
    assert np.isfinite(fix.position).all() and not fix.excluded


def test_more_base_stations_than_the_network_takes_are_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"^it takes at most 1024 base stations, there are 1025$"):
        cloud(4, 1025)


def test_the_order_of_reports_changes_nothing() -> None:
    group = reports(4, range(6))
    rule = cloud(4)
    (fix,), (turned,) = rule.fuse([group]), rule.fuse([group[::-1]])
    assert fix.position == turned.position


def test_the_numbers_of_base_stations_change_nothing() -> None:
    order = [3, 0, 5, 1, 4, 2]
    group = reports(4, range(6))
    renamed = [dataclasses.replace(report, key=ReportKey(order[report.key.bs], 0, 0)) for report in group]
    places = {order[bs]: position for bs, position in sites(6).items()}
    other = build_cloud(CloudSetup(places, PayloadChoice(4), WEIGHTS.config, WEIGHTS.cloud()))
    assert distance(cloud(4).fuse([group])[0], other.fuse([renamed])[0]) < ROUNDING_M


def test_it_matters_where_base_stations_stand() -> None:
    group = reports(4, range(6))
    swapped = sites(6) | {0: sites(6)[1], 1: sites(6)[0]}
    other = build_cloud(CloudSetup(swapped, PayloadChoice(4), WEIGHTS.config, WEIGHTS.cloud()))
    assert distance(cloud(4).fuse([group])[0], other.fuse([group])[0]) > MOVED_M


def test_a_base_station_that_hears_nothing_is_left_out_as_an_absent_one_is() -> None:
    rule = cloud(4)
    (without,) = rule.fuse([reports(4, [0, 2, 3])])
    (silent,) = rule.fuse([reports(4, range(4), unheard=[1])])
    assert silent.position == without.position
    assert silent.excluded == {1: "receives nothing from the user"}
    assert not silent.uses(ReportKey(1, 0, 0)) and silent.uses(ReportKey(0, 0, 0))


def test_an_absent_base_station_is_not_one_that_sent_zeros() -> None:
    codes = np.full(256, 8, np.uint32)  # of 4 bits: nearest to zero
    zeros = Report(ReportKey(1, 0, 0), pack(codes, 4), b"\1")
    rule = cloud(4)
    (absent,), (zero,) = rule.fuse([reports(4, [0, 2, 3])]), rule.fuse([[*reports(4, [0, 2, 3]), zeros]])
    assert distance(absent, zero) > MOVED_M


def test_a_fix_does_not_depend_on_what_shares_its_batch() -> None:
    rule = cloud(4)
    groups = [
        reports(4, [0, 1, 2, 3, 4, 5], 0),
        reports(4, [5], 1),
        reports(4, [1, 2], 2, unheard=[1, 2]),
        reports(4, [0, 3, 4], 3, unheard=[3]),
    ]
    together = rule.fuse(groups)
    for group, fix in zip(groups, together, strict=True):
        (alone,) = rule.fuse([group])
        assert alone.excluded == fix.excluded
        assert distance(alone, fix) < ROUNDING_M or (np.isnan(fix.position).all() and np.isnan(alone.position).all())
    positions = [fix.position for fix in together if np.isfinite(fix.position).all()]
    assert len(positions) == 3 and min(math.dist(positions[0], other) for other in positions[1:]) > MOVED_M


def test_where_nobody_hears_the_user_there_is_no_fix() -> None:
    (fix,) = cloud(4).fuse([reports(4, range(3), unheard=range(3))])
    assert np.isnan(fix.position).all()
    assert fix.excluded == dict.fromkeys(range(3), "receives nothing from the user")
    (fix,) = cloud(4).fuse([[]])
    assert np.isnan(fix.position).all() and not fix.excluded
    assert cloud(4).fuse([]) == []


def test_more_bits_come_closer_to_lossless() -> None:
    (lossless,) = cloud(None).fuse([reports(None, range(6))])
    error = [distance(cloud(bits).fuse([reports(bits, range(6))])[0], lossless) for bits in (1, 4, 8)]
    assert error[0] > error[1] > error[2] > 0


def test_what_no_network_can_have_sent_is_excluded_by_name() -> None:
    group = reports(None, range(4))
    for bs, number in ((0, math.nan), (2, 3.0)):
        values = unpack(group[bs].payload, 32, 256).view(np.float32).copy()
        values[100] = number
        group[bs] = dataclasses.replace(group[bs], payload=pack(values.view(np.uint32), 32))
    group[3] = dataclasses.replace(group[3], side=b"\7")
    rule = cloud(None)
    (fix,), (alone,) = rule.fuse([group]), rule.fuse([reports(None, [1])])
    reason = "its values are outside −1..1"
    assert fix.excluded == {0: reason, 2: reason, 3: "its side information is neither 00 nor 01: 07"}
    assert fix.position == alone.position


def test_reports_of_nobody_and_of_another_size_are_errors() -> None:
    group = reports(4, range(2))
    with pytest.raises(ValueError, match="BS 9 has not registered its position"):
        cloud(4).fuse([[dataclasses.replace(group[0], key=ReportKey(9, 0, 0))]])
    with pytest.raises(RemoteError, match="256 indices of 4 bits take 1024 bits"):
        cloud(4).fuse([[dataclasses.replace(group[0], payload=Payload(bytes(100), 800))]])

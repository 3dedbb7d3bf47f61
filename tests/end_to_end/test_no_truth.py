"""No true position on the inference path: not by signature, not in any object that goes to a node."""

import dataclasses
import inspect
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import straight_world
import tiny_scores
import tiny_vinloc
import tiny_world
import torch

from cloud.center import FusionCenter
from cloud.cloud_spec import CloudSpec
from cloud.collector import Collector, CollectorRules, Gathered
from cloud.fusion.diffloc_central import CentralFusion
from cloud.fusion.diffloc_oneshot import OneShotFusion
from cloud.fusion.diffloc_rounds import RoundsFusion, ScoreExchange
from cloud.fusion.diffloc_spec import DiffLocSpec
from cloud.fusion.ecc_rate import RateFusion
from cloud.fusion.lateration import Lateration, LaterationFusion
from cloud.fusion.learned_paths import LearnedFusion, PathNetwork
from cloud.fusion.loc_token import LocTokenNetwork
from cloud.fusion.music import MusicFusion
from cloud.fusion.network_fusion import NetworkFusion
from cloud.fusion.rss import RssFusion
from cloud.fusion.sampled_profile import ProfileReader
from cloud.fusion.scheme import CloudSetup, Exchange, Fusion, OneRound, OneRoundFusion
from cloud.fusion.scores.sampler import Sampler
from cloud.fusion.vinloc import VinLocFusion
from cloud.node import CloudNode
from cloud.tracking import kalman, smooth
from edge.adcpm import AdcpmEdge
from edge.base_station import BaseStation, StationSpec, reports_together
from edge.cir_embedding import CirEmbedding
from edge.diffloc import CentralEdge, OneShotEdge, RoundsEdge
from edge.ecc import EccEdge, ForwardingEdge
from edge.ecc_rate import LatentEdge, RateEdge
from edge.ecc_total import TotalEdge
from edge.estimation import LmmseEstimator
from edge.first_path import FirstPathEdge
from edge.music import MusicEdge
from edge.node import EdgeNode
from edge.nrppa_path import NrppaPathEdge
from edge.nrppa_sample import NrppaSampleEdge
from edge.preprocessing import preprocess
from edge.rss import RssEdge
from edge.scheme import EdgeScheme, EdgeSetup, Encoded, RoundScheme, encode_together
from edge.score_network import Denoiser
from edge.score_station import ScoreStation, StationAtCloud
from edge.site import SiteSpec
from edge.vinloc import VinLocEdge
from fronthaul.message.messages import Frame, Payload, Report, ReportKey
from fronthaul.roster import Roster
from sim.plan.plan import Plan, compose
from sim.plan.settings import EmulateSettings
from sim.records.tracks import tracks_of
from sim.world.channel import PaddedPaths, pad_paths
from sim.world.radio import Radio

INFERENCE: dict[Callable[..., Any], set[str]] = {
    Radio.observe: {"snapshot"},
    LmmseEstimator.estimate: {"received"},
    preprocess: {"channel", "phase"},
    EdgeScheme.encode: {"channel"},
    encode_together: {"schemes", "channels"},
    EccEdge.encode: {"channel"},
    EccEdge.encode_together: {"schemes", "channels"},
    ForwardingEdge.encode: {"channel"},
    RssEdge.encode: {"channel"},
    RssEdge.encode_together: {"schemes", "channels"},
    BaseStation.reports: {"snapshots", "received"},
    reports_together: {"asked"},
    EdgeNode.prepare: {"batches"},
    EdgeNode.transmit: {"due_ns", "batches"},
    OneRoundFusion.fuse: {"groups"},
    OneRound.advance: {"reports"},
    OneRound.fuse: {"groups"},
    AdcpmEdge.encode: {"channel"},
    MusicEdge.encode: {"channel"},
    NetworkFusion.fuse: {"groups"},
    MusicFusion.fuse: {"groups"},
    LatentEdge.numbers: {"channel"},
    RateEdge.encode: {"channel"},
    TotalEdge.encode: {"channel"},
    RateFusion.fuse: {"groups"},
    RssFusion.fuse: {"groups"},
    FirstPathEdge.encode: {"channel"},
    FirstPathEdge.paths: {"channel"},
    NrppaPathEdge.encode: {"channel"},
    NrppaPathEdge.paths: {"channel"},
    NrppaSampleEdge.encode: {"channel"},
    NrppaSampleEdge.samples: {"channel"},
    LaterationFusion.fuse: {"groups"},
    Lateration.fix: {"paths"},
    ProfileReader.first: {"start_s", "index", "power_dbm"},
    LearnedFusion.fuse: {"groups"},
    PathNetwork.forward: {"table"},
    RoundScheme.answer: {"context", "snapshot", "round_", "state"},
    BaseStation.answer: {"snapshot", "round_", "state"},
    Fusion.open: {"snapshot"},
    Exchange.advance: {"reports"},
    Exchange.conclude: set(),
    FusionCenter.open: {"snapshot"},
    FusionCenter.advance: {"turns"},
    RoundsEdge.encode: {"channel"},
    RoundsEdge.answer: {"context", "snapshot", "round_", "state"},
    CentralEdge.encode: {"channel"},
    OneShotEdge.encode: {"channel"},
    # x: states, which are noise or what the sampler made of it.
    Denoiser.raw: {"embedding", "x", "level"},
    ScoreStation.embed: {"channel"},
    ScoreStation.raw: {"embedding", "x", "level"},
    ScoreStation.answer: {"embedding", "x", "level"},
    ScoreStation.samples: {"embedding", "count"},
    StationAtCloud.read: {"payload"},
    StationAtCloud.answer: {"embedding", "x", "level"},
    StationAtCloud.own_mixture: {"embedding"},
    RoundsFusion.open: {"snapshot"},
    ScoreExchange.advance: {"reports"},
    ScoreExchange.conclude: set(),
    CentralFusion.fuse: {"groups"},
    OneShotFusion.fuse: {"groups"},
    DiffLocSpec.sampler: {"snapshot"},
    DiffLocSpec.answers: {"sampler", "said", "covariances"},
    Sampler.advance: {"answers"},
    VinLocEdge.encode: {"channel"},
    CirEmbedding.forward: {"cir"},
    VinLocFusion.fuse: {"groups"},
    kalman: {"fix", "covariance", "motion"},
    smooth: {"filtered", "motion"},
    tracks_of: {"settings", "scenario", "fixes"},
    LocTokenNetwork.forward: {"values", "site", "present"},  # site: where base stations stand
}

SUSPICIOUS = ("position", "truth", "user", "label")


@pytest.mark.parametrize("call", INFERENCE, ids=lambda call: call.__qualname__)
def test_a_call_of_the_inference_path_takes_channels_and_reports_only(call: Callable[..., Any]) -> None:
    parameters = set(inspect.signature(call).parameters) - {"self"}
    assert parameters == INFERENCE[call]


@pytest.mark.parametrize(
    "made",
    [BaseStation, EdgeNode, FusionCenter, CloudNode, Collector, Radio, LmmseEstimator, ScoreStation, StationAtCloud,
     RoundsEdge, CentralEdge, OneShotEdge, RoundsFusion, ScoreExchange, CentralFusion, OneShotFusion, DiffLocSpec,
     Sampler, Denoiser, VinLocEdge, VinLocFusion, CirEmbedding, AdcpmEdge, MusicEdge, NetworkFusion,
     MusicFusion, FirstPathEdge, NrppaPathEdge, NrppaSampleEdge, LaterationFusion, Lateration, LearnedFusion,
     PathNetwork],
)  # fmt: skip
def test_constructors_take_no_position(made: type) -> None:
    assert not [name for name in inspect.signature(made).parameters if any(word in name for word in SUSPICIOUS)]


def fields_of(kind: type) -> list[str]:
    """What an object of this type holds, whether it is a dataclass, a named tuple or a class with slots."""
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    found = [*getattr(kind, "_fields", ())]
    found += [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
    assert found, f"{kind} does not say what it holds"
    return found


def test_what_is_handed_on_has_no_field_for_a_position() -> None:
    kinds: tuple[type, ...] = (PaddedPaths, Encoded, Report, ReportKey, Payload, Frame, EdgeSetup, StationSpec)
    kinds += (SiteSpec, CloudSetup, CloudSpec, CollectorRules, Gathered, Roster)
    named = {
        f"{kind.__name__}.{name}" for kind in kinds for name in fields_of(kind) if any(w in name for w in SUSPICIOUS)
    }
    # Of the array's centre; and the unit vector in which a path leaves the user.
    assert named == {"SiteSpec.position", "PaddedPaths.user_direction"}


def test_a_received_snapshot_is_a_plain_tensor_of_pilots() -> None:
    world = straight_world.scenario()
    paths = straight_world.trace(world, straight_world.positions(world, 2))
    received = Radio(world, pad_paths(paths, world.numerology.carrier_hz).site(0), 0, 1).observe(0)
    assert type(received) is torch.Tensor and received.shape == world.csi_shape and received.is_complex()


# What goes to the nodes


def arrays(thing: object, seen: set[int] | None = None) -> Iterator[npt.NDArray[Any]]:
    """All numbers that can be reached from an object, as arrays; of views, what they are views of."""
    seen = set() if seen is None else seen
    if id(thing) in seen or thing is None or isinstance(thing, str | bytes | int | float | type):
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        storage = torch.empty(0, dtype=thing.dtype).set_(thing.untyped_storage())
        for tensor in (storage, thing.detach()):
            yield (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).numpy()
    elif isinstance(thing, np.ndarray):
        yield thing.base if isinstance(thing.base, np.ndarray) else thing
    elif isinstance(thing, Mapping):
        yield from arrays(list(thing.values()), seen)
    elif isinstance(thing, list | tuple | set | frozenset):
        if all(isinstance(value, int | float) for value in thing):
            yield np.array(list(thing), np.float64)
        for value in thing:
            yield from arrays(value, seen)
    else:
        for name in (name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())):
            yield from arrays(getattr(thing, name, None), seen)
        yield from arrays(getattr(thing, "__dict__", None), seen)


def holds(thing: object, position: npt.NDArray[np.float64], tolerance_m: float = 1e-3) -> bool:
    """Whether three neighbouring numbers, in any order of memory, are one of the positions."""
    for array in arrays(thing):
        if array.dtype.kind != "f" or array.size < 3:
            continue
        for order in (array, array.T):
            flat = np.float64(order).ravel()
            triples = np.lib.stride_tricks.sliding_window_view(flat, 3)
            for start in range(0, len(triples), 4096):
                distance = np.abs(triples[start : start + 4096, None] - position[None]).max(2)
                if distance.min() < tolerance_m:
                    return True
    return False


def planned() -> Plan:
    world = tiny_world.scenario()
    settings = EmulateSettings(scenario="tiny", bs=3, bits=4, snapshots=8)
    return compose(settings, world, tiny_world.paths(world), tiny_world.weights(world))


def test_the_search_finds_what_it_looks_for() -> None:
    truth = planned().truth
    assert holds({"deep": [{"down": truth}]}, truth)
    assert holds([torch.from_numpy(truth).float().T.contiguous()], truth)
    assert holds(torch.from_numpy(truth)[:0], truth)  # an empty view of everything
    assert holds([tuple(truth[3])], truth)
    assert not holds(truth + 1, truth)


def test_nothing_that_goes_to_a_node_holds_a_test_position() -> None:
    plan = planned()
    assert plan.truth.shape == (8, 3)
    for part in (*plan.sites, *(site.radio for site in plan.sites), plan.cloud):
        assert not holds(part, plan.truth)


@pytest.mark.parametrize("where", ["edge", "central", "one-shot"])
def test_nor_does_anything_of_diffloc(where: str) -> None:
    world = tiny_scores.scenario()
    settings = EmulateSettings(
        scenario="tiny-scores", scheme="diffloc", bs=3, bits=8, snapshots=8, options=(("where", where),)
    )
    plan = compose(settings, world, tiny_world.paths(world), tiny_scores.weights(3))
    assert bool(plan.cloud.setup.networks) == (where == "central")
    parts = (*plan.sites, *(site.radio for site in plan.sites), plan.cloud, plan.cloud.build(plan.cloud.setup))
    for part in (*parts, plan.sites[0].station.assemble()):
        assert not holds(part, plan.truth)


@pytest.mark.parametrize("bits", [4, None])
def test_nor_does_anything_of_vinloc(bits: int | None) -> None:
    world = tiny_vinloc.scenario()
    settings = EmulateSettings(scenario="tiny-vinloc", scheme="vinloc", bs=3, bits=bits, snapshots=8)
    plan = compose(settings, world, tiny_world.paths(world), tiny_vinloc.weights())
    parts = (*plan.sites, *(site.radio for site in plan.sites), plan.cloud, plan.cloud.build(plan.cloud.setup))
    for part in (*parts, plan.sites[0].station.assemble(), plan.cloud.rehearsal):
        assert not holds(part, plan.truth)


def test_nor_do_the_assembled_base_station_and_fusion_rule() -> None:
    plan = planned()
    assert not holds(plan.sites[0].station.assemble(), plan.truth)
    assert not holds(plan.cloud.build(plan.cloud.setup), plan.truth)


@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_nor_their_bytes_on_the_way(number: type) -> None:
    plan = planned()
    wanted = [row.astype(number).tobytes() for row in plan.truth]
    truth: npt.NDArray[Any] = plan.truth.astype(number)
    assert any(row in pickle.dumps(truth) for row in wanted)
    assert any(row in pickle.dumps(torch.from_numpy(truth)) for row in wanted)
    for part in (*plan.sites, plan.cloud):
        sent = pickle.dumps(part)
        assert not any(row in sent for row in wanted)


def test_a_radio_holds_the_paths_of_its_own_site_only() -> None:
    plan = planned()
    for site in plan.sites:
        paths = vars(site.radio)["_paths"]
        for field in dataclasses.fields(paths):
            tensor = getattr(paths, field.name)
            if tensor is not None:
                assert tensor.shape[1] == 1
                assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()

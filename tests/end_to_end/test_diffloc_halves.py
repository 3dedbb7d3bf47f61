"""DiffLoc's halves by themselves: networks at work, and every way of running them against the sampler itself."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tiny_scores
import torch
from torch import Tensor

from cloud.center import FusionCenter, replay_exchanges
from cloud.fusion.diffloc import build as build_cloud
from cloud.fusion.scheme import CloudSetup, Fix, Fusion
from cloud.fusion.scores.answers import Answers, eps_of
from cloud.fusion.scores.prior import BoxPrior
from cloud.fusion.scores.rule import build_rule
from cloud.fusion.scores.sampler import Sampler
from edge import score_network
from edge.diffloc import at_cloud
from edge.diffloc import build as build_edge
from edge.fingerprint import delay_taps, fingerprint
from edge.scheme import EdgeScheme, EdgeSetup, RoundScheme
from edge.score_network import Denoiser, build_network
from edge.score_station import ScoreStation
from fronthaul.codec.bitstream import pack
from fronthaul.draws import generator
from fronthaul.message.messages import Payload, PayloadFormat, Report, ReportKey
from fronthaul.payload.choice import PayloadChoice
from fronthaul.payload.diffloc import SIGMA_DATA, score_format
from fronthaul.payload.noise_levels import noise_schedule
from sim.plan.weights import Weights

Options = dict[str, str | int]
SEED = 3


def channels(stations: int, count: int = 2) -> list[Tensor]:
    """Ĥ (B, slot, antenna, tone) of each base station."""
    draw = torch.Generator().manual_seed(1)
    return [1e-5 * torch.randn(count, 1, 4, 8, dtype=torch.complex64, generator=draw) for _ in range(stations)]


class Halves:
    """Both halves of a scheme, without what lies between them."""

    def __init__(self, weights: Weights, stations: int, bits: int | None, options: Options) -> None:
        setups = [
            EdgeSetup(k, PayloadChoice(bits), weights.config, weights.edge(k), options=options) for k in range(stations)
        ]
        self.edges: list[EdgeScheme] = [build_edge(setup) for setup in setups]
        made = {k: at_cloud(setup) for k, setup in enumerate(setups)}
        places = dict.fromkeys(range(stations), (0.0, 0.0, 0.0))
        setup = CloudSetup(places, PayloadChoice(bits), weights.config, weights.cloud(), SEED, options=options,
                           networks={k: make for k, make in made.items() if make is not None})  # fmt: skip
        self.fusion = build_cloud(setup)

    def fix(self, snapshot: int = 0, silent: Any = lambda bs, round_: False) -> tuple[Fix | None, list[list[Report]]]:
        """Return the fix of a snapshot, and its reports by round."""
        encoded = [edge.encode(channel) for edge, channel in zip(self.edges, channels(len(self.edges)), strict=True)]
        first = [
            Report(ReportKey(k, 0, snapshot), e.payloads[snapshot]) for k, e in enumerate(encoded) if not silent(k, 0)
        ]
        rounds = [first]
        if not isinstance(self.fusion, Fusion):
            return self.fusion.fuse([first])[0], rounds
        exchange = self.fusion.open(snapshot)
        made = exchange.advance(first)
        while isinstance(made, Payload):
            answers = []
            for k, edge in enumerate(self.edges):
                assert isinstance(edge, RoundScheme)
                answer = edge.answer(encoded[k].context[snapshot], snapshot, len(rounds), made)
                if not silent(k, len(rounds)):
                    answers.append(Report(ReportKey(k, 0, snapshot, len(rounds)), *answer))
            rounds.append(answers)
            if not answers:
                return exchange.conclude(), rounds
            made = exchange.advance(answers)
        return made, rounds


def direct(weights: Weights, stations: int, fusion: str, snapshot: int, particles: int = 1) -> npt.NDArray[np.float64]:
    """The position [m] that networks and sampler come to without any scheme around them."""
    config = weights.config
    levels = noise_schedule(config["sampler"], config["steps"])
    size = len(config["low"])
    networks = [build_network(config, [weights.edge(k)]) for k in range(stations)]
    embeddings = [
        network.embed(fingerprint(delay_taps(channel, config["ifft"], config["taps"]))[None])[:, snapshot]
        for network, channel in zip(networks, channels(stations), strict=True)
    ]
    covariance = np.stack([weights.edge(k)["posterior"].double().numpy() for k in range(stations)])
    kind = config["sampler"]["kind"]
    sampler = Sampler(
        kind, levels, build_rule(fusion, BoxPrior(np.array(config["low"]), np.array(config["high"]))),
        lambda round_: generator(SEED, "diffusion", snapshot, round_).standard_normal((particles, size)),
    )  # fmt: skip
    while not sampler.done:
        said, jacobians = [], []
        for network, embedding in zip(networks, embeddings, strict=True):
            denoiser = Denoiser(network, config["sampler"])

            def raw(x: Tensor) -> Tensor:
                return denoiser.raw(embedding[:, None].expand(-1, particles, -1), x[None], sampler.level)[0]  # noqa: B023

            x = torch.from_numpy(sampler.x).float()
            said.append(raw(x).detach().double().numpy())
            if fusion != "jac":
                continue
            full = torch.autograd.functional.jacobian(raw, x).double().numpy()
            jacobian = full[np.arange(particles), :, np.arange(particles)]
            if kind == "consistency":
                jacobian = (np.eye(size) - sampler.level.signal * jacobian) / sampler.level.noise
            jacobians.append(jacobian)
        eps = eps_of(kind, np.stack(said), sampler.x, sampler.level)
        held = np.repeat(covariance[:, None], particles, 1)
        sampler.advance(Answers(eps, held, np.stack(jacobians) if fusion == "jac" else None))
    return np.asarray(config["centre"] + config["scale"] * sampler.position.mean(0), np.float64)


@pytest.mark.parametrize("kind", ["consistency", "diffusion"])
@pytest.mark.parametrize("fusion", ["mean", "precision", "gauss", "sum", "fnpe"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_edge_central_and_direct_evaluation_agree(kind: str, fusion: str, dimensions: int) -> None:
    weights = tiny_scores.weights(3, kind, dimensions=dimensions)
    if (kind, fusion) in {("consistency", "sum"), ("consistency", "fnpe"), ("diffusion", "gauss")}:
        weights.config["steps"] = 1 if kind == "consistency" else 200  # or states run out of what can be sent
    for snapshot in range(2):
        wanted = direct(weights, 3, fusion, snapshot)
        for where in ("edge", "central"):
            fix, _ = Halves(weights, 3, None, {"fusion": fusion, "where": where}).fix(snapshot)
            assert fix is not None and np.isfinite(fix.position).all()
            bound = 1e-2 * weights.config["scale"] * max(1.0, np.abs(wanted).max() / 80)
            assert np.abs(np.array(fix.position)[:dimensions] - wanted).max() < bound
            assert dimensions == 3 or fix.position[2] == 1.5


@pytest.mark.parametrize("where", ["edge", "central"])
def test_jacobians_are_those_of_automatic_differentiation(where: str) -> None:
    weights = tiny_scores.weights(3)
    wanted = direct(weights, 3, "jac", 0, particles=3)
    fix, _ = Halves(weights, 3, None, {"fusion": "jac", "where": where, "particles": 3}).fix(0)
    assert fix is not None
    assert np.abs(np.array(fix.position)[:2] - wanted).max() < 0.05 * 80


@pytest.mark.parametrize("stations", range(1, 8))
@pytest.mark.parametrize(
    "options",
    [{}, {"fusion": "jac"}, {"local": 16}, {"where": "central"}, {"where": "central", "fusion": "exact"},
     {"where": "one-shot"}],
    ids=str,
)  # fmt: skip
def test_any_number_of_base_stations_makes_a_fix(stations: int, options: Options, all_weights: Weights) -> None:
    fix, rounds = Halves(all_weights, stations, 6, options).fix()
    assert fix is not None and np.isfinite(fix.position).all() and fix.covariance is not None and not fix.excluded
    assert np.linalg.eigvalsh(fix.covariance[:2, :2]).min() > 0 and not fix.covariance[2].any()
    assert len(rounds) == (1 if "where" in options else 3)


@pytest.fixture(scope="module")
def all_weights() -> Weights:
    return tiny_scores.weights(7)


@pytest.mark.parametrize("bits", [*range(2, 9), None])
@pytest.mark.parametrize("options", [{"fusion": "gauss"}, {"where": "central"}, {"where": "one-shot"}], ids=str)
def test_fewer_bits_move_a_fix_by_more(bits: int | None, options: Options) -> None:
    weights = tiny_scores.weights(3)
    fine, _ = Halves(weights, 3, None, options).fix()
    coarse, rounds = Halves(weights, 3, bits, options).fix()
    assert fine is not None and coarse is not None
    assert {report.payload.bits % (bits or 16) for reports in rounds for report in reports} == {0}
    # Half a cell of the largest range, 8, on each axis, and what averaging three makes of it is left aside.
    most = 80 * 8 / (2 ** (bits or 16) - 1) + 1.0
    assert np.abs(np.subtract(fine.position, coarse.position)).max() < most


def test_rounding_of_the_last_state_does_not_count_once_for_every_base_station() -> None:
    """At σ_min f(x) = x: whatever came over the links, the sampler stays where it is."""
    assert SIGMA_DATA == score_network.SIGMA_DATA
    weights = tiny_scores.weights(7)
    moved = []
    for bits in (None, 4):
        score = score_format(weights.config, {}, bits)
        last = score.levels[-1]
        x = np.array([[0.123, -0.456]])
        received = score.decode_state(score.encode_state(x, last), last)
        assert last.noise == score.sigma_min
        for k in range(7):
            station = ScoreStation(score, weights.config, weights.edge(k), k)
            raw = station.raw(station.embed(channels(1)[0])[0], received, last)
            said, _ = score.decode_answer(score.encode_answer(raw, received, last), x, last)
            moved.append(np.abs(said - x).max())
    assert max(moved) < 4 * score.sigma_min / 15 + 1e-5  # half a cell of 15 on ±4 σ_min


def test_sizes_are_those_that_the_documentation_states() -> None:
    for dimensions in (2, 3):
        weights = tiny_scores.weights(1, dimensions=dimensions)
        pairs = dimensions * (dimensions + 1) // 2
        for particles in (1, 4):
            for fusion, jacobians in (("gauss", 0), ("jac", pairs)):
                halves = Halves(weights, 1, 5, {"fusion": fusion, "particles": particles, "local": 8})
                (edge,) = halves.edges
                assert isinstance(edge, RoundScheme)
                answer_bits = 5 * particles * (dimensions + jacobians)
                assert (edge.format.max_bits, edge.answer_format.max_bits) == (5 * pairs, answer_bits)
                _, rounds = halves.fix()
                made = halves.fusion.open(0).advance(rounds[0])  # type: ignore[union-attr]
                assert isinstance(made, Payload) and made.bits == 5 * particles * dimensions
        assert Halves(weights, 1, 5, {"where": "one-shot"}).edges[0].format.max_bits == 15 * (1 + dimensions + pairs)
        assert Halves(weights, 1, 5, {"where": "central"}).edges[0].format == PayloadFormat.uniform(5, 64, 1)


def test_the_covariance_is_calibrated_and_in_square_metres() -> None:
    weights = tiny_scores.weights(2)
    fix, _ = Halves(weights, 2, None, {"fusion": "precision"}).fix()
    calibrated = Weights(weights.config | {"calibration": {"precision": 2.5}}, weights.tensors)
    wider, _ = Halves(calibrated, 2, None, {"fusion": "precision"}).fix()
    total = sum(np.linalg.inv(weights.edge(k)["posterior"].double().numpy()) for k in range(2))
    assert fix is not None and wider is not None and fix.covariance is not None and wider.covariance is not None
    np.testing.assert_allclose(fix.covariance[:2, :2], 80**2 * np.linalg.inv(total), rtol=1e-6)
    np.testing.assert_allclose(wider.covariance, 2.5 * fix.covariance)


def test_particles_are_averaged() -> None:
    weights = tiny_scores.weights(3, "diffusion")
    wanted = direct(weights, 3, "mean", 1, particles=5)
    fix, _ = Halves(weights, 3, None, {"fusion": "mean", "particles": 5}).fix(1)
    assert fix is not None and np.abs(np.array(fix.position)[:2] - wanted).max() < 1.0


def test_own_samples_are_common_random_numbers() -> None:
    weights = tiny_scores.weights(2, "diffusion")
    score = score_format(weights.config, {"where": "one-shot"}, 8)
    one, other = (ScoreStation(score, weights.config, weights.edge(k), k) for k in range(2))
    embedding = one.embed(channels(1)[0])
    samples = one.samples(embedding, 64)
    assert samples.shape == (2, 64, 2)
    np.testing.assert_allclose(one.samples(embedding[1:], 64)[0], samples[1], atol=1e-5)
    assert np.abs(other.samples(embedding, 64) - samples).max() > 0.01
    # ε̂ = x + δ: what differs between snapshots is a shift, the same for every sample.
    shift = samples[1] - samples[0]
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:1], shift.shape), atol=1e-3)


def test_one_shot_widens_by_the_share_of_the_constant_covariance() -> None:
    """Samples of a consistency model coincide: without the constant they would claim to know the position."""
    weights = tiny_scores.weights(1)
    fixes = []
    for inflation in (None, 0.0):
        config = weights.config | ({} if inflation is None else {"one_shot_inflation": inflation})
        fixes.append(Halves(Weights(config, weights.tensors), 1, None, {"where": "one-shot"}).fix()[0])
    wide, narrow = (fix.covariance for fix in fixes if fix is not None)
    assert wide is not None and narrow is not None
    extra = 80**2 * weights.edge(0)["posterior"].double().numpy()
    np.testing.assert_allclose(wide[:2, :2] - narrow[:2, :2], extra, rtol=0.05, atol=1.0)


def replayed(halves: Halves, fix: Fix, rounds: list[list[Report]]) -> Fix | None:
    """The fix again, from the reports alone that it used."""
    assert isinstance(halves.fusion, Fusion)
    used = [[report for report in reports if fix.uses(report.key)] for reports in rounds]
    return replay_exchanges(FusionCenter(halves.fusion), {0: [reports for reports in used if reports]})[0]


@pytest.mark.parametrize("begins", [1, 7, 20])
def test_a_base_station_that_is_not_finite_is_left_out_and_named(begins: int) -> None:
    weights = tiny_scores.weights(3, "diffusion")
    options: Options = {"fusion": "mean"}
    halves = Halves(weights, 3, 8, options)
    whole, _ = halves.fix()
    break_from(halves, 1, noise_schedule(weights.config["sampler"], 20)[begins - 1].time)
    fix, rounds = halves.fix()
    assert whole is not None and fix is not None and len(rounds) == 21
    assert fix.excluded == {1: f"its answer of round {begins} is not finite"}
    used = {key.round for reports in rounds for report in reports if (key := report.key).bs == 1 and fix.uses(key)}
    assert used == (set() if begins == 1 else set(range(begins)))
    assert np.isfinite(fix.position).all() and fix.position != whole.position
    again = replayed(halves, fix, rounds)
    assert again is not None and again.position == fix.position and not again.excluded
    if begins == 1:
        without = Halves(weights, 3, 8, options).fix(silent=lambda bs, round_: bs == 1)[0]
        assert without is not None and without.position == fix.position


def test_a_spread_that_is_not_finite_is_named() -> None:
    halves = Halves(tiny_scores.weights(3, "diffusion"), 3, 8, {"fusion": "mean", "local": 8})
    break_from(halves, 1, 2.0)
    fix, rounds = halves.fix()
    assert fix is not None and fix.excluded == {1: "the covariance of its posterior is not finite"}
    assert not any(fix.uses(report.key) for reports in rounds for report in reports if report.key.bs == 1)
    again = replayed(halves, fix, rounds)
    assert again is not None and again.position == fix.position


def break_from(halves: Halves, bs: int, time: float) -> None:
    """Have a base station say nothing finite from a time of the noise schedule on, downwards."""
    station = halves.edges[bs]._station  # type: ignore[attr-defined]
    whole = station.raw

    def raw(embedding: Tensor, x: Any, level: Any) -> Any:
        return whole(embedding, x, level) * (np.nan if level.time <= time else 1.0)

    station.raw = raw


def broken(weights: Weights, bs: int) -> Weights:
    tensors = {name: value.clone() for name, value in weights.tensors.items()}
    tensors[f"edge.{bs}.network.body.head.bias"] += torch.nan
    return dataclasses.replace(weights, tensors=tensors)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"where": "central"}, "its network's output is not finite"),
        ({"where": "central", "fusion": "exact"}, "its network's output is not finite"),
        ({"where": "one-shot"}, "its posterior is not finite"),
        ({"fusion": "jac"}, "its answer of round 1 is not finite"),
    ],
)
def test_whatever_is_not_finite_is_named_in_every_mode(options: Options, reason: str) -> None:
    weights = tiny_scores.weights(3)
    fix, _ = Halves(broken(weights, 1), 3, 8, options).fix()
    assert fix is not None and fix.excluded == {1: reason} and np.isfinite(fix.position).all()
    without, _ = Halves(weights, 3, 8, options).fix(silent=lambda bs, round_: bs == 1)
    assert without is not None and without.position == fix.position
    for bs in (0, 2):
        weights = broken(weights, bs)
    nobody, _ = Halves(broken(weights, 1), 3, 8, options).fix()
    assert nobody is not None and set(nobody.excluded) == {0, 1, 2} and not np.isfinite(nobody.position).any()


def test_an_embedding_that_is_not_finite_is_said() -> None:
    weights = tiny_scores.weights(2)
    tensors = weights.tensors | {"edge.1.network.embed_channel.weight": torch.full((1, 32, 64), torch.nan)}
    fix, _ = Halves(dataclasses.replace(weights, tensors=tensors), 2, 8, {"where": "central"}).fix()
    assert fix is not None and fix.excluded == {1: "its embedding is not finite"}


def test_a_silent_base_station_is_left_out_until_it_answers_again() -> None:
    weights = tiny_scores.weights(3, "diffusion")
    halves = Halves(weights, 3, 8, {"fusion": "sum"})
    positions = set()
    for rounds_away in ((), (5, 6), (19, 20), range(21)):
        fix, _ = halves.fix(silent=lambda bs, round_: bs == 2 and round_ in rounds_away)  # noqa: B023
        assert fix is not None and not fix.excluded
        positions.add(fix.position)
    assert len(positions) == 4


def test_without_any_answer_there_is_no_fix_and_after_one_there_is() -> None:
    halves = Halves(tiny_scores.weights(2), 2, 8, {})
    assert halves.fix(silent=lambda bs, round_: round_ > 0)[0] is None
    fix, rounds = halves.fix(silent=lambda bs, round_: round_ > 1)
    assert fix is not None and len(rounds) == 3


def test_two_hundred_steps() -> None:
    weights = tiny_scores.weights(2, "diffusion")
    fix, rounds = Halves(weights, 2, 8, {"steps": 200, "fusion": "mean"}).fix()
    assert fix is not None and len(rounds) == 201
    assert sum(report.payload.bits for reports in rounds for report in reports) == 2 * 200 * 2 * 8


def test_rounds_beyond_the_ladder_and_states_of_another_size_are_refused() -> None:
    (edge,) = Halves(tiny_scores.weights(1), 1, 8, {}).edges
    assert isinstance(edge, RoundScheme)
    context = edge.encode(channels(1)[0]).context[0]  # type: ignore[attr-defined]
    state = pack(np.zeros(2, np.uint32), 8)
    with pytest.raises(ValueError, match="the sampler has 2 steps, there is no round 3"):
        edge.answer(context, 0, 3, state)
    with pytest.raises(Exception, match="the payload has 24"):
        edge.answer(context, 0, 1, pack(np.zeros(3, np.uint32), 8))
    answer, side = edge.answer(context, 0, 1, state)
    assert (side, answer.bits) == (b"", 16)


def test_weights_of_fewer_base_stations_are_refused() -> None:
    weights = tiny_scores.weights(2)
    places = dict.fromkeys(range(3), (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="the weights are of 2 base stations, there are 3"):
        build_cloud(CloudSetup(places, PayloadChoice(8), weights.config, weights.cloud()))


def test_channels_of_another_size_are_refused() -> None:
    halves = Halves(tiny_scores.weights(1), 1, 8, {})
    with pytest.raises(RuntimeError, match="takes fingerprints of 32 numbers, not of 48"):
        halves.edges[0].encode(torch.zeros(1, 1, 6, 8, dtype=torch.complex64))


def test_what_stands_at_the_cloud_is_without_the_part_that_embeds() -> None:
    weights = tiny_scores.weights(1)
    make = at_cloud(EdgeSetup(0, PayloadChoice(8), weights.config, weights.edge(0), options={"where": "central"}))
    assert make is not None
    (setup,) = make.args  # type: ignore[attr-defined]
    assert "network.embed_channel.weight" in weights.edge(0) and "network.embed_channel.weight" not in setup.tensors
    for where in ("edge", "one-shot"):
        assert (
            at_cloud(EdgeSetup(0, PayloadChoice(8), weights.config, weights.edge(0), options={"where": where})) is None
        )

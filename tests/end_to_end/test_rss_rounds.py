"""The example of a scheme that takes several rounds: by itself, and through the whole emulator."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch

from cloud.fusion.rss_rounds import RssRoundsFusion
from cloud.fusion.scheme import CloudSetup, Fix, Fusion
from edge.rss_rounds import RssRoundsEdge
from edge.scheme import EdgeSetup, RoundScheme, weights_scheme
from fronthaul.link.link_file import LinkPlan
from fronthaul.message.messages import Payload, Report, ReportKey
from fronthaul.payload.choice import PayloadChoice
from sim.emulate.emulator import emulate
from sim.inspect.replay import replay
from sim.plan.settings import EmulateSettings
from sim.plan.weights import Weights, find_weights, load_weights
from sim.records.books import used_reports
from sim.records.folder import RunFolder
from sim.records.links import read_ledgers

Vector = npt.NDArray[np.float64]

LOW, HIGH = np.array([-80.0, -80.0, 1.5]), np.array([80.0, 80.0, 20.0])
CONFIG = {"low": LOW.tolist(), "high": HIGH.tolist()}
SITES = np.array([[121.0, 6, 25], [57, 107, 27], [-66, 99, 24], [-118, -9, 28], [-55, -110, 25], [63, -101, 26]])
MODEL = np.array([[-24.0, 2.0, 6], [-27, 1.5, 5], [-10, 2.2, 4], [-11, 2.1, 2], [-26, 1.6, 5], [-10, 2.3, 5]])
USERS = np.random.default_rng(4).uniform(0.8 * LOW, 0.8 * HIGH, (40, 3))
STATE_BITS = 3 * 16


def gains(user: Vector, noise: float = 0.0, seed: int = 0) -> Vector:
    """What the path-loss model itself predicts at a user [dB], with `noise` standard deviations on top."""
    expected = MODEL[:, 0] - 10 * MODEL[:, 1] * np.log10(np.linalg.norm(user - SITES, axis=1))
    level: Vector = expected + noise * MODEL[:, 2] * np.random.default_rng(seed).standard_normal(len(SITES))
    return level


def position(
    level: Vector,
    bits: int | None,
    heard: Callable[[int, int], bool] = lambda bs, round_: True,
    *,
    rounds: int = 8,
) -> tuple[Fix | None, int]:
    """Go through the rounds of a snapshot; return its fix, and how many states were broadcast."""
    stations = {bs: (float(x), float(y), float(z)) for bs, (x, y, z) in enumerate(SITES)}
    row = torch.tensor(MODEL).unbind()
    edges = [
        RssRoundsEdge(EdgeSetup(bs, PayloadChoice(bits), CONFIG, {"path_loss": row[bs]}, site=stations[bs]))
        for bs in stations
    ]
    fusion = RssRoundsFusion(CloudSetup(stations, PayloadChoice(bits), CONFIG | {"rounds": rounds}, {}))
    assert all(isinstance(edge, RoundScheme) for edge in edges) and isinstance(fusion, Fusion)
    exchange = fusion.open(0)
    made = exchange.advance([Report(ReportKey(bs, 0, 0), Payload(b"", 0)) for bs in stations])
    for round_ in itertools.count(1):
        if isinstance(made, Fix):
            return made, round_ - 1
        assert made.bits == STATE_BITS
        reports = []
        for bs, edge in enumerate(edges):
            if heard(bs, round_):
                reports.append(Report(ReportKey(bs, 0, 0, round_), *edge.answer(float(level[bs]), 0, round_, made)))
        if not reports:
            return exchange.conclude(), round_
        made = exchange.advance(reports)
    raise AssertionError


def bounded(rows: Vector, right: Vector, low: Vector, high: Vector) -> Vector:
    """Least squares within bounds, by trying for every coordinate whether it is free or at an end."""
    best, least = np.zeros(3), np.inf
    for ends in itertools.product((None, low, high), repeat=3):
        free = [i for i in range(3) if ends[i] is None]
        step = np.array([0.0 if end is None else end[i] for i, end in enumerate(ends)])
        step[free] = np.linalg.pinv(rows[:, free]) @ (right - rows @ step)
        cost = float(np.sum((rows @ step - right) ** 2))
        if cost < least and (step >= low - 1e-9).all() and (step <= high + 1e-9).all():
            best, least = step, cost
    return best


def gauss_newton(level: Vector, rounds: int) -> Vector:
    """The same steps in float64, by one who knows gains and model and quantises nothing."""
    centre: Vector = (LOW + HIGH) / 2
    x = centre
    prior = np.sqrt(12) / (HIGH - LOW)
    damping, last = 0.1, np.zeros(3)
    for _ in range(rounds):
        line = x - SITES
        distance = np.linalg.norm(line, axis=1)
        expected = MODEL[:, 0] - 10 * MODEL[:, 1] * np.log10(distance)
        jacobian = (10 * MODEL[:, 1] / np.log(10) / MODEL[:, 2] / distance**2)[:, None] * line
        residual = np.clip((level - expected) / MODEL[:, 2], -2, 2)
        rows = np.vstack([jacobian, np.diag(prior), np.sqrt(damping) * np.diag(prior)])
        step = bounded(rows, np.concatenate([-residual, prior * (centre - x), np.zeros(3)]), LOW - x, HIGH - x)
        damping, last, x = damping * (4 if step @ last < 0 else 1), step, x + step
        if np.linalg.norm(step) < 0.5:
            break
    return x


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_fixes_are_those_of_gauss_newton_in_float64(noise: float) -> None:
    for number, user in enumerate(USERS):
        level = gains(user, noise, number)
        for rounds in (1, 3, 8):
            fix, _ = position(level, None, rounds=rounds)
            assert fix is not None
            np.testing.assert_allclose(fix.position, gauss_newton(level, rounds), atol=0.05)


def test_rounds_end_where_the_posterior_peaks() -> None:
    prior = 12 / (HIGH - LOW) ** 2

    def cost(x: Vector, level: Vector) -> float:
        expected = MODEL[:, 0] - 10 * MODEL[:, 1] * np.log10(np.linalg.norm(x - SITES, axis=1))
        residual = np.abs(level - expected) / MODEL[:, 2]
        huber = np.where(residual < 2, residual**2, 4 * residual - 4)
        return float(huber.sum() + prior @ (x - (LOW + HIGH) / 2) ** 2)

    for number, user in enumerate(USERS):
        level = gains(user, 1.0, number)
        fix, rounds = position(level, None, rounds=30)
        assert fix is not None and rounds < 30
        reached = cost(np.array(fix.position), level)
        for away in (*(4 * np.eye(3)), *(-4 * np.eye(3))):
            assert cost(np.clip(fix.position + away, LOW, HIGH), level) >= reached


@pytest.mark.parametrize(("bits", "most_m"), [(8, 3.0), (4, 25.0), (1, 120.0)])
def test_coarse_answers_move_fixes_by_little(bits: int, most_m: float) -> None:
    for number, user in enumerate(USERS):
        level = gains(user, 1.0, number)
        (coarse, _), (fine, _) = position(level, bits), position(level, None)
        assert coarse is not None and fine is not None
        assert np.linalg.norm(np.subtract(coarse.position, fine.position)) < most_m
        assert (coarse.position >= LOW).all() and (coarse.position <= HIGH).all()


def test_the_covariance_is_fisher_information_and_prior() -> None:
    user = USERS[0]
    fix, _ = position(gains(user), None, rounds=30)
    assert fix is not None and fix.covariance is not None
    line = np.array(fix.position) - SITES
    slope = 10 * MODEL[:, 1] / np.log(10) / MODEL[:, 2] / np.linalg.norm(line, axis=1) ** 2
    information = (slope[:, None] * line).T @ (slope[:, None] * line) + np.diag(12 / (HIGH - LOW) ** 2)
    np.testing.assert_allclose(fix.covariance, np.linalg.inv(information), rtol=0.05, atol=0.5)


@pytest.mark.parametrize("level_db", [-1000.0, 0.0, 1000.0])
def test_absurd_gains_leave_the_fix_finite_and_in_the_area(level_db: float) -> None:
    fix, _ = position(np.full(6, level_db), 4)
    assert fix is not None and fix.covariance is not None
    assert np.isfinite(fix.covariance).all() and np.linalg.eigvalsh(fix.covariance).min() > 0
    assert (fix.position >= LOW).all() and (fix.position <= HIGH).all()


def test_a_silent_base_station_counts_with_what_it_said_last() -> None:
    level = gains(USERS[1], 0.5)
    whole, _ = position(level, 8)
    late, _ = position(level, 8, lambda bs, round_: bs != 2 or round_ < 4)
    never, _ = position(level, 8, lambda bs, _: bs != 2)
    assert whole is not None and late is not None and never is not None
    moved = [np.linalg.norm(np.subtract(fix.position, whole.position)) for fix in (late, never)]
    assert moved[0] < 5 < moved[1]
    assert never.covariance is not None and whole.covariance is not None
    assert np.trace(never.covariance) > np.trace(whole.covariance)


def test_without_any_answer_there_is_no_fix() -> None:
    assert position(gains(USERS[0]), 8, lambda bs, _: False) == (None, 1)


def test_the_gain_is_kept_and_not_sent() -> None:
    edge = RssRoundsEdge(EdgeSetup(0, PayloadChoice(4), CONFIG, {"path_loss": torch.tensor(MODEL[0])}))
    channel = torch.randn((3, 2, 4, 8), generator=torch.Generator().manual_seed(1), dtype=torch.complex64)
    encoded = edge.encode(channel)
    assert encoded.payloads == 3 * [Payload(b"", 0)] and not encoded.side
    power = np.square(np.abs(channel.numpy())).reshape(3, -1)
    np.testing.assert_allclose(encoded.context[1] - encoded.context[0], 10 * np.log10(power[1].sum() / power[0].sum()),
                               atol=1e-4)  # fmt: skip


def test_a_base_station_gets_its_own_row_of_the_path_loss_table() -> None:
    table = torch.arange(6.0).reshape(2, 3)
    weights = Weights({}, {"cloud.path_loss": table, "edge.0.covariance": torch.zeros(1)})
    assert weights.edge(1)["path_loss"].tolist() == [3, 4, 5]
    assert weights.edge(1)["path_loss"].untyped_storage().nbytes() == 12  # and nobody else's
    assert weights.edge(2) == {} and set(weights.edge(0)) == {"covariance", "path_loss"}


def test_it_runs_on_the_shipped_weights_of_rss() -> None:
    assert [weights_scheme(name) for name in ("ecc", "rss", "rss-rounds")] == ["ecc", "rss", "rss"]
    path = find_weights("paris-6", weights_scheme("rss-rounds"), 8)
    assert path.name == "rss.safetensors"
    assert load_weights(path).edge(5)["path_loss"].shape == (3,)


# Through the whole emulator, in process


@pytest.fixture
def rounds_settings(settings: EmulateSettings) -> EmulateSettings:
    return dataclasses.replace(settings, scheme="rss-rounds", bits=5, capture=False, controls=False)


def test_every_round_is_in_the_ledger_in_both_directions(rounds_settings: EmulateSettings) -> None:
    result = emulate(rounds_settings)
    fixes = pq.read_table(result.folder / "fixes.parquet").to_pylist()
    assert len(fixes) == rounds_settings.snapshots and max(fix["rounds"] for fix in fixes) > 2
    for bs, ledger in read_ledgers(RunFolder(result.folder)).items():
        if bs is None:
            continue
        found = {"up": set(), "down": set()}  # type: dict[str, set[tuple[int, int, int]]]
        for row in ledger.to_pylist():
            assert row["frame_fate"] == "delivered"
            found[row["direction"]].add((row["snapshot"], row["round"], row["payload_bits"]))
        every = {(fix["snapshot"], round_) for fix in fixes for round_ in range(fix["rounds"])}
        assert found["up"] == {(snapshot, round_, 10 if round_ else 0) for snapshot, round_ in every}
        assert found["down"] == {(snapshot, round_, STATE_BITS) for snapshot, round_ in every if round_}
    assert result.summary["conservation"] == {"ok": True, "problems": []}
    assert (result.summary["payload_bits_per_report"], result.summary["payload_bits_per_answer"]) == (0, 10)


def test_bits_of_a_fix_are_those_of_all_its_rounds(rounds_settings: EmulateSettings) -> None:
    result = emulate(rounds_settings)
    fixes = pq.read_table(result.folder / "fixes.parquet").to_pylist()
    bits = {fix["snapshot"]: 3 * (fix["rounds"] - 1) * (2 * 5 + STATE_BITS) for fix in fixes}
    counted = dict.fromkeys(bits, 0)
    for ledger in read_ledgers(RunFolder(result.folder)).values():
        for snapshot, payload_bits in zip(
            ledger["snapshot"].to_pylist(), ledger["payload_bits"].to_pylist(), strict=True
        ):
            counted[snapshot] += payload_bits
    assert counted == bits
    assert 8 * result.summary["bytes"]["payload"] == sum(bits.values())


@pytest.mark.parametrize("bs", [1, 2, 3])
def test_replay_is_exact_with_any_number_of_base_stations(rounds_settings: EmulateSettings, bs: int) -> None:
    result = replay(emulate(dataclasses.replace(rounds_settings, bs=bs)).folder)
    assert result.identical == result.compared == result.total == rounds_settings.snapshots


def lossy(settings: EmulateSettings, **changes: object) -> EmulateSettings:
    """Links that lose every tenth frame, up and down, and a cloud that waits 5 ms for a round."""
    links = LinkPlan({(None, None): {"loss": 0.1}})
    return dataclasses.replace(settings, links=links, round_ms=5.0, **changes)  # type: ignore[arg-type]


def test_rounds_go_on_without_the_silent(rounds_settings: EmulateSettings) -> None:
    result = emulate(lossy(rounds_settings))
    fixes = pq.read_table(result.folder / "fixes.parquet")
    delivered = set()
    for ledger in read_ledgers(RunFolder(result.folder)).values():
        for row in ledger.to_pylist():
            if row["direction"] == "up" and row["frame_fate"] == "delivered":
                delivered.add(ReportKey(row["bs"], row["epoch"], row["snapshot"], row["round"]))
    # Whoever misses in round 0 or later, there is a fix as soon as one base station has answered.
    assert set(fixes["snapshot"].to_pylist()) == {key.snapshot for key in delivered if key.round}
    assert len(fixes) >= rounds_settings.snapshots - 1
    without = 0
    for (_, keys), fix in zip(used_reports(fixes).by_fix(), fixes.to_pylist(), strict=True):
        assert set(keys) <= delivered
        heard = {round_: {key.bs for key in keys if key.round == round_} for round_ in range(fix["rounds"])}
        assert all(heard.values())
        without += any(len(stations) < 3 for stations in heard.values())
    assert without > rounds_settings.snapshots // 2  # nearly every fix has missed somebody
    assert result.summary["reports"]["lost"] > 0 and result.summary["conservation"]["ok"]
    again = replay(result.folder)
    assert again.identical == again.compared == again.total == len(fixes)


def test_rounds_with_too_few_answers_end_with_the_best_so_far(rounds_settings: EmulateSettings) -> None:
    result = emulate(lossy(rounds_settings, minimum_bs=3))
    fixes = pq.read_table(result.folder / "fixes.parquet")
    unhindered = pq.read_table(emulate(rounds_settings).folder / "fixes.parquet")
    rounds = dict(zip(unhindered["snapshot"].to_pylist(), unhindered["rounds"].to_pylist(), strict=True))
    cut = 0
    for (snapshot, keys), fix in zip(used_reports(fixes).by_fix(), fixes.to_pylist(), strict=True):
        assert len(keys) == 3 * fix["rounds"]
        cut += fix["rounds"] < rounds[snapshot]
    assert 0 < cut <= len(fixes) < rounds_settings.snapshots  # those that lost a report of round 0 have no fix
    assert replay(result.folder).identical == len(fixes)


def test_errors_in_paris_are_comparable_to_those_of_rss(tmp_path: Path) -> None:
    mean_m = {}
    for scheme in ("rss", "rss-rounds"):
        settings = EmulateSettings(
            scheme=scheme, bits=8, snapshots=60, driver="process", output=tmp_path, capture=False, controls=False
        )
        mean_m[scheme] = emulate(settings).summary["error_3d_m"]["mean"]
    assert mean_m["rss-rounds"] < 1.2 * mean_m["rss"] < 60

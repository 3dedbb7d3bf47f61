"""Classical positioning on lines of sight: close to the error bound, and honest about what it does not know."""

import dataclasses
import math
from functools import cache

import numpy as np
import pytest
import straight_world
import torch
from straight_world import Array

from cloud.fusion.lateration import build_aoa, build_tdoa, build_tdoa_aoa, build_toa, build_toa_aoa
from cloud.fusion.nrppa import build_path, build_sample
from cloud.fusion.scheme import CloudSetup, Fix
from edge.estimation import LeastSquaresEstimator
from edge.first_path import FirstPathEdge, ProfileMeter
from edge.first_path import build_toa as edge_toa
from edge.first_path import build_toa_aoa as edge_toa_aoa
from edge.music import build as music
from edge.nrppa_path import NrppaPathEdge
from edge.nrppa_sample import NrppaSampleEdge
from edge.scheme import EdgeSetup
from fronthaul.message.messages import Payload, Report, ReportKey
from fronthaul.payload.choice import PayloadChoice
from fronthaul.payload.measurements import SPEED_OF_LIGHT
from sim.learn.lateration import first_path_weights, fitted, residuals, student
from sim.plan.weights import Weights
from sim.world.bound import position_error_bound
from sim.world.channel import pad_paths, scenario_pilots
from sim.world.paths import PathSet
from sim.world.radio import Radio
from sim.world.scenario import ClockErrors, Scenario

RULES = {
    "toa": build_toa, "tdoa": build_tdoa, "aoa": build_aoa, "toa-aoa": build_toa_aoa, "tdoa-aoa": build_tdoa_aoa,
}  # fmt: skip
STANDARD = {"nrppa-path": (NrppaPathEdge, build_path), "nrppa-sample": (NrppaSampleEdge, build_sample)}
USERS = 30
CHOICE = PayloadChoice(4)


def world(tx_power_dbm: float = -12.0, **changes: object) -> Scenario:
    """Six sites, whole band, few slots, so much noise that it matters."""
    made = straight_world.scenario(6)
    numerology = dataclasses.replace(made.numerology, tones=24, tone_stride=12)
    budget = dataclasses.replace(made.link_budget, tx_power_dbm=tx_power_dbm)
    return dataclasses.replace(made, numerology=numerology, link_budget=budget, **changes)


@cache
def trained(tx_power_dbm: float = -12.0) -> Weights:
    """The error model of other users."""
    scenario = world(tx_power_dbm)
    weights = first_path_weights(scenario)
    others = straight_world.trace(scenario, straight_world.positions(scenario, 50, 9))
    errors = fitted(*residuals(scenario, others, weights))
    return Weights(weights.config | {"errors": errors}, weights.tensors)


def reports(scheme: str, scenario: Scenario, paths: PathSet, weights: Weights, k: int = 0) -> list[list[Report]]:
    """Reports of all base stations, by snapshot."""
    padded = pad_paths(paths, scenario.numerology.carrier_hz)
    estimator = LeastSquaresEstimator(scenario.tone_power_w, scenario_pilots(scenario))
    columns = []
    for bs in range(len(scenario.sites)):
        radio = Radio(scenario, padded.site(bs), bs, seed=1)
        received = torch.stack([radio.observe(n) for n in range(len(paths))])
        options = {} if scheme == "aoa" else {"k": k}
        setup = EdgeSetup(bs, CHOICE, weights.config, weights.edge(bs), options=options)
        edge = STANDARD[scheme][0](setup) if scheme in STANDARD else FirstPathEdge(scheme, setup)
        payloads = edge.encode(estimator.estimate(received)).payloads
        columns.append([Report(ReportKey(bs, 0, n), payload, b"") for n, payload in enumerate(payloads)])
    return [list(group) for group in zip(*columns, strict=True)]


def fuse(scheme: str, scenario: Scenario, groups: list[list[Report]], weights: Weights, k: int = 0) -> list[Fix]:
    stations = {bs: site.position for bs, site in enumerate(scenario.sites)}
    options: dict[str, str | int] = {} if scheme == "aoa" else {"k": k}
    rule = STANDARD[scheme][1] if scheme in STANDARD else RULES[scheme]
    return rule(CloudSetup(stations, CHOICE, weights.config, {}, options=options)).fuse(groups)


def positions(fixes: list[Fix]) -> Array:
    return np.array([fix.position for fix in fixes])


@cache
def users(tx_power_dbm: float = -12.0) -> tuple[Scenario, Array, PathSet]:
    scenario = world(tx_power_dbm)
    position = straight_world.positions(scenario, USERS)
    return scenario, position, straight_world.trace(scenario, position)


def test_times_and_angles_come_close_to_the_error_bound() -> None:
    scenario, position, paths = users()
    weights = trained()
    fixes = fuse("toa-aoa", scenario, reports("toa-aoa", scenario, paths, weights), weights)
    error = np.linalg.norm(positions(fixes) - position, axis=1)
    bound = position_error_bound(scenario, paths)
    assert bound is not None and 0.2 < bound.mean() < 3.0  # noise matters, and the quantiser does not
    assert 0.85 < math.sqrt(np.square(error).mean() / np.square(bound).mean()) < 1.35  # the prior helps a little


@pytest.mark.parametrize(("scheme", "k", "most"), [("nrppa-path", 0, 1.35), ("nrppa-sample", 5, 1.6)])
def test_standard_reports_come_close_to_the_error_bound(scheme: str, k: int, most: float) -> None:
    """Samples less so: their powers are whole decibels."""
    scenario, position, paths = users()
    weights = trained()
    fixes = fuse(scheme, scenario, reports(scheme, scenario, paths, weights, k), weights, k)
    square = np.square(positions(fixes) - position).sum(1)
    bound = position_error_bound(scenario, paths)
    assert bound is not None
    assert 0.8 < math.sqrt(square.mean() / np.square(bound).mean()) < most


def test_a_clock_is_estimated_as_well_as_the_bound_with_unknown_clock_allows() -> None:
    scenario, position, paths = users()
    late = dataclasses.replace(scenario, clock=ClockErrors(ue_bias_ns=50.0))
    weights = trained()
    bound = position_error_bound(late, paths)
    assert bound is not None
    found = {
        scheme: positions(fuse(scheme, late, reports(scheme, late, paths, weights), weights)) - position
        for scheme in ("toa-aoa", "tdoa-aoa")
    }
    error = np.linalg.norm(found["tdoa-aoa"], axis=1)
    assert 0.85 < math.sqrt(np.square(error).mean() / np.square(bound).mean()) < 1.5
    assert np.linalg.norm(found["toa-aoa"], axis=1).mean() > 3 * error.mean()


@pytest.mark.parametrize("scheme", RULES)
def test_every_scheme_locates_where_noise_is_low_and_its_covariance_covers(scheme: str) -> None:
    scenario, position, paths = users(10.0)
    weights = trained(10.0)
    fixes = fuse(scheme, scenario, reports(scheme, scenario, paths, weights), weights)
    apart = positions(fixes) - position
    assert np.median(np.linalg.norm(apart[:, :2], axis=1)) < 0.3
    assert np.median(np.abs(apart[:, 2])) < (4.0 if scheme == "tdoa" else 1.5)  # sites at one height, and a clock
    square = [one @ np.linalg.solve(fix.covariance, one) for one, fix in zip(apart, fixes, strict=True)]  # type: ignore[arg-type]
    assert np.mean(np.array(square) < 6.25) > 0.8  # 90 % of a Gaussian in 3D


def test_a_coarser_granularity_costs_metres_and_saves_bits() -> None:
    scenario, position, paths = users(10.0)
    weights = trained(10.0)
    error, bits = {}, {}
    for k in (0, 5):
        groups = reports("toa", scenario, paths, weights, k)
        bits[k] = groups[0][0].payload.bits
        apart = positions(fuse("toa", scenario, groups, weights, k)) - position
        error[k] = np.median(np.linalg.norm(apart[:, :2], axis=1))
    assert bits == {0: 28, 5: 23}
    assert error[0] < error[5] < 3.0


@pytest.mark.parametrize(("scheme", "most"), [("toa", 2), ("tdoa", 3), ("aoa", 1), ("tdoa-aoa", 1)])
def test_too_few_base_stations_are_no_fix_and_one_more_may_be(scheme: str, most: int) -> None:
    scenario, _, paths = users(10.0)
    weights = trained(10.0)
    groups = reports(scheme, scenario, paths.select(np.arange(8)), weights)
    few = fuse(scheme, scenario, [group[:most] for group in groups], weights)
    assert np.isnan(positions(few)).all() and not few[0].excluded
    more = positions(fuse(scheme, scenario, [group[: most + 2] for group in groups], weights))
    assert np.isfinite(more).all()


def test_nobody_heard_is_no_fix_and_who_hears_nothing_is_excluded() -> None:
    scenario, _, paths = users(10.0)
    weights = trained(10.0)
    [group] = reports("toa-aoa", scenario, paths.select(np.arange(1)), weights)
    silent = [dataclasses.replace(report, payload=Payload(b"", 0)) for report in group]
    [nothing, some] = fuse("toa-aoa", scenario, [silent, [*silent[:2], *group[2:]]], weights)
    assert np.isnan(nothing.position).all() and set(nothing.excluded) == set(range(6))
    assert np.isfinite(some.position).all() and set(some.excluded) == {0, 1}


def test_a_fix_depends_neither_on_order_nor_on_company() -> None:
    scenario, _, paths = users()
    weights = trained()
    groups = reports("tdoa-aoa", scenario, paths.select(np.arange(5)), weights)
    together = positions(fuse("tdoa-aoa", scenario, groups, weights))
    alone = [fuse("tdoa-aoa", scenario, [group[::-1]], weights)[0].position for group in groups]
    np.testing.assert_array_equal(together, alone)


def test_one_reflection_among_lines_of_sight_counts_little() -> None:
    """Site 0 sees every user in a mirror alone; the others see them as they are."""
    scenario, position, direct = users(10.0)
    image = position * [-1.0, 1.0, 1.0] + [150.0, 0.0, 0.0]
    mirrored = straight_world.trace(scenario, image)
    first = np.arange(len(position)) * len(scenario.sites)
    columns = {name: getattr(direct, name).copy() for name in ("matrix", "delay", "site_angle")}
    for name, column in columns.items():
        column[first] = getattr(mirrored, name)[first]
    weights = trained(10.0)
    groups = reports("toa-aoa", scenario, dataclasses.replace(direct, **columns), weights)
    error = np.linalg.norm(positions(fuse("toa-aoa", scenario, groups, weights)) - position, axis=1)
    assert np.median(error) < 0.5


def test_the_first_path_is_found_before_a_stronger_one() -> None:
    """Against the geometry: a weak path 60 m ahead of one 7 dB stronger, and a lone path between two samples."""
    meter = ProfileMeter({"tones": 24, "tone_spacing_hz": 720e3, "noise": 1e-12})
    tone = np.arange(24)

    def channel(*paths: tuple[float, float]) -> Array:
        whole = sum(g * np.exp(-2j * np.pi * 720e3 * tone * metres / SPEED_OF_LIGHT) for metres, g in paths)
        return np.broadcast_to(whole, (1, 4, 4, 24)).astype(np.complex128)

    for metres in (3.0, 100.3, 333.4):
        time, peak, power = meter.first(meter.profiles(channel((metres, 1e-3))))
        np.testing.assert_allclose([time[0] * SPEED_OF_LIGHT, peak[0] * SPEED_OF_LIGHT], metres, atol=0.05)
        assert power[0] == pytest.approx(1e-6, rel=0.01)
    time, *_ = meter.first(meter.profiles(channel((100.0, 0.45e-3), (160.0, 1e-3))))
    assert time[0] * SPEED_OF_LIGHT == pytest.approx(100.0, abs=3.0)
    time, *_ = meter.first(meter.profiles(channel((-10.0, 1e-3))))  # a clock that is ahead
    assert time[0] * SPEED_OF_LIGHT == pytest.approx(-10.0, abs=0.05)


def test_the_quality_of_a_time_is_what_noise_does_to_it() -> None:
    meter = ProfileMeter({"tones": 24, "tone_spacing_hz": 720e3, "noise": 1e-7})
    draw = np.random.default_rng(4)
    clean = 1e-3 * np.exp(-2j * np.pi * 720e3 * np.arange(24) * 100.0 / SPEED_OF_LIGHT)
    noise = math.sqrt(0.5e-7) * (draw.standard_normal((400, 4, 4, 24, 2)) @ [1, 1j])
    time, peak, power = meter.first(meter.profiles(clean + noise))
    least = meter.deviation_s(power, 16).mean()
    assert 0.9 < peak.std() / least < 1.15  # the peak of a lone path is the likeliest delay
    assert 0.9 < time.std() / least < 1.5


def test_a_line_of_antennas_serves_for_times_and_not_for_angles() -> None:
    scenario = world(array=dataclasses.replace(world().array, rows=1, columns=4))
    weights = first_path_weights(scenario)
    paths = straight_world.trace(scenario, straight_world.positions(scenario, 20))
    residual, deviation = residuals(scenario, paths, weights)
    assert np.isfinite(residual).all() and np.isfinite(deviation).all()
    setup = EdgeSetup(0, CHOICE, weights.config, weights.edge(0))
    no_angles = dataclasses.replace(setup, options={"angles": 0})
    assert edge_toa(setup).format == FirstPathEdge("toa", setup).format
    for build in (NrppaPathEdge, NrppaSampleEdge):
        build(no_angles)
    lossless = dataclasses.replace(setup, payload=PayloadChoice(None))
    for refused, own in ((edge_toa_aoa, setup), (NrppaPathEdge, setup), (NrppaSampleEdge, setup), (music, lossless)):
        with pytest.raises(ValueError, match="two rows and two columns, not 1 × 4"):
            refused(own)


def test_students_distribution_is_fitted() -> None:
    draw = np.random.default_rng(2)
    known = draw.uniform(0.0, 0.5, 20_000)
    freedom, scale = student(draw.standard_t(3.0, 20_000) * np.sqrt(0.4**2 + known**2), known)
    assert freedom == pytest.approx(3.0, rel=0.1) and scale == pytest.approx(0.4, rel=0.03)

"""`twin` on the shipped map: centimetres at the bits that were asked for, and what it says when it does not know."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cloud.fusion.twin import TwinFusion
from fronthaul.message.messages import Report
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.inspect.audit import audit
from sim.inspect.replay import replay
from sim.plan.plan import Plan, load_plan
from sim.plan.settings import EmulateSettings

USERS = 40


def settings(bits: int, **changes: object) -> EmulateSettings:
    options = (("bits_per_report", bits),)
    usual = {"scheme": "twin", "driver": "process", "snapshots": USERS, "options": options, "controls": False}
    return EmulateSettings(**usual | changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load_plan(settings(128))


@pytest.fixture(scope="module")
def reports(plan: Plan) -> list[list[Report]]:
    """Reports of all base stations, by snapshot."""
    by_station = []
    for site in plan.sites:
        received = torch.stack([site.radio.observe(n) for n in range(USERS)])
        by_station.append(site.station.assemble().reports(list(range(USERS)), received))
    return [list(group) for group in zip(*by_station, strict=True)]


@pytest.mark.parametrize(("bits", "most_m"), [(128, 0.09), (32, 0.4)])
def test_a_run_has_the_bits_that_were_asked_for_and_centimetres(tmp_path: Path, bits: int, most_m: float) -> None:
    result = emulate(settings(bits, output=tmp_path))
    sent = np.concatenate(
        [pq.read_table(path)["payload_bits"] for path in sorted(result.folder.glob("links/bs-*.parquet"))]
    )
    assert set(sent.tolist()) <= {0, bits}
    assert (sent == bits).mean() > 0.9
    assert result.summary["fixes"] + result.summary["undetermined"] == USERS
    assert result.summary["fixes"] >= 0.95 * USERS
    assert result.summary["error_3d_m"]["mean"] < most_m
    assert result.summary["options"]["bits_per_report"] == bits
    assert audit(result.folder).ok
    assert replay(result.folder).ok


def errors(plan: Plan, groups: list[list[Report]], **options: int) -> np.ndarray:
    setup = dataclasses.replace(plan.cloud.setup, options={"bits_per_report": 128, **options})
    fixes = TwinFusion(setup).fuse(groups)
    return np.linalg.norm(np.array([fix.position for fix in fixes]) - plan.truth[: len(groups)], axis=1)


def test_fixes_do_not_depend_on_their_company_nor_on_the_order_of_reports(
    plan: Plan, reports: list[list[Report]]
) -> None:
    rule = TwinFusion(plan.cloud.setup)
    together = rule.fuse(reports[:8])
    for group, fix in zip(reports[:8], together, strict=True):
        [alone] = rule.fuse([group[::-1]])
        np.testing.assert_allclose(alone.position, fix.position, atol=1e-6)


@pytest.mark.parametrize("stations", [3, 4, 5])
def test_any_base_stations_will_do(plan: Plan, reports: list[list[Report]], stations: int) -> None:
    found = errors(plan, [group[:stations] for group in reports])
    known = found[np.isfinite(found)]
    assert len(known) > 0.8 * USERS
    assert np.median(known) < 0.15


def test_reports_of_different_users_are_no_fix(plan: Plan, reports: list[list[Report]]) -> None:
    mixed = [[reports[(n + 7 * k) % USERS][k] for k in range(6)] for n in range(USERS)]
    assert np.isnan(errors(plan, mixed)).mean() >= 0.95
    assert np.isnan(errors(plan, reports)).mean() <= 0.05


def test_covariances_cover_the_errors(plan: Plan, reports: list[list[Report]]) -> None:
    fixes = TwinFusion(plan.cloud.setup).fuse(reports)
    square = []
    for fix, truth in zip(fixes, plan.truth, strict=True):
        if np.isfinite(fix.position[0]) and fix.covariance is not None:
            apart = np.array(fix.position) - truth
            square.append(apart @ np.linalg.solve(fix.covariance, apart))
    assert np.mean(np.array(square) < 6.25) > 0.75  # 90 % of a Gaussian in 3D; a few dozen users
    assert 0.6 < np.median(square) / 2.37 < 1.7


def test_nobody_heard_is_no_fix(plan: Plan, reports: list[list[Report]]) -> None:
    silent = [dataclasses.replace(r, payload=dataclasses.replace(r.payload, data=b"", bits=0)) for r in reports[0]]
    [fix] = TwinFusion(plan.cloud.setup).fuse([silent])
    assert np.isnan(fix.position).all()
    assert set(fix.excluded) == set(range(6))


def test_a_length_that_a_twin_has_no_report_of_is_one_sentence() -> None:
    with pytest.raises(UserError, match="a report has 12 to 512 bits, not 9"):
        load_plan(settings(9))


def test_a_scenario_without_twin_is_told_how_to_get_one() -> None:
    with pytest.raises(UserError, match=r"python cli.py twin SCENARIO"):
        load_plan(settings(64, scenario="paris-7-ecc"))


def test_every_length_makes_a_report(plan: Plan) -> None:
    station = plan.sites[0].station
    for bits in range(12, 513, 50):
        setup = dataclasses.replace(station.setup, options={"bits_per_report": bits})
        assert station.build(setup).format.max_bits == bits

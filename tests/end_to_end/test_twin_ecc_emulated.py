"""`twin-ecc`: where the self-check of `twin` fails, a second round brings a learned fix, which is marked."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cloud.fusion.scheme import Fix, as_fusion
from cloud.fusion.twin import UNCERTAIN
from cloud.fusion.twin_ecc import COMBINED, LEARNED, TwinEccExchange, TwinEccFusion
from edge.scheme import RoundScheme
from fronthaul.message.messages import Payload, Report, ReportKey
from sim.emulate.emulator import emulate
from sim.inspect.audit import audit
from sim.inspect.replay import replay
from sim.plan.plan import Plan, load_plan
from sim.plan.settings import EmulateSettings

USERS = 12


def settings(
    *options: tuple[str, int], scheme: str = "twin-ecc", users: int = USERS, **changes: object
) -> EmulateSettings:
    return EmulateSettings(scheme=scheme, driver="process", snapshots=users, options=options, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load_plan(settings())


def test_a_fix_that_twin_does_not_vouch_for_is_combined_and_says_so(tmp_path: Path) -> None:
    """A limit of 60 mm is below the protection level of about half of the fixes."""
    result = emulate(settings(("alert_mm", 60), output=tmp_path))
    table = pq.read_table(result.folder / "fixes.parquet", columns=["snapshot", "note", "rounds", "error_3d_m"])
    notes = table["note"].to_pylist()
    asked = {n for n, note in zip(table["snapshot"].to_pylist(), notes, strict=True) if note == COMBINED}
    assert 2 <= len(asked) < USERS
    assert set(notes) == {COMBINED, None}
    assert table["rounds"].to_pylist() == [2 if note else 1 for note in notes]
    assert result.summary["fix_notes"] == {COMBINED: len(asked)}
    error = table["error_3d_m"].to_numpy()
    assert error.mean() < 0.3
    for path in sorted(result.folder.glob("links/bs-*.parquet")):
        frames = pq.read_table(path, columns=["snapshot", "round", "direction", "payload_bits"]).to_pylist()
        answers = [one for one in frames if one["direction"] == "up" and one["round"]]
        assert {one["snapshot"] for one in answers} == asked
        assert {one["payload_bits"] for one in answers} <= {0, 64}
        questions = [one for one in frames if one["direction"] == "down" and one["snapshot"] in asked]
        assert {one["payload_bits"] for one in questions} == {0}
    assert audit(result.folder).ok
    assert replay(result.folder).ok


def test_twin_alone_marks_what_it_does_not_vouch_for(tmp_path: Path) -> None:
    found = [emulate(settings(("alert_mm", mm), scheme="twin", output=tmp_path)) for mm in (60, 10**6)]
    marked = [one.summary["fix_notes"].get(UNCERTAIN, 0) for one in found]
    assert 2 <= marked[0] < USERS
    assert marked[1] == 0
    fixes = pq.read_table(found[0].folder / "fixes.parquet", columns=["note", "covariance_m2"]).to_pylist()
    for fix in fixes:
        spread = math.sqrt(np.trace(np.reshape(fix["covariance_m2"], (3, 3))))
        assert (fix["note"] == UNCERTAIN) == (3 * spread > 0.06)


class Says:
    """A rule whose fix is known."""

    def __init__(self, fix: Fix) -> None:
        self.fix = fix

    def fuse(self, groups: Sequence[Sequence[Report]]) -> list[Fix]:
        return [self.fix] * len(groups)


def test_an_uncertain_fix_and_a_learned_one_are_combined_by_their_precisions() -> None:
    covariance = np.diag([0.3, 0.6, 1.2]) ** 2
    uncertain = Fix((0.0, 0.0, 0.0), covariance, note=UNCERTAIN)
    exchange = TwinEccExchange(Says(uncertain), Says(Fix((1.0, 1.0, 1.0))), 0.6)
    heard = [Report(ReportKey(0, 0, 0), Payload(b"\x80", 1))]
    assert isinstance(exchange.advance(heard), Payload)
    found = exchange.advance(heard)
    assert isinstance(found, Fix) and found.note == COMBINED and found.covariance is not None
    np.testing.assert_allclose(found.position, [0.2, 0.5, 0.8])  # 1/0.36 beside 1/0.09, 1/0.36 and 1/1.44
    np.testing.assert_allclose(np.diag(found.covariance), [0.072, 0.18, 0.288])


def test_without_a_position_of_twin_the_fix_is_that_of_the_learned_scheme(plan: Plan) -> None:
    """The same channels, filtered alike, in the same payloads."""
    undetermined = Fix((math.nan, math.nan, math.nan), np.eye(3))
    rule = TwinEccFusion(plan.cloud.setup)
    exchange = TwinEccExchange(Says(undetermined), rule._second, 0.6)
    assert isinstance(exchange.advance(reports(plan, 0)), Payload)
    found = exchange.advance(reports(plan, 1))
    assert isinstance(found, Fix) and found.note == LEARNED and found.covariance is None
    alone = load_plan(settings(("bits_per_report", 64), scheme="ecc-klt"))
    [expected] = as_fusion(alone.cloud.build(alone.cloud.setup)).fuse([reports(alone, 0)])  # type: ignore[attr-defined]
    np.testing.assert_allclose(found.position, expected.position, atol=1e-3)


def reports(plan: Plan, round_: int, stations: int = 6) -> list[Report]:
    found = []
    for site in plan.sites[:stations]:
        station = site.station.assemble()
        [report] = station.reports([0], torch.stack([site.radio.observe(0)]))
        if round_:
            answer = station.answer(0, round_, Payload(b"", 0))
            assert answer is not None
            report = answer
        found.append(report)
    return found


def test_without_answers_what_twin_said_stands(plan: Plan) -> None:
    doubtful = TwinEccFusion(dataclasses.replace(plan.cloud.setup, options={"alert_mm": 1}))
    exchange = doubtful.open(0)
    assert exchange.conclude() is None
    assert exchange.advance(reports(plan, 0)) == Payload(b"", 0)
    first = exchange.conclude()
    assert first is not None and first.note == UNCERTAIN
    assert np.linalg.norm(np.array(first.position) - plan.truth[0]) < 0.2
    silent = [dataclasses.replace(one, payload=Payload(b"", 0)) for one in reports(plan, 1)]
    assert exchange.advance(silent) is first
    for stations in (1, 3, 6):  # any subset of the answers makes the learned fix
        exchange = doubtful.open(0)
        exchange.advance(reports(plan, 0))
        learned = exchange.advance(reports(plan, 1, stations))
        assert isinstance(learned, Fix) and learned.note == COMBINED


def test_nobody_is_asked_where_nobody_hears_the_user(plan: Plan) -> None:
    silent = [dataclasses.replace(one, payload=Payload(b"", 0)) for one in reports(plan, 0)]
    found = TwinEccFusion(plan.cloud.setup).open(0).advance(silent)
    assert isinstance(found, Fix) and math.isnan(found.position[0])


def test_a_question_has_no_payload(plan: Plan) -> None:
    site = plan.sites[0]
    station = site.station.assemble()
    assert isinstance(station.scheme, RoundScheme)
    station.reports([0], torch.stack([site.radio.observe(0)]))
    with pytest.raises(ValueError, match="has no payload"):
        station.answer(0, 1, Payload(b"\x80", 1))
    [encoded] = [station.scheme.mark(station.scheme.encode(torch.ones(1, 4, 4, 24, dtype=torch.complex64)), [False])]  # type: ignore[attr-defined]
    assert station.scheme.answer(encoded.context[0], 0, 1, Payload(b"", 0)) == (Payload(b"", 0), b"")

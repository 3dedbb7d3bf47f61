"""`ecc-klt` and `ecc-rd` on shipped weights: the bits that were asked for, exact accounts, and what is not heard."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_vinloc

from fronthaul.link.link_file import LinkPlan
from fronthaul.message.messages import Payload, Report, ReportKey
from sim.emulate.emulator import emulate, run_plan
from sim.errors import UserError
from sim.inspect.audit import audit
from sim.inspect.replay import replay
from sim.plan.plan import compose, load_plan, load_test_set
from sim.plan.settings import EmulateSettings
from sim.plan.weights import find_weights, load_weights
from sim.records.folder import RunFolder
from sim.records.links import read_ledgers
from sim.world.scenario import load_scenario

USERS = 60


def settings(scheme: str, bits: int, **changes: object) -> EmulateSettings:
    return EmulateSettings(
        scheme=scheme,
        driver="process",
        snapshots=USERS,
        options=(("bits_per_report", bits),),
        **{"controls": False} | changes,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("scheme", "bits", "most_m"),
    [
        ("ecc-klt", 16, 6.0),
        ("ecc-klt", 64, 0.8),
        ("ecc-klt", 4096, 0.5),
        ("ecc-rd", 16, 2.0),
        ("ecc-rd", 64, 0.9),
    ],
)
def test_a_run_has_the_bits_that_were_asked_for(tmp_path: Path, scheme: str, bits: int, most_m: float) -> None:
    result = emulate(settings(scheme, bits, output=tmp_path))
    sent = np.concatenate(
        [pq.read_table(path)["payload_bits"] for path in sorted(result.folder.glob("links/bs-*.parquet"))]
    )
    assert set(sent.tolist()) <= {0, bits} and (sent == bits).mean() > 0.85
    summary = result.summary
    assert summary["bytes"]["side"] == 0 and summary["fixes"] == USERS
    assert summary["payload_bits_per_report"] == pytest.approx(sent.mean())
    assert summary["error_3d_m"]["mean"] < most_m
    assert summary["options"]["bits_per_report"] == bits
    assert audit(result.folder).ok
    assert replay(result.folder).ok


def test_lost_and_late_reports_keep_their_meaning(tmp_path: Path) -> None:
    links = LinkPlan({(None, None): {"loss": 0.2, "duplicate": 0.1}})
    result = emulate(settings("ecc-klt", 64, output=tmp_path, links=links))
    reports = result.summary["reports"]
    assert sum(reports.values()) == 6 * USERS and reports["lost"] > 0 and reports["used"] > 0
    assert audit(result.folder).ok and replay(result.folder).ok


def test_entropy_coding_makes_the_same_fixes_of_fewer_bits(tmp_path: Path) -> None:
    plain = dataclasses.replace(settings("ecc-klt", 128, output=tmp_path), snapshots=32)
    faults = {"loss": 0.1, "duplicate": 0.2, "corrupt": 0.2, "jitter": 0.05}
    coded = dataclasses.replace(
        plain, options=(*plain.options, ("entropy", 1)), links=LinkPlan({(None, None): faults}),
        compact=True, batch=4, bundle=4, deadline_ms=200.0,
    )  # fmt: skip
    whole = emulate(dataclasses.replace(plain, options=coded.options))
    assert fixes(whole.folder) == fixes(emulate(plain).folder)
    lengths = np.concatenate(
        [pq.read_table(path)["payload_bits"] for path in sorted(whole.folder.glob("links/bs-*.parquet"))]
    )
    sent = lengths[lengths > 0]
    assert len(set(sent.tolist())) > 10 and sent.max() <= 128 and sent.mean() < 0.9 * 128
    assert audit(whole.folder).ok and replay(whole.folder).ok
    faulty = emulate(coded)
    assert all(faulty.summary["frames"][fate] > 0 for fate in ("delivered", "duplicate", "corrupt", "dropped"))
    assert audit(faulty.folder).ok and replay(faulty.folder).ok


def fixes(folder: Path) -> list[dict[str, object]]:
    return pq.read_table(folder / "fixes.parquet", columns=["snapshot", "x_m", "y_m", "z_m", "used_bs"]).to_pylist()


@pytest.mark.parametrize(
    ("scheme", "entropy", "data", "reason"),
    [
        ("ecc-klt", 0, Payload(b"\0\0", 10), "sent no report of this length and code: the widths add up to 64 bits"),
        ("ecc-klt", 1, Payload(b"\0\0", 10), "sent no report of this length and code: 10 bits are not the code"),
        ("twin", None, Payload(b"\0\0", 10), "sent 10 bit, where reports have 64"),
    ],
)
def test_a_report_that_the_scheme_does_not_make_is_excluded_in_one_sentence(
    scheme: str, entropy: int | None, data: Payload, reason: str
) -> None:
    """It may come from whoever holds a base station's key, and must not end the run."""
    given = settings(scheme, 64)
    plan = load_plan(
        given if entropy is None else dataclasses.replace(given, options=(*given.options, ("entropy", entropy)))
    )
    rule = plan.cloud.build(plan.cloud.setup)
    reports = [Report(ReportKey(bs, 0, 0), data) for bs in range(2)]
    (fix,) = rule.fuse([reports])
    assert np.isnan(fix.position).all() and all(reason in fix.excluded[bs] for bs in range(2))


def test_who_is_not_heard_sends_nothing_and_is_excluded(tmp_path: Path) -> None:
    run = dataclasses.replace(settings("ecc-klt", 64, output=tmp_path), snapshots=8)
    world, paths = load_test_set(load_scenario("paris-6"), run)
    heard = np.ones((len(paths), 6), bool)
    heard[1, 0] = heard[3, 1:3] = heard[4] = False
    path = find_weights("paris-6", "ecc-klt", 4)
    plan = compose(run, world, tiny_vinloc.silenced(paths, heard), load_weights(path), weights_path=path)
    result = run_plan(plan)
    assert (result.summary["fixes"], result.summary["undetermined"]) == (7, 1)
    heard &= paths.paths_per_link() > 0
    silent = 0
    for bs, ledger in read_ledgers(RunFolder(result.folder)).items():
        for row in ledger.to_pylist() if bs is not None else ():
            assert (row["payload_bits"] == 64) == heard[row["snapshot"], bs] == (row["report_fate"] == "used")
            silent += row["payload_bits"] == 0
    assert silent == (~heard[:8]).sum() >= 9
    assert replay(result.folder).ok


@pytest.mark.parametrize("bits", [15, 4097])
def test_a_length_that_there_is_no_report_of_is_one_sentence(bits: int) -> None:
    with pytest.raises(UserError, match=f"a report has 16 to 4096 bits, not {bits}"):
        load_plan(settings("ecc-klt", bits))


def test_a_scenario_without_weights_is_told_how_to_get_them() -> None:
    with pytest.raises(UserError, match="No weights are shipped"):
        load_plan(settings("ecc-klt", 64, scenario="paris-7-ecc"))

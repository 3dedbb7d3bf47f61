"""`ecc-total` on shipped weights: the budget, fewer metres than an equal split, exact accounts, sentences."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fronthaul.link.link_file import LinkPlan
from fronthaul.message.messages import Payload, Report, ReportKey
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.inspect.audit import audit
from sim.inspect.replay import replay
from sim.plan.options import settings_of
from sim.plan.plan import load_plan
from sim.plan.settings import EmulateSettings

USERS = 40


def settings(options: dict[str, int], scheme: str = "ecc-total", **changes: object) -> EmulateSettings:
    return EmulateSettings(
        scheme=scheme,
        driver="process",
        snapshots=USERS,
        options=tuple(options.items()),
        **{"controls": False, "batch": 20} | changes,  # type: ignore[arg-type]
    )


def test_a_budget_is_kept_and_worth_more_than_an_equal_split(tmp_path: Path) -> None:
    equal = emulate(settings({"bits_per_report": 32}, "ecc-klt", output=tmp_path)).summary
    shared = emulate(settings({"total_bits": 192}, output=tmp_path)).summary
    assert 0.9 * 32 < shared["payload_bits_per_report"] < 33 and shared["bytes"]["side"] == 0
    assert shared["options"] == {"total_bits": 192, "classes": 8, "entropy": 0}
    assert shared["error_3d_m"]["mean"] < 0.75 * equal["error_3d_m"]["mean"]


def test_accounts_hold_with_faults_compact_headers_and_an_entropy_code(tmp_path: Path) -> None:
    faults = {"loss": 0.1, "duplicate": 0.2, "corrupt": 0.2, "jitter": 0.05}
    faulty = settings(
        {"total_bits": 300, "entropy": 1}, output=tmp_path, compact=True, batch=4, bundle=4, deadline_ms=200.0,
        links=LinkPlan({(None, None): faults}),
    )  # fmt: skip
    run = emulate(faulty)
    assert all(run.summary["frames"][fate] > 0 for fate in ("delivered", "duplicate", "corrupt", "dropped"))
    sent = [pq.read_table(path)["payload_bits"] for path in sorted(run.folder.glob("links/bs-*.parquet"))]
    assert len(set(np.concatenate(sent).tolist())) > 30
    assert audit(run.folder).ok and replay(run.folder).ok


def test_a_report_that_the_scheme_does_not_make_is_excluded_in_one_sentence() -> None:
    plan = load_plan(settings({"total_bits": 192}))
    reports = [Report(ReportKey(0, 0, 0), Payload(b"\0\0", 9)), Report(ReportKey(1, 0, 0), Payload(b"\0", 1))]
    (fix,) = plan.cloud.build(plan.cloud.setup).fuse([reports])
    assert np.isnan(fix.position).all()
    assert all(one.startswith("sent no report of this length and code: ") for one in fix.excluded.values())
    assert fix.excluded.keys() == {0, 1}


@pytest.mark.parametrize(
    ("scheme", "options", "sentence"),
    [
        ("ecc-total", {"total_bits": 47}, "6 base stations together have 48 to 768 bits, not 47"),
        ("ecc-total", {"classes": 3}, "a base station has 1 or 8 classes, not 3"),
        ("ecc-total", {"bits_per_report": 64}, "no option 'bits_per_report'; it takes classes, entropy, total_bits"),
        ("ecc-klt", {"total_bits": 192}, "no option 'total_bits'"),
    ],
)
def test_bad_options_are_one_sentence(scheme: str, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_plan(settings(options, scheme))


def test_the_command_line_has_the_budget() -> None:
    given = settings_of({"scheme": "ecc-total", "total_bits": 192, "driver": "process"})
    assert given.options == (("total_bits", 192),)
    with pytest.raises(UserError, match="give --total-bits"):
        settings_of({"scheme": "ecc-total", "bits": "4"})
    assert dataclasses.replace(given, options=()) == settings_of({"scheme": "ecc-total", "driver": "process"})

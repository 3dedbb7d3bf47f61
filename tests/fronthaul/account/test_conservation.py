"""Rules that a ledger keeps, and the ones that break them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_fronthaul import Run, frame, key

from fronthaul.account.conservation import conservation
from fronthaul.account.used import UsedReports
from fronthaul.log.sent import flip
from fronthaul.message.fates import FrameFate
from fronthaul.message.messages import ReportKey
from fronthaul.message.wire import encode


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return an empty run."""
    return Run(tmp_path)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (lambda run: run.receive(encode(frame(0, 0))), "authentic frames that are in no journal"),
        (lambda run: [run.receive(run.send(frame(seq, 0))) for seq in (0, 1)], "delivered more than once"),
        (lambda run: [run.receive(run.send(frame(seq, seq))) for seq in (0, 2)], "gaps in seq"),
        (lambda run: [run.receive(run.send(frame(0, snapshot))) for snapshot in (0, 1)], "a seq twice"),
        (lambda run: run.send(frame(0, 0)), "lost but delivered, or the reverse"),
        (lambda run: run.receive(run.send(frame(0, 0), drop_reason="loss")), "the link model dropped"),
    ],
)
def test_what_does_not_add_up_is_named(run: Run, script: Any, problem: str) -> None:
    script(run)
    result = conservation([run.ledger([key(snapshot) for snapshot in range(3)])])
    assert not result.ok
    assert any(problem in sentence for sentence in result.problems), result.problems


@pytest.mark.parametrize(
    ("column", "values", "problem"),
    [
        ("frame_fate", ["delivered", "corrupt"], "frames with several fates"),
        ("frame_fate", [None, None], "journaled frames without a fate"),
        ("report_fate", ["used", None], "journaled reports without a fate"),
        ("part", [0, 2], "frames of which parts are missing"),
    ],
)
def test_a_ledger_that_was_tampered_with_is_named(run: Run, column: str, values: list[Any], problem: str) -> None:
    run.receive(run.send(frame(0, 0, 1)))
    ledger = run.ledger([key(0), key(1)])
    assert conservation([ledger]).ok
    place = ledger.schema.get_field_index(column)
    tampered = ledger.set_column(place, column, pa.array(values, ledger.schema.field(column).type))
    assert any(problem in sentence for sentence in conservation([tampered]).problems)


@pytest.mark.parametrize(
    ("fixes", "problem"),
    [
        ([], "used reports that no fix lists"),
        ([(0, [key(0)]), (0, [])], "snapshots fused twice"),
        ([(0, [key(0), key(0)])], "reports that several fixes list"),
        ([(0, [key(0), key(0, bs=1)])], "reports in a fix that are not used"),
    ],
)
def test_fixes_that_do_not_fit_are_named(run: Run, fixes: list[tuple[int, list[ReportKey]]], problem: str) -> None:
    run.receive(run.send(frame(0, 0)))
    ledger = run.ledger([key(0)])
    assert conservation([ledger], UsedReports.of_fixes([(0, [key(0)])])).ok
    assert any(problem in sentence for sentence in conservation([ledger], UsedReports.of_fixes(fixes)).problems)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
            st.sampled_from(["arrive", "drop", "flip", "model flips"]),
            st.integers(0, 199),
        ),
        max_size=12,
    )
)
def test_any_script_is_conserved(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[int, list[int], str, int]]
) -> None:
    run = Run(tmp_path_factory.mktemp("run"))
    sequence = {0: 0, 1: 0}
    seen: set[ReportKey] = set()
    expected = dict.fromkeys(FrameFate, 0)
    for bs, snapshots, event, bit in script:
        # A frame is judged as a whole: one with old and new reports does not occur.
        new = [snapshot for snapshot in snapshots if key(snapshot, bs) not in seen]
        sent = frame(sequence[bs], *(new or snapshots), bs=bs)
        sequence[bs] += 1
        drop_reason = "loss" if event == "drop" else None
        data = run.send(sent, drop_reason=drop_reason, flipped=(bit,) if event == "model flips" else ())
        if event == "drop":
            fate = FrameFate.DROPPED
        elif event == "arrive":
            fate = FrameFate.DELIVERED if new else FrameFate.DUPLICATE
            seen |= {report.key for report in sent.reports}
            run.receive(data, fate, bs=bs)
        else:
            fate = FrameFate.CORRUPT
            run.corrupt(flip(data, [bit]) if event == "flip" else data, bs)
        expected[fate] += 1
    result = conservation([run.ledger([report for report in seen if report.snapshot % 2])])
    assert result.problems == ()
    assert result.frames == expected
    assert sum(result.strays.values()) == 0

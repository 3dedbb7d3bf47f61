"""Fixes on disk."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_nodes import fill

from cloud.fixlog import FixLog, FixRecord, read_fixes
from fronthaul.errors import LocalError
from fronthaul.message.messages import ReportKey


def record(snapshot: int, *, reports: int = 2, covariance: bool = False, rounds: int = 1) -> FixRecord:
    used = tuple(ReportKey(bs, bs % 3, snapshot, r) for r in range(rounds) for bs in range(reports))
    spread = np.diag([1.0, 2.0, 3.0]) + 0.125 if covariance else None
    return FixRecord(snapshot, used, (1.5, -2.5, 1 / 3), spread, reports - 1, 10, 20, 30, 7, rounds)


def same(one: FixRecord, other: FixRecord) -> bool:
    spreads = one.covariance, other.covariance
    if (spreads[0] is None) != (spreads[1] is None):
        return False
    if spreads[0] is not None and spreads[1] is not None and not np.array_equal(*spreads):
        return False
    names = [name for name in FixRecord.__slots__ if name != "covariance"]
    return all(getattr(one, name) == getattr(other, name) for name in names)


made = st.builds(
    record,
    st.integers(0, 2**32 - 1),
    reports=st.integers(1, 40),
    covariance=st.booleans(),
    rounds=st.integers(1, 3),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(made, max_size=3), max_size=4))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, batches: list[list[FixRecord]]) -> None:
    path = tmp_path_factory.mktemp("fixes") / "fixes.arrow"
    log = FixLog(path)
    for batch in batches:
        log.append(batch)
    found = read_fixes(path)  # while the writer is still at work
    log.close()
    log.close()
    expected = [fix for batch in batches for fix in batch]
    assert len(found) == len(read_fixes(path)) == len(expected)
    assert all(map(same, found, expected))


def test_as_many_rounds_as_there_can_be(tmp_path: Path) -> None:
    log = FixLog(tmp_path / "fixes.arrow")
    log.append([record(3, reports=1, rounds=256)])
    log.close()
    assert same(read_fixes(tmp_path / "fixes.arrow")[0], record(3, reports=1, rounds=256))


def test_a_cut_tail_costs_the_last_batch_only(tmp_path: Path) -> None:
    path = tmp_path / "fixes.arrow"
    log = FixLog(path)
    log.append([record(0), record(1)])
    whole = path.stat().st_size
    log.append([record(2)])
    data = path.read_bytes()
    log.close()
    for end in range(whole, len(data), 7):
        cut = tmp_path / "cut.arrow"
        cut.write_bytes(data[:end])
        assert [fix.snapshot for fix in read_fixes(cut)] == [0, 1]


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    """A user's fusion rule may well return them."""
    path = tmp_path / "fixes.arrow"
    log = FixLog(path)
    place = tuple(np.array([1.0, 2.0, 3.0]))
    log.append([FixRecord(0, (ReportKey(0, 0, 0),), place, np.eye(3, dtype=np.float32), 0, 1, 2, 3, 4)])
    log.close()
    (fix,) = read_fixes(path)
    assert fix.position == (1.0, 2.0, 3.0) and fix.covariance is not None
    np.testing.assert_array_equal(fix.covariance, np.eye(3))


def test_a_log_is_never_written_over_and_a_full_disk_leaves_it_readable(tmp_path: Path) -> None:
    path = tmp_path / "fixes.arrow"
    log = FixLog(path)
    log.append([record(0)])
    with pytest.raises(LocalError, match="exists already"):
        FixLog(path)
    fill(log._rows)
    with pytest.raises(LocalError, match="the disk is full"):
        log.append([record(1)])
    assert [fix.snapshot for fix in read_fixes(path)] == [0]
    (tmp_path / "other").write_bytes(b"not a stream")
    with pytest.raises(LocalError, match="is not an Arrow stream"):
        read_fixes(tmp_path / "other")

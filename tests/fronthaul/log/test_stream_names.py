"""Names of streams and ledgers: what is made is read back, and nothing else is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fronthaul.log.stream_names import (
    CAPTURE,
    CONNECTIONS,
    EVENTS,
    FIXES,
    LEDGER,
    RECEIVED,
    SENT,
    STAGES,
    CloudStart,
    EdgeStart,
    edge_name,
    incarnation_name,
    ledgers,
    link_name,
    start_of,
    streams,
)

KINDS = st.sampled_from(["", SENT, RECEIVED, CONNECTIONS, EVENTS, STAGES, FIXES, CAPTURE])


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), KINDS)
def test_a_base_stations_start_is_read_back(bs: int, epoch: int, kind: str) -> None:
    assert start_of(edge_name(bs, epoch) + kind) == EdgeStart(bs, epoch)


@given(st.integers(0, 1 << 16), KINDS)
def test_a_start_of_the_cloud_is_read_back(incarnation: int, kind: str) -> None:
    assert start_of(incarnation_name(incarnation) + kind) == CloudStart(incarnation)


def test_the_names_that_a_run_leaves() -> None:
    assert edge_name(3, 1) + SENT == "bs-003-epoch-1-sent.arrow"
    assert incarnation_name(0) + FIXES == "cloud-0-fixes.arrow"
    assert link_name(12345) + LEDGER == "bs-12345.parquet"
    assert link_name(None) + LEDGER == "unknown.parquet"


@pytest.mark.parametrize(
    "name",
    ["", "bs-003.pcapng", "bs-3-epoch-1", "bs-003-epoch-", "bs-70000-epoch-0", "bs-003-epoch-1x", "cloud-", "cloud-0x",
     "cloud-٣", "unknown.parquet", ".bs-003-epoch-1-sent.arrow", "connections.parquet"],
)  # fmt: skip
def test_other_names_are_nobodys(name: str) -> None:
    assert start_of(name) is None


def test_streams_come_in_the_order_of_starts(tmp_path: Path) -> None:
    names = [edge_name(3, epoch) for epoch in (10, 2, 0)] + [edge_name(30, 0), incarnation_name(0)]
    for name in (*names, "bs-003"):
        (tmp_path / f"{name}{CAPTURE}").touch()
    found = [start_of(path.name) for path in streams(tmp_path, CAPTURE, 3)]
    assert found == [EdgeStart(3, 0), EdgeStart(3, 2), EdgeStart(3, 10)]
    assert {start_of(path.name) for path in streams(tmp_path, CAPTURE)} == {start_of(name) for name in names}


def test_ledgers_are_told_from_other_tables(tmp_path: Path) -> None:
    for name in ("bs-003", "bs-1000", "connections", "sockets", "events", "fixes"):
        (tmp_path / f"{name}{LEDGER}").touch()
    assert list(ledgers(tmp_path)) == [3, 1000]
    (tmp_path / "unknown.parquet").touch()
    assert ledgers(tmp_path) == {bs: tmp_path / f"{link_name(bs)}{LEDGER}" for bs in (3, 1000, None)}

"""A scheme whose payloads differ in length, emulated in process and on Ray: counted, captured, audited, replayed."""

import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from terse_scheme import CODE, MOST_BITS

import cli
from fronthaul.codec.bitstream import unpack_code
from fronthaul.message.messages import Payload, PayloadFormat
from sim.emulate.emulator import RunResult, emulate
from sim.inspect.audit import audit
from sim.inspect.frames import check_books
from sim.inspect.replay import replay
from sim.plan.settings import EmulateSettings
from sim.records.folder import RunFolder, read_configuration
from sim.records.links import read_ledgers

POINTS = "[cofix.edge]\nterse = terse_scheme:TerseEdge\n[cofix.fusion]\nterse = terse_scheme:TerseFusion\n"


@pytest.fixture
def terse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: EmulateSettings) -> EmulateSettings:
    """A run of the scheme, found by entry points."""
    about = tmp_path / "terse-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: terse\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return dataclasses.replace(settings, scheme="terse", snapshots=24, batch=4, bundle=3, controls=False)


def require_whole(result: RunResult, settings: EmulateSettings) -> list[dict[str, Any]]:
    """Hold a run's books against each other; return what went up."""
    assert result.summary["conservation"]["ok"] and check_books(result.folder).ok
    assert not audit(result.folder).failed
    assert replay(result.folder).identical == result.summary["fixes"] == settings.snapshots
    assert read_configuration(RunFolder(result.folder)).format == PayloadFormat(MOST_BITS, fixed=False)
    rows = pa.concat_tables(list(read_ledgers(RunFolder(result.folder)).values())).to_pylist()
    for row in rows:
        (index,) = unpack_code(Payload(row["payload"], row["payload_bits"]), CODE)
        assert row["payload_bits"] == len(CODE[int(index)])  # to the bit, and not what was declared
    bits = np.array([row["payload_bits"] for row in rows])
    assert len(bits) == settings.bs * settings.snapshots and len(set(bits.tolist())) > 2
    found = result.summary["payload_bits"]
    p50, p95 = np.percentile(bits, [50, 95])
    assert found == {"report": {"mean": bits.mean(), "min": bits.min(), "p50": p50, "p95": p95, "max": bits.max()}}
    assert result.summary["payload_bits_per_report"] == bits.mean()
    assert 8 * result.summary["bytes"]["payload"] == bits.sum()
    return rows


def test_in_process(terse: EmulateSettings, capsys: pytest.CaptureFixture[str]) -> None:
    result = emulate(terse)
    require_whole(result, terse)
    ledger = pq.read_table(RunFolder(result.folder).ledger(0)).to_pylist()
    assert max(row["part"] for row in ledger) == 2  # bundles of unequal payloads
    assert cli.main(["inspect", str(result.folder), "--link", "0", "--frame", "0"]) == 0
    bits = ", ".join(str(row["payload_bits"]) for row in ledger if row["seq"] == 0)
    assert f"{bits} bit" in capsys.readouterr().out
    assert json.loads((result.folder / "summary.json").read_text())["payload_bits"]["report"]["max"] <= MOST_BITS


@pytest.mark.ray
def test_on_ray_and_zeromq_it_is_the_same_to_the_bit(terse: EmulateSettings) -> None:
    here = emulate(terse)
    there = emulate(dataclasses.replace(terse, driver="ray", deadline_ms=30_000.0, cpus_per_bs=0.1))
    rows = [require_whole(result, terse) for result in (here, there)]
    names = ("bs", "snapshot", "seq", "part", "payload_bits", "payload", "header_bytes", "crc32")
    one, other = (sorted(tuple(row[name] for name in names) for row in table) for table in rows)
    assert one == other
    assert there.summary["bytes_kernel"]["exact"]

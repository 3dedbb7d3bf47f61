"""The scheme of several rounds of docs/schemes.md, found by entry points, emulated and replayed."""

import dataclasses
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fronthaul.link.link_file import LinkPlan
from sim.emulate.emulator import emulate
from sim.inspect.replay import replay
from sim.plan.settings import EmulateSettings
from sim.records.folder import RunFolder
from sim.records.links import read_ledgers

DOCS = Path(__file__).resolve().parents[2] / "docs" / "schemes.md"
POINTS = "[cofix.edge]\npush = push:PushEdge\n[cofix.fusion]\npush = push:PushFusion\n"


def example() -> str:
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if "class PushEdge" in block]
    return str(found)


@pytest.fixture
def push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: EmulateSettings) -> Iterator[EmulateSettings]:
    """A run of the example, installed as a package of its own."""
    about = tmp_path / "push-0.1.0.dist-info"
    about.mkdir()
    (tmp_path / "push.py").write_text(example())
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: push\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield dataclasses.replace(settings, scheme="push", capture=False, controls=False)
    sys.modules.pop("push", None)


def test_the_example_is_under_60_lines() -> None:
    assert len(example().splitlines()) < 60


def test_the_example_is_emulated_and_replayed(push: EmulateSettings) -> None:
    result = emulate(push)
    fixes = pq.read_table(result.folder / "fixes.parquet")
    assert fixes["rounds"].to_pylist() == push.snapshots * [9]
    assert 8 * result.summary["bytes"]["payload"] == push.snapshots * push.bs * 8 * (1 + 24)
    true = np.stack([fixes[f"true_{axis}_m"].to_numpy() for axis in "xyz"], 1)
    guess = np.linalg.norm(true - [0.0, 0.0, 10.0], axis=1).mean()
    assert result.summary["error_3d_m"]["mean"] < 0.5 * guess
    assert result.summary["conservation"]["ok"]
    assert replay(result.folder).identical == push.snapshots


def test_the_example_goes_on_where_frames_are_lost(push: EmulateSettings) -> None:
    result = emulate(dataclasses.replace(push, links=LinkPlan({(None, None): {"loss": 0.1}}), round_ms=5.0))
    heard = set()  # of a snapshot that nobody has reported, the cloud knows nothing
    for ledger in read_ledgers(RunFolder(result.folder)).values():
        rows = ledger.filter(pc.equal(ledger["report_fate"], "used"))
        heard |= set(rows["snapshot"].to_pylist())
    assert result.summary["fixes"] == len(heard) >= push.snapshots - 1
    assert result.summary["reports"]["lost"] > 0
    assert replay(result.folder).identical == len(heard)

"""What holds for every table."""

import contextlib
from pathlib import Path

import pytest

from sim.errors import UserError
from sim.reproduce.tables import TABLES, plan
from sim.sweep.sweep import Inputs


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Inputs, "key", lambda *_: "key")  # which reads for long, and writes nothing
    for name in TABLES:
        with contextlib.suppress(UserError):  # data that are not here
            plan(name, Path("tables"))
        assert list(tmp_path.iterdir()) == [], name

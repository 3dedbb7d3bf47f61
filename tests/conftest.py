"""One thread for torch: the same bits on every machine, and tests that share a small one fairly."""

from pathlib import Path

import pytest
import tiny_world
import torch

from sim.plan.settings import EmulateSettings
from sim.world import store

torch.set_num_threads(1)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmulateSettings:
    """A short run in process, in a tiny world."""
    monkeypatch.setattr(store, "ASSET_FOLDER", tmp_path / "assets")
    return tiny_world.write(tmp_path)

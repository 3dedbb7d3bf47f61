"""A run fused again from what it logged: the same fixes to the last bit."""

import dataclasses
from pathlib import Path

import pytest
import tiny_world

from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.inspect.replay import replay
from sim.plan.settings import EmulateSettings
from sim.plan.weights import save_weights


@pytest.mark.parametrize(("scheme", "bits"), [("ecc", 2), ("rss", 4), ("rss", None)])
def test_replay_is_exact(settings: EmulateSettings, scheme: str, bits: int | None) -> None:
    result = replay(emulate(dataclasses.replace(settings, scheme=scheme, bits=bits)).folder)
    assert result.total == result.compared == result.identical == settings.snapshots
    assert result.max_difference_m == 0.0


def test_replay_of_a_batched_run_is_exact(settings: EmulateSettings) -> None:
    result = replay(emulate(dataclasses.replace(settings, batch=7)).folder)
    assert result.identical == result.total == settings.snapshots


def test_replay_refuses_other_weights(settings: EmulateSettings) -> None:
    folder = emulate(settings).folder
    assert settings.weights is not None
    other = tiny_world.weights(tiny_world.scenario())
    other.tensors["cloud.path_loss"] = other.tensors["cloud.path_loss"] + 1
    save_weights(settings.weights, other)
    with pytest.raises(UserError, match="have changed since the run"):
        replay(folder)


def test_replay_falls_back_to_shipped_weights(
    settings: EmulateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.plan.weights.ASSET_FOLDER", tmp_path / "assets")
    folder = emulate(settings).folder
    assert settings.weights is not None
    shipped = tmp_path / "assets" / "tiny" / "ecc-b4.safetensors"
    settings.weights.rename(shipped)
    assert replay(folder).identical == settings.snapshots
    shipped.write_bytes(shipped.read_bytes()[: shipped.stat().st_size // 2])
    with pytest.raises(UserError, match=r"tiny.safetensors are missing"):
        replay(folder)

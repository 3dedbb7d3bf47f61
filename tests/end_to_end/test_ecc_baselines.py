"""ECC's baselines through the whole emulator: every bit in the ledger, lost reports, an exact replay, and refusals."""

import dataclasses
from pathlib import Path

import pytest
import tiny_world
import torch

import cli
from fronthaul.link.link_file import link_plan
from sim.emulate.emulator import emulate
from sim.errors import UserError
from sim.inspect.replay import replay
from sim.learn.ecc.baselines import POSITIONERS, Baseline
from sim.learn.music import write_music
from sim.plan.settings import EmulateSettings
from sim.plan.weights import save_weights

WORLD = tiny_world.scenario()
SLOTS, ANTENNAS, TONES = WORLD.csi_shape
PAYLOAD_BITS = {"music": 96, "adcpm": 32 * ANTENNAS * TONES, "mfcnet": 64 * SLOTS * ANTENNAS * TONES}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmulateSettings:
    monkeypatch.setattr("sim.world.store.ASSET_FOLDER", tmp_path / "assets")
    return dataclasses.replace(tiny_world.write(tmp_path), bits=None, interval_ms=10.0)


def weights(scheme: str, folder: Path) -> Path:
    """What the scheme needs of the tiny world; networks are untrained."""
    output = folder / f"{scheme}.safetensors"
    if scheme == "music":
        write_music(WORLD, output)
        return output
    torch.manual_seed(4)
    name: Baseline = "adcpm" if scheme == "adcpm" else "mfcnet"
    covariance = 1e-9 * torch.eye(ANTENNAS, dtype=torch.complex64).expand(len(WORLD.sites), TONES, -1, -1)
    save_weights(output, POSITIONERS[name](WORLD).weights(covariance, {}))
    return output


@pytest.mark.parametrize("scheme", PAYLOAD_BITS)
def test_bits_are_the_definitions_and_a_replay_is_exact(scheme: str, settings: EmulateSettings, tmp_path: Path) -> None:
    lossy = link_plan({"up": {"loss": "20%"}})
    settings = dataclasses.replace(settings, scheme=scheme, weights=weights(scheme, tmp_path), links=lossy)
    result = emulate(settings)
    summary = result.summary
    assert summary["payload_bits_per_report"] == PAYLOAD_BITS[scheme]
    assert 0 < summary["fixes"] == replay(result.folder).identical
    if scheme == "music":  # the tiny world has lines of sight alone
        assert summary["error_3d_m"]["median"] < 0.5


def test_quantised_numbers_are_refused_in_one_sentence(settings: EmulateSettings, tmp_path: Path) -> None:
    for scheme in PAYLOAD_BITS:
        file = weights(scheme, tmp_path)
        with pytest.raises(UserError, match=f"Scheme '{scheme}' cannot run: it .* --bits is lossless"):
            emulate(dataclasses.replace(settings, scheme=scheme, weights=file, bits=4))


def test_what_music_needs_is_written_from_the_scenario_alone(
    settings: EmulateSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "arrays.safetensors"
    assert cli.main(["train", "music", "--scenario", settings.scenario, "--output", str(output)]) == 0
    assert str(output) in capsys.readouterr().out
    assert emulate(dataclasses.replace(settings, scheme="music", weights=output)).summary["fixes"] == 20

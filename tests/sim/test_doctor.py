"""What doctor finds, and that it finds damage."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_world

import cli
import sim.plan.weights
import sim.world.store
from sim import doctor
from sim.world.scenario import load_scenario


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shipped files of a tiny world."""
    settings = tiny_world.write(tmp_path)
    folder = tmp_path / "assets"
    shutil.copy(str(settings.weights), folder / "tiny" / "ecc-b4.safetensors")
    (folder / "paris-6").mkdir()
    shutil.copy(str(settings.weights), folder / "paris-6" / "ecc-b5.safetensors")
    (folder / "tiny" / "test.npz").rename(folder / "tiny" / "other.npz")  # no shipped scenario is called tiny
    world = load_scenario("paris-6")
    tiny_world.paths(world).save(folder / "paris-6" / "test.npz")
    for module in (sim.world.store, sim.plan.weights):
        monkeypatch.setattr(module, "ASSET_FOLDER", folder)
    return folder


def findings() -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine()}


def test_a_complete_installation_is_found_complete(assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = findings()
    for name in ("Python", "torch", "ray", "schemes", "scenario paris-6", "tiny/ecc-b4.safetensors"):
        assert found[name].state == "ok", found[name]
    assert "ecc, rss" in found["schemes"].detail
    assert found["files of the default run"].detail == "paris-6/test.npz and ecc-b5.safetensors"
    assert found["paris-6/test.npz"].detail.startswith("16 positions")
    assert found["tiny/ecc-b4.safetensors"].required
    tracing = found["LLVM library (for `trace` on the CPU)"]
    assert (tracing.state, tracing.required) == ("ok", False)
    assert re.fullmatch(r"(LLVM [\d.]+ \(/.*\)|the GPU \(.*\)); a ray was traced", tracing.detail)
    assert cli.main(["doctor"]) == 0
    assert "`emulate` can run" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ecc-b4.safetensors", "other.npz", "train-positions.npz"])
def test_a_truncated_file_is_named(assets: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = assets / "tiny" / name
    path.write_bytes(path.read_bytes()[:100])
    finding = findings()[f"tiny/{name}"]
    assert finding.state == "broken" and finding.required and finding.advice
    assert cli.main(["doctor"]) == 1
    assert "emulate` cannot run" in capsys.readouterr().out


def test_a_recorded_digest_is_compared(assets: Path) -> None:
    (assets / "SHA256SUMS").write_text(f"{'0' * 64}  tiny/other.npz\n")
    assert findings()["tiny/other.npz"].state == "broken"


def test_missing_weights_of_the_default_run_are_fatal(assets: Path) -> None:
    (assets / "paris-6" / "ecc-b5.safetensors").unlink()
    finding = findings()["files of the default run"]
    assert finding.state == "missing" and finding.required


def test_paths_of_another_version_of_the_scenario_are_named(assets: Path) -> None:
    world = load_scenario("paris-6")
    replace(tiny_world.paths(world), digest="0").save(assets / "paris-6" / "test.npz")
    assert "another version" in findings()["paris-6/test.npz"].detail


def test_missing_assets_are_missed(assets: Path) -> None:
    shutil.rmtree(assets)
    assert findings()["shipped data"].state == "missing"


def test_a_scheme_with_one_half_is_named(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "half-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: half\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[cofix.edge]\nhalf = half:Edge\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "half has only one half" in findings()["schemes"].detail


def test_an_extra_in_brackets_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    missing = doctor.Finding("sionna", "missing", "none", "Run `pip install -e '.[trace]'`.", required=False)
    monkeypatch.setattr(doctor, "examine", lambda: iter([missing]))
    assert cli.main(["doctor"]) == 0
    assert "'.[trace]'" in capsys.readouterr().out

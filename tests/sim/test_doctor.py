"""What doctor finds, and that it finds damage."""

import re
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_world

import cli
import sim.plan.weights
import sim.world.store
from sim import doctor
from sim.plan import places
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


def surroundings() -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.surroundings()}


def test_a_complete_installation_is_found_complete(assets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = findings()
    for name in ("Python", "torch", "ray", "schemes", "scenario paris-6", "tiny/ecc-b4.safetensors"):
        assert found[name].state == "ok", found[name]
    assert {"ecc", "rss"} <= set(found["schemes"].detail.split(", "))
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


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_temporary_folder_too_deep_for_rays_sockets_is_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, "/tmp/" + "d" * 60)
    finding = surroundings()["temporary folder"]
    assert finding.state == "broken" and finding.required
    assert finding.detail.startswith(f"{variable} has 65 bytes, 39 are the most")
    assert finding.advice


def test_a_users_own_names_in_this_folder_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert surroundings()["names of modules"].detail == "none in this folder has a name of ours"
    (tmp_path / "edge.py").touch()
    (tmp_path / "cloud").mkdir()
    finding = surroundings()["names of modules"]
    assert (finding.state, finding.detail.split(" in ")[0]) == ("ok", "cloud, edge")


def test_another_module_in_the_place_of_ours_is_broken(tmp_path: Path) -> None:
    (tmp_path / "edge.py").touch()
    program = "from sim.doctor import _modules; print(_modules().state, _modules().detail)"
    root = str(Path(doctor.__file__).parents[1])
    paths = f"import sys; sys.path[:0] = [{root!r}]; import sim; sys.path[:0] = [{str(tmp_path)!r}]; "
    found = subprocess.run([sys.executable, "-c", paths + program], capture_output=True, text=True, check=True)
    assert found.stdout == f"broken edge is {tmp_path / 'edge.py'}\n"


def test_few_open_files_and_a_full_disk_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 512))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    found = surroundings()
    for name in ("open files", "disk for runs", "disk for temporary files"):
        assert found[name].state == "broken" and found[name].required and found[name].advice
    assert found["open files"].detail == "256 of them, 512 at most"


def test_what_emulate_would_do_under_a_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cores", lambda: 1)
    monkeypatch.setattr(places, "cores", lambda: 1)
    assert surroundings()["`emulate` would"].detail == (
        "run ecc with 4 bit in 'paris-6': start Ray with CPUs: 1, processes: 3; "
        "base stations in each: 2; reserved for each: 0.083, for the cloud: 0.5"
    )

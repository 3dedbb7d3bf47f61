"""`train --dry-run` and `trace --dry-run`: what is said comes from what was done, and nothing is left of it."""

import re
from pathlib import Path

import pytest
import tiny_world

import cli
from sim.commands import rehearsal


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a training on the tiny world's paths, in an empty working directory."""
    settings, world = tiny_world.write(tmp_path), tiny_world.scenario()
    tiny_world.paths(world).save(tmp_path / "paths.npz")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(rehearsal, "WATCHED_S", 0.0)
    return ["--scenario", settings.scenario, "--data", str(tmp_path / "paths.npz"), "--dry-run"]


def test_a_training_is_begun_and_its_pace_told(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "ecc", "--bits", "4,2", "--epochs", "90", "--batch", "8", *tiny]) == 0
    told, disk, done = capsys.readouterr().out.splitlines()
    found = re.fullmatch(
        r"train ecc, Stage II, positions: 90 steps of (\S+) s, as measured here on \d+: about (\S+) (s|minutes), "
        r"after \S+ s until the first of them\. What follows these steps is not counted\.",
        told,
    )
    assert found, told
    assert float(found[2]) * {"s": 1, "minutes": 60}[found[3]] == pytest.approx(90 * float(found[1]), rel=0.06)
    assert re.fullmatch(r"On disk: 2\.2 MB of weights and 13 MB of checkpoint for each payload, if .*", disk)
    assert done == "Nothing was done." and not list(Path().iterdir())


def test_a_fit_is_measured_whole(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "rss", *tiny]) == 0
    told = capsys.readouterr().out
    assert re.fullmatch(r"train rss: \S+ s, all of it; \S+ kB on disk\.\nNothing was done\.\n", told)
    assert not list(Path().iterdir())
    assert cli.main(["train", "rss", *tiny[:-1], "--output", "rss.safetensors", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert f"{Path('rss.safetensors').stat().st_size / 1e3:.1f} kB" in told


def test_a_fit_shows_its_progress_on_a_terminal(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes any output for a terminal then
    assert cli.main(["train", "rss", *tiny[:-1], "--output", "rss.safetensors"]) == 0
    assert re.search(r"observing.*ETA", capsys.readouterr().err)


def test_what_fails_says_no_more_than_why(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "ecc", *tiny[:2], "--data", "none.npz", "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert not out and "none.npz" in err


def test_a_factory_is_drawn_for_fewer_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["trace", "inf-dh-18", "--positions", "40"]
    assert cli.main([*command, "--dry-run"]) == 0
    found = re.fullmatch(
        r"40 users, 18 of 18 sites not drawn yet: about \S+ s and (\S+) (kB|MB), by 40 made here now\. "
        r"Nothing was done\.\n",
        capsys.readouterr().out,
    )
    assert found and not list(tmp_path.iterdir())
    assert cli.main([*command, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert float(found[1]) * {"kB": 1e3, "MB": 1e6}[found[2]] == pytest.approx(size, rel=0.3)

"""`new-scheme` writes a scheme that runs, trains and passes the check; the check finds what a scheme does wrong."""

import importlib
import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_world
import torch

import cli
import cofix
from sim.world import store

ROOT = Path(__file__).resolve().parents[2]
NAME, MODULE = "my-scheme", "my_scheme"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Options of short runs in a tiny world, with the package of `new-scheme` installed in its folder."""
    folder = tmp_path_factory.mktemp("kit")
    package = folder / "package"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "ASSET_FOLDER", folder / "assets")
        settings = tiny_world.write(folder)
        tiny_world.paths(tiny_world.scenario(), seed=6).save(folder / "paths.npz")
        assert cli.main(["new-scheme", NAME, "--output", str(package)]) == 0
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        about = package / f"{MODULE}-{project['version']}.dist-info"  # what an installer writes
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {project['version']}\n")
        points = [f"[{group}]\n{NAME} = {each[NAME]}\n" for group, each in project["entry-points"].items()]
        (about / "entry_points.txt").write_text("".join(points))
        patch.syspath_prepend(str(package))
        importlib.invalidate_caches()
        yield {"scenario": settings.scenario, "bs": 3, "snapshots": 8, "weights": settings.weights}
        sys.modules.pop(MODULE, None)


def test_it_passes_the_check(world: dict[str, Any]) -> None:
    assert cofix.check_scheme(NAME, **world, bits=4) == []
    with pytest.raises(cofix.UserError, match="The check sets loss itself"):
        cofix.check_scheme(NAME, loss="3%")


def test_it_trains(world: dict[str, Any], tmp_path: Path) -> None:
    package = Path(str(sys.modules[MODULE].__file__)).parent
    paths = Path(world["scenario"]).with_name("paths.npz")
    words = [sys.executable, str(package / "train.py"), world["scenario"], str(paths)]
    ran = subprocess.run(
        words, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    weights = tmp_path / ran.stdout.strip()
    given = {**world, "driver": "process", "output": tmp_path / "runs", "bits": "lossless"}
    plain = cofix.emulate(scheme=NAME, **given)
    trained = cofix.emulate(scheme=NAME, **{**given, "weights": weights})
    assert trained.summary["error_3d_m"]["mean"] < 0.8 * plain.summary["error_3d_m"]["mean"]


def test_training_channels_are_of_training_positions(world: dict[str, Any]) -> None:
    paths = Path(world["scenario"]).with_name("paths.npz")
    one, other = (cofix.training_channels(world["scenario"], 5, data=paths, seed=seed) for seed in (1, 2))
    assert one.channel.shape == (5, 3, 4, 4, 8) and one.channel.dtype == np.complex64
    module: Any = importlib.import_module(MODULE)
    level = module.power_db(torch.from_numpy(one.channel).flatten(0, 1))
    assert (level > module.LOW_DB).all() and (level < module.HIGH_DB).all()  # nothing is clipped
    assert (one.position == other.position).all() and not np.allclose(one.channel, other.channel)
    with pytest.raises(
        cofix.UserError, match=r"no position to train on that is not of the shipped test set"
    ):  # emulate tests on all of them
        cofix.training_channels(world["scenario"], data=paths.parent / "assets" / "tiny" / "test.npz")
    with pytest.raises(cofix.UserError, match=r"no paths at nowhere.npz: make them with `python cli.py trace paris-6`"):
        cofix.training_channels("paris-6", data="nowhere.npz")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("payloads by chance", "Payloads are others in another run"),
        ("fixes by chance", "Fixes are others in another run"),
        ("fixes by batch", "seven at a time"),
    ],
)
def test_the_check_finds_what_is_wrong(
    world: dict[str, Any], fault: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = importlib.import_module(MODULE)
    encode, fuse, rng = module.Edge.encode, module.Fusion.fuse, np.random.default_rng()

    def wrong_encode(self: Any, channel: Any) -> Any:
        return encode(self, channel * 10 ** rng.uniform(-2, 2) if fault == "payloads by chance" else channel)

    def wrong_fuse(self: Any, groups: Any) -> Any:
        away = {"fixes by chance": rng.normal(), "fixes by batch": float(len(groups) == 1)}.get(fault, 0.0)
        return [type(fix)((fix.position[0] + away, *fix.position[1:])) for fix in fuse(self, groups)]

    monkeypatch.setattr(module.Edge, "encode", wrong_encode)
    monkeypatch.setattr(module.Fusion, "fuse", wrong_fuse)
    assert any(sentence in problem for problem in cofix.check_scheme(NAME, **world, bits=4))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("My Scheme", "A name has small letters"),
        ("json", "is the name of a module of Python"),
        ("numpy", "is the name of a module that is installed"),
        ("twin", "There is a scheme 'twin' already"),
    ],
)
def test_names_that_cannot_be(name: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new-scheme", name]) == 2
    assert sentence in capsys.readouterr().err


def test_the_folder_does_not_hide_the_module_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.main(["new-scheme", "lookup"]) == 0
    assert (tmp_path / "cofix-lookup" / "lookup.py").is_file()
    assert importlib.util.find_spec("lookup") is None  # a folder of this name would be a namespace package
    assert cli.main(["new-scheme", "lookup", "--output", "lookup"]) == 2
    assert "The folder may not be called lookup" in capsys.readouterr().err

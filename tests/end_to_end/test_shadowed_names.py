"""Files of the user's own that are named like our modules, in the folder where a run is started on Ray."""

import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
OURS = [*SETUPTOOLS["py-modules"], *(name.rstrip("*") for name in SETUPTOOLS["packages"]["find"]["include"])]
THEIRS = ["queue", "secrets", "numpy", "torch", "zmq"]
"""Of the standard library and of libraries, for which the same holds."""
RUN = ["emulate", "--driver", "ray", "--bs", "2", "--snapshots", "3", "--no-controls", "--output", "runs"]


def copy_of_the_source(folder: Path) -> Path:
    """Copy what is installed, with one scenario's files, since building leaves files in the source tree."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "cli.py"):
        shutil.copy(ROOT / name, folder / name)
    others = [path.name for path in (ROOT / "sim" / "assets").iterdir() if path.is_dir() and path.name != "paris-6"]
    for name in OURS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", *others))
    return folder


def installed(folder: Path, *, editable: bool) -> Path:
    """Install the package into a new environment that also has this one's libraries; return its command."""
    source = copy_of_the_source(folder / "source")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    (Path(sysconfig.get_path("purelib", vars=paths)) / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    kind = ["--editable"] if editable else []
    subprocess.run([*pip, "--ignore-installed", "--no-build-isolation", *kind, str(source)], check=True)
    if not editable:
        shutil.rmtree(source)
    return python.with_name("cofix")


@pytest.mark.parametrize("editable", [False, True])
def test_actors_import_what_the_driver_imported(editable: bool, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    command = str(installed(tmp_path, editable=editable))
    folder = tmp_path / "of the user's"
    folder.mkdir()
    for name in (*OURS, *THEIRS):
        (folder / f"{name}.py").write_text(f"raise ImportError('the user has {name}.py, too')\n")
    run = subprocess.run([command, *RUN], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_all_that_is_installed_is_shadowed() -> None:
    assert sorted(OURS) == ["cli", "cloud", "cofix", "edge", "fronthaul", "sim"]
    assert all((ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file() for name in OURS)

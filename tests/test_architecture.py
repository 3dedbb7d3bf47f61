"""Who may import whom."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fronthaul", "edge", "cloud", "sim")
ALLOWED = {
    "fronthaul": {"fronthaul"},
    "edge": {"edge", "fronthaul"},
    "cloud": {"cloud", "fronthaul"},
    "sim": set(PACKAGES),
}
RAY_FILES = {
    "edge/actor.py",
    "cloud/actor.py",
    "sim/emulate/ray_driver.py",
    "sim/emulate/ray_launch.py",
    "sim/emulate/ray_session.py",
}
ZMQ_FILES = {"fronthaul/transport/zeromq.py"}
ZMQ_LOADERS = ZMQ_FILES | {"fronthaul/transport/connect.py"}  # for the actor shells


def modules(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


@cache
def imported(path: Path) -> frozenset[str]:
    """Full names of all modules that a file imports, at whatever depth of nesting."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module or "")
    return frozenset(names)


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    forbidden = {*PACKAGES, "cli"} - ALLOWED[package]
    found = {name_of(path): tops(path) & forbidden for path in modules(package)}
    assert found
    assert not {name: what for name, what in found.items() if what}


def test_ray_is_in_the_actor_shells_and_the_cluster_alone() -> None:
    files = [*modules(*PACKAGES), ROOT / "cli.py"]
    assert {name_of(path) for path in files if "ray" in tops(path)} <= RAY_FILES


def test_zmq_is_in_the_sockets_alone() -> None:
    files = [*modules(*PACKAGES), ROOT / "cli.py"]
    assert {name_of(path) for path in files if "zmq" in tops(path)} == ZMQ_FILES


def test_sockets_are_chosen_for_the_actor_shells_alone() -> None:
    choosing = {name_of(path) for path in modules(*PACKAGES) if "fronthaul.transport.connect" in imported(path)}
    assert choosing <= RAY_FILES


def test_fronthaul_imports_no_torch() -> None:
    assert not [name_of(path) for path in modules("fronthaul") if "torch" in tops(path)]


def loaded_by(paths: list[Path]) -> set[str]:
    """Top-level modules that a fresh interpreter holds after importing the given files."""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_edge_and_cloud_brings_in_neither_ray_nor_zmq() -> None:
    shells = RAY_FILES | ZMQ_LOADERS
    loaded = loaded_by([p for p in modules("fronthaul", "edge", "cloud") if name_of(p) not in shells])
    assert not loaded & {"ray", "zmq", "sim"}


def test_importing_fronthaul_brings_in_no_torch() -> None:
    loaded = loaded_by([p for p in modules("fronthaul") if name_of(p) not in ZMQ_LOADERS])
    assert not loaded & {"torch", "ray", "zmq", "edge", "cloud", "sim"}


def test_packages_hold_a_docstring_only() -> None:
    for path in modules(*PACKAGES):
        if path.name == "__init__.py":
            body = ast.parse(path.read_text()).body
            assert len(body) == 1 and isinstance(body[0], ast.Expr), f"{name_of(path)} holds more than a docstring"

"""Who may import whom."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fronthaul", "edge", "cloud", "sim", "cofix")
ORDER = (
    # One line a level, top down: a room imports from lower lines alone, never from its own line or above.
    "cli",
    "sim.commands cofix",  # what people type, and what their programs import
    "sim.reproduce",
    "sim.inspect sim.sweep",
    "sim.emulate",
    "sim.report sim.observe",  # the last file of a run; what is told of it while it goes on
    "sim.records sim.learn sim.kernel sim.doctor sim.formats",  # kernel: shaped links; formats: data of others
    "sim.plan",
    "sim.world",
    "sim.drawing",
    "sim.toml sim.files sim.terminal sim.signals sim.cores sim.arithmetic",
    "sim.errors",
    "edge cloud",
    "fronthaul.sender",
    "fronthaul.link fronthaul.payload",
    "fronthaul.account fronthaul.codec",
    "fronthaul.log",
    "fronthaul.transport",
    "fronthaul.roster",  # who measures a snapshot
    "fronthaul.message",
    "fronthaul.clock fronthaul.documents fronthaul.draws fronthaul.files fronthaul.installed fronthaul.turns",
    "fronthaul.errors",
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms.split()}
RAY_FILES = {
    "edge/actor.py",
    "cloud/actor.py",
    "sim/emulate/ray_driver.py",
    "sim/emulate/ray_forks.py",
    "sim/emulate/ray_launch.py",
    "sim/emulate/ray_metrics.py",
    "sim/emulate/ray_rows.py",
    "sim/emulate/ray_session.py",
}
ZMQ_FILES = {"fronthaul/transport/zeromq.py"}
ZMQ_LOADERS = ZMQ_FILES | {"fronthaul/transport/connect.py", "fronthaul/transport/new_keys.py"}
"""Imported by the actor shells, and where keys are made."""


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


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """Return the line of `ORDER` that a module belongs to: the longest name there that begins its own."""
    parts = module.split(".")
    return next(name for n in (2, 1) if (name := ".".join(parts[:n])) in LEVEL)


Graph = dict[str, set[str]]


@pytest.fixture(scope="module")
def graph() -> Graph:
    """Whom each of our modules imports.

    Imports within functions count, and so do those for annotations alone (TYPE_CHECKING): two modules that need each
    other to be understood are in a circle, whenever Python loads them.
    """
    paths = {module_of(path): path for path in [*modules(*PACKAGES), ROOT / "cli.py"]}
    found: Graph = {}
    for name, path in paths.items():
        wanted = set(imported(path))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                wanted |= {f"{node.module}.{alias.name}" for alias in node.names}
        found[name] = wanted & paths.keys()
    return found


def circles(graph: Graph) -> list[str]:
    """Take away what imports nothing that is left, over and over: what remains imports in a circle, or into one."""
    left = {name: set(wanted) - {name} for name, wanted in graph.items()}
    while free := {name for name, wanted in left.items() if not wanted & left.keys()}:
        left = {name: wanted for name, wanted in left.items() if name not in free}
    return sorted(left)


def test_every_room_has_its_place(graph: Graph) -> None:
    assert {room_of(name) for name in graph.keys() - set(PACKAGES)} == LEVEL.keys()


def test_imports_point_down(graph: Graph) -> None:
    pairs = [(name, other) for name in graph for other in graph[name] - set(PACKAGES)]
    rooms = [(name, other, room_of(name), room_of(other)) for name, other in pairs]
    assert not [(name, other) for name, other, above, below in rooms if above != below and LEVEL[above] >= LEVEL[below]]


def test_nothing_imports_in_a_circle(graph: Graph) -> None:
    assert circles(graph) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_ray_is_in_the_actor_shells_and_the_cluster_alone() -> None:
    files = [*modules(*PACKAGES), ROOT / "cli.py"]
    assert {name_of(path) for path in files if "ray" in tops(path)} <= RAY_FILES


def test_zmq_is_in_the_sockets_alone() -> None:
    files = [*modules(*PACKAGES), ROOT / "cli.py"]
    assert {name_of(path) for path in files if "zmq" in tops(path)} == ZMQ_FILES


def test_sockets_are_chosen_for_the_actor_shells_alone() -> None:
    choosing = {name_of(path) for path in modules(*PACKAGES) if "fronthaul.transport.connect" in imported(path)}
    assert choosing <= RAY_FILES


def test_nothing_else_reads_a_clock_that_somebody_may_set() -> None:
    reading = [name_of(path) for path in modules(*PACKAGES) if re.search(r"\btime\.time(_ns)?\(", path.read_text())]
    assert reading == ["fronthaul/clock.py"]


def test_fronthaul_imports_no_torch() -> None:
    assert not [name_of(path) for path in modules("fronthaul") if "torch" in tops(path)]


def loaded_by(paths: list[Path]) -> set[str]:
    """Top-level modules that a fresh interpreter holds after importing the given files."""
    names = [module_of(path) for path in paths]
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
            if name_of(path) == "cofix/__init__.py":  # the public names
                body = [one for one in body if not isinstance(one, ast.ImportFrom | ast.Assign)]
            assert len(body) == 1 and isinstance(body[0], ast.Expr), f"{name_of(path)} holds more than a docstring"


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in modules(*PACKAGES)}  # setuptools leaves out a folder without __init__.py
    assert [name_of(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_packages_are_typed() -> None:
    assert [package for package in PACKAGES if not (ROOT / package / "py.typed").is_file()] == []

"""What is installed, what is missing, what the machine leaves to a run, and what to do about it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import resource
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from sim.cores import cores, cpu_quota
from sim.errors import UserError
from sim.plan.places import places_of

State = Literal["ok", "missing", "broken"]

PYTHON_NEEDED = (3, 11)
DEFAULT_RUN = ("paris-6", "ecc", 4)
"""Scenario, scheme and bits of `emulate` without options; their files must be shipped."""

SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket [B]: sun_path without its final zero (unix(7))."""
SESSION_SOCKET = "/ray/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store"
"""What Ray adds to the temporary folder, at its longest."""
FREE_BYTES = 500_000_000
"""Free disk that a run should find [B]: Ray's logs, and the streams of a long run."""
OPEN_FILES = 1024
"""Open files that a process of a run may need."""

_DISTRIBUTION = "cofix"
_MODULES = ("cli", "cloud", "cofix", "edge", "fronthaul", "sim")
_ROOT = Path(__file__).resolve().parents[1]
_INSTALL = "`pip install -c constraints.txt -e .`"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Attributes:
        name: what was checked.
        state: "ok", "missing" or "broken".
        detail: version, size, or what is wrong.
        advice: what to do; empty if there is nothing to do.
        required: whether `emulate` needs it to run with the shipped data and weights.
    """

    name: str
    state: State
    detail: str
    advice: str = ""
    required: bool = True


def examine() -> Iterator[Finding]:
    """Run all checks and yield one finding at a time."""
    yield _python()
    yield from _packages()
    yield _schemes()
    yield _tracing()
    yield _gpu()
    yield from _assets()
    yield from surroundings()


def surroundings() -> Iterator[Finding]:
    """Check what the machine, or the container, and this folder leave to a run, and say what `emulate` would do."""
    yield _cores()
    yield _temporary_folder()
    yield _open_files()
    yield _modules()
    yield from _disks()
    yield _plan()


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info < PYTHON_NEEDED:
        wanted = ".".join(map(str, PYTHON_NEEDED))
        return Finding("Python", "broken", f"{version}, {wanted} or newer is needed", f"Use Python {wanted}.")
    return Finding("Python", "ok", f"{version} on {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Finding]:
    """Compare each requirement of the distribution with what is installed."""
    try:
        lines = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Finding(_DISTRIBUTION, "missing", "not installed in this environment", f"Run {_INSTALL}.")
        return
    for requirement in map(Requirement, lines):
        extra = next((e for e in ("trace", "train") if _belongs_to(requirement, e)), "")
        if extra or requirement.marker is None:
            yield _package(requirement, extra)


def _belongs_to(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _package(requirement: Requirement, extra: str) -> Finding:
    use = {"": "", "trace": " (for `trace`)", "train": " (for curves of `train`)"}[extra]
    name = f"{requirement.name}{use}"
    advice = f"Run `pip install -c constraints.txt -e '.[{extra}]'`." if extra else f"Run {_INSTALL}."
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Finding(name, "missing", f"{requirement.specifier} is wanted", advice, not extra)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(name, "broken", f"{version}, {requirement.specifier} is wanted", advice, not extra)
    return Finding(name, "ok", version, required=not extra)


def _schemes() -> Finding:
    """Check that each scheme is registered for both base station and cloud."""
    edge = {point.name for point in metadata.entry_points(group="cofix.edge")}
    fusion = {point.name for point in metadata.entry_points(group="cofix.fusion")}
    if "ecc" not in edge & fusion:
        return Finding("schemes", "missing", "the built-in scheme 'ecc' is not registered", f"Run {_INSTALL}.")
    half = sorted(edge ^ fusion)
    if half:
        advice = "Register it in both entry point groups, cofix.edge and cofix.fusion."
        return Finding("schemes", "broken", f"{', '.join(half)} has only one half", advice, required=False)
    return Finding("schemes", "ok", ", ".join(sorted(edge)))


def _tracing() -> Finding:
    from sim.world import llvm
    from sim.world.sionna_rt import trial

    name = "LLVM library (for `trace` on the CPU)"
    try:
        metadata.version("sionna-rt")
    except metadata.PackageNotFoundError:
        return Finding(name, "missing", "not checked: used by Sionna RT only", "Install the extra `trace`.", False)
    tried = trial()
    if not tried.problem:
        return Finding(name, "ok", f"{tried.engine}; a ray was traced", required=False)
    advice = f"{tried.advice[:1].upper()}{tried.advice[1:]}."
    state: State = "broken" if tried.engine or llvm.find() else "missing"
    return Finding(name, state, tried.problem, advice, required=False)


def _gpu() -> Finding:
    name = "GPU (speeds up `train`)"
    try:
        import torch

        if torch.cuda.is_available():
            return Finding(name, "ok", torch.cuda.get_device_name(0), required=False)
    except (ImportError, OSError, RuntimeError) as error:
        return Finding(name, "broken", f"torch cannot be used: {error}", f"Run {_INSTALL}.")
    return Finding(name, "missing", "none; everything runs on the CPU", required=False)


def _assets() -> Iterator[Finding]:
    """Read every shipped scenario, test set and weights file in full."""
    from sim.world.scenario import SCENARIO_FOLDER
    from sim.world.store import ASSET_FOLDER

    for path in sorted(SCENARIO_FOLDER.glob("*.toml")):
        yield _scenario(path)
    sums = _checksums(ASSET_FOLDER / "SHA256SUMS")
    folders = sorted(p for p in ASSET_FOLDER.glob("*") if p.is_dir())
    if not folders:
        advice = "Restore the folder sim/assets from the repository."
        yield Finding("shipped data", "missing", f"{ASSET_FOLDER} holds nothing", advice)
    else:
        yield _default_run(ASSET_FOLDER)
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if not path.name.startswith("."):
                yield _asset(path, sums.get(f"{folder.name}/{path.name}"))


def _cores() -> Finding:
    quota = cpu_quota()
    limit = "no quota" if quota is None else f"a quota of {quota:g}"
    return Finding("CPU cores", "ok", f"{cores()}: {len(os.sched_getaffinity(0))} to run on, {limit}")


def _temporary_folder() -> Finding:
    """Check that Ray's sockets fit into its temporary folder, whose path is part of theirs."""
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "")
    folder = os.environ.get(variable, "/tmp")
    room = SOCKET_PATH_BYTES - len(SESSION_SOCKET)
    length = len(os.fsencode(folder))
    if length > room:
        detail = f"{variable} has {length} bytes, {room} are the most: Ray's sockets lie in it"
        return Finding("temporary folder", "broken", detail, "Set RAY_TMPDIR to a short path, such as /tmp.")
    if not os.access(folder, os.W_OK | os.X_OK):
        advice = "Set RAY_TMPDIR to a folder that you can write to."
        return Finding("temporary folder", "broken", f"{folder} cannot be written to", advice)
    return Finding("temporary folder", "ok", f"{folder}, {length} of {room} bytes")


def _open_files() -> Finding:
    soft, hard = (
        None if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    detail = f"{soft or 'any number of'} of them, {hard or 'no limit'} at most"
    if hard is not None and hard < OPEN_FILES:
        return Finding("open files", "broken", detail, f"Raise the hard limit to {OPEN_FILES} (`ulimit -Hn`).")
    return Finding("open files", "ok", detail)  # a run raises its own limit as far as it may


def _modules() -> Finding:
    """Check that our modules are ours, and tell of the user's own in this folder that have the same names."""
    name = "names of modules"
    others = [
        f"{module} is {spec.origin}"
        for module in _MODULES
        if (spec := importlib.util.find_spec(module)) is not None
        and spec.origin is not None
        and not Path(spec.origin).resolve().is_relative_to(_ROOT)
    ]
    if others:
        return Finding(
            name, "broken", ", ".join(others), "Rename it, or start `cofix` without its folder in PYTHONPATH."
        )
    here = Path.cwd()
    same = [] if here == _ROOT else [m for m in _MODULES if (here / f"{m}.py").exists() or (here / m).is_dir()]
    if same:
        return Finding(name, "ok", f"{', '.join(same)} in this folder have names of ours; they are not imported")
    return Finding(name, "ok", "none in this folder has a name of ours")


def _disks() -> Iterator[Finding]:
    for use, folder in (("runs", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        detail = f"{free / 1e9:.1f} GB free in {folder}"
        if free < FREE_BYTES:
            advice = f"Make room, {FREE_BYTES / 1e9:g} GB at least, or choose another folder."
            yield Finding(f"disk for {use}", "broken", detail, advice)
        else:
            yield Finding(f"disk for {use}", "ok", detail)


def _plan() -> Finding:
    """Say what `emulate` without options does."""
    from sim.plan.settings import EmulateSettings
    from sim.world.scenario import load_scenario

    scenario, scheme, bits = DEFAULT_RUN
    name = "`emulate` would"
    try:
        stations = load_scenario(scenario).station_count
    except UserError as error:
        return Finding(name, "broken", str(error), "Restore the file from the repository.")
    cloud_cpus = EmulateSettings.cloud_cpus
    per_actor, cpus = places_of(None, None, stations=stations, cloud_cpus=cloud_cpus, local=True)
    actors = -(-stations // per_actor)
    detail = (
        f"run {scheme} with {bits} bit in {scenario!r}: start Ray with CPUs: {cores()}, processes: {actors}; "
        f"base stations in each: {per_actor}; reserved for each: {cpus:g}, for the cloud: {cloud_cpus:g}"
    )
    return Finding(name, "ok", detail)


def _default_run(assets: Path) -> Finding:
    """Check that the files of `emulate` without options exist; `_asset` checks the contents of each."""
    from sim.plan.weights import find_weights

    name, (scenario, scheme, bits) = "files of the default run", DEFAULT_RUN
    restore = "Restore the folder sim/assets from the repository."
    try:
        weights = find_weights(scenario, scheme, bits)
    except UserError as error:
        return Finding(name, "missing", str(error), restore)
    if not (assets / scenario / "test.npz").is_file():
        return Finding(name, "missing", f"there is no {scenario}/test.npz", restore)
    return Finding(name, "ok", f"{scenario}/test.npz and {weights.name}")


def _scenario(path: Path) -> Finding:
    from sim.world.scenario import load_scenario

    try:
        scenario = load_scenario(str(path))
    except UserError as error:
        return Finding(f"scenario {path.stem}", "broken", str(error), "Restore the file from the repository.")
    return Finding(f"scenario {path.stem}", "ok", f"{scenario.station_count} sites in {scenario.scene!r}")


def _asset(path: Path, expected: str | None) -> Finding:
    """Check that one file can be read, and compare its digest where one is recorded."""
    name, restore = f"{path.parent.name}/{path.name}", "Restore the file from the repository."
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if expected is not None and digest != expected:
        return Finding(name, "broken", f"SHA-256 is {digest[:12]}…, {expected[:12]}… is recorded", restore)
    try:
        content = _content(path)
    except UserError as error:
        return Finding(name, "broken", str(error), restore)
    return Finding(name, "ok", f"{content}{path.stat().st_size / 1e6:.2f} MB, SHA-256 {digest[:12]}…")


def _content(path: Path) -> str:
    """Describe the contents of a file.

    Raises:
        UserError: it cannot be read, or was traced for another version of the scenario.
    """
    from sim.plan.weights import load_weights
    from sim.world.paths import load_paths
    from sim.world.scenario import load_scenario

    if path.suffix == ".safetensors":
        return f"{len(load_weights(path).tensors)} tensors, "
    if path.suffix == ".npz":
        _whole(path)
    if path.name != "test.npz":
        return ""
    paths = load_paths(path)
    if paths.digest != load_scenario(path.parent.name).tracing_digest():
        raise UserError(f"{path} was traced for another version of scenario {path.parent.name!r}.")
    return f"{len(paths)} positions, "


def _whole(path: Path) -> None:
    """Compare every array of an NPZ file with its CRC-32.

    Raises:
        UserError: one differs, or the file is truncated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is truncated or damaged ({error}).") from error
    if damaged:
        raise UserError(f"{path} is damaged: {damaged} has another checksum.")


def _checksums(path: Path) -> dict[str, str]:
    """Read a file in the format of `sha256sum`: relative path → digest."""
    if not path.is_file():
        return {}
    pairs = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {name.strip().removeprefix("*").removeprefix("./"): digest for digest, name in pairs}

"""What is installed, what is missing, and what to do about it."""

from __future__ import annotations

import hashlib
import platform
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from sim.errors import UserError

State = Literal["ok", "missing", "broken"]

PYTHON_NEEDED = (3, 11)
DEFAULT_RUN = ("paris-6", "ecc", 4)
"""Scenario, scheme and bits of `emulate` without options; their files must be shipped."""

_DISTRIBUTION = "cofix"
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

"""Cores that a quota leaves, as kernels write quotas down."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim import cores as module
from sim.cores import cores, cpu_quota

ROOT = Path(module.__file__).parents[1]
V1 = Path("/sys/fs/cgroup/cpu")
V2 = Path("/sys/fs/cgroup")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the kernel's own, and 8 cores."""
    monkeypatch.setattr(module, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(module, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return tmp_path


def write(kernel: Path, membership: str, files: dict[str, str]) -> None:
    (kernel / "membership").write_text(membership)
    for name, text in files.items():
        path = kernel / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


V1_GROUPS = "12:pids:/docker/1f3\n4:cpu,cpuacct:/docker/1f3\n1:name=systemd:/docker/1f3\n"


@pytest.mark.parametrize(
    ("membership", "files", "quota", "expected"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1.0, 1),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5, 1),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None, 8),
        ("0::/\n", {"cpu.max": "3200000 100000\n"}, 32.0, 8),
        ("0::/\n", {}, None, 8),
        # a limit of the group above holds, too
        ("0::/user/run.scope\n", {"user/run.scope/cpu.max": "max 100000\n", "user/cpu.max": "250000 100000\n"}, 2.5, 2),
        # a container sees its own group at the root, whatever its path says
        (V1_GROUPS, {"cpu,cpuacct/cpu.cfs_quota_us": "150000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 1.5, 1),
        (V1_GROUPS, {"cpu/docker/1f3/cpu.cfs_quota_us": "20000\n", "cpu/docker/1f3/cpu.cfs_period_us": "5000\n"}, 4, 4),
        (V1_GROUPS, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, 8),
        ("1:cpu:/\n0::/\n", {"unified/cpu.max": "300000 100000\n"}, 3.0, 3),
    ],
)
def test_the_quota_of_a_container_is_found(
    kernel: Path, membership: str, files: dict[str, str], quota: float | None, expected: int
) -> None:
    write(kernel, membership, files)
    assert cpu_quota() == quota
    assert cores() == expected


def test_without_control_groups_there_is_no_quota(kernel: Path) -> None:
    assert cpu_quota() is None
    assert cores() == 8


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of the running kernel with a quota of 1.5 cores."""
    found = (V1 if V1.is_dir() else V2) / f"cofix-test-{os.getpid()}"
    try:
        found.mkdir()
        if V1.is_dir():
            (found / "cpu.cfs_quota_us").write_text("150000")
        else:
            (found / "cpu.max").write_text("150000 100000")
    except OSError as error:
        pytest.skip(f"control groups cannot be made here: {error}")
    yield found
    found.rmdir()


def within(group: Path, *arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python in a control group."""
    enter = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); os.execv(sys.executable, sys.argv[2:])"
    command = [sys.executable, "-c", enter, str(group / "cgroup.procs"), sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_the_kernels_own_quota_is_found(group: Path) -> None:
    found = within(group, "-c", "from sim.cores import cores, cpu_quota; print(cpu_quota(), cores())")
    assert found.stdout.split() == ["1.5", "1"]


@pytest.mark.ray
@pytest.mark.slow
def test_the_default_places_fit_into_the_kernels_own_quota(group: Path, tmp_path: Path) -> None:
    words = ("emulate", "--snapshots", "3", "--no-controls", "--no-report")
    found = within(group, str(ROOT / "cli.py"), *words, folder=tmp_path)
    assert found.returncode == 0, found.stderr

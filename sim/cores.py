"""CPU cores that this process may use: those it may run on, and those that a quota of its control group allows.

Containers set quotas (docker's `--cpus`, Kubernetes' limits). Linux keeps them with the control group of a process and
with each group above it: as `cpu.max` ("quota period", both in us; cgroup v2, admin-guide/cgroup-v2.rst) or as
`cpu.cfs_quota_us` and `cpu.cfs_period_us` (cgroup v1, scheduler/sched-bwc.rst). A container sees its own group at the
root of the mounted tree, whatever its path says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def cores() -> int:
    """Return the whole cores that this process may use, at least 1; as much is what Ray reserves from."""
    quota = cpu_quota()
    there = len(os.sched_getaffinity(0))
    return there if quota is None else max(1, min(there, int(quota)))


def respect_quota() -> None:
    """Let the numerical libraries that are imported after this call start no more threads than there are cores."""
    if cpu_quota() is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def cpu_quota() -> float | None:
    """Return the smallest quota of the groups of this process [cores]; None if none has one."""
    return min((quota for folder in _folders() if (quota := _quota(folder)) is not None), default=None)


def _folders() -> Iterator[Path]:
    """Yield the folders of this process's groups that may limit its CPU, and of the groups above them."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:  # not Linux, or /proc is not mounted
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)  # "4:cpu,cpuacct:/docker/1f3"; v2: "0::/user.slice"
        if not controllers:
            trees = [CGROUPS, CGROUPS / "unified"]
        elif "cpu" in controllers.split(","):
            trees = [CGROUPS / controllers, CGROUPS / "cpu"]
        else:
            continue
        group = Path(path.strip("/"))
        yield from (tree / above for tree in trees for above in (group, *group.parents))


def _quota(folder: Path) -> float | None:
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            words = " ".join((folder / name).read_text() for name in names).split()
            quota, period = (int(word) for word in words)
        except (OSError, ValueError):  # another version's file, or "max": no limit
            continue
        if quota > 0 and period > 0:  # v1: -1 is no limit
            return quota / period
    return None

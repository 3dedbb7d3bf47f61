"""Description of the machine on which the results were measured."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import zmq

from sim.records.folder import commit


@dataclass(frozen=True, slots=True)
class Machine:
    """Hardware, versions and conditions of a run; `load` is the one-minute load average before the first part."""

    cpu: str
    cores: int
    cpu_capability: str
    load: float
    torch_threads: int
    python: str
    torch: str
    pyzmq: str
    libzmq: str
    commit: str | None
    date: str


def this_machine() -> Machine:
    """Describe this machine; call it after setting torch to the number of threads of the measurements."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        load=round(os.getloadavg()[0], 2),
        torch_threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=str(torch.__version__),
        pyzmq=zmq.pyzmq_version(),
        libzmq=zmq.zmq_version(),
        commit=commit(),
        date=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )


def _cpu_model() -> str:
    """Return the name of the processor, as far as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_mb() -> float:
    """Return this program's peak memory [MB]; `getrusage` would tell its parent's if that was larger."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = [line for line in lines if line.startswith("VmHWM")]
    return float(peak.split()[1]) / 1e3

"""What figures were measured on: a figure without its machine says nothing."""

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
    """Machine class, versions and circumstances; `load` is the one-minute load average before the first part."""

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
    """Describe where we are; call it where torch has the number of threads that is measured with."""
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
    """Name of the processor, as far as the kernel says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

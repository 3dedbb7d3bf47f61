"""A cloud in a process of its own, whose memory can be measured while it is attacked.

    python besieged.py FOLDER KEYS FILES

FOLDER holds a tiny world (`tiny_world`), KEYS is a folder of keys or "", FILES the limit of open files. It prints its
address, takes time zero from standard input, and ends when its base stations have left.
"""

import contextlib
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tiny_world
import torch

from cloud.node import CloudNode
from edge.node import EdgeNode
from edge.pacing import run_schedule
from fronthaul.clock import WallClock
from fronthaul.message.messages import Ping
from fronthaul.message.wire import encode
from fronthaul.transport.connect import cloud_transport, edge_transport
from fronthaul.transport.keys import load_cloud_keys, load_edge_keys
from fronthaul.transport.new_keys import write_keys
from fronthaul.transport.transport import EdgeTransport
from sim.plan.plan import Plan, load_plan
from sim.plan.settings import EmulateSettings
from sim.records.books import Books, derive_books
from sim.records.folder import THREADS, RunFolder
from sim.world import store

STATIONS = 3
SNAPSHOTS = 70


def tiny_plan(folder: Path) -> Plan:
    """Return the plan of a run in the tiny world of `folder`, the same in both processes."""
    store.ASSET_FOLDER = folder / "assets"
    settings = EmulateSettings(
        scenario=str(folder / "tiny.toml"),
        weights=folder / "tiny.safetensors",
        output=folder / "runs",
        bs=STATIONS,
        snapshots=SNAPSHOTS,
        interval_ms=60.0,
        controls=False,
        deadline_ms=30_000.0,  # and heartbeats are rare: an overloaded machine must not change who takes part
        ping_ms=5000.0,
    )
    return load_plan(settings)


class Siege:
    """A run over sockets: the cloud in a process of its own, the base stations in threads of this one.

    Attributes:
        port: of the cloud.
        folder: of the run.
        keys: folder of the keys; None for unencrypted links.
        pid: of the cloud's process.
    """

    def __init__(self, tmp_path: Path, *, curve: bool, files: int = 4096) -> None:
        """Start the cloud."""
        tiny_world.write(tmp_path)
        self._plan = tiny_plan(tmp_path)
        self.keys = tmp_path / "keys" if curve else None
        if self.keys is not None:
            write_keys(self.keys, STATIONS)
        self.folder = RunFolder(tmp_path / "runs" / "siege.part")
        self.folder.links.mkdir(parents=True)
        command = [sys.executable, __file__, str(tmp_path), str(self.keys or ""), str(files)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self._cloud = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.pid = self._cloud.pid
        self._nodes: list[EdgeNode] = []
        self._running: list[threading.Thread] = []

    def begin(self) -> None:
        """Register the base stations and begin the run."""
        assert self._cloud.stdin is not None and self._cloud.stdout is not None
        address = self._cloud.stdout.readline().strip()
        self.port = int(address.rsplit(":", 1)[1])
        self._nodes += [self._node(bs) for bs in range(STATIONS)]
        for node in self._nodes:
            node.rehearse()
            node.register()
            node.await_welcome(30.0)
        self._schedule = schedule = self._plan.schedule(time.time_ns() + 500_000_000)
        self._cloud.stdin.write(f"{schedule.t0_ns}\n")
        self._cloud.stdin.flush()
        kwargs = {"first_snapshot": 0, "end_s": 20.0}
        self._running += [
            threading.Thread(target=run_schedule, args=([node], schedule, WallClock()), kwargs=kwargs)
            for node in self._nodes
        ]
        for thread in self._running:
            thread.start()
        time.sleep(1.0)
        self._normal_mb = self._memory_mb("VmRSS")
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # the peak begins again

    def end(self) -> tuple[Books, float, float]:
        """Wait for the end of the run.

        Returns:
            Its books, by how much memory grew at most [MB], and the median time from a snapshot to its fix [s].
        """
        for thread in self._running:
            thread.join(60.0)
            assert not thread.is_alive()
        for node in self._nodes:
            node.close()
        grown_mb = self._memory_mb("VmHWM") - self._normal_mb
        assert self._cloud.stdin is not None
        self._cloud.stdin.close()
        assert self._cloud.wait(60.0) == 0
        books = derive_books(self._plan, self.folder)
        zero_ns = np.array([self._schedule.time_zero_ns(snapshot) for snapshot in books.fixes["snapshot"].to_pylist()])
        return books, grown_mb, float(np.median(books.fixes["t_fix_ns"].to_numpy() - zero_ns)) / 1e9

    def answers_a_newcomer(self, bs: int) -> bool:
        """Return whether another connection of `bs` gets an answer to one of its heartbeats."""
        with contextlib.closing(self._connect(bs)) as edge:
            for _ in range(20):
                edge.send(encode(Ping(bs, 0, time.time_ns())))
                if edge.receive(1.0) is not None:
                    return True
        return False

    def kill(self) -> None:
        """End the cloud's process and the base stations, if they still live."""
        self._cloud.kill()
        self._cloud.wait()
        for thread in self._running:
            thread.join(60.0)
        for node in self._nodes:
            node.close()
        for stream in (self._cloud.stdin, self._cloud.stdout):
            with contextlib.suppress(BrokenPipeError):
                assert stream is not None
                stream.close()

    def _node(self, bs: int) -> EdgeNode:
        return EdgeNode(self._plan.sites[bs], self._connect(bs), self.folder.links, WallClock())

    def _connect(self, bs: int) -> EdgeTransport:
        keys = None if self.keys is None else load_edge_keys(self.keys, bs)
        address = f"tcp://127.0.0.1:{self.port}"
        return edge_transport(address, bs, keys=keys, queue_messages=1000, delayed=False)

    def _memory_mb(self, name: str) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6


@contextlib.contextmanager
def siege(tmp_path: Path, *, curve: bool, files: int = 4096) -> Iterator[Siege]:
    """Yield a run that has begun; the cloud's process ends with the block."""
    made = Siege(tmp_path, curve=curve, files=files)
    try:
        made.begin()
        yield made
    finally:
        made.kill()


def main(folder: str, keys: str, files: str) -> None:
    """Run the cloud."""
    torch.set_num_threads(THREADS)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), min(int(files), hard)))
    plan = tiny_plan(Path(folder))
    socket = cloud_transport(
        "127.0.0.1",
        0,
        keys=load_cloud_keys(Path(keys)) if keys else None,
        queue_messages=plan.settings.hwm,
        delayed=False,
        load=plan.cloud.load,
    )
    cloud = CloudNode(plan.cloud, socket, Path(folder) / "runs" / "siege.part" / "links", WallClock())
    cloud.rehearse()
    print(socket.address, flush=True)
    threading.Thread(target=lambda: cloud.ask(("start", int(sys.stdin.readline()))), daemon=True).start()
    cloud.run(10.0)
    sys.stdin.read()  # our peak is read meanwhile
    cloud.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

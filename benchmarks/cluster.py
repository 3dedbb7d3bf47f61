"""Three hosts of a cluster on one machine: network namespaces with addresses and disks of their own, Ray on each.

    python -m benchmarks.cluster

Links are encrypted, and Ray wants a token. Two runs: one that is left alone, and one in which the third host loses
power after a while. It prints what both runs say of themselves. It needs root, and takes two minutes.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fronthaul.documents import read_json

SITES = ("east", "north", "west")
PORT = 6379
LOSE_S = 3.0
"""When the third host is lost, after the first reports [s]."""


class Hosts:
    """Hosts on a bridge: network namespaces with an address each, removed on exit with all of their processes."""

    def __init__(self, count: int) -> None:
        """Name `count` hosts; they are there within the context."""
        self._bridge = f"cxh{os.getpid() % 100000}"
        self.names = [f"cofix-host-{os.getpid()}-{n}" for n in range(count)]

    def address(self, n: int) -> str:
        """Return the address of host `n`."""
        return f"10.231.{os.getpid() % 250}.{n + 1}"

    def __enter__(self) -> Hosts:
        """Make the hosts.

        Raises:
            CalledProcessError: it is not allowed, or the commands of iproute2 are missing.
        """
        with contextlib.ExitStack() as undo:
            undo.push(self.__exit__)
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("link", "set", self._bridge, "up")
            for n, name in enumerate(self.names):
                near, far = f"{self._bridge}-{n}", f"{self._bridge}e{n}"
                _ip("netns", "add", name)
                _ip("link", "add", near, "type", "veth", "peer", "name", far)
                _ip("link", "set", near, "master", self._bridge, "up")
                _ip("link", "set", far, "netns", name)
                _ip("-n", name, "addr", "add", f"{self.address(n)}/24", "dev", far)
                _ip("-n", name, "link", "set", far, "up")
                _ip("-n", name, "link", "set", "lo", "up")
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs on the hosts, and remove them."""
        for n, name in enumerate(self.names):
            self.lose(n)
            subprocess.run(["ip", "link", "del", f"{self._bridge}-{n}"], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._bridge], check=False, capture_output=True)

    def lose(self, n: int) -> None:
        """Let host `n` lose its power: all of its processes end at once, without a word to others."""
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("-n", self.names[n], "link", "set", f"{self._bridge}e{n}", "down")
            while pids := self.processes(n):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)

    def processes(self, n: int) -> list[int]:
        """Return the ids of the processes on host `n`."""
        return [int(pid) for pid in _ip("netns", "pids", self.names[n]).split()]

    def start(self, n: int, words: Sequence[str], disk: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a command on host `n`, where `disk` is a folder of its own in memory."""
        own_disk = f'mount -t tmpfs none {disk} && exec "$@"'
        inside = ["ip", "netns", "exec", self.names[n], "sh", "-c", own_disk if n else 'exec "$@"', "sh", *words]
        output = subprocess.PIPE
        return subprocess.Popen(inside, env={**environment}, stdout=output, stderr=subprocess.STDOUT, text=True)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def ray_on(hosts: Hosts, folder: Path) -> Iterator[dict[str, str]]:
    """Start Ray on each host, with a label and a token; yield the environment for commands on the first."""
    token = folder / "token"
    with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    disk = folder / "ray"
    disk.mkdir()
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {**os.environ, **own}
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=2"]
    head = f"{hosts.address(0)}:{PORT}"
    for n, site in enumerate(SITES):
        words = [*ray, f"--node-ip-address={hosts.address(n)}", f"--labels=site={site}"]
        if n:
            words.append(f"--address={head}")
        else:
            words += ["--head", f"--port={PORT}", f"--temp-dir={disk}", "--include-dashboard=false"]
        started = hosts.start(n, words, disk, environment)
        assert started.stdout is not None
        said = []
        for line in started.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                break
        else:
            raise RuntimeError("".join(said[-20:]))
        threading.Thread(target=started.stdout.read, daemon=True).start()
    yield {**environment, "RAY_ADDRESS": head}


def _stages(output: Path) -> bool:
    """Return whether the last base station has sent a report."""
    return any(path.stat().st_size > 2000 for path in output.glob("*.part/links/bs-005-*-stages.arrow"))


def show_memory(processes: Sequence[int]) -> None:
    """Print the mean memory of processes of Ray, by kind [MB]: shared pages are counted in parts."""
    found: dict[str, list[int]] = {}
    for pid in processes:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            kind = Path(words[0].decode()).name.partition(".")[0]
            if re.match(r"ray::|raylet|gcs_server", kind):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                found.setdefault(kind, []).append(sum(map(int, re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE))))
    for kind, kilobytes in sorted(found.items()):
        print(f"{len(kilobytes):3} × {kind:22} {statistics.mean(kilobytes) / 1e3:6.0f} MB each")


def run(hosts: Hosts, environment: Mapping[str, str], output: Path, lost: bool) -> None:
    """Emulate from the first host, on all three, and print what the run says."""
    words = [sys.executable, "cli.py", "emulate", "--ray-address", environment["RAY_ADDRESS"], "--node-label", "site"]
    words += ["--bs", "6", "--snapshots", "100", "--interval", "200", "--deadline", "2000"]
    words += ["--no-controls", "--no-report", "--output", str(output)]
    running = hosts.start(0, words, output, environment)
    reading = threading.Thread(target=lambda: said.extend(running.stdout or ()))
    said: list[str] = []
    reading.start()
    while running.poll() is None and not _stages(output):
        time.sleep(0.2)
    time.sleep(LOSE_S)
    if lost:
        hosts.lose(2)
    else:
        show_memory([pid for n in range(len(SITES)) for pid in hosts.processes(n)])
    running.wait(300)
    reading.join()
    print(*(line for line in said if re.match(r"restart|not connected|\d+ fixes", line)), sep="", end="")
    print("exit status ", running.returncode, *(said[-3:] if running.returncode else ()))
    for path in output.glob("*/summary.json"):
        summary = read_json(path)
        kept = ("fixes", "encrypted", "frames", "reports", "strays", "conservation", "missing_bs")
        for name in kept:
            print(f"{name:12} {summary[name]}")
        print("latency_ms  ", {stage: value["p50"] for stage, value in summary["latency_ms"].items()})
        audited = subprocess.run([sys.executable, "cli.py", "audit", str(path.parent)], capture_output=True, text=True)
        print("audit       ", audited.stdout.splitlines()[-1])


def main() -> None:
    """Make the hosts, start Ray, run twice."""
    with tempfile.TemporaryDirectory() as folder:
        for lost in (False, True):
            own = Path(folder) / ("lost" if lost else "whole")
            (own / "runs").mkdir(parents=True)
            with Hosts(len(SITES)) as hosts, ray_on(hosts, own) as environment:
                print(f"-- three hosts, {'one of which is lost' if lost else 'all of which stay'}")
                run(hosts, environment, own / "runs", lost)


if __name__ == "__main__":
    main()

"""Runs that a full disk or Ctrl-C ends: one sentence, and everything so far intact and accounted for."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_world

from fronthaul.errors import LocalError
from fronthaul.log.sent import read_journal
from sim.inspect.audit import audit
from sim.inspect.frames import recover

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path, *options: str, before: str = "") -> list[str]:
    """A fresh interpreter that runs `emulate` on the tiny world in `folder`."""
    arguments = ["emulate", "--scenario", str(folder / "tiny.toml"), "--weights", str(folder / "tiny.safetensors")]
    arguments += ["--bs", "3", "--no-controls", "--output", str(folder / "runs"), *options]
    code = (
        # Under a shell's background job SIGINT comes ignored, and would stay so.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"import sys; from pathlib import Path; import sim.world.store as store\n"
        f"store.ASSET_FOLDER = Path({str(folder / 'assets')!r})\n{before}\n"
        f"import cli; sys.argv[1:] = {arguments!r}; cli.run()"
    )
    return [sys.executable, "-c", code]


def recovered(folder: Path) -> int:
    """Recover the run that was cut; return how many fixes it had made."""
    (part,) = (folder / "runs").glob("*.part")
    found = recover(part)
    assert found.conservation.problems == ()
    assert found.conservation.frames_journaled > 0
    return len(found.books.fixes)


def test_a_full_disk_ends_a_run_with_a_sentence(tmp_path: Path) -> None:
    tiny_world.write(tmp_path)
    # No file may grow beyond this: to a program that is what a full disk looks like.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))"
    done = subprocess.run(
        command(tmp_path, "--driver", "process", "--snapshots", "2000", before=limit),
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (told,) = [line for line in done.stderr.splitlines() if "ETA" not in line and line.strip()]
    assert "disk is full" in told or "cannot write" in told
    (part,) = (tmp_path / "runs").glob("*.part")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))"  # the disk is still full
    recovery = f"{limit}; import sys, cli; sys.exit(cli.main(['inspect', {str(part)!r}, '--recover']))"
    done = subprocess.run([sys.executable, "-c", recovery], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"The books of {part} cannot be closed: File too large." in done.stderr
    assert recovered(tmp_path) > 0
    assert [finding.detail for finding in audit(part).findings if finding.state == "fails"] == []


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_a_sentence(tmp_path: Path, number: signal.Signals) -> None:
    tiny_world.write(tmp_path)
    options = ["--bs-per-actor", "3", "--snapshots", "100000", "--interval", "20", "--cpus-per-bs", "0.1"]
    with subprocess.Popen(command(tmp_path, *options), cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        until_s = time.monotonic() + 120.0
        journals = "runs/*.part/links/bs-002-*-sent.arrow"
        while time.monotonic() < until_s and not any(map(has_frames, tmp_path.glob(journals))):
            assert running.poll() is None
            time.sleep(0.2)
        running.send_signal(number)
        for _ in range(3):  # whoever is impatient changes nothing
            time.sleep(0.1)
            running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=60.0)
    assert running.returncode == 130
    assert "Stopped; every frame sent until then is journaled in" in told
    assert told.count("Stopping already: what is open is being closed.") == 1
    assert "Traceback" not in told and "***" not in told  # nor a dump of Ray's C++ code
    assert recovered(tmp_path) > 0
    (part,) = (tmp_path / "runs").glob("*.part")
    (kernel,) = [finding for finding in audit(part).findings if finding.name == "kernel"]
    assert "memory" not in kernel.detail and kernel.state != "fails", kernel


def has_frames(journal: Path) -> bool:
    """Whether a journal holds a number of messages already."""
    try:
        return len(read_journal(journal)) > 30
    except LocalError:
        return False

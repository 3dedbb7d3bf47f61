"""Ray's workers are forks of one process, are what Ray's own would be, and end as those do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.emulate.ray_session import ray_session  # isort: skip  # before Ray: it sets its environment

import ray

from sim.emulate.ray_fork_request import SERVER
from sim.emulate.ray_forks import REQUEST, fork_server
from sim.plan import plan as compose
from sim.plan.settings import EmulateSettings

WORKER = """
import json, os, sys
from pathlib import Path
print("worker", json.dumps([sys.argv, "torch" in sys.modules, os.environ["MINE"], os.environ["OURS"], os.getcwd()]))
print(len(list(Path("/proc/self/task").iterdir())), os.getpgid(0) == os.getpid(), __name__, file=sys.stderr)
"""
OWN = "import sys; print('own', sys.argv[1:])"


def request(folder: Path, *options: str, **variables: str) -> tuple[str, str]:
    """Start a worker as Ray does; return what it says on both streams."""
    command = [sys.executable, str(REQUEST), str(folder / "default_worker.py"), *options]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip(), done.stderr.strip()


def test_a_fork_gets_all_that_its_request_has(tmp_path: Path) -> None:
    inner = tmp_path / "an inner folder"
    inner.mkdir()
    (tmp_path / "default_worker.py").write_text(WORKER)
    (tmp_path / "setup_worker.py").write_text(OWN)
    own = f"own ['{tmp_path}/default_worker.py', '--worker=1']"
    with fork_server({"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}) as forks:
        forks.import_ray(os.getpid())
        variables = {
            SERVER: forks.path, "MINE": "1", "OURS": "0", "RAY_JOB_ID": "01000000", "RAY_RAYLET_PID": str(os.getpid()),
        }  # fmt: skip
        # Ray is imported with the variables of its first job, whoever asks first, and does not read them again.
        assert request(tmp_path, "--worker=1", **variables | {"RAY_JOB_ID": "02000000"})[0] == own
        context = {"command_prefix": ["cd", f"'{inner}'", "&&"], "env_vars": {"OURS": "2"}}
        options = ["--language=PYTHON", f"--serialized-runtime-env-context={json.dumps(context)}", "--worker=1"]
        told, more = request(tmp_path, *options, **variables)
        name, _, told = told.partition(" ")
        assert (name, json.loads(told)) == (
            "worker", [[f"{tmp_path}/default_worker.py", "--worker=1"], True, "1", "2", str(inner)],
        )  # fmt: skip
        assert more == "1 True __main__"  # with one thread, since a fork keeps only one
    assert request(tmp_path, "--worker=1", **variables | {"RAY_JOB_ID": "02000000"})[0] == own
    assert request(tmp_path, "--worker=1", **variables)[0] == own


@pytest.mark.ray
def test_workers_are_forked_and_nothing_is_left(settings: EmulateSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = f"COFIX_TEST={os.getpid()}"
    monkeypatch.setenv(*mark.split("="))

    def ours() -> list[str]:
        """Commands of processes that were started with the mark."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if mark.encode() in (place / "environ").read_bytes():
                    found.append((place / "cmdline").read_text())
            except OSError:
                continue
        return found

    with ray_session(None, [compose.load_plan(settings)]):
        parent = ray.get(ray.remote(lambda: os.getppid()).remote(), timeout=60.0)
        assert "sim.emulate.ray_forks" in Path(f"/proc/{parent}/cmdline").read_text()
        assert len(ours()) > 4
        assert not any("dashboard.py" in command for command in ours())  # its server would be waited for
    assert ours() == []

"""A file that a test leaves open is told where it was left."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEAK = """
def test_leaves_a_file_open_in_a_cycle(tmp_path):
    cycle = []
    cycle.append((cycle, (tmp_path / "left open").open("w")))
"""
INNOCENT = """
import gc

def test_collects_garbage():
    gc.collect()
"""


def test_a_leak_fails_its_own_module_and_no_later_one(tmp_path: Path) -> None:
    (tmp_path / "test_1_leak.py").write_text(LEAK)
    (tmp_path / "test_2_innocent.py").write_text(INNOCENT)
    options = ["-q", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider"]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "support")))
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    found = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 1, found.stdout + found.stderr
    assert "2 passed, 1 error" in found.stdout
    (summary,) = [line for line in found.stdout.splitlines() if line.startswith("ERROR")]
    assert "test_1_leak.py::test_leaves_a_file_open_in_a_cycle" in summary

"""docs/api.md and docs/first-run.ipynb: their code runs as printed, and the notebook is stored without outputs."""

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sim.plan.options import settings_of

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NOTEBOOK: dict[str, Any] = json.loads((DOCS / "first-run.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
FEW = "SNAPSHOTS = 30"

RUNNER = """
import ast, json, sys
import matplotlib
matplotlib.use("Agg")
names = {}
for cell in json.loads(sys.stdin.read()):
    body = ast.parse(cell).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        print(repr(value))
"""
"""Runs cells one after the other in one namespace, as a kernel does, and prints what each last expression is."""


def executed(cells: list[str], folder: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", RUNNER]
    paths = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    ran = subprocess.run(
        command, input=json.dumps(cells), cwd=folder, env=paths, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    assert "SNAPSHOTS = 1000" in CODE[0]
    out = executed([CODE[0].replace("SNAPSHOTS = 1000", FEW), *CODE[1:]], tmp_path)
    assert re.search(r"<Run runs/\S+-paris-6-ecc-b4: ecc, B = 4, 30 fixes, mean 3D error 0\.[2-6]", out)
    assert "'payload_bits_per_report': 3072" in out and re.search(r"^lost +\d\d$", out, re.MULTILINE)
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_the_notebook_has_the_fixes_of_the_readmes_first_pictures() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+\.png)\)", readme)
    assert pictures[:2] == ["docs/error-cdf.png", "docs/map.png"]
    after = readme.split(pictures[1])[1]
    found = re.match(r"\) \|\s+Both pictures are from `python cli\.py (.+?)`", after)
    assert found and f"`python cli.py {found[1]}`" in "".join(NOTEBOOK["cells"][0]["source"])
    [call] = [node for node in ast.walk(ast.parse(CODE[0])) if isinstance(node, ast.Call)]
    told = {it.arg: 1000 if isinstance(it.value, ast.Name) else ast.literal_eval(it.value) for it in call.keywords}
    shown = settings_of({"bs": 6, "bits": "4"})
    assert found[1] == "emulate --bs 6 --bits 4"
    own = {name: str(value) if name == "bits" else value for name, value in told.items() if name}
    # On the simulated clock, without packet captures: neither touches a fix.
    assert settings_of(own) == replace(shown, driver="process", capture=False, bs_per_actor=1, cpus_per_bs=0.25)
    assert any("run.plot_cdf()" in cell for cell in CODE) and any("run.plot_map()" in cell for cell in CODE)


def test_the_notebook_is_a_notebook_without_outputs() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len(NOTEBOOK["cells"]) <= 10 and len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    for cell in NOTEBOOK["cells"]:
        own = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert cell.keys() == {"cell_type", "id", "metadata", "source"} | own
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
def test_the_examples_of_the_page_run(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / "api.md").read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 3
    few = [block.replace("snapshots=1000", "snapshots=8") for block in blocks]
    assert few != blocks
    executed(few, tmp_path)

"""One ray is traced in a process of its own before anything else: what it says where that fails, and to whom."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import cli
from sim import doctor
from sim.errors import UserError
from sim.world import llvm, sionna_rt

OLD = 'print("LLVM 15.0.6 (/lib/libLLVM-15.so.1)", flush=True)\n'
GPU = 'print("the GPU (cuda_ad_mono_polarized)", flush=True)\n'
ABORT = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
print("LLVM ERROR: Cannot select: 0x55fb445abbb0: f32 = fmaximum 0x55fb445b3620, ConstantFP", file=sys.stderr)
print("  0x55fb445b3620: f32 = extract_vector_elt", file=sys.stderr, flush=True)
os.abort()
"""
MISSING = """
import sys
print("jit_llvm_init(): the located LLVM version (14) is too old. Dr.Jit requires another.", file=sys.stderr)
raise ImportError("LLVM is inactive")
"""

Child = Callable[[str], object]


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    """Have these lines run instead of those that trace a ray, in a process that has not tried yet."""
    path = tmp_path / "child.py"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(llvm.VARIABLE, "/lib/libLLVM.so.19.1")
    monkeypatch.setattr(sionna_rt, "_ONE_RAY", path)
    monkeypatch.setattr(sionna_rt, "trial", functools.cache(sionna_rt.trial.__wrapped__))
    return path.write_text


TOO_OLD = "Tracing one ray with LLVM 15.0.6 (/lib/libLLVM-15.so.1) ended in "
FAILURES = {
    "too old LLVM": (
        OLD + ABORT, TOO_OLD + "'LLVM ERROR: Cannot select: f32 = fmaximum, ConstantFP'", llvm.ADVICE,
    ),
    "killed": (OLD + "import os; os.kill(os.getpid(), 9)", TOO_OLD + "'signal 9'", llvm.ADVICE),
    "silent": (OLD + "raise SystemExit(3)", TOO_OLD + "'status 3'", llvm.ADVICE),
    "no LLVM": (
        MISSING,
        f"Ray tracing on the CPU needs the LLVM shared library, version {llvm.MINIMUM} or newer, which was not found "
        "(jit_llvm_init(): the located LLVM version (14) is too old)", llvm.ADVICE,
    ),
    "GPU": (
        GPU + "raise RuntimeError('OptiX is not there.')",
        "Tracing one ray with the GPU (cuda_ad_mono_polarized) ended in 'RuntimeError: OptiX is not there'",
        "look at its driver",
    ),
    "no Sionna RT": (
        "import sionna.rt_",
        "Ray tracing needs Sionna RT, which cannot be imported (ModuleNotFoundError: No module named 'sionna.rt_')",
        "install it with `pip install -c constraints.txt -e '.[trace]'`",
    ),
    "no end": (
        "import time; time.sleep(60)", "Tracing one ray took more than 0.5 s", "look at the machine's load",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_a_ray_that_cannot_be_traced_is_one_sentence(
    child: Child, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    text, problem, advice = FAILURES[name]
    child(text)
    if name == "no end":
        monkeypatch.setattr(sionna_rt, "_TRIAL_TIMEOUT_S", 0.5)
    assert cli.main(["trace", "paris-6", "--positions", "1"]) == 2
    assert capfd.readouterr() == ("", f"{problem}: {advice}.\n")
    assert not list(tmp_path.rglob("*.npz"))
    found = doctor._tracing()
    assert (found.state, found.detail, found.required) == ("broken", problem, False)
    assert found.advice.lower() == f"{advice}.".lower()


def test_no_library_at_all_is_missing(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvm, "find", lambda: None)
    monkeypatch.delenv(llvm.VARIABLE)
    child(MISSING)
    assert doctor._tracing().state == "missing"


def test_a_gpu_needs_no_llvm(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvm, "find", lambda: None)
    child(GPU)
    assert doctor._tracing() == doctor.Finding(
        "LLVM library (for `trace` on the CPU)", "ok", "the GPU (cuda_ad_mono_polarized); a ray was traced",
        required=False,
    )  # fmt: skip


def test_a_process_tries_once(child: Child, tmp_path: Path) -> None:
    child(f"open({str(tmp_path / 'tried')!r}, 'a').write('once')\n{OLD}{ABORT}")
    for _ in range(2):
        assert doctor._tracing().state == "broken"
        with pytest.raises(UserError, match=r"ended in 'LLVM ERROR"):
            sionna_rt.import_sionna()
    assert (tmp_path / "tried").read_text() == "once"


def test_the_trial_and_the_process_take_the_chosen_library() -> None:
    engine = sionna_rt.trial().engine
    sionna_rt.import_sionna()
    if engine.startswith("LLVM") and (chosen := os.environ.get(llvm.VARIABLE)):
        assert f"({os.path.realpath(chosen)})" in engine
        assert os.path.realpath(chosen) in Path("/proc/self/maps").read_text()

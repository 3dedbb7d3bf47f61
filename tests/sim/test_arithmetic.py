"""Runs of one seed are the same to the bit, whatever other code of the process has set, used or left in memory."""

import dataclasses
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from fronthaul.link.link_file import link_plan
from sim.arithmetic import fixed_arithmetic
from sim.emulate.emulator import emulate
from sim.inspect.replay import replay
from sim.plan.settings import EmulateSettings
from sim.world.radio import Radio

LINKS = link_plan({"default": {"loss": "30%"}})
SETTINGS = EmulateSettings(
    scenario="paris-6",
    scheme="ecc",
    bs=3,
    bits=4,
    driver="process",
    snapshots=12,
    links=LINKS,
    controls=False,
    report=False,
    output=Path(),
)


def outcome(folder: Path) -> tuple[list[object], list[object]]:
    """Run; return every payload and every fix."""
    result = emulate(dataclasses.replace(SETTINGS, output=folder))
    assert replay(result.folder).ok
    payloads = [
        pq.read_table(path, columns=["bs", "seq", "payload", "side"]).to_pylist()
        for path in sorted((result.folder / "links").glob("bs-*.parquet"))
    ]
    fixes = pq.read_table(result.folder / "fixes.parquet", columns=["snapshot", "x_m", "y_m", "z_m", "covariance_m2"])
    return payloads, fixes.to_pylist()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[object], list[object]]:
    return outcome(tmp_path_factory.mktemp("expected"))


@contextmanager
def switched(set_: Callable[[object], object], value: object, usual: object) -> Iterator[None]:
    set_(value)
    try:
        yield
    finally:
        set_(usual)


@contextmanager
def products_in_bfloat16() -> Iterator[None]:
    with ExitStack() as restored:
        for each in (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv):
            restored.callback(setattr, each, "fp32_precision", each.fp32_precision)
            each.fp32_precision = "bf16"
        yield


@contextmanager
def fragmented_memory() -> Iterator[None]:
    used = [np.full(size, np.nan, np.float32) for size in range(1, 20_000, 7)]
    kept = used[::2]
    del used  # freed memory is not zero, and lies between what is kept
    yield
    del kept


@contextmanager
def memory_filled() -> Iterator[None]:
    """Fill what torch hands out uninitialised with NaN."""
    with switched(torch.use_deterministic_algorithms, True, False):
        assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
        yield


@contextmanager
def collected_all_the_time() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(50)
    yield
    gc.set_threshold(*before)


@contextmanager
def other_seeds() -> Iterator[None]:
    torch.manual_seed(5)
    np.random.seed(5)
    yield


LEFT_BEHIND = {
    "threads": lambda: switched(torch.set_num_threads, 3, 1),
    "denormal numbers": lambda: switched(torch.set_flush_denormal, True, False),
    "matrix products": lambda: switched(torch.set_float32_matmul_precision, "medium", "highest"),
    "bfloat16": products_in_bfloat16,
    "without oneDNN": lambda: torch.backends.mkldnn.flags(enabled=False, allow_tf32=None),  # type: ignore[arg-type]
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default type": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "default device": lambda: switched(torch.set_default_device, "meta", None),
    "gradients off": torch.inference_mode,
    "seeds": other_seeds,
    "errors of NumPy": lambda: np.errstate(all="raise"),
    "used memory": fragmented_memory,
    "filled memory": memory_filled,
    "garbage collection": collected_all_the_time,
}


TOGETHER = (
    ("threads", "denormal numbers", "matrix products", "seeds", "errors of NumPy", "default type"),
    ("bfloat16", "used memory", "garbage collection", "default device"),
    ("without oneDNN", "filled memory", "gradients off"),
    ("autocast",),
)
"""What one run finds left behind: all that can be set at a time, and does not hide another."""


def test_all_is_left_behind_once() -> None:
    assert sorted(chain(*TOGETHER)) == sorted(LEFT_BEHIND)


@pytest.mark.parametrize("left", TOGETHER, ids=", ".join)
def test_what_other_code_left_behind_changes_no_bit(
    left: Sequence[str], expected: tuple[list[object], list[object]], tmp_path: Path
) -> None:
    with ExitStack() as behind:
        for each in left:
            behind.enter_context(LEFT_BEHIND[each]())  # type: ignore[no-untyped-call]
        assert outcome(tmp_path) == expected


@pytest.mark.parametrize("offset", [16, 32, 48])
def test_where_arrays_lie_changes_no_bit(
    offset: int, expected: tuple[list[object], list[object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NumPy aligns to 16 B, torch to 64 B; what a radio receives lies at an offset from the latter."""

    def observe_together(asked: Sequence[tuple[Radio, Sequence[int]]]) -> list[Tensor]:
        return [moved(received) for received in usual(asked)]

    def moved(received: Tensor) -> Tensor:
        bytes_ = received.numel() * received.element_size()
        memory = torch.full((bytes_ + 128,), 255, dtype=torch.uint8)
        begin = -memory.data_ptr() % 64 + offset
        there = memory[begin : begin + bytes_].view(received.dtype).view(received.shape)
        assert there.data_ptr() % 64 == offset
        offsets.append(offset)
        return there.copy_(received)

    offsets: list[int] = []
    usual = Radio.observe_together
    monkeypatch.setattr(Radio, "observe_together", staticmethod(observe_together))
    assert outcome(tmp_path) == expected
    assert offsets


@pytest.mark.slow
def test_what_memory_held_before_changes_no_bit(expected: tuple[list[object], list[object]], tmp_path: Path) -> None:
    """In a process of its own, where the C library fills memory (mallopt(3), M_PERTURB)."""
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; import test_arithmetic as test;"
        "print(repr(test.outcome(Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent), *sys.path[:2]]
    found = subprocess.run(
        command, env=os.environ | {"MALLOC_PERTURB_": "165"}, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == repr(expected)


@pytest.mark.parametrize("left", [*list(LEFT_BEHIND)[:8]])
def test_settings_come_back_as_they_were(left: str) -> None:
    def settings() -> tuple[object, ...]:
        onednn = torch.backends.mkldnn
        denormal = bool(torch.full((), 1e-40, dtype=torch.float32, device="cpu") * 1.0)
        return (
            *(torch.get_num_threads(), torch.get_default_dtype(), torch.get_default_device(), denormal),
            *(onednn.matmul.fp32_precision, onednn.conv.fp32_precision, torch._C._get_mkldnn_enabled()),  # type: ignore[attr-defined]
            torch.is_autocast_enabled("cpu"),
        )

    usual = settings()
    with LEFT_BEHIND[left]():  # type: ignore[no-untyped-call]
        before = settings()
        assert before != usual
        with fixed_arithmetic():
            inside = settings()
        assert settings() == before
    assert settings() == usual
    assert inside == (1, torch.float32, torch.device("cpu"), True, "ieee", "ieee", True, False)

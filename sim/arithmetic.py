"""The arithmetic of runs: what other code of the same process has chosen for torch changes no bit of them.

Of a process's settings, the precision of matrix products, oneDNN on or off, autocast, and the default type and device
change bits, as tests/sim/test_arithmetic.py shows; the number of threads can (tests/end_to_end/test_guarantees.py), and
flushing of denormal numbers might. Former contents and alignment of memory, seeds of global generators, and garbage
collection do not: everything random has a generator of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

THREADS = 1
"""Threads of torch in runs: sums depend on their number."""


@contextmanager
def fixed_arithmetic(threads: int = THREADS) -> Iterator[None]:
    """Compute on the CPU with `threads` threads in IEEE float32 in this block, and restore what was set before.

    Flushing of denormal numbers is a setting of the calling thread, everything else one of the process.
    """
    onednn: Any = torch.backends.mkldnn  # its module has members that its types do not
    products = (onednn.matmul, onednn.conv)
    before = [each.fp32_precision for each in products]
    state = torch.get_num_threads(), torch.get_default_dtype(), _flushes_denormal()
    with ExitStack() as restored:
        restored.callback(_set, *state)
        for each, precision in zip(products, before, strict=True):
            restored.callback(setattr, each, "fp32_precision", precision)
            each.fp32_precision = "ieee"
        _set(threads, torch.float32, False)
        restored.enter_context(onednn.flags(enabled=True, allow_tf32=None, fp32_precision=None))
        restored.enter_context(torch.autocast("cpu", enabled=False))
        if torch.get_default_device().type != "cpu":  # the context slows every operation
            restored.enter_context(torch.device("cpu"))
        yield


def _set(threads: int, dtype: torch.dtype, flush_denormal: bool) -> None:
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    torch.set_flush_denormal(flush_denormal)


def _flushes_denormal() -> bool:
    return bool(torch.full((), 1e-40, dtype=torch.float32, device="cpu") * 1.0 == 0.0)

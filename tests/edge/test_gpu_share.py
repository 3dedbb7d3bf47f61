"""A process that has a share of a GPU gets no more than that of its memory, which Ray does not see to."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import torch
from edge.actor import EdgeActor
from fronthaul.clock import origin

EdgeActor([], origin(), 1, "cuda", 0.2)
size = torch.cuda.get_device_properties(0).total_memory
torch.empty(size // 10, dtype=torch.uint8, device="cuda")
try:
    torch.empty(size // 4, dtype=torch.uint8, device="cuda")
except torch.OutOfMemoryError:
    print("refused")
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_beyond_the_share_is_refused() -> None:
    """In a process of its own, since the share is the process's."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "refused", done.stderr

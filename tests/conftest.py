"""One thread for torch: the same bits on every machine, and tests that share a small one fairly."""

import torch

torch.set_num_threads(1)

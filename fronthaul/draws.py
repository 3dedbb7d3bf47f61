"""Random draws that depend on their purpose, never on when they are drawn.

A draw is keyed by (seed, stream, key...), for instance (7, "loss", link, direction, seq). Philox is counter
based: its key alone fixes the whole stream, so the draws are the same in any order of execution and with any number
of processes.
"""

import hashlib
import operator

import numpy as np


def generator(seed: int, stream: str, *key: int) -> np.random.Generator:
    """Return the generator of one draw.

    Args:
        seed: the run's seed, any int.
        stream: what the draw is for, such as "noise" or "loss".
        key: integers that tell draws of the stream apart, such as BS and snapshot.

    Returns:
        A new generator; equal arguments give equal draws, different arguments independent ones.

    Raises:
        ValueError: the stream's name contains the separator 0x1f.
    """
    if "\x1f" in stream:
        raise ValueError("a stream's name must not hold the separator 0x1f")
    # The separator tells (1, "a", 2) from (1, "a2") and from (12, "a"); integers may be of any size.
    name = "\x1f".join([str(operator.index(seed)), stream, *(str(operator.index(part)) for part in key)])
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()  # Philox4x64 has a key of 128 bits
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype="<u8")))

"""Random draws that depend on their purpose, never on when they are drawn.

A draw is keyed by (seed, stream, key...), for instance (7, "loss", link, direction, seq). Philox is counter
based: its key alone fixes the whole stream, so the draws are the same in any order of execution and with any number
of processes.
"""

import hashlib
import operator
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

_KEY = struct.Struct("<2Q")


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
    return np.random.Generator(np.random.Philox(key=np.array(_key(_name(seed, stream), key), np.uint64)))


class Stream:
    """The draws of one stream of a seed, with one generator that goes from key to key: an eighth of the time.

    Example:
        >>> one = Stream(7, "noise").at(3, 0).random()
        >>> one == generator(7, "noise", 3, 0).random()
        True
    """

    def __init__(self, seed: int, stream: str) -> None:
        """Take the seed and the name of the stream, as `generator` does."""
        self._name = _name(seed, stream)
        self._philox = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._philox)
        # NumPy reads a state of plain integers in less than half the time of one of arrays.
        self._counter_and_key = {"counter": (0, 0, 0, 0), "key": (0, 0)}
        self._start: Any = self._philox.state | {"state": self._counter_and_key, "buffer": (0, 0, 0, 0)}

    def at(self, *key: int) -> np.random.Generator:
        """Return the generator at the beginning of the draw of `key`; it serves until the next call."""
        self._counter_and_key["key"] = _key(self._name, key)
        self._philox.state = self._start
        return self._generator


def _name(seed: int, stream: str) -> str:
    if "\x1f" in stream:
        raise ValueError("a stream's name must not hold the separator 0x1f")
    # The separator tells (1, "a", 2) from (1, "a2") and from (12, "a"); integers may be of any size.
    return f"{operator.index(seed)}\x1f{stream}"


def _key(name: str, key: Sequence[int]) -> tuple[int, int]:
    name = "\x1f".join([name, *map(str, map(operator.index, key))])
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()  # Philox4x64 has a key of 128 bits
    return _KEY.unpack(digest)

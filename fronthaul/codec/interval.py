"""Arithmetic coding of a whole message in one integer: exact, and to the last bit as short as such a code can be.

Notation: symbol s of a number has the cumulative counts c(s) ≤ … < c(s + 1), out of 2^P in all. A message of n symbols
is an interval of [0, 2^(P n)), made symbol by symbol:

    low ← low 2^P + range c(s),   range ← range (c(s + 1) − c(s))

and is sent as the shortest bits b, one or more, for which 0.b lies in it. That takes at most ⌈−log₂ p⌉ bits for a
message of probability p. Streaming range coders (constriction and others) emit words of 32 bits, the last of them often
unused, which a report of 64 bits cannot afford; a report has few symbols, so that integers of any length are cheap.

All is integer arithmetic: the same bytes on any machine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fronthaul.errors import LocalError, RemoteError
from fronthaul.message.messages import Payload

PRECISION = 14
"""P, counts of a table add up to 2^P."""
Table = tuple[int, ...]
"""Cumulative counts c(0) = 0 … c(levels) = 2^P of a number's symbols."""


def table(counts: NDArray[np.integer]) -> Table:
    """Return the table of symbols that were counted so often; none of them becomes impossible.

    Raises:
        LocalError: no symbol, too many, or a negative count.
    """
    levels = len(counts)
    if not 0 < levels <= 1 << (PRECISION - 1) or (counts < 0).any():
        raise LocalError(f"a table needs 1..{1 << (PRECISION - 1)} counts, none of them negative")
    free = (1 << PRECISION) - levels  # one for each symbol, the rest by its share
    total = max(1, sum(counts.tolist()))
    sums = [0]
    for count in counts.tolist():
        sums.append(sums[-1] + count)
    return (*(sums[s] * free // total + s for s in range(levels)), 1 << PRECISION)


def encode(index: Sequence[int], tables: Sequence[Table]) -> Payload:
    """Return the shortest payload of symbols, each of its own table."""
    low, span = 0, 1
    for s, sums in zip(index, tables, strict=True):
        low, span = (low << PRECISION) + span * sums[s], span * (sums[s + 1] - sums[s])
    whole = PRECISION * len(tables)
    # The first bit in which the ends differ is 1 in the upper one: what ends there lies between. Or `low` itself ends.
    apart = (low ^ (low + span - 1)).bit_length()
    zeros = (low & -low).bit_length() - 1 if low else whole
    cut = min(max(apart - 1, zeros), whole - 1)
    bits, value = whole - cut, -(-low >> cut)
    return Payload((value << -bits % 8).to_bytes((bits + 7) // 8, "big"), bits)


def decode(payload: Payload, tables: Sequence[Table]) -> list[int]:
    """Undo `encode`.

    Raises:
        RemoteError: "field" if the payload is not the shortest of what it says.
    """
    whole = PRECISION * len(tables)
    index: list[int] = []
    if 0 < payload.bits <= whole:
        rest = int.from_bytes(payload.data, "big") >> -payload.bits % 8 << whole - payload.bits
        span, shift = 1, whole
        for sums in tables:
            shift -= PRECISION
            unit = span << shift
            s = bisect_right(sums, rest // unit) - 1
            rest -= unit * sums[s]
            span *= sums[s + 1] - sums[s]
            index.append(s)
        if encode(index, tables) == payload:
            return index
    raise RemoteError("field", f"{payload.bits} bits are not the code of {len(tables)} indices")

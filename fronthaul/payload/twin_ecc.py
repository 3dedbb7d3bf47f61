"""Options of `twin-ecc` that both halves need: its answers are reports of `ecc-klt` of a length of their own."""

from __future__ import annotations

from collections.abc import Mapping

ANSWER_OPTION = "bits_per_answer"
ANSWER_BITS = 64
"""Length of an answer without that option [bit]."""


def answer_bits(options: Mapping[str, str | int]) -> int:
    """Return the length of an answer [bit]."""
    return int(options.get(ANSWER_OPTION, ANSWER_BITS))


def answer_options(options: Mapping[str, str | int]) -> dict[str, str | int]:
    """Return the options of the half of `ecc-klt` that makes or reads answers."""
    return {"bits_per_report": answer_bits(options)}

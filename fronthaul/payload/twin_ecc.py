"""Options of `twin-ecc` that both halves need: its answers are reports of `ecc-klt` of a length of their own."""

from __future__ import annotations

from collections.abc import Mapping

ANSWER_OPTION = "bits_per_answer"
ANSWER_BITS = 64
"""Length of an answer without that option [bit]."""
LEARNED_OPTION = "learned_mm"
LEARNED_MM = 600
"""Deviation of a learned fix on each axis without that option: where `twin` fails, `ecc-klt` is about 1 m off."""


def answer_bits(options: Mapping[str, str | int]) -> int:
    """Return the length of an answer [bit]."""
    return int(options.get(ANSWER_OPTION, ANSWER_BITS))


def learned_mm(options: Mapping[str, str | int]) -> int:
    """Return the deviation of a learned fix on each axis [mm]."""
    return int(options.get(LEARNED_OPTION, LEARNED_MM))


def answer_options(options: Mapping[str, str | int]) -> dict[str, str | int]:
    """Return the options of the half of `ecc-klt` that makes or reads answers."""
    return {"bits_per_report": answer_bits(options)}

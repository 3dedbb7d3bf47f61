"""The numbers that a payload is made of, for people who read a frame: each with its bits, its value and its step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PayloadField:
    """One number of a payload.

    Attributes:
        part: what it belongs to, such as "atom 1".
        name: what it says.
        bits: its width; 0 if it is not sent.
        index: the number in these bits.
        value: what a receiver takes it for.
        step: quantiser step, in the unit of the value.
        unit: of value and step.
        words: the value in other words, such as another unit; empty if there are none.
    """

    part: str
    name: str
    bits: int
    index: int
    value: float
    step: float
    unit: str
    words: str = ""

"""Directions of a link."""

from enum import StrEnum


class Direction(StrEnum):
    """Which way a frame goes: UP from BS to cloud, DOWN from cloud to BS."""

    UP = "up"
    DOWN = "down"

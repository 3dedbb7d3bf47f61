"""Limits and checks of the values in a message.

The checks accept any object: mypy checks the types within this project, but not those in a user's scheme.
"""

from fronthaul.errors import LocalError

MAX_SIDE_BYTES = 31
"""Maximum side information of a report [B]: its length has 5 bits in the header."""
MAX_BUNDLE = 64
"""Maximum number of reports in a frame: one bit each in a 64-bit mask."""


def require_between(name: str, value: object, low: int, high: int) -> None:
    """Raise `LocalError` unless `value` is an int in `low`..`high`."""
    # A bool is an int in Python, but not for other readers of the bytes.
    if not isinstance(value, int) or isinstance(value, bool):
        raise LocalError(f"{name} must be an int, not {type(value).__name__}")
    if not low <= value <= high:
        raise LocalError(f"{name} must be in {low}..{high}, not {value}")


def require_unsigned(name: str, value: object, width: int) -> None:
    """Raise `LocalError` unless `value` is an int of `width` bits [bit]."""
    require_between(name, value, 0, (1 << width) - 1)


def require_bytes(name: str, value: object) -> None:
    """Raise `LocalError` unless `value` is bytes."""
    # bytearray and memoryview could change under a frozen message.
    if not isinstance(value, bytes):
        raise LocalError(f"{name} must be bytes, not {type(value).__name__}")

"""How much the suite tries of what is drawn at random: a few seconds each, or as often as ``FUZZ`` says."""

import os
import random
from collections.abc import Callable
from typing import Any

TIMES = int(os.environ.get("FUZZ", "1"))
"""Factor on the number of cases."""

STRANGE: tuple[Any, ...] = (None, [], {}, [1, [2]], {"a": {"b": 1}}, "", "x" * 70, -1, 0, 3, 1e300, float("nan"), True)
"""Values that are hardly ever meant."""


def cases(few: int) -> range:
    """Return the seeds of the cases to try."""
    return range(few * TIMES)


def leaves(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of nested tables and lists."""
    inner = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return [(value, key) for key, _ in inner] + [leaf for _, part in inner for leaf in leaves(part)]


def one_value_changed(value: Any, draw: random.Random, strange: tuple[Any, ...] = STRANGE) -> str:
    """Change, remove or rename one value somewhere in nested tables; return which and how."""
    holder, key = draw.choice(leaves(value))
    how = draw.choice(["change", "change", "change", "remove", "rename"])
    old = holder.pop(key) if how != "change" else holder[key]
    if how == "rename" and isinstance(holder, dict):
        holder[f"{key}x"] = old
    elif how == "change":
        holder[key] = draw.choice((*strange, f"{old}", [old], old * 2 if isinstance(old, int | float | list) else old))
    return f"{how} {key!r} of {old!r:.60} to {holder.get(key) if isinstance(holder, dict) else ''!r:.60}"


def refused(attempt: Callable[[], object], kinds: tuple[type[Exception], ...], told: str) -> bool:
    """Try; return whether it was refused, by an error of these kinds and in one line; any other error fails."""
    try:
        attempt()
    except kinds as error:
        assert str(error) and "\n" not in str(error), told
        return True
    except Exception as error:
        raise AssertionError(told) from error
    return False

"""TOML and JSON that somebody else may have written: bounded in size, in nesting, and in the time that reading takes.

The standard library's parsers recurse once per level, and copy all parts of a dotted key for each of them. So a text is
measured before it is parsed, in time proportional to its length.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fronthaul.errors import LocalError

MOST_BYTES = 16 << 20
"""Longest file [B]; a run of 65536 base stations has several MB of configuration."""
MOST_DEPTH = 32
"""Deepest nesting of tables and lists, and most parts of a dotted key; real files have at most 6."""

# A string that is not closed ends with its line or with the text, so that each character is looked at once.
_TOML_SKIPPED = re.compile(
    r'"""(?:[^"\\]++|\\.|"{1,2}(?!"))*+(?:"{3,5})?'
    r"|'''(?:[^']++|'{1,2}(?!'))*+(?:'{3,5})?"
    r'|"(?:[^"\\\n]++|\\.)*+"?'
    r"|'[^'\n]*+'?"
    r"|#[^\n]*+",
    re.DOTALL,
)
_JSON_SKIPPED = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[\[{]|[\]}]")
_DOTTED_KEY = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{MOST_DEPTH}}}")


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        OSError: it cannot be read.
        LocalError: it is too long, or no text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except ValueError as error:  # a NUL in its name
        raise LocalError(f"its name cannot be one: {error}") from error
    if len(data) > most_bytes:
        raise LocalError(f"it is longer than {most_bytes} B")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LocalError(f"it is no text in UTF-8: {error.reason} at byte {error.start}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table that a TOML text holds.

    Raises:
        LocalError: it is not TOML, or too long or too deeply nested.
    """
    bare = _TOML_SKIPPED.sub("_", _measured(text))
    _require_shallow(bare)
    if _DOTTED_KEY.search(bare):
        raise LocalError(f"a key has more than {MOST_DEPTH} parts")
    import tomllib  # not for `--help`

    try:
        table = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError is a ValueError, and so is Python's error for 5000 digits
        raise LocalError(str(error)) from error
    _require_flat(table)
    return table


def parse_json(text: str) -> Any:
    """Return the value that a JSON text holds.

    Raises:
        LocalError: it is not JSON, or too long or too deeply nested.
    """
    _require_shallow(_JSON_SKIPPED.sub("_", _measured(text)))
    try:
        return json.loads(text)
    except ValueError as error:
        raise LocalError(str(error)) from error


def read_json(path: Path) -> Any:
    """Return the value that a JSON file holds.

    Raises:
        OSError: it cannot be read.
        LocalError: as for `read_text` and `parse_json`.
    """
    return parse_json(read_text(path))


def _measured(text: str) -> str:
    if len(text) > MOST_BYTES:
        raise LocalError(f"it is longer than {MOST_BYTES} characters")
    return text


def _require_shallow(bare: str) -> None:
    """Check the nesting of brackets in a text without strings."""
    depth = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MOST_DEPTH:
            raise LocalError(f"it is nested deeper than {MOST_DEPTH} levels")


def _require_flat(table: dict[str, Any]) -> None:
    """Check the nesting of a value: dotted keys within inline tables may multiply what the text shows."""
    level: list[Any] = [table]
    for _ in range(MOST_DEPTH + 1):
        level = [inner for value in level for inner in _inner(value)]
        if not level:
            return
    raise LocalError(f"it is nested deeper than {MOST_DEPTH} levels")


def _inner(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in inner if isinstance(item, dict | list)]

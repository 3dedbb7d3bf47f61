"""Build dataclasses from TOML tables: names and types are checked, and errors name the key."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

from sim.errors import UserError, nearest_hint

T = TypeVar("T")


def build(cls: type[T], table: dict[str, Any], where: str) -> T:
    """Build dataclass `cls` from a table; `where` names the source in errors.

    A nested table may be partial if its field has a default: missing keys keep the values of that default.

    Raises:
        UserError: a key is unknown or missing, or a value has the wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise UserError(f"Unknown key {key!r} in {where}{nearest_hint(key, fields)}.")
    values: dict[str, Any] = {}
    for key, spec in fields.items():
        if key in table:
            value = table[key]
            if isinstance(value, dict) and spec.default_factory is not dataclasses.MISSING:
                value = {**dataclasses.asdict(spec.default_factory()), **value}
            values[key] = _convert(hints[key], value, f"{where}: {key}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise UserError(f"The key {key!r} is missing in {where}.")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Convert a TOML value to the annotated type; errors name the expected type."""
    origin = typing.get_origin(hint)
    if origin is types.UnionType:  # an optional table; absent, or null in a record
        if value is None:
            return None
        (hint,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
        origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise UserError(f"{where} must be a table.")
        return build(typing.cast(type, hint), value, where)
    if origin in (tuple, types.GenericAlias):
        args = typing.get_args(hint)
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} must be a list.")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(value) != len(args):
            raise UserError(f"{where} must have {len(args)} entries, it has {len(value)}.")
        return tuple(_convert(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(zip(args, value, strict=True)))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise UserError(f"{where} must be finite.")
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise UserError(f"{where} must be {getattr(hint, '__name__', hint)}, it is {value!r}.")

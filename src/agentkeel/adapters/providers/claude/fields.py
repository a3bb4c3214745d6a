"""Reading JSON whose shape nobody guarantees: a field is of its type, or it is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Message", "flag", "number", "objects", "record", "seconds", "string"]

Message = Mapping[str, Any]


def record(value: Any) -> Message:
    """The object, or an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[Message]:
    """The objects of a list; what is none is left out."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def string(value: Any) -> str | None:
    """The text, if it is one and not empty."""
    return value if isinstance(value, str) and value else None


def number(value: Any) -> int | None:
    """The whole number, if it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def seconds(milliseconds: Any) -> float | None:
    """Milliseconds as seconds, if it is a number."""
    plain = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
    return milliseconds / 1000 if plain else None


def flag(value: Any) -> bool:
    """Whether it is `true`, and nothing that only looks like it."""
    return value is True

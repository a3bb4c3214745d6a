"""Redaction of what holds texts: JSON values and msgspec Structs, at any depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, NewType, Protocol, TypeVar, Union, get_args, get_origin

import msgspec

__all__ = ["redact_struct", "redact_value"]

_T = TypeVar("_T")
_Text = Callable[[str], str]
_Names = Callable[[str], "str | None"]

_IDS = {"id", "key", "type", "kind"}
_ID_ENDINGS = ("_id", "_ids", "_type", "_kind", "_code", "_status")


class _Redacts(Protocol):
    def text(self, text: str) -> str: ...
    def value(self, value: _T) -> _T: ...
    def raw(self, data: bytes) -> bytes: ...


def redact_value(value: _T, text: _Text, names: _Names) -> _T:
    """`value` with every string redacted, or the same object. Nesting is limited by memory only."""
    return value if _is_clean(value, text, names) else _rebuilt(value, text, names)


def redact_struct(body: _T, redactor: _Redacts) -> _T:
    """`body` with its texts redacted, or the same object. Ids, types, enums and literals are left alone."""
    changes: dict[str, Any] = {}
    kind: Any = type(body)
    for field in _text_fields(kind):
        before = getattr(body, field)
        after = _redacted(before, redactor)
        if after is not before:
            changes[field] = after
    return msgspec.structs.replace(body, **changes) if changes else body  # type: ignore[type-var]


def _redacted(value: Any, redactor: _Redacts) -> Any:
    after: Any = value
    match value:
        case Enum():
            pass
        case str():
            after = redactor.text(value)
        case msgspec.Struct():
            after = redact_struct(value, redactor)
        case msgspec.Raw():
            before = bytes(value)
            changed = redactor.raw(before)
            after = value if changed is before else msgspec.Raw(changed)
        case bytes():
            after = redactor.raw(value)
        case tuple() | list():
            items = [_redacted(item, redactor) for item in value]
            if any(new is not old for new, old in zip(items, value, strict=True)):
                after = tuple(items) if isinstance(value, tuple) else items
        case Mapping():
            plain = value if isinstance(value, dict) else dict(value)
            kept = redactor.value(plain)
            after = value if kept is plain else kept
        case _:
            pass
    return after


@lru_cache(maxsize=512)
def _text_fields(struct: Any) -> tuple[str, ...]:
    """Fields that may hold text a person or an agent wrote."""
    return tuple(
        field.name
        for field in msgspec.structs.fields(struct)
        if field.name not in _IDS and not field.name.endswith(_ID_ENDINGS) and _may_hold_text(field.type)
    )


def _may_hold_text(annotation: Any) -> bool:
    if isinstance(annotation, NewType):
        return False
    origin = get_origin(annotation)
    if origin is Literal:
        return False
    if origin is Union or type(annotation).__name__ == "UnionType":
        return any(_may_hold_text(each) for each in get_args(annotation))
    if isinstance(annotation, type) and origin is None:
        return annotation not in {int, float, bool, type(None)} and not issubclass(annotation, Enum)
    return True


def _is_clean(value: Any, text: _Text, names: _Names) -> bool:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if text(item) is not item:
                return False
        elif isinstance(item, dict):
            for key, inner in item.items():
                if isinstance(key, str):
                    if text(key) is not key:
                        return False
                    if type(inner) is str and inner and names(key) not in {None, inner}:
                        return False
                waiting.append(inner)
        elif isinstance(item, list | tuple):
            waiting.extend(item)
    return True


def _rebuilt(value: Any, text: _Text, names: _Names) -> Any:
    """A copy of what changed and of all that holds it, built without recursion (agents nest as they like)."""
    root: list[Any] = [value]
    waiting: list[Any] = [root]
    while waiting:
        holder = waiting.pop()
        places = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder))
        for place, item in places:
            if isinstance(item, str):
                word = names(place) if isinstance(place, str) and item else None
                holder[place] = word or text(item)
            elif isinstance(item, dict):
                holder[place] = copy = _with_clean_keys(item, text)
                waiting.append(copy)
            elif isinstance(item, list | tuple):
                holder[place] = listed = list(item)
                waiting.append(listed)
    return root[0]


def _with_clean_keys(mapping: dict[Any, Any], text: _Text) -> dict[Any, Any]:
    copy: dict[Any, Any] = {}
    for key, item in mapping.items():
        name = text(key) if isinstance(key, str) else key
        if name is not key:
            spare, count = name, 2
            while name in copy or name in mapping:
                name, count = f"{spare} #{count}", count + 1
        copy[name] = item
    return copy

"""A tool call in a few words, and the times a person types. Pure."""

from __future__ import annotations

import re
from typing import Any

from agentkeel.cli.escape import cut, escape_json
from agentkeel.errors import ValidationError

__all__ = ["argument", "seconds_of"]

ARGUMENT_WIDTH = 60
_TELLING = ("command", "cmd", "file_path", "path", "notebook_path", "pattern", "query", "url", "description", "prompt")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}


def argument(tool_input: Any, workspace: str | None = None) -> str:
    """What a tool call is about, in one line of at most 60 characters."""
    if workspace is not None:
        workspace = workspace.rstrip("/") + "/"
    return cut(_telling(tool_input, workspace or ""), ARGUMENT_WIDTH)


def _telling(value: Any, workspace: str) -> str:
    match value:
        case str():
            return value.removeprefix(workspace)
        case {**fields} if fields:
            told = next((fields[name] for name in _TELLING if fields.get(name)), None)
            if told is None and len(fields) == 1:
                told = next(iter(fields.values()))
            return escape_json(fields) if told is None else _telling(told, workspace)
        case [*words] if all(isinstance(word, str) for word in words):
            return " ".join(words)
        case [{"path": str(path)}, *rest]:
            return path.removeprefix(workspace) + (f" and {len(rest)} more" if rest else "")
        case _:
            return escape_json(value) if value else ""


def seconds_of(text: str) -> float:
    """The seconds that `90`, `90s`, `1.5m`, `500ms` or `1h` mean.

    Raises:
        ValidationError: It is none of these, or 0.
    """
    match = _DURATION.match(text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds <= 0:
        raise ValidationError(
            f"{text!r} is no time. Use a number of seconds above 0, or 500ms, 90s, 5m, 1h.", code="invalid_format"
        )
    return seconds

"""How figures and tools are put into a few words. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from agentkeel.cli.escape import cut, escape_json
from agentkeel.core.usage import Usage
from agentkeel.errors import ValidationError

__all__ = ["argument", "duration", "money", "seconds_of", "tokens"]

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


def duration(seconds: float | None) -> str:
    """A time a person can read: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 4 min`."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def tokens(usage: Usage) -> str:
    """How many tokens, and of which sort; empty when nobody counted any."""
    if not usage.total_tokens:
        return ""
    read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return f"{usage.total_tokens:,} tokens ({read:,} in, {usage.output_tokens:,} out)"


def money(dollars: Decimal | str | None) -> str:
    """Dollars, with as many digits as tell something."""
    if dollars is None:
        return ""
    amount = Decimal(dollars)
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


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

"""How figures and tools are put into a few words. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    if isinstance(tool_input, Mapping):
        telling = (tool_input[name] for name in _TELLING if tool_input.get(name))
        told = next(telling, None)
        if told is None and len(tool_input) == 1:
            told = next(iter(tool_input.values()))
        tool_input = tool_input if told is None else told
    if isinstance(tool_input, list) and all(isinstance(word, str) for word in tool_input):
        tool_input = " ".join(tool_input)
    if tool_input is None or tool_input in ({}, []):
        return ""
    text = tool_input if isinstance(tool_input, str) else escape_json(tool_input)
    if workspace and text.startswith(workspace.rstrip("/") + "/"):
        text = text[len(workspace.rstrip("/")) + 1 :]
    return cut(text, ARGUMENT_WIDTH)


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

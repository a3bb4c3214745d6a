"""One line for each event, its type in brackets: for reading a run closely, or searching it.

Tool inputs are cut at 120 characters, outputs, messages and errors at 2,000; money has six decimal places.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentkeel.core import events as ev
from agentkeel.core.events import Event
from agentkeel.core.rendering.text import clip, counted, dollars, json_line, output_text
from agentkeel.core.usage import Usage

__all__ = ["Verbose"]

INPUT_CHARACTERS = 120
TEXT_CHARACTERS = 2000
_EMPTY: tuple[Any, ...] = (None, "", (), {})


class Verbose:
    """Lines of `[type] what it says`. No colour, no state but the counts of the footer."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._events = 0
        self._tools = 0
        self._errors = 0

    def render(self, event: Event) -> str:
        """The event's line."""
        self._events += 1
        self._tools += isinstance(event.data, ev.ToolCallStarted)
        self._errors += isinstance(event.data, ev.ErrorOccurred | ev.RunFailed | ev.ToolCallFailed)
        said = _said(event)
        return f"[{event.type}] {said}\n" if said else f"[{event.type}]\n"

    def finish(self) -> str:
        """How many events, tools and errors there were."""
        counts = (counted(self._events, "event"), counted(self._tools, "tool"), counted(self._errors, "error"))
        self._begin()
        return f"[end] {', '.join(counts)}\n"


def _said(event: Event) -> str:  # noqa: PLR0911, PLR0912 - a case for each kind
    match event.data:
        case ev.MessageStreamed() | ev.ReasoningStreamed() as data:
            return clip(data.delta, TEXT_CHARACTERS)
        case ev.MessageReceived() | ev.MessageSent() as data:
            return f"{data.role}: {clip(data.content, TEXT_CHARACTERS)}"
        case ev.ToolCallStarted() as data:
            return _words(_name(data), ("input", _input(data.tool_input)))
        case ev.ToolCallCompleted() as data:
            return _words(_name(data), *_ended(data))
        case ev.ToolCallFailed() as data:
            return _words(_name(data), ("reason", data.reason), *_ended(data))
        case ev.PermissionRequested() as data:
            return _words(clip(data.tool_name, INPUT_CHARACTERS), ("input", _input(data.tool_input)))
        case ev.TokenUsageUpdated() as data:
            return _words(_tokens(data.usage), ("cost", dollars(data.cost_usd, 6)))
        case ev.RunStarted() as data:
            return _words(_value(data.provider), ("model", data.model), ("attempt", data.attempt))
        case ev.RunCompleted() as data:
            return _words(_value(data.stop_reason), *_spent(data), ("turns", data.turns))
        case ev.RunFailed() as data:
            return _words(_error(data.error_code, data.error_message), *_spent(data))
        case ev.RunCancelled() as data:
            return _words(_value(data.reason or ""), *_spent(data))
        case ev.RunTimeout() as data:
            return _words(f"{_value(data.deadline)} {data.seconds:g} s", *_spent(data))
        case ev.ErrorOccurred() as data:
            return _error(data.error_code, data.error_message) + (" (will retry)" if data.will_retry else "")
        case ev.SessionFailed() | ev.AttemptFailed() as data:
            return _error(data.error_code, data.error_message)
        case ev.Unknown() as data:
            return _words(clip(data.kind, INPUT_CHARACTERS), ("body", _decoded(data.body)))
        case data:
            return _fields(data)


def _fields(data: ev.Body) -> str:
    """The fields that were given, as `name=value`."""
    fields = ((field.name, getattr(data, field.name), field.default) for field in msgspec.structs.fields(data))
    told = (f"{name}={_value(value)}" for name, value, default in fields if value != default and value not in _EMPTY)
    return clip(" ".join(told), TEXT_CHARACTERS)


def _words(first: str, *fields: tuple[str, Any]) -> str:
    """`first`, then `name=value` for each value there is."""
    told = [first, *(f"{name}={_value(value)}" for name, value in fields if value not in _EMPTY)]
    return " ".join(word for word in told if word)


def _value(value: Any) -> str:
    return clip(value if isinstance(value, str) else json_line(value), TEXT_CHARACTERS)


def _name(data: ev.ToolCallStarted | ev.ToolCallCompleted | ev.ToolCallFailed) -> str:
    return f"{clip(data.tool_name, INPUT_CHARACTERS)} ({clip(data.tool_call_id, INPUT_CHARACTERS)})"


def _input(value: Any) -> str:
    return "" if value is None else clip(value if isinstance(value, str) else json_line(value), INPUT_CHARACTERS)


def _ended(data: ev.ToolCallCompleted | ev.ToolCallFailed) -> tuple[tuple[str, Any], ...]:
    output = clip(output_text(data.tool_output), TEXT_CHARACTERS)
    return (("exit", data.exit_code), ("ms", data.duration_ms), ("output", output))


def _spent(data: ev.RunCompleted | ev.RunFailed | ev.RunCancelled | ev.RunTimeout) -> tuple[tuple[str, Any], ...]:
    return (
        ("tokens", _tokens(data.usage) if data.usage.total_tokens else None),
        ("cost", dollars(data.cost_usd, 6)),
        ("ms", data.duration_ms),
    )


def _tokens(usage: Usage) -> str:
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    return f"in {usage.input_tokens} out {usage.output_tokens}" + (f" cached {cached}" if cached else "")


def _error(code: str, message: str) -> str:
    return f"{_value(code)}: {clip(message, TEXT_CHARACTERS)}"


def _decoded(body: msgspec.Raw) -> str:
    return clip(bytes(body).decode("utf-8", "backslashreplace"), TEXT_CHARACTERS)

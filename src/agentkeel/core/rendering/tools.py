"""A tool call in a few words: what is being done, what was done, what came of it.

A summary goes by the tool's name where two tools of one kind differ (Grep and Glob), else by its kind, so that every
agent's shell reads the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from agentkeel.core.events import ToolCallCompleted, ToolCallFailed, ToolCallStarted
from agentkeel.core.rendering.text import clip, counted, json_line, output_text

__all__ = ["came_of", "doing", "done"]

SUBJECT_CHARACTERS = 60
SLOW_MS = 2000
"""A duration is told above this."""

Call: TypeAlias = ToolCallStarted | ToolCallCompleted | ToolCallFailed
Ended: TypeAlias = ToolCallCompleted | ToolCallFailed


class _Summary(NamedTuple):
    """How a tool is spoken of; `fields` are where its input says what it is about, `result` counts its output."""

    doing: str
    done: str
    fields: tuple[str, ...]
    result: Callable[[str], str] = lambda _: ""


def _lines(text: str) -> str:
    return counted(len(text.splitlines()), "line") if text else ""


def _found(one: str) -> Callable[[str], str]:
    return lambda text: counted(sum(1 for line in text.splitlines() if line.strip()), one)


def _size(text: str) -> str:
    return "" if not text else f"{len(text) / 1000:.1f}k chars" if len(text) >= 1000 else f"{len(text)} chars"


_PATHS = ("file_path", "path", "notebook_path", "paths", "changes")
_COMMANDS = ("command", "cmd", "argv")
_ANY = (*_COMMANDS, *_PATHS, "pattern", "query", "url", "description", "prompt")

_BY_NAME: Mapping[str, _Summary] = {
    "bash": _Summary("Running", "Ran", _COMMANDS, _lines),
    "read": _Summary("Reading", "Read", _PATHS, _lines),
    "write": _Summary("Writing", "Wrote", _PATHS),
    "edit": _Summary("Editing", "Edited", _PATHS),
    "glob": _Summary("Finding", "Found", ("pattern", "glob"), _found("file")),
    "grep": _Summary("Searching", "Searched", ("pattern", "query"), _found("match")),
    "task": _Summary("Delegating", "Delegated", ("description", "prompt"), _size),
    "webfetch": _Summary("Fetching", "Fetched", ("url",), _size),
    "websearch": _Summary("Searching the web for", "Searched the web for", ("query",), _size),
}
_BY_KIND: Mapping[str, _Summary] = {
    **{kind: _BY_NAME[kind] for kind in ("bash", "read", "write", "edit", "task")},
    "delete": _Summary("Deleting", "Deleted", _PATHS),
    "move": _Summary("Moving", "Moved", (*_PATHS, "from", "source")),
    "search": _Summary("Searching", "Searched", ("pattern", "query", *_PATHS), _found("match")),
    "fetch": _Summary("Fetching", "Fetched", ("url", "query"), _size),
}


def doing(call: ToolCallStarted) -> str:
    """What is being done: `Running: npm test`. Escaped, as all these are."""
    summary = _summary(call)
    return _about(summary.doing if summary else f"Using {clip(call.tool_name, SUBJECT_CHARACTERS)}", summary, call)


def done(call: Call, given: Any = None) -> str:
    """What was done: `Ran: npm test`. `given` is the input the call began with."""
    summary = _summary(call)
    words = summary.done if summary else f"Used {clip(call.tool_name, SUBJECT_CHARACTERS)}"
    return _about(words, summary, call, given)


def came_of(call: Ended, given: Any = None) -> str:
    """What came of it: `exit 1, 12 lines, 3.4 s`; empty where there is nothing to tell."""
    summary = _summary(call)
    output = output_text(call.tool_output)
    told: list[str] = []
    if isinstance(call, ToolCallFailed):
        told.append(call.reason)
    elif summary is _BY_NAME["write"]:
        told.append(_size(_written(call.tool_input if given is None else given)))
    elif summary is not None:
        told.append(summary.result(output))
    else:
        told.append(_size(output))
    if call.exit_code:
        told.insert(0, f"exit {call.exit_code}")
    if call.duration_ms is not None and call.duration_ms > SLOW_MS:
        told.append(f"{call.duration_ms / 1000:.1f} s")
    return ", ".join(part for part in told if part)


def _summary(call: Call) -> _Summary | None:
    return _BY_NAME.get(call.tool_name.lower().replace("_", "")) or _BY_KIND.get(call.kind)


def _about(words: str, summary: _Summary | None, call: Call, given: Any = None) -> str:
    subject = _subject(call.tool_input if given is None else given, summary.fields if summary else _ANY)
    return f"{words}: {clip(subject, SUBJECT_CHARACTERS)}" if subject else words


def _subject(given: Any, fields: tuple[str, ...]) -> str:
    match given:
        case None:
            return ""
        case str():
            return given
        case {**named} if named:
            told = next((named[field] for field in fields if named.get(field)), None)
            return json_line(named) if told is None else _subject_of(told)
        case _:
            return _subject_of(given)


def _subject_of(value: Any) -> str:
    match value:
        case str():
            return value
        case [*words] if words and all(isinstance(word, str) for word in words):
            return " ".join(words)
        case [{"path": str(path)}, *rest]:
            return f"{path} and {len(rest)} more" if rest else path
        case _:
            return json_line(value) if value else ""


def _written(given: Any) -> str:
    """The text a writing tool was given."""
    match given:
        case {"content": str(text)} | {"text": str(text)}:
            return text
        case _:
            return ""

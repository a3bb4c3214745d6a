"""What Codex calls an item, as a tool call of ours: its name, kind, input and outcome. Pure.

Source: `ThreadItem` of the app-server schema and the golden captures, both of 0.169.0.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from agentkeel.core.events import Body, ToolCallCompleted, ToolCallFailed, ToolCallStarted, ToolKind

__all__ = ["MAX_OUTPUT_BYTES", "Json", "Reason", "Tool", "closed", "cut", "script_of", "started", "text_of", "tool_of"]

Json: TypeAlias = Mapping[str, Any]
Reason: TypeAlias = Literal["failed", "denied", "interrupted"]

MAX_OUTPUT_BYTES: Final = 256 * 1024
"""Longer output of a tool is cut; `output_bytes` then says how long it was."""

_SHELLS: Final = frozenset({"bash", "sh", "zsh", "dash"})


class Tool(NamedTuple):
    """A tool call in our words; `name` is Codex's own notion of the tool."""

    name: str
    kind: ToolKind
    input: Any


def tool_of(item: Json) -> Tool | None:
    """The tool call that `item` is, or None where it is none."""
    read = _TOOLS.get(str(item.get("type")))
    return read(item) if read else None


def started(item_id: str, tool: Tool, *, parent: str | None) -> Body:
    """The event for a call that begins."""
    return ToolCallStarted(
        tool_call_id=item_id,
        tool_name=tool.name,
        kind=tool.kind,
        tool_input=tool.input,
        parent_tool_call_id=parent,
    )


def closed(item_id: str, tool: Tool, item: Json, *, output: str | None = None, reason: Reason | None = None) -> Body:
    """The event for a call that ended as `item` says, or for the `reason` given.

    `output` is what was heard while it ran, for an item that carries none.
    """
    said = _output(item)
    kept, size, truncated = cut(output if said is None else said)
    common: dict[str, Any] = {
        "tool_call_id": item_id,
        "tool_name": tool.name,
        "kind": tool.kind,
        "tool_input": tool.input,
        "tool_output": kept,
        "exit_code": _integer(item.get("exitCode")),
        "duration_ms": _integer(item.get("durationMs")),
        "output_bytes": size,
        "truncated": truncated,
    }
    reason = reason or _REASONS.get(str(item.get("status")), None)
    if reason is None and item.get("success") is not False:
        return ToolCallCompleted(**common)
    return ToolCallFailed(**common, reason=reason or "failed")


def cut(output: Any) -> tuple[Any, int | None, bool]:
    """`output` no longer than `MAX_OUTPUT_BYTES`, its whole size in bytes, and whether something was cut.

    What is no text stays as it is while it fits, and is cut as JSON text where it does not.
    """
    if output is None:
        return None, None, False
    encoded = output.encode("utf-8", "replace") if isinstance(output, str) else msgspec.json.encode(output)
    if len(encoded) <= MAX_OUTPUT_BYTES:
        return output, len(encoded), False
    return encoded[:MAX_OUTPUT_BYTES].decode("utf-8", "ignore"), len(encoded), True


def script_of(command: str) -> str:
    """The script in `/bin/bash -lc 'script'`, as Codex wraps every command; another command as it is."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    match words:
        case [shell, "-lc" | "-c", script] if shell.rpartition("/")[2] in _SHELLS:
            return script
    return command


def text_of(item: Json) -> str:
    """The words of an agentMessage, a reasoning or a plan; empty where there are none."""
    if isinstance(text := item.get("text"), str):
        return text
    parts = item.get("summary") or item.get("content")
    return "\n\n".join(part for part in parts if isinstance(part, str)) if isinstance(parts, list) else ""


# -- one reader per kind of item -------------------------------------------------------------------------------


def _command(item: Json) -> Tool:
    return Tool("shell", "bash", {"command": script_of(str(item.get("command") or "")), "cwd": item.get("cwd")})


def _patch(item: Json) -> Tool:
    changes = item.get("changes")
    listed = [_change(each) for each in changes if isinstance(each, Mapping)] if isinstance(changes, list) else []
    return Tool("apply_patch", "edit", {"changes": listed})


def _change(change: Json) -> dict[str, Any]:
    kind = change.get("kind")
    told = kind if isinstance(kind, Mapping) else {"type": kind}
    flat = {"path": change.get("path"), "kind": told.get("type"), "diff": change.get("diff")}
    return flat | ({"move_path": told["move_path"]} if told.get("move_path") else {})


def _mcp(item: Json) -> Tool:
    return Tool(f"{item.get('server')}:{item.get('tool')}", "mcp", item.get("arguments"))


def _dynamic(item: Json) -> Tool:
    space = item.get("namespace")
    return Tool(f"{space}:{item.get('tool')}" if space else str(item.get("tool")), "other", item.get("arguments"))


def _agent(item: Json) -> Tool:
    return Tool(str(item.get("tool")), "task", _some(item, "prompt", "model", "receiverThreadIds"))


def _search(item: Json) -> Tool:
    return Tool("web_search", "fetch", _some(item, "query", "action"))


def _some(item: Json, *names: str) -> dict[str, Any]:
    return {name: item[name] for name in names if item.get(name) is not None}


_TOOLS: Final[Mapping[str, Callable[[Json], Tool]]] = {
    "commandExecution": _command,
    "fileChange": _patch,
    "mcpToolCall": _mcp,
    "dynamicToolCall": _dynamic,
    "collabAgentToolCall": _agent,
    "webSearch": _search,
    "imageView": lambda item: Tool("view_image", "read", _some(item, "path")),
    "imageGeneration": lambda item: Tool("image_generation", "other", _some(item, "revisedPrompt")),
    "sleep": lambda item: Tool("sleep", "other", _some(item, "durationMs")),
}

_REASONS: Final[Mapping[str, Reason]] = {
    "failed": "failed",
    "declined": "denied",
    "interrupted": "interrupted",
    "inProgress": "interrupted",
}


def _output(item: Json) -> Any:
    read = _OUTPUTS.get(str(item.get("type")))
    return read(item) if read else None


def _mcp_output(item: Json) -> Any:
    error, result = item.get("error"), item.get("result")
    if isinstance(error, Mapping):
        return error.get("message")
    return {name: value for name, value in result.items() if value is not None} if isinstance(result, Mapping) else None


_OUTPUTS: Final[Mapping[str, Callable[[Json], Any]]] = {
    "commandExecution": lambda item: item.get("aggregatedOutput"),
    "mcpToolCall": _mcp_output,
    "dynamicToolCall": lambda item: item.get("contentItems"),
    "collabAgentToolCall": lambda item: item.get("agentsStates"),
    "webSearch": lambda item: item.get("results"),
    "imageGeneration": lambda item: item.get("savedPath"),
}


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

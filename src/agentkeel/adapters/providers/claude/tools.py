"""Claude Code's tool calls: what kind each tool is of, and how a call ended.

A tool may run before the model's message is complete, and its result may come before the message's end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from agentkeel.core.events import ToolCallCompleted, ToolCallFailed, ToolCallStarted, ToolKind

__all__ = ["INLINE_OUTPUT_BYTES", "KINDS", "ToolCalls", "kind_of"]

INLINE_OUTPUT_BYTES = 256 * 1024
"""Of a larger output the beginning is kept in the event, with its whole size."""

KINDS: Mapping[str, ToolKind] = {
    "Read": "read",
    "NotebookRead": "read",
    "Write": "write",
    "Edit": "edit",
    "MultiEdit": "edit",
    "NotebookEdit": "edit",
    "Bash": "bash",
    "PowerShell": "bash",
    "Grep": "search",
    "Glob": "search",
    "LS": "search",
    "WebFetch": "fetch",
    "WebSearch": "fetch",
    "Task": "task",
    "Agent": "task",
}

_EXIT_CODE = re.compile(r"(?:Error: )?Exit code (\d+)")

Reason = Literal["failed", "denied", "interrupted"]


def kind_of(tool_name: str) -> ToolKind:
    """The canonical kind of a tool; `other` for one we do not know, which policy treats as able to do anything."""
    return "mcp" if tool_name.startswith("mcp__") else KINDS.get(tool_name, "other")


class _Call(msgspec.Struct, frozen=True):
    name: str
    kind: ToolKind
    input: Any


class ToolCalls:
    """The calls of one process that have begun and not ended."""

    def __init__(self) -> None:
        self._open: dict[str, _Call] = {}
        self._denied: set[str] = set()

    def begin(self, block: Mapping[str, Any], parent: str | None) -> ToolCallStarted | None:
        """The event for a `tool_use` block; None if the call is known already."""
        call_id, name = str(block.get("id")), str(block.get("name"))
        if call_id in self._open:
            return None
        call = self._open[call_id] = _Call(name, kind_of(name), block.get("input"))
        return ToolCallStarted(
            tool_call_id=call_id, tool_name=name, kind=call.kind, tool_input=call.input, parent_tool_call_id=parent
        )

    def deny(self, call_id: str | None) -> None:
        """The call was, or will be, refused."""
        if call_id is not None:
            self._denied.add(call_id)

    def end(self, block: Mapping[str, Any], rich: Any, meta: Mapping[str, Any]) -> ToolCallCompleted | ToolCallFailed:
        """The event for a `tool_result` block.

        Args:
            rich: `tool_use_result`, the tool's own account of what it did, if it belongs to this block alone.
            meta: The block's entry of `tool_result_meta`: whether and by whom the call was refused.
        """
        call_id = str(block.get("tool_use_id"))
        call = self._open.pop(call_id, None) or _Call("unknown", "other", None)
        text = _text_of(block.get("content"))
        output, size, truncated = _bounded(rich if isinstance(rich, dict) else text, text)
        stopped = isinstance(rich, dict) and rich.get("interrupted") is True
        if not block.get("is_error") and not stopped:
            self._denied.discard(call_id)
            return ToolCallCompleted(
                tool_call_id=call_id,
                tool_name=call.name,
                kind=call.kind,
                tool_output=output,
                exit_code=_exit_code_of_success(call, rich),
                output_bytes=size,
                truncated=truncated,
            )
        match = _EXIT_CODE.match(text) if call.kind == "bash" else None
        return ToolCallFailed(
            tool_call_id=call_id,
            tool_name=call.name,
            kind=call.kind,
            tool_output=output,
            exit_code=int(match[1]) if match else None,
            reason="interrupted" if stopped else self._reason(call_id, meta),
            output_bytes=size,
            truncated=truncated,
        )

    def abandon(self) -> list[ToolCallFailed]:
        """Events for all calls still open, as no result will come any more."""
        ended = [
            ToolCallFailed(
                tool_call_id=call_id,
                tool_name=call.name,
                kind=call.kind,
                reason="denied" if call_id in self._denied else "interrupted",
            )
            for call_id, call in self._open.items()
        ]
        self._open.clear()
        self._denied.clear()
        return ended

    def _reason(self, call_id: str, meta: Mapping[str, Any]) -> Reason:
        decision = meta.get("permission_decision")
        rejected = isinstance(decision, dict) and decision.get("decision") == "reject"
        if call_id in self._denied or rejected:
            self._denied.discard(call_id)
            return "denied"
        # An interrupt is reported as "user-rejected" too, yet without a decision on the permission.
        return "interrupted" if meta.get("non_execution_kind") == "user-rejected" else "failed"


def _exit_code_of_success(call: _Call, rich: Any) -> int | None:
    """0 where the shell's account says no more. A code that is "no error" for its command (grep's 1) is not told."""
    if call.kind != "bash" or not isinstance(rich, dict) or "stdout" not in rich:
        return None
    return None if rich.get("backgroundTaskId") or rich.get("returnCodeInterpretation") else 0


def _text_of(content: Any) -> str:
    """The words of a tool result as the model sees them."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part for part in content if isinstance(part, dict))
    return "\n".join(str(part["text"]) if "text" in part else f"[{part.get('type')}]" for part in parts)


def _bounded(output: Any, text: str) -> tuple[Any, int, bool]:
    """`output`, its size in bytes, and whether it had to be cut; a cut one becomes the model's view of it."""
    size = len(output.encode("utf-8", "replace")) if isinstance(output, str) else len(msgspec.json.encode(output))
    if size <= INLINE_OUTPUT_BYTES:
        return output, size, False
    return text.encode("utf-8", "replace")[:INLINE_OUTPUT_BYTES].decode("utf-8", "ignore"), size, True

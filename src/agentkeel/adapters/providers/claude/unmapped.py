"""Lines that have no event of their own: kept as they came, or left out for a reason."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agentkeel.adapters.providers._wire.jsonl import Junk
from agentkeel.core.events import Unknown

__all__ = ["DROPPED", "KEPT_BYTES", "junk", "unmapped"]

KEPT_BYTES = 64 * 1024
"""Of a longer line the beginning is kept."""

DROPPED: Mapping[str, str] = {
    "control_response": "answers to our own requests",
    "command_lifecycle": "what becomes of our prompt; read for its state",
    "keep_alive": "no content",
    "system.session_state_changed": "read for its state",
    "system.background_tasks_changed": "read for its list; each task's own lines are kept",
    "system.permission_denied": "read for the call it refuses; the call's own result says why",
    "system.status": "a spinner's text",
    "system.thinking_tokens": "an estimate while thinking; the real count comes with the usage",
    "system.task_progress": "a counter ticking; the task's end is kept",
    "system.ui_invalidate": "a request to redraw",
    "stream_event.ping": "no content",
    "stream_event.content_block_start": "the pieces that follow say all of it",
    "stream_event.content_block_stop": "the whole block has its own line",
    "stream_event.message_stop": "the end of the message was in message_delta",
    "stream_event.content_block_delta.input_json_delta": "a tool's input comes whole",
    "stream_event.content_block_delta.signature_delta": "for the model service only",
}
"""Lines that become no event, and why. Everything else that has no event of its own is kept as `Unknown`."""


def unmapped(kind: str, raw: bytes) -> list[Unknown]:
    """The line as an event `claude.KIND`; nothing if it is one of `DROPPED`."""
    return [] if kind in DROPPED else [Unknown(kind=f"claude.{kind}", body=_kept(raw))]


def junk(line: Junk) -> Unknown:
    """A line that is no JSON object, as text that any log can hold."""
    body = {"text": line.text, "reason": line.reason, "size": line.size}
    return Unknown(kind="claude.junk", body=msgspec.Raw(msgspec.json.encode(body)))


def _kept(raw: bytes) -> msgspec.Raw:
    if len(raw) < KEPT_BYTES:
        return msgspec.Raw(raw)
    text = raw[:KEPT_BYTES].decode("utf-8", "replace")
    return msgspec.Raw(msgspec.json.encode({"truncated": True, "text": text}))

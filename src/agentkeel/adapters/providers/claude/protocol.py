"""The lines we write to Claude Code, and what its control messages mean. Sans-I/O: values in, bytes out.

One JSON object a line both ways. A line that is not JSON, or a malformed user message, ends the program, so every line
it gets is made here. Source: wire captures of Claude Code 2.1.329.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from agentkeel.ports.provider import Decision

__all__ = ["Permission", "answer_line", "control_line", "refusal_line", "user_line"]

_encoder = msgspec.json.Encoder()


class Permission(msgspec.Struct, frozen=True, kw_only=True):
    """A question the agent asked and waits for (`can_use_tool`)."""

    request_id: str
    tool_call_id: str | None
    tool_input: Mapping[str, Any]


def user_line(text: str, prompt_id: str) -> bytes:
    """A prompt, taken literally.

    `client_composed` keeps a leading `/` from running a command and `@file` from pulling a file in. With an id of ours
    the program says which result belongs to the prompt.
    """
    return _line(
        {
            "type": "user",
            "message": {"role": "user", "content": text},
            "parent_tool_use_id": None,
            "session_id": "",
            "uuid": prompt_id,
            "client_composed": True,
        }
    )


def control_line(request_id: str, subtype: str, **fields: Any) -> bytes:
    """A request of ours, such as `initialize` or `interrupt`."""
    return _line({"type": "control_request", "request_id": request_id, "request": {"subtype": subtype, **fields}})


def answer_line(permission: Permission, decision: Decision) -> bytes:
    """The answer to a permission question.

    An allowed call carries its input back, changed or not. Rules the agent suggests are never taken over: by default it
    would write them into the workspace's own settings.
    """
    answer: dict[str, Any]
    if decision.allow:
        changed = decision.updated_input
        answer = {"behavior": "allow", "updatedInput": dict(permission.tool_input if changed is None else changed)}
    else:
        answer = {"behavior": "deny", "message": decision.message or "This was not permitted."}
        if decision.interrupt:
            answer["interrupt"] = True
    response = {"subtype": "success", "request_id": permission.request_id, "response": answer}
    return _line({"type": "control_response", "response": response})


def refusal_line(request_id: str, subtype: str) -> bytes:
    """The answer to a request we do not serve; without one the program would wait for ever."""
    response = {"subtype": "error", "request_id": request_id, "error": f"{subtype} is not supported by this client"}
    return _line({"type": "control_response", "response": response})


def _line(message: Mapping[str, Any]) -> bytes:
    return _encoder.encode(message) + b"\n"

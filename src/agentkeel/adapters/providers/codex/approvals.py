"""What Codex asks of us, and the words it takes for an answer. Pure.

Codex takes no reason with a refusal: the model learns that the call was declined, never why (0.169.0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from agentkeel.adapters.providers.codex.items import Json, Tool, script_of
from agentkeel.core.events import PermissionRequested
from agentkeel.errors import CapabilityNotSupported
from agentkeel.ports.provider import Decision

__all__ = ["DECLINED_FORM", "Asked", "asked", "words_for"]

DECLINED_FORM: Final[Mapping[str, Any]] = {"action": "decline", "content": None, "_meta": None}
"""Answer to an MCP server that wants a form filled in, which nobody here can."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request that waits for a decision."""

    rpc_id: int | str
    method: str
    thread_id: str
    request: PermissionRequested
    granting: Any = None
    """What an item/permissions request would be given."""


def asked(rpc_id: int | str, method: str, params: Json, *, known: Callable[[str], Tool | None]) -> Asked | None:
    """The permission that is asked for; None where the request asks for something else.

    Args:
        known: The tool call an item id stands for, if it has begun. Its input is then the request's, so that a grant
            and the call it was given for are the same.
    """
    reader = _READERS.get(method)
    tool = reader(params) if reader else None
    if tool is None:
        return None
    item_id = params.get("itemId")
    if isinstance(item_id, str) and method in _ABOUT_ITEMS and _asks_for_the_call_itself(params):
        tool = known(item_id) or tool
    return Asked(
        rpc_id=rpc_id,
        method=method,
        thread_id=str(params.get("threadId") or ""),
        granting=params.get("permissions"),
        request=PermissionRequested(
            request_id=str(rpc_id),
            tool_name=tool.name,
            kind=tool.kind,
            tool_call_id=item_id if isinstance(item_id, str) else None,
            tool_input=tool.input,
            reason=_reason(params),
        ),
    )


def words_for(request: Asked, decision: Decision) -> dict[str, Any]:
    """The result that tells Codex `decision`.

    Raises:
        CapabilityNotSupported: The decision changes the input, which Codex cannot take. The request still waits.
    """
    if decision.updated_input is not None and decision.updated_input != request.request.tool_input:
        raise CapabilityNotSupported(
            "Codex cannot run a tool with another input than it asked for. The request still waits; allow or deny it.",
            details={"capability": "updated_input", "request_id": request.request.request_id},
        )
    refused = "cancel" if decision.interrupt else "decline"
    match request.method:
        case "mcpServer/elicitation/request":
            action = "accept" if decision.allow else refused
            return {"action": action, "content": {} if decision.allow else None, "_meta": None}
        case "item/permissions/requestApproval":
            return {"permissions": request.granting if decision.allow else {}, "scope": "turn"}
    return {"decision": "accept" if decision.allow else refused}


def _asks_for_the_call_itself(params: Json) -> bool:
    """Not for more than that: words to a running terminal, a host to reach, a folder for the rest of the session."""
    more = params.get("networkApprovalContext") or params.get("grantRoot")
    return not more and params.get("kind", "command") == "command"


def _command(params: Json) -> Tool:
    given = {"command": script_of(str(params.get("command") or "")), "cwd": params.get("cwd")}
    if params.get("kind") == "writeStdin":
        return Tool("write_stdin", "bash", given)
    if network := params.get("networkApprovalContext"):
        given["network"] = network
    return Tool("shell", "bash", given)


def _patch(params: Json) -> Tool:
    return Tool("apply_patch", "edit", {"changes": [], "grant_root": params.get("grantRoot")})


def _permissions(params: Json) -> Tool:
    return Tool("request_permissions", "other", {"permissions": params.get("permissions"), "cwd": params.get("cwd")})


def _mcp(params: Json) -> Tool | None:
    meta = params.get("_meta")
    if not isinstance(meta, Mapping) or meta.get("codex_approval_kind") != "mcp_tool_call":
        return None
    return Tool(f"{params.get('serverName')}:{meta.get('tool_name')}", "mcp", meta.get("tool_params"))


_READERS: Final[Mapping[str, Callable[[Json], Tool | None]]] = {
    "item/commandExecution/requestApproval": _command,
    "item/fileChange/requestApproval": _patch,
    "item/permissions/requestApproval": _permissions,
    "mcpServer/elicitation/request": _mcp,
}
_ABOUT_ITEMS: Final = frozenset({"item/commandExecution/requestApproval", "item/fileChange/requestApproval"})


def _reason(params: Json) -> str | None:
    reason = params.get("reason") or params.get("message")
    return reason if isinstance(reason, str) else None

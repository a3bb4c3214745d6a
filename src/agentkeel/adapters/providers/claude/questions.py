"""What the agent asks and waits for: whether it may use a tool. It waits for ever, so every question has one owner."""

from __future__ import annotations

from agentkeel.adapters.providers.claude.fields import Message, record, string
from agentkeel.adapters.providers.claude.protocol import Permission
from agentkeel.adapters.providers.claude.tools import kind_of
from agentkeel.core.events import Body, PermissionRequested, PermissionResolved

__all__ = ["Questions"]


class Questions:
    """The open questions of one process."""

    def __init__(self) -> None:
        self._open: dict[str, Permission] = {}

    def ask(self, request_id: str, request: Message) -> PermissionRequested:
        """A `can_use_tool` request is open from now on."""
        call_id, tool_input = string(request.get("tool_use_id")), record(request.get("input"))
        self._open[request_id] = Permission(request_id=request_id, tool_call_id=call_id, tool_input=tool_input)
        name = str(request.get("tool_name"))
        return PermissionRequested(
            request_id=request_id,
            tool_name=name,
            kind=kind_of(name),
            tool_call_id=call_id,
            tool_input=tool_input,
            reason=string(request.get("decision_reason")),
        )

    def take(self, request_id: str) -> Permission | None:
        """The question, open no longer; None if it was withdrawn or answered."""
        return self._open.pop(request_id, None)

    def withdraw(self, request_id: str) -> list[Body]:
        """The agent no longer wants that answer."""
        if self._open.pop(request_id, None) is None:
            return []
        return [PermissionResolved(request_id=request_id, decision="withdrawn", by="agent")]

    def withdraw_all(self) -> list[Body]:
        """The turn is over; nobody waits for an answer."""
        return [said for request_id in list(self._open) for said in self.withdraw(request_id)]

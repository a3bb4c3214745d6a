"""The permission requests of one turn that have no answer yet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.abc

from agentkeel.core.events import PermissionRequested, PermissionResolved
from agentkeel.engine.permissions import Answer, Permissions

__all__ = ["Questions"]

Tell = Callable[[PermissionRequested, Answer], Awaitable[None]]


class Questions:
    """Gets an answer to each request and has `tell` pass it on, unless the request is withdrawn meanwhile."""

    def __init__(self, permissions: Permissions, tell: Tell) -> None:
        self._permissions = permissions
        self._tell = tell
        self._open: dict[str, anyio.CancelScope] = {}
        self._closed = False

    @property
    def pending(self) -> bool:
        """Whether the agent waits for an answer."""
        return bool(self._open)

    def ask(self, request: PermissionRequested, tasks: anyio.abc.TaskGroup) -> None:
        """The request is being answered. One that repeats an open one, or comes behind the end, is not."""
        if not self._closed and request.request_id not in self._open:
            scope = self._open[request.request_id] = anyio.CancelScope()
            tasks.start_soon(self._answer, request, scope)

    def withdraw(self, request_id: str) -> None:
        """The agent does not wait for this answer any more; whoever was asked is not listened to."""
        scope = self._open.pop(request_id, None)
        if scope is not None:
            scope.cancel()

    def close(self) -> list[PermissionResolved]:
        """No request is open any more: what the log must say of those that were."""
        self._closed = True
        left = list(self._open)
        for request_id in left:
            self.withdraw(request_id)
        return [PermissionResolved(request_id=request_id, decision="withdrawn", by="end") for request_id in left]

    async def _answer(self, request: PermissionRequested, scope: anyio.CancelScope) -> None:
        with scope:
            answer = await self._permissions.answer(request)
            if self._open.pop(request.request_id, None) is not None:
                await self._tell(request, answer)

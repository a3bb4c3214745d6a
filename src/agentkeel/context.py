"""What the handles of one manager share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import anyio

from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.run import RunState, RunStatus
from agentkeel.engine.connections import Connections
from agentkeel.engine.log import Log
from agentkeel.engine.queue import Queue
from agentkeel.pages import Pages
from agentkeel.ports.clock import Clock
from agentkeel.registry import Fleet

__all__ = ["Context", "shielded"]

_PAGE = 200
T = TypeVar("T")


async def shielded(work: Awaitable[T]) -> T:
    """What `work` gives. It is done to its end, also where the caller is called off meanwhile."""
    with anyio.CancelScope(shield=True):
        return await work
    raise AssertionError("a scope that nobody cancels swallows nothing")


class Context:
    """What the handles share: the log, the queue, the agents. Made by `Manager`, never by a user."""

    def __init__(
        self,
        *,
        log: Log,
        fleet: Fleet,
        clock: Clock,
        queue: Queue,
        connections: Connections,
        defaults: Mapping[str, Any],
        workspace: str,
        scratch: Path,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        self.log = log
        self.fleet = fleet
        self.clock = clock
        self.queue = queue
        self.connections = connections
        self.defaults = defaults
        self.workspace = workspace
        self.scratch = scratch
        self.prepare = prepare
        """Called before a run that will use tokens is queued: begins what takes long and will be needed."""

    def runs(
        self, *, session_id: SessionId | None = None, status: Collection[RunStatus] | None = None
    ) -> Pages[RunState]:
        """Runs, newest first."""

        async def read() -> AsyncIterator[RunState]:
            last: RunId | None = None
            while page := await self.log.store.runs(session_id=session_id, status=status, after=last, limit=_PAGE):
                for run in page:
                    yield run
                last = page[-1].id

        return Pages(read)

"""A store that fails where a test says so: a full disk, a lost connection, an owner that was replaced."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import anyio.lowlevel

from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.run import RunState, RunStatus
from agentkeel.core.session import SessionState, SessionStatus
from agentkeel.errors import Error
from agentkeel.ports.store import Appended, Durability, EventFilter, EventStore, StoreInfo

__all__ = ["FaultyStore"]


class FaultyStore:
    """An `EventStore` around another one. Every call gives the event loop a turn before and after, as a disk would.

    Attributes:
        broken: While it is set, every call but `aclose` raises it.
        append_fault: Asked before each append with its drafts; an error it gives is raised and nothing is stored.
        lost_answer: Asked after each append; an error it gives is raised although the drafts are in the log.
        closed: Whether `aclose` was called.
    """

    def __init__(self, inner: EventStore) -> None:
        self.inner = inner
        self.broken: Error | None = None
        self.append_fault: Callable[[Sequence[Draft]], Error | None] = lambda _: None
        self.lost_answer: Callable[[Sequence[Draft]], Error | None] = lambda _: None
        self.closed = False

    def fail_append(self, nth: int, error: Error, *, times: int = 1) -> None:
        """The `nth` append from now on fails, and those after it until `times` have; then the store works again."""
        count = 0

        def fault(_: Sequence[Draft]) -> Error | None:
            nonlocal count
            count += 1
            return error if nth <= count < nth + times else None

        self.append_fault = fault

    async def append(
        self,
        session_id: SessionId,
        drafts: Sequence[Draft],
        *,
        expected: int | None = None,
        fence: int | None = None,
        durability: Durability = "full",
    ) -> Appended:
        await self._turn()
        _raise(self.append_fault(drafts))
        appended = await self.inner.append(session_id, drafts, expected=expected, fence=fence, durability=durability)
        await anyio.lowlevel.checkpoint()
        _raise(self.lost_answer(drafts))
        return appended

    async def read(
        self, session_id: SessionId, *, after: int = 0, limit: int = 500, where: EventFilter | None = None
    ) -> Sequence[Event]:
        await self._turn()
        return await self.inner.read(session_id, after=after, limit=limit, where=where)

    async def head(self, session_id: SessionId) -> int:
        await self._turn()
        return await self.inner.head(session_id)

    async def session(self, session_id: SessionId) -> SessionState:
        await self._turn()
        return await self.inner.session(session_id)

    async def sessions(
        self,
        *,
        status: Collection[SessionStatus] | None = None,
        agent_id: str | None = None,
        provider: str | None = None,
        tags: Collection[str] = (),
        after: SessionId | None = None,
        limit: int = 50,
    ) -> Sequence[SessionState]:
        await self._turn()
        return await self.inner.sessions(
            status=status, agent_id=agent_id, provider=provider, tags=tags, after=after, limit=limit
        )

    async def delete_session(self, session_id: SessionId) -> None:
        await self._turn()
        await self.inner.delete_session(session_id)

    async def run(self, run_id: RunId) -> RunState:
        await self._turn()
        return await self.inner.run(run_id)

    async def runs(
        self,
        *,
        session_id: SessionId | None = None,
        status: Collection[RunStatus] | None = None,
        after: RunId | None = None,
        limit: int = 50,
    ) -> Sequence[RunState]:
        await self._turn()
        return await self.inner.runs(session_id=session_id, status=status, after=after, limit=limit)

    async def run_by_key(self, session_id: SessionId, key: str) -> RunState | None:
        await self._turn()
        return await self.inner.run_by_key(session_id, key)

    async def claim(self, run_id: RunId, *, owner: str, ttl: float) -> int:
        await self._turn()
        return await self.inner.claim(run_id, owner=owner, ttl=ttl)

    async def renew(self, owner: str, *, ttl: float) -> None:
        await self._turn()
        await self.inner.renew(owner, ttl=ttl)

    async def orphans(self, owner: str) -> Sequence[RunState]:
        await self._turn()
        return await self.inner.orphans(owner)

    async def info(self) -> StoreInfo:
        await self._turn()
        return await self.inner.info()

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed = True

    async def _turn(self) -> None:
        await anyio.lowlevel.checkpoint()
        _raise(self.broken)


def _raise(error: Error | None) -> None:
    if error is not None:
        raise error

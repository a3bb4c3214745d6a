"""A store that keeps its log in this process and loses it with it: for tests, trials and throw-away runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

import msgspec

from agentkeel.adapters.stores.asking import (
    beyond_head,
    check_limit,
    check_page,
    closed,
    ended,
    no_run,
    no_session,
    no_such_place,
    revived,
    still_running,
)
from agentkeel.adapters.stores.claims import Claims
from agentkeel.core.append import Extension, Name, extend
from agentkeel.core.codec import kind_of
from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.run import RunState, RunStatus
from agentkeel.core.session import SessionState, SessionStatus
from agentkeel.ports.store import Appended, Durability, EventFilter, StoreInfo

__all__ = ["MemoryStore"]

_State = TypeVar("_State", SessionState, RunState)


class _Log:
    """One session. Bodies are kept as bytes: nobody who still holds a draft can change what was stored."""

    def __init__(self, runs: dict[RunId, RunState]) -> None:
        self.session: SessionState | None = None
        self.events: list[Event] = []
        self.bodies: list[bytes] = []
        self.names: dict[Name, int] = {}
        self._runs = runs

    @property
    def head(self) -> int:
        return len(self.events)

    def run(self, run_id: RunId) -> RunState | None:
        return self._runs.get(run_id)

    def named(self, name: Name) -> Event | None:
        sequence = self.names.get(name)
        return None if sequence is None else self.at(sequence)

    def at(self, sequence: int) -> Event:
        event = self.events[sequence - 1]
        data = revived(kind_of(event.data), self.bodies[sequence - 1], event.schema_version)
        return msgspec.structs.replace(event, data=data)

    def take(self, extension: Extension) -> None:
        self.events += extension.added
        self.bodies += extension.bodies
        self.names |= {name: event.sequence for name, event in extension.names.items()}
        self.session = extension.session or self.session
        self._runs |= extension.runs


class MemoryStore:
    """An `EventStore` in this process's memory. No call waits, so no call can be cut in half.

    `now` gives wall time in UTC for events that bring none, `monotonic` seconds for claims.
    """

    def __init__(
        self, *, now: Callable[[], datetime] | None = None, monotonic: Callable[[], float] | None = None
    ) -> None:
        self._now = now or _utc_now
        self._claims = Claims(1, monotonic or time.monotonic)
        self._logs: dict[SessionId, _Log] = {}
        self._runs: dict[RunId, RunState] = {}
        self._closed = False

    async def __aenter__(self) -> MemoryStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def append(
        self,
        session_id: SessionId,
        drafts: Sequence[Draft],
        *,
        expected: int | None = None,
        fence: int | None = None,
        durability: Durability = "full",
    ) -> Appended:
        self._check_open()
        if fence is not None:
            self._claims.check(drafts, fence)
        log = self._logs.get(session_id) or _Log(self._runs)
        extension = extend(log, session_id, drafts, now=self._now(), expected=expected)
        log.take(extension)
        self._logs[session_id] = log
        for run in extension.runs.values():
            if run.terminal:
                self._claims.ended(run.id)
        return Appended(extension.events, durability)

    async def read(
        self, session_id: SessionId, *, after: int = 0, limit: int = 500, where: EventFilter | None = None
    ) -> Sequence[Event]:
        check_page(after, limit)
        log = self._log(session_id)
        if after > log.head:
            raise beyond_head(session_id, after, log.head)
        places = range(after + 1, log.head + 1)
        if where is None:
            return [log.at(place) for place in places[:limit]]
        wanted = (place for place in places if _matches(log.events[place - 1], where))
        return [log.at(place) for place in islice(wanted, limit)]

    async def head(self, session_id: SessionId) -> int:
        self._check_open()
        log = self._logs.get(session_id)
        return 0 if log is None else log.head

    async def session(self, session_id: SessionId) -> SessionState:
        state = self._log(session_id).session
        assert state is not None
        return state

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
        self._check_open()
        check_limit(limit)
        states = [log.session for log in self._logs.values() if log.session is not None]
        return [
            state
            for state in _newest(states, after)
            if (status is None or state.status in status)
            and (agent_id is None or state.agent_id == agent_id)
            and (provider is None or state.provider == provider)
            and set(tags) <= set(state.tags)
        ][:limit]

    async def delete_session(self, session_id: SessionId) -> None:
        self._check_open()
        theirs = [run for run in self._runs.values() if run.session_id == session_id]
        for run in theirs:
            if run.status is RunStatus.RUNNING:
                raise still_running(run.id, session_id)
        for run in theirs:
            del self._runs[run.id]
            self._claims.ended(run.id)
        self._logs.pop(session_id, None)

    async def run(self, run_id: RunId) -> RunState:
        self._check_open()
        if run_id not in self._runs:
            raise no_run(run_id)
        return self._runs[run_id]

    async def runs(
        self,
        *,
        session_id: SessionId | None = None,
        status: Collection[RunStatus] | None = None,
        after: RunId | None = None,
        limit: int = 50,
    ) -> Sequence[RunState]:
        self._check_open()
        check_limit(limit)
        return [
            state
            for state in _newest(list(self._runs.values()), after)
            if (session_id is None or state.session_id == session_id) and (status is None or state.status in status)
        ][:limit]

    async def run_by_key(self, session_id: SessionId, key: str) -> RunState | None:
        self._check_open()
        theirs = [run for run in self._runs.values() if run.session_id == session_id and run.key == key]
        return min(theirs, key=lambda run: run.first_sequence, default=None)

    async def claim(self, run_id: RunId, *, owner: str, ttl: float) -> int:
        run = await self.run(run_id)
        if run.terminal:
            raise ended(run.id, run.status)
        return self._claims.claim(run_id, owner, ttl)

    async def renew(self, owner: str, *, ttl: float) -> None:
        self._check_open()
        self._claims.renew(owner, ttl)

    async def orphans(self, owner: str) -> Sequence[RunState]:
        self._check_open()
        return [run for run in self._runs.values() if not run.terminal and not self._claims.taken(run.id, but=owner)]

    async def info(self) -> StoreInfo:
        self._check_open()
        return StoreInfo(kind="memory", location="memory:", schema=1, writable=True, epoch=1)

    async def aclose(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise closed("memory:")

    def _log(self, session_id: SessionId) -> _Log:
        self._check_open()
        if session_id not in self._logs:
            raise no_session(session_id)
        return self._logs[session_id]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _newest(states: Sequence[_State], after: str | None) -> Sequence[_State]:
    """The states behind `after`, newest first."""
    ordered = sorted(states, key=lambda state: (state.created_at, state.id), reverse=True)
    if after is None:
        return ordered
    for index, state in enumerate(ordered):
        if state.id == after:
            return ordered[index + 1 :]
    raise no_such_place(after)


def _matches(event: Event, where: EventFilter) -> bool:
    return (
        (where.run_id is None or event.run_id == where.run_id)
        and (where.types is None or kind_of(event.data) in where.types)
        and (where.before is None or event.sequence < where.before)
        and (where.since is None or event.at >= where.since)
    )

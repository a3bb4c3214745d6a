"""The log, as the engine sees it. Every store keeps the same promises; `agentkeel.testing.StoreSuite` checks them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal, Protocol

import msgspec

from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.run import RunState, RunStatus
from agentkeel.core.session import SessionState, SessionStatus

__all__ = ["Appended", "Durability", "EventFilter", "EventStore", "StoreInfo"]

Durability = Literal["full", "process"]
"""full: survives a power cut. process: survives the death of this process, and of the machine most of the time."""


class Appended(msgspec.Struct, frozen=True):
    """The acknowledgement: these events are in the log, at this durability or a higher one."""

    events: Sequence[Event]
    durability: Durability


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events to read. `before` is a sequence, exclusive; `since` is a time, inclusive."""

    run_id: RunId | None = None
    types: Collection[str] | None = None
    before: int | None = None
    since: datetime | None = None


class StoreInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a store says of itself: for `doctor`, for messages to people."""

    kind: str
    location: str
    schema: int
    writable: bool
    owner: str | None = None
    epoch: int = 0
    engine: str | None = None
    warnings: tuple[str, ...] = ()


class EventStore(Protocol):
    """An append-only log per session, and the states its events tell.

    A session comes to be with `session_created`, a run with `run_queued`; their states change only by the events that
    say so, in the same transaction, checked against the transition tables of `core.session` and `core.run`.
    """

    async def append(
        self,
        session_id: SessionId,
        drafts: Sequence[Draft],
        *,
        expected: int | None = None,
        fence: int | None = None,
        durability: Durability = "full",
    ) -> Appended:
        """Add drafts to the end of a session's log, all or none.

        Order is kept and `sequence` continues from 1 without a gap. A draft whose `key` or `id` is already in the log
        yields the event that is there and adds nothing. Callers that wait together may be committed together.

        Args:
            expected: Head the caller has seen; None skips the check.
            fence: What `claim` gave for the run the drafts belong to. A stale one writes nothing.
            durability: The least that the acknowledgement promises.
        Raises:
            SessionNotFound: There is no such session and the first draft does not create it.
            InvalidTransition, RunTerminal: A draft is a move its session or run cannot make.
            StateError: A run is queued in a session that takes none (`invalid_status`).
            KeyConflict: A key or id is in the log with another content.
            SequenceConflict: The head is not `expected`. Read again and decide again.
            Fenced: Another owner has the run or the store. Stop; do not retry.
            StoreFull: No space; nothing of this batch was stored, everything before it was.
            StoreUnavailable: The outcome is unknown. Retry with the same keys.
        """
        ...

    async def read(
        self,
        session_id: SessionId,
        *,
        after: int = 0,
        limit: int = 500,
        where: EventFilter | None = None,
    ) -> Sequence[Event]:
        """The first `limit` events behind `after`, in order. An event that cannot be decoded keeps its place, as
        `Unknown` with kind `corrupt`.

        Raises:
            SessionNotFound: There is no such session.
            CursorExpired: Events behind `after` were pruned; `details["floor"]` is the first kept.
            ValidationError: `after` is negative or beyond the head (`invalid_cursor`).
        """
        ...

    async def head(self, session_id: SessionId) -> int:
        """The sequence of the session's last event; 0 for an empty or unknown session."""
        ...

    async def session(self, session_id: SessionId) -> SessionState:
        """The session as its events tell it.

        Raises:
            SessionNotFound: There is no such session, or it was deleted.
        """
        ...

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
        """Sessions, newest first (by creation, then id); `after` is the last id of the page before."""
        ...

    async def delete_session(self, session_id: SessionId) -> None:
        """The session, its runs and its events are gone. Also true if there was none.

        Raises:
            StateError: One of its runs is running (`invalid_operation`).
        """
        ...

    async def run(self, run_id: RunId) -> RunState:
        """The run as its events tell it.

        Raises:
            RunNotFound: There is no such run.
        """
        ...

    async def runs(
        self,
        *,
        session_id: SessionId | None = None,
        status: Collection[RunStatus] | None = None,
        after: RunId | None = None,
        limit: int = 50,
    ) -> Sequence[RunState]:
        """Runs, newest first; `after` is the last id of the page before."""
        ...

    async def run_by_key(self, session_id: SessionId, key: str) -> RunState | None:
        """The run that was queued under `key` in this session, or None."""
        ...

    async def claim(self, run_id: RunId, *, owner: str, ttl: float) -> int:
        """This owner alone may write the run's events from now on. The fence to write them with.

        Raises:
            RunNotFound: There is no such run.
            RunTerminal: It has ended.
            Fenced: Another live owner has it.
        """
        ...

    async def renew(self, owner: str, *, ttl: float) -> None:
        """All claims of `owner` live for another `ttl` seconds."""
        ...

    async def orphans(self, owner: str) -> Sequence[RunState]:
        """Runs that have not ended and whose owner is dead, or which nobody ever claimed, other than `owner`'s."""
        ...

    async def info(self) -> StoreInfo:
        """What the store is and where, and what a person should know about it."""
        ...

    async def aclose(self) -> None:
        """All that was acknowledged is durable, and the store is closed. Idempotent."""
        ...

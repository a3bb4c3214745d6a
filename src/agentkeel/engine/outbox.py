"""From the log to sinks, with a durable cursor for each: truth in the log, hints on the wire.

The outbox finds out how far each session's log reaches and tells the relays, one for each sink, which deliver at their
own speed. A sink that fails or is slow holds up no other and no writer; what it has not acknowledged comes again, after
a pause or a restart. Events of one session keep their order; those of two sessions have none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.abc

from agentkeel.core.ids import SessionId
from agentkeel.core.session import TERMINAL, SessionStatus
from agentkeel.engine.relay import Feed, FeedState, Relay
from agentkeel.errors import ValidationError
from agentkeel.ports.clock import Clock
from agentkeel.ports.notifier import Notifier
from agentkeel.ports.sink import Cursors
from agentkeel.ports.store import EventStore

__all__ = ["Feed", "FeedState", "Outbox"]

POLL_SECONDS = 2.0
"""How long a session that nobody told of stays unseen."""
SWEEP_SECONDS = 300.0
"""How often sessions that have ended are looked at again, and cursors of deleted ones forgotten."""
WATCHED_SESSIONS = 256
"""Live sessions whose events are sent as they come; those of others wait for the poll."""
WATCH_SECONDS = 30.0

_PAGE = 200
_NEWEST = 50
_LIVE = frozenset(SessionStatus) - TERMINAL


class Outbox:
    """Keeps sinks up with the log of one session, or of all sessions of a store.

    Use it as `async with outbox.running(): …`, or give `run` to a task group of yours.

    Args:
        cursors: Where each feed's place is kept; see `adapters.sinks.FileCursors`.
        session_id: The one session to follow; None for all that are and will be.
        poll, sweep: Seconds between looks at the live sessions, and at all.
    Raises:
        ValidationError: Two feeds have one name (`invalid_input`).
    """

    def __init__(
        self,
        store: EventStore,
        notifier: Notifier,
        clock: Clock,
        cursors: Cursors,
        feeds: Sequence[Feed],
        *,
        session_id: SessionId | None = None,
        poll: float = POLL_SECONDS,
        sweep: float = SWEEP_SECONDS,
    ) -> None:
        names = [feed.name for feed in feeds]
        if len(set(names)) < len(names):
            raise ValidationError(f"Each feed needs a name of its own; these are {names}.", code="invalid_input")
        self._store = store
        self._notifier = notifier
        self._clock = clock
        self._session_id = session_id
        self._poll = poll
        self._sweep = sweep
        self._relays = [Relay(feed, store, cursors, clock) for feed in feeds]
        self._looking = anyio.Lock()
        self._live: set[SessionId] = set()
        self._watched: set[SessionId] = set()
        self.last_error: str | None = None
        """Why the log could not be looked at the last time; None if it could."""

    def states(self) -> Mapping[str, FeedState]:
        """How each feed is doing: lag, failures, last error."""
        return {relay.feed.name: relay.state() for relay in self._relays}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Feeds are served within the block. What is not delivered at its end is, at the next start."""
        trouble: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.run, name="outbox")
            try:
                yield
            except Exception as error:  # noqa: BLE001 - raised below, out of the task group's reach
                trouble = error
            tasks.cancel_scope.cancel()
        if trouble is not None:
            raise trouble

    async def run(self) -> None:
        """Serve the feeds until cancelled. What goes wrong is in `states` and `last_error`, and is tried again."""
        async with anyio.create_task_group() as tasks:
            for relay in self._relays:
                tasks.start_soon(relay.run, name=f"outbox {relay.feed.name}")
            swept = float("-inf")
            while True:
                whole = self._clock.monotonic() - swept >= self._sweep
                try:
                    await self._look(whole=whole)
                    self._watch_live(tasks)
                    swept = self._clock.monotonic() if whole else swept
                    self.last_error = None
                except Exception as error:  # noqa: BLE001 - the task's edge: is told, and tried again
                    self.last_error = f"{type(error).__name__}: {error}"
                await self._clock.sleep(self._poll)

    async def caught_up(self) -> None:
        """Return once every sink has acknowledged all that was in the log when this was called.

        A sink that keeps failing makes it wait as long: bound it (`anyio.fail_after`).

        Raises what the store raises.
        """
        await self._look(whole=True)
        for relay in self._relays:
            await relay.reach()

    async def _look(self, *, whole: bool) -> None:
        """The relays know the head of each live session and of each that has just ended; of all, if `whole`."""
        async with self._looking:
            if self._session_id is not None:
                self._live = {self._session_id}
                await self._tell(self._session_id)
                return
            looked, live = await self._tell_all(None if whole else _LIVE)
            if whole:
                for relay in self._relays:
                    relay.keep_only(looked)
            else:  # A session may have ended since the last look, or come and gone.
                newest = {state.id for state in await self._store.sessions(limit=_NEWEST)}
                for session_id in (newest | self._live) - looked:
                    await self._tell(session_id)
            self._live = live

    async def _tell_all(self, status: Collection[SessionStatus] | None) -> tuple[set[SessionId], set[SessionId]]:
        """The relays know the head of every session of this status. Their ids, and which of them have not ended."""
        looked, live = set[SessionId](), set[SessionId]()
        last: SessionId | None = None
        while page := await self._store.sessions(status=status, after=last, limit=_PAGE):
            for state in page:
                await self._tell(state.id)
                looked.add(state.id)
                if not state.terminal:
                    live.add(state.id)
            last = page[-1].id
        return looked, live

    async def _tell(self, session_id: SessionId) -> None:
        head = await self._store.head(session_id)
        for relay in self._relays:
            relay.tell(session_id, head)

    def _watch_live(self, tasks: anyio.abc.TaskGroup) -> None:
        for session_id in self._live:
            if session_id not in self._watched and len(self._watched) < WATCHED_SESSIONS:
                self._watched.add(session_id)
                tasks.start_soon(self._watch, session_id)

    async def _watch(self, session_id: SessionId) -> None:
        """The relays hear of the session's events as they come, until it has ended."""
        try:
            while session_id in self._live:
                ticket = self._notifier.ticket(session_id)
                await self._tell(session_id)
                await ticket.wait(WATCH_SECONDS)
        except Exception as error:  # noqa: BLE001 - the task's edge: the poll goes on, and begins another watch
            self.last_error = f"{type(error).__name__}: {error}"
        finally:
            self._watched.discard(session_id)

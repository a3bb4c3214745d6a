"""Reading a log from a number, first what was missed, then what comes.

There is one code path: read behind the cursor until nothing is left, then wait for a hint and read again. The ticket
is taken before the read, so nothing can slip between them. The cursor is the last sequence the reader has; nothing is
kept about a reader, and a slow one slows only itself. A reader at the end of the shared tail asks the store nothing
until a hint fails to come in time: then others may have written, who give none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import anyio.lowlevel

from agentkeel.core import events as ev
from agentkeel.core.events import Event
from agentkeel.core.ids import SessionId
from agentkeel.engine.log import Log
from agentkeel.errors import ValidationError
from agentkeel.ports.store import EventFilter

__all__ = ["PAGE", "POLL_SECONDS", "follow", "matches", "pages"]

PAGE = 500
_ENDS = frozenset({ev.SessionCompleted.type, ev.SessionFailed.type, ev.SessionCancelled.type})
POLL_SECONDS = 2.0
"""How long a reader trusts the hints. Other processes may write without one."""


async def pages(
    log: Log, session_id: SessionId, *, after: int = 0, where: EventFilter | None = None
) -> AsyncGenerator[Event]:
    """Every event behind `after` that is in the log now, in order.

    Raises what `EventStore.read` raises.
    """
    cursor = after
    while events := await log.store.read(session_id, after=cursor, limit=PAGE, where=where):
        for event in events:
            yield event
        cursor = events[-1].sequence


async def follow(
    log: Log,
    session_id: SessionId,
    *,
    after: int = 0,
    where: EventFilter | None = None,
    poll: float = POLL_SECONDS,
    over: Callable[[], bool] | None = None,
) -> AsyncGenerator[Event]:
    """Every event behind `after`, in order, each once: those in the log, then those to come.

    Ends when the session has ended, or `over` says that nothing is to come, and all its events were given. `over` is
    asked at the end of the log, every `poll` seconds at least.

    Raises:
        SessionNotFound: There is no such session.
        ValidationError: The cursor is negative or beyond the head (`invalid_cursor`).
        CursorExpired: Events behind the cursor were pruned.
    """
    if after < 0 or after > await log.store.head(session_id):
        await log.store.session(session_id)
        raise ValidationError(
            f"The cursor {after} is not in the log of session {session_id}. Use the sequence of an event, or 0.",
            code="invalid_cursor",
            details={"session_id": session_id, "after": after},
        )
    cursor = after
    look = True
    with log.tails.watch(session_id):
        while True:
            ticket = log.notifier.ticket(session_id)
            ending = over is not None and over()  # Asked before the last look.
            if live := log.tails.after(session_id, cursor, PAGE):
                cursor = live[-1].sequence
                look = any(event.type in _ENDS for event in live)
                for event in live:
                    if matches(event, where):
                        yield event
                continue
            if look or ending or not log.tails.ends_at(session_id, cursor):
                head = await log.store.head(session_id)
                if head > cursor:
                    stored = await log.store.read(session_id, after=cursor, limit=PAGE, where=where)
                    # A page that is not full has been looked through, though the filter let nothing pass.
                    cursor = (
                        stored[-1].sequence if len(stored) == PAGE else max([head, *(e.sequence for e in stored[-1:])])
                    )
                    for event in stored:
                        yield event
                    await anyio.lowlevel.checkpoint()
                    continue
                if ending or (await log.store.session(session_id)).terminal:
                    return
            look = not await ticket.wait(poll)


def matches(event: Event, where: EventFilter | None) -> bool:
    """Whether the filter lets the event through; the same rule as a store's."""
    return where is None or (
        (where.run_id is None or event.run_id == where.run_id)
        and (where.types is None or event.type in where.types)
        and (where.before is None or event.sequence < where.before)
        and (where.since is None or event.at >= where.since)
    )

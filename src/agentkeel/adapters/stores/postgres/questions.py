"""What readers ask. Each function is one or two short statements."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from agentkeel.adapters.stores.asking import beyond_head, no_run, no_session, no_such_place
from agentkeel.adapters.stores.postgres.link import Link
from agentkeel.adapters.stores.postgres.rows import events_of, micros, plain, run_of, session_of
from agentkeel.core.events import Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.run import RunState
from agentkeel.core.session import SessionState
from agentkeel.ports.store import EventFilter

__all__ = ["events", "feed", "head", "run", "run_by_key", "runs", "session", "sessions"]

_NO_PLACE = 1 << 62
"""Beyond every sequence, and within the database's integers."""
FEED_START = ("0", 0)


async def events(
    link: Link, session_id: SessionId, after: int, limit: int, where: EventFilter | None
) -> Sequence[Event]:
    """A page of a session's log.

    Raises:
        SessionNotFound: There is no such session.
        ValidationError: `after` is beyond the head.
    """
    places = await link.ask("session_place", plain(session_id))
    if not places:
        raise no_session(session_id)
    ((number, last),) = places
    if after > last:
        raise beyond_head(session_id, after, last)
    if where is None:
        rows = await link.ask("event_page", number, after, min(limit, _NO_PLACE))
    else:
        rows = await link.ask(
            "event_search",
            number,
            after,
            min(limit, _NO_PLACE),
            None if where.before is None else min(max(where.before, 0), _NO_PLACE),
            None if where.run_id is None else plain(where.run_id),
            None if where.types is None else [plain(kind) for kind in where.types],
            None if where.since is None else micros(where.since),
        )
    return events_of(session_id, rows)


async def head(link: Link, session_id: SessionId) -> int:
    """Where the session's log ends; 0 without one."""
    places = await link.ask("session_place", plain(session_id))
    return int(places[0][1]) if places else 0


async def session(link: Link, session_id: SessionId) -> SessionState:
    """The session's state.

    Raises:
        SessionNotFound: There is no such session.
    """
    rows = await link.ask("session_state", plain(session_id))
    if not rows:
        raise no_session(session_id)
    return session_of(rows[0][0])


async def sessions(link: Link, asked: dict[str, Any]) -> Sequence[SessionState]:
    """A page of sessions. `asked` has the names of the port's arguments.

    Raises:
        ValidationError: `after` names no session.
    """
    after = _plain(asked["after"])
    if after is not None and not await link.ask("session_exists", after):
        raise no_such_place(asked["after"])
    rows = await link.ask(
        "session_list",
        after,
        _listed(asked["status"]),
        _plain(asked["agent_id"]),
        _plain(asked["provider"]),
        _listed(asked["tags"]),
        min(asked["limit"], _NO_PLACE),
    )
    return [session_of(state) for (state,) in rows]


async def run(link: Link, run_id: RunId) -> RunState:
    """The run's state.

    Raises:
        RunNotFound: There is no such run.
    """
    rows = await link.ask("run_state", plain(run_id))
    if not rows:
        raise no_run(run_id)
    return run_of(*rows[0])


async def runs(link: Link, asked: dict[str, Any]) -> Sequence[RunState]:
    """A page of runs. `asked` has the names of the port's arguments.

    Raises:
        ValidationError: `after` names no run.
    """
    after = _plain(asked["after"])
    if after is not None and not await link.ask("run_exists", after):
        raise no_such_place(asked["after"])
    limit = min(asked["limit"], _NO_PLACE)
    rows = await link.ask("run_list", after, _plain(asked["session_id"]), _listed(asked["status"]), limit)
    return [run_of(*row) for row in rows]


async def run_by_key(link: Link, session_id: SessionId, key: str) -> RunState | None:
    """The run that was queued first under `key`, or None."""
    rows = await link.ask("run_by_key", plain(session_id), plain(key))
    return run_of(*rows[0]) if rows else None


async def feed(link: Link, after: str | None, limit: int) -> tuple[Sequence[Event], str]:
    """Events of all sessions behind a cursor, and the cursor behind them.

    Raises:
        ValidationError: `after` is no cursor of a feed.
    """
    xid, place = FEED_START if after is None else _cursor(after)
    rows = await link.ask("event_feed", xid, place, min(limit, _NO_PLACE))
    found: list[Event] = []
    for session_id, xid, place, *row in rows:  # noqa: B007 - the last row's are the cursor
        found += events_of(SessionId(session_id), [row])
    return found, f"{xid}.{place}"


def _cursor(text: str) -> tuple[str, int]:
    xid, dot, place = text.partition(".")
    if not (dot and xid.isascii() and xid.isdigit() and place.isascii() and place.isdigit() and len(text) < 40):
        raise no_such_place(text)
    if int(xid) >= 1 << 64 or int(place) >= 1 << 63:
        raise no_such_place(text)
    return xid, int(place)


def _plain(text: str | None) -> str | None:
    return None if text is None else plain(text)


def _listed(values: Collection[str] | None) -> list[str] | None:
    return None if values is None else [plain(str(value)) for value in values]

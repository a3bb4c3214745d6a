"""What readers ask. Each function is one or two short statements on a connection that cannot write."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import apsw
import msgspec

from agentkeel.adapters.stores.asking import beyond_head, no_run, no_session, no_such_place
from agentkeel.adapters.stores.sqlite.rows import events_of, micros, run_of, session_of
from agentkeel.adapters.stores.sqlite.sql import ask
from agentkeel.core.events import Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.run import RunState
from agentkeel.core.session import SessionState
from agentkeel.ports.store import EventFilter

__all__ = ["events", "head", "owner", "run", "run_by_key", "runs", "session", "sessions"]

_NO_PLACE = 1 << 62
"""Beyond every sequence, and within SQLite's integers."""


def events(
    db: apsw.Connection, session_id: SessionId, after: int, limit: int, where: EventFilter | None
) -> Sequence[Event]:
    """A page of a session's log.

    Raises:
        SessionNotFound: There is no such session.
        ValidationError: `after` is beyond the head.
    """
    places = ask(db, "session_place", (session_id,))
    if not places:
        raise no_session(session_id)
    ((number, last),) = places
    if after > (last or 0):
        raise beyond_head(session_id, after, last or 0)
    if where is None:
        rows = ask(db, "event_page", {"session": number, "after": after, "limit": min(limit, _NO_PLACE)})
    else:
        rows = ask(
            db,
            "event_search",
            {
                "session": number,
                "after": after,
                "before": None if where.before is None else min(max(where.before, 0), _NO_PLACE),
                "run": where.run_id,
                "types": _listed(where.types),
                "since": None if where.since is None else micros(where.since),
                "limit": min(limit, _NO_PLACE),
            },
        )
    return events_of(session_id, rows)


def head(db: apsw.Connection, session_id: SessionId) -> int:
    """Where the session's log ends; 0 without one."""
    places = ask(db, "session_place", (session_id,))
    return (places[0][1] or 0) if places else 0


def session(db: apsw.Connection, session_id: SessionId) -> SessionState:
    """The session's state.

    Raises:
        SessionNotFound: There is no such session.
    """
    rows = ask(db, "session_state", (session_id,))
    if not rows:
        raise no_session(session_id)
    return session_of(rows[0][0])


def sessions(db: apsw.Connection, asked: dict[str, Any]) -> Sequence[SessionState]:
    """A page of sessions. `asked` has the names of the port's arguments.

    Raises:
        ValidationError: `after` names no session.
    """
    if asked["after"] is not None and not ask(db, "session_exists", (asked["after"],)):
        raise no_such_place(asked["after"])
    values = {**asked, "statuses": _listed(asked["statuses"]), "tags": _listed(asked["tags"])}
    return [session_of(state) for (state,) in ask(db, "session_list", values)]


def run(db: apsw.Connection, run_id: RunId) -> RunState:
    """The run's state.

    Raises:
        RunNotFound: There is no such run.
    """
    rows = ask(db, "run_state", (run_id,))
    if not rows:
        raise no_run(run_id)
    return run_of(*rows[0])


def runs(db: apsw.Connection, asked: dict[str, Any]) -> Sequence[RunState]:
    """A page of runs. `asked` has the names of the port's arguments.

    Raises:
        ValidationError: `after` names no run.
    """
    if asked["after"] is not None and not ask(db, "run_exists", (asked["after"],)):
        raise no_such_place(asked["after"])
    values = {**asked, "statuses": _listed(asked["statuses"])}
    return [run_of(*row) for row in ask(db, "run_list", values)]


def run_by_key(db: apsw.Connection, session_id: SessionId, key: str) -> RunState | None:
    """The first run that was queued under `key`, or None."""
    rows = ask(db, "run_by_key", {"session": session_id, "key": key})
    return run_of(*rows[0]) if rows else None


def owner(db: apsw.Connection) -> tuple[int, int | None, str | None, int | None, int]:
    """Epoch, pid, host and start (microseconds) of the owner, and whether it closed the store in order."""
    ((epoch, pid, host, started, clean),) = ask(db, "owner_row")
    return epoch, pid, host, started, clean


def _listed(values: Collection[str] | None) -> str | None:
    return None if values is None else msgspec.json.encode([str(value) for value in values]).decode()

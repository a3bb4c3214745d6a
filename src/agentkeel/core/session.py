"""A session: a line of runs that share a log, an agent and a workspace.

`TRANSITIONS` is its whole life; a missing key IS the illegal move. The table is enforced where the log is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from agentkeel.core import events as ev
from agentkeel.core.events import Body, Event
from agentkeel.core.ids import SessionId
from agentkeel.core.status import SessionStatus
from agentkeel.errors import InvalidTransition, SessionNotFound, StateError

__all__ = ["EVOLVING", "TERMINAL", "TRANSITIONS", "SessionState", "SessionStatus", "check", "evolve"]


TERMINAL = frozenset({SessionStatus.COMPLETED, SessionStatus.FAILED, SessionStatus.CANCELLED})

_ENDS: Mapping[type[Body], SessionStatus] = {
    ev.SessionCompleted: SessionStatus.COMPLETED,
    ev.SessionFailed: SessionStatus.FAILED,
    ev.SessionCancelled: SessionStatus.CANCELLED,
}

TRANSITIONS: Mapping[SessionStatus | None, Mapping[type[Body], SessionStatus]] = {
    None: {ev.SessionCreated: SessionStatus.PENDING},
    SessionStatus.PENDING: {
        ev.SessionStarted: SessionStatus.ACTIVE,
        ev.SessionFailed: SessionStatus.FAILED,
        ev.SessionCancelled: SessionStatus.CANCELLED,
    },
    SessionStatus.ACTIVE: {ev.SessionPaused: SessionStatus.PAUSED, **_ENDS},
    SessionStatus.PAUSED: {ev.SessionResumed: SessionStatus.ACTIVE, **_ENDS},
    **{status: {} for status in TERMINAL},
}

LIFECYCLE = frozenset(body for moves in TRANSITIONS.values() for body in moves)
EVOLVING = LIFECYCLE | {ev.RunStarted, ev.RunCompleted, ev.RunFailed, ev.RunCancelled, ev.RunTimeout}
"""Bodies that change a `SessionState`."""

_TAKES_RUNS = frozenset({SessionStatus.ACTIVE, SessionStatus.PAUSED})


class SessionState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session as its events tell it. `provider_sessions` maps a provider to its own id of the conversation."""

    id: SessionId
    status: SessionStatus
    agent_id: str
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    provider: str | None = None
    workspace: str | None = None
    system_prompt: str | None = None
    continuity: str | None = None
    max_concurrent_runs: int = 1
    max_queued_runs: int = 100
    options: Mapping[str, Any] = {}
    parent_session_id: SessionId | None = None
    metadata: Mapping[str, Any] = {}
    context: Mapping[str, Any] = {}
    tags: tuple[str, ...] = ()
    provider_sessions: Mapping[str, str] = {}
    error_code: str | None = None
    error_message: str | None = None

    @property
    def terminal(self) -> bool:
        """Whether the session has ended."""
        return self.status in TERMINAL


def check(state: SessionState | None, data: Body, *, session_id: SessionId) -> None:
    """Say nothing if `data` may be the session's next event.

    Raises:
        SessionNotFound: There is no such session, and `data` does not create it.
        InvalidTransition: The table has no such move from where the session is.
        StateError: A run is queued in a session that takes none.
    """
    status = None if state is None else state.status
    if state is None and not isinstance(data, ev.SessionCreated):
        raise SessionNotFound(f"There is no session {session_id}.", details={"session_id": session_id})
    if type(data) in LIFECYCLE and type(data) not in TRANSITIONS[status]:
        raise InvalidTransition(
            f"Session {session_id} is {status}: {data.type} is not a move it can make. Nothing was added.",
            details={
                "session_id": session_id,
                "status": None if status is None else str(status),
                "event": data.type,
            },
        )
    if isinstance(data, ev.RunQueued) and status not in _TAKES_RUNS:
        raise StateError(
            f"Session {session_id} is {status} and takes no runs. Nothing was stored; start another session.",
            code="invalid_status",
            details={"session_id": session_id, "status": str(status)},
        )


def evolve(state: SessionState | None, event: Event) -> SessionState:
    """The session after `event`.

    Raises:
        SessionNotFound: There is no such session, and the event does not create it.
        InvalidTransition: The table has no such move from where the session is.
    """
    data = event.data
    check(state, data, session_id=event.session_id)
    if isinstance(data, ev.SessionCreated):
        return _created(event, data)
    assert state is not None
    changes: dict[str, Any] = {"updated_at": event.at}
    if type(data) in LIFECYCLE:
        changes["status"] = TRANSITIONS[state.status][type(data)]
    if isinstance(data, ev.SessionFailed):
        changes |= {"error_code": data.error_code, "error_message": data.error_message}
    native = getattr(data, "provider_session_id", None)
    provider = event.provider or getattr(data, "provider", None)
    if native is not None and provider is not None:
        changes["provider_sessions"] = {**state.provider_sessions, provider: native}
    return msgspec.structs.replace(state, **changes)


def _created(event: Event, data: ev.SessionCreated) -> SessionState:
    return SessionState(
        id=event.session_id,
        status=SessionStatus.PENDING,
        agent_id=data.agent_id,
        created_at=event.at,
        updated_at=event.at,
        provider=data.provider,
        workspace=data.workspace,
        system_prompt=data.system_prompt,
        continuity=data.continuity,
        max_concurrent_runs=data.max_concurrent_runs,
        max_queued_runs=data.max_queued_runs,
        options=data.options,
        parent_session_id=data.parent_session_id,
        metadata=data.metadata,
        context=data.context,
        tags=data.tags,
    )

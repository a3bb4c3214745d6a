"""A session's life is its table; its options are the defaults of its runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import msgspec
import pytest

from agentkeel.core import events as ev
from agentkeel.core import session
from agentkeel.core.events import Body, Event
from agentkeel.core.ids import SessionId, event_id
from agentkeel.core.session import SessionState, SessionStatus, check, evolve
from agentkeel.errors import InvalidTransition, SessionNotFound, StateError

S = SessionId("ses_1")
T0 = datetime(2026, 1, 1, tzinfo=UTC)

CREATED = ev.SessionCreated(
    agent_id="a", provider="claude", workspace="/w", metadata={"m": [1]}, tags=("t",), max_concurrent_runs=3
)
STARTED, PAUSED, RESUMED = ev.SessionStarted(), ev.SessionPaused(), ev.SessionResumed()
COMPLETED, CANCELLED = ev.SessionCompleted(), ev.SessionCancelled()
FAILED = ev.SessionFailed(error_code="internal_error", error_message="oh")
MOVES: list[Body] = [CREATED, STARTED, PAUSED, RESUMED, COMPLETED, FAILED, CANCELLED]


def event(data: Body, sequence: int, provider: str | None = None) -> Event:
    at = T0 + timedelta(seconds=sequence)
    return Event(id=event_id(S, sequence), session_id=S, sequence=sequence, at=at, data=data, provider=provider)


def told(*bodies: Body) -> SessionState:
    state: SessionState | None = None
    for sequence, data in enumerate(bodies, 1):
        state = evolve(state, event(data, sequence))
    assert state is not None
    return state


IN: dict[SessionStatus | None, SessionState | None] = {
    None: None,
    SessionStatus.PENDING: told(CREATED),
    SessionStatus.ACTIVE: told(CREATED, STARTED),
    SessionStatus.PAUSED: told(CREATED, STARTED, PAUSED),
    SessionStatus.COMPLETED: told(CREATED, STARTED, COMPLETED),
    SessionStatus.FAILED: told(CREATED, STARTED, FAILED),
    SessionStatus.CANCELLED: told(CREATED, STARTED, CANCELLED),
}
ALLOWED = {
    (None, "session_created"): "pending",
    ("pending", "session_started"): "active",
    ("pending", "session_failed"): "failed",
    ("pending", "session_cancelled"): "cancelled",
    ("active", "session_paused"): "paused",
    ("active", "session_completed"): "completed",
    ("active", "session_failed"): "failed",
    ("active", "session_cancelled"): "cancelled",
    ("paused", "session_resumed"): "active",
    ("paused", "session_completed"): "completed",
    ("paused", "session_failed"): "failed",
    ("paused", "session_cancelled"): "cancelled",
}


@pytest.mark.parametrize(("status", "data"), list(product(IN, MOVES)), ids=str)
def test_only_the_moves_of_the_table_are_made(status: SessionStatus | None, data: Body) -> None:
    then = ALLOWED.get((None if status is None else str(status), data.type))
    if then is not None:
        check(IN[status], data, session_id=S)
        assert evolve(IN[status], event(data, 9)).status == then
        return
    with pytest.raises(SessionNotFound if status is None else InvalidTransition):
        evolve(IN[status], event(data, 9))


@pytest.mark.parametrize("status", IN)
def test_a_run_is_queued_only_where_runs_are_taken(status: SessionStatus | None) -> None:
    if status in {SessionStatus.ACTIVE, SessionStatus.PAUSED}:
        check(IN[status], ev.RunQueued(), session_id=S)
        return
    with pytest.raises(SessionNotFound if status is None else StateError) as caught:
        check(IN[status], ev.RunQueued(), session_id=S)
    assert caught.value.code == ("session_not_found" if status is None else "invalid_status")


@pytest.mark.parametrize("status", [status for status in IN if status is not None])
def test_other_events_are_taken_in_any_state(status: SessionStatus) -> None:
    for data in (ev.MessageReceived(content="x"), ev.SessionIdle(), ev.RunCancelled(), ev.Unknown(kind="new")):
        check(IN[status], data, session_id=S)


def test_the_ended_are_those_without_a_move() -> None:
    assert {status for status in SessionStatus if not session.TRANSITIONS[status]} == session.TERMINAL
    assert {status for status in IN if (state := IN[status]) is not None and state.terminal} == session.TERMINAL


def test_a_session_is_created_with_its_options() -> None:
    state = told(CREATED)
    assert (state.agent_id, state.provider, state.workspace) == ("a", "claude", "/w")
    assert (state.metadata, state.tags, state.max_concurrent_runs) == ({"m": [1]}, ("t",), 3)
    assert state.created_at == state.updated_at == T0 + timedelta(seconds=1)


def test_a_failed_session_says_why() -> None:
    state = told(CREATED, FAILED)
    assert (state.error_code, state.error_message) == ("internal_error", "oh")


def test_each_providers_own_session_is_remembered() -> None:
    state = told(CREATED, STARTED)
    started = ev.RunStarted(provider="claude", provider_session_id="c1")
    state = evolve(state, event(started, 3))
    state = evolve(state, event(ev.RunStarted(provider="codex", provider_session_id="x1"), 4))
    state = evolve(state, event(ev.RunFailed(error_code="timeout", error_message="m"), 5, "codex"))
    state = evolve(state, event(ev.RunCompleted(stop_reason="s", provider_session_id="c2"), 6, "claude"))
    assert state.provider_sessions == {"claude": "c2", "codex": "x1"}
    assert state.updated_at == T0 + timedelta(seconds=6)


@pytest.mark.parametrize("status", [status for status in IN if status is not None])
def test_a_state_is_the_same_after_it_was_stored(status: SessionStatus) -> None:
    state = IN[status]
    assert msgspec.json.decode(msgspec.json.encode(state), type=SessionState) == state

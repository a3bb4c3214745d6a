"""A run's life is its table; what its events say is kept whatever the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkeel.core import events as ev
from agentkeel.core import run
from agentkeel.core.events import Body, Event
from agentkeel.core.ids import RunId, SessionId, event_id
from agentkeel.core.run import RunState, RunStatus, check, evolve, failure_of
from agentkeel.core.usage import Usage
from agentkeel.errors import InvalidTransition, ProviderFailure, RunTerminal

S, R = SessionId("ses_1"), RunId("run_1")
T0 = datetime(2026, 1, 1, tzinfo=UTC)

QUEUED = ev.RunQueued(provider="claude", key="k", options={"prompt": "do"}, metadata={"m": 1}, timeout=3.0)
STARTED = ev.RunStarted(provider="claude", model="opus", provider_session_id="native")
COMPLETED = ev.RunCompleted(stop_reason="end_turn", text="done")
FAILED = ev.RunFailed(error_code="provider_error", error_message="it broke")
CANCELLED = ev.RunCancelled(reason="enough")
TIMEOUT = ev.RunTimeout(deadline="idle", seconds=2.5)
INTERRUPTED = ev.RunInterrupted(outcome="unknown", open_tool_calls=("t1",))
ENDS = [COMPLETED, FAILED, CANCELLED, TIMEOUT, INTERRUPTED]
MOVES: list[Body] = [QUEUED, STARTED, *ENDS]


def event(data: Body, sequence: int) -> Event:
    at = T0 + timedelta(seconds=sequence)
    return Event(id=event_id(S, sequence), session_id=S, sequence=sequence, at=at, data=data, run_id=R)


def told(*bodies: Body) -> RunState:
    """The run that these events tell, the first of them at place 1."""
    state: RunState | None = None
    for sequence, data in enumerate(bodies, 1):
        state = evolve(state, event(data, sequence))
    assert state is not None
    return state


IN: dict[RunStatus | None, RunState | None] = {
    None: None,
    RunStatus.QUEUED: told(QUEUED),
    RunStatus.RUNNING: told(QUEUED, STARTED),
    RunStatus.COMPLETED: told(QUEUED, STARTED, COMPLETED),
    RunStatus.FAILED: told(QUEUED, STARTED, FAILED),
    RunStatus.CANCELLED: told(QUEUED, STARTED, CANCELLED),
    RunStatus.TIMEOUT: told(QUEUED, STARTED, TIMEOUT),
    RunStatus.INTERRUPTED: told(QUEUED, STARTED, INTERRUPTED),
}
ALLOWED = {
    (None, "run_queued"): "queued",
    ("queued", "run_started"): "running",
    ("queued", "run_failed"): "failed",
    ("queued", "run_cancelled"): "cancelled",
    ("queued", "run_timeout"): "timeout",
    ("queued", "run_interrupted"): "interrupted",
    ("running", "run_started"): "running",
    ("running", "run_completed"): "completed",
    ("running", "run_failed"): "failed",
    ("running", "run_cancelled"): "cancelled",
    ("running", "run_timeout"): "timeout",
    ("running", "run_interrupted"): "interrupted",
}


@pytest.mark.parametrize(("status", "data"), list(product(IN, MOVES)), ids=str)
def test_only_the_moves_of_the_table_are_made(status: RunStatus | None, data: Body) -> None:
    state = IN[status]
    then = ALLOWED.get((None if status is None else str(status), data.type))
    if then is not None:
        check(state, data, run_id=R)
        assert evolve(state, event(data, 9)).status == then
        return
    with pytest.raises(RunTerminal if status in run.TERMINAL else InvalidTransition) as caught:
        evolve(state, event(data, 9))
    assert caught.value.details == {"run_id": R, "status": status, "event": data.type}


@pytest.mark.parametrize("status", IN)
@pytest.mark.parametrize("data", [ev.MessageReceived(content="x"), ev.TurnCompleted(turns=1), ev.Unknown(kind="new")])
def test_other_events_need_a_run_that_is_alive(status: RunStatus | None, data: Body) -> None:
    if status in {RunStatus.QUEUED, RunStatus.RUNNING}:
        check(IN[status], data, run_id=R)
        return
    with pytest.raises(InvalidTransition if status is None else RunTerminal):
        check(IN[status], data, run_id=R)


def test_the_terminal_types_are_the_ends_of_the_table() -> None:
    ends = {body.type for moves in run.TRANSITIONS.values() for body, then in moves.items() if then in run.TERMINAL}
    assert ends == ev.TERMINAL_TYPES
    assert {status for status in RunStatus if not run.TRANSITIONS[status]} == run.TERMINAL


def test_a_queued_run_has_all_that_is_needed_to_start_it() -> None:
    state = told(QUEUED)
    assert (state.provider, state.key, state.timeout, state.options) == ("claude", "k", 3.0, {"prompt": "do"})
    assert (state.created_at, state.started_at, state.ended_at) == (T0 + timedelta(seconds=1), None, None)
    assert (state.first_sequence, state.last_sequence, state.terminal) == (1, 1, False)


def test_a_second_attempt_keeps_the_first_start_and_what_it_does_not_say() -> None:
    state = told(QUEUED, STARTED, ev.RunStarted(provider="codex", attempt=2))
    assert state.started_at == T0 + timedelta(seconds=2)
    assert (state.provider, state.attempt) == ("codex", 2)
    assert (state.model, state.provider_session_id) == ("opus", "native")


def test_tool_calls_are_counted_and_the_open_ones_known() -> None:
    def tool(body: Any, call: str) -> Body:
        return body(tool_call_id=call, tool_name="Bash")

    a, b = (tool(ev.ToolCallStarted, call) for call in "ab")
    state = told(QUEUED, STARTED, a, b, tool(ev.ToolCallCompleted, "a"))
    assert (state.tool_calls, state.open_tool_calls) == (2, ("b",))
    assert told(QUEUED, STARTED, a, tool(ev.ToolCallFailed, "a")).open_tool_calls == ()
    assert told(QUEUED, STARTED, a, CANCELLED).open_tool_calls == ()


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.type)
def test_usage_cost_and_the_agents_session_are_kept_whatever_the_end(end: Body) -> None:
    spent = ev.TokenUsageUpdated(usage=Usage(input_tokens=3, output_tokens=4), cost_usd="0.1", price_source="table")
    state = told(QUEUED, STARTED, spent, spent, end)
    assert state.usage == Usage(input_tokens=6, output_tokens=8)
    assert (state.cost_usd, state.cost_source) == ("0.2", "table"), "tenths add up exactly"
    assert state.provider_session_id == "native"
    assert state.ended_at == T0 + timedelta(seconds=5)


def test_what_the_agent_says_at_the_end_replaces_the_running_sum() -> None:
    spent = ev.TokenUsageUpdated(usage=Usage(input_tokens=3), cost_usd="0.1", price_source="table")
    total = Usage(input_tokens=10, output_tokens=5)
    end = ev.RunCompleted(stop_reason="end_turn", usage=total, cost_usd="0.7", cost_source="provider", turns=3)
    state = told(QUEUED, STARTED, spent, end)
    assert (state.usage, state.cost_usd, state.cost_source, state.turns) == (total, "0.7", "provider", 3)


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        (FAILED, "provider_error", "it broke"),
        (CANCELLED, "cancelled", "The run was cancelled: enough."),
        (ev.RunCancelled(), "cancelled", "The run was cancelled."),
        (TIMEOUT, "timeout", "The idle deadline of 2.5 s passed; the agent was stopped."),
        (INTERRUPTED, "interrupted", "whether its last step happened is unknown"),
        (ev.RunInterrupted(outcome="not_started"), "interrupted", "Nothing happened"),
    ],
)
def test_a_bad_end_is_an_error_with_a_code(end: Body, code: str, words: str) -> None:
    error = failure_of(told(QUEUED, STARTED, end))
    assert error is not None
    assert error.code == code
    assert words in error.message


def test_the_agents_own_words_are_in_the_error() -> None:
    said = ProviderFailure.of("claude", "rate_limit", "slow down", exit_code=1)
    end = ev.RunFailed(
        error_code="provider_rate_limited",
        error_message="slow",
        provider_error=said,
        retry_after=7,
        details={"status": 429},
    )
    error = failure_of(told(QUEUED, STARTED, end))
    assert error is not None
    assert (error.provider_error, error.retry_after, error.details) == (said, 7, {"status": 429})


@pytest.mark.parametrize("status", [RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.COMPLETED])
def test_a_run_that_lives_or_went_well_has_no_error(status: RunStatus) -> None:
    state = IN[status]
    assert state is not None
    assert failure_of(state) is None


@given(st.lists(st.sampled_from([*MOVES, ev.MessageReceived(content="x"), ev.TurnCompleted(turns=1)]), max_size=12))
def test_however_events_come_there_is_one_end_and_nothing_after_it(bodies: list[Body]) -> None:
    state: RunState | None = None
    taken: list[Body] = []
    for data in bodies:
        try:
            state = evolve(state, event(data, len(taken) + 1))
        except (InvalidTransition, RunTerminal):
            continue
        taken.append(data)
    ends = [data for data in taken if data.type in ev.TERMINAL_TYPES]
    assert len(ends) <= 1
    assert not ends or taken[-1] is ends[0]
    assert not taken or taken[0] is QUEUED


@pytest.mark.parametrize("status", [status for status in IN if status is not None])
def test_a_state_is_the_same_after_it_was_stored(status: RunStatus) -> None:
    state = IN[status]
    assert msgspec.json.decode(msgspec.json.encode(state), type=RunState) == state


def test_a_cost_is_known_only_as_long_as_all_tokens_have_a_price() -> None:
    def used(tokens: int, cost: str | None) -> ev.TokenUsageUpdated:
        return ev.TokenUsageUpdated(usage=Usage(input_tokens=tokens), cost_usd=cost, price_source="table")

    state = None
    seen = []
    bodies = [ev.RunQueued(), ev.RunStarted(provider="p"), used(3, "3"), used(0, None), used(1, None), used(2, "2")]
    for sequence, body in enumerate(bodies, start=1):
        event = Event(
            id=event_id(SessionId("s"), sequence),
            session_id=SessionId("s"),
            sequence=sequence,
            at=datetime(2026, 1, 1, tzinfo=UTC),
            run_id=RunId("r"),
            data=body,
        )
        state = evolve(state, event)
        seen.append(state.cost_usd)
    assert seen == [None, None, "3", "3", None, None]

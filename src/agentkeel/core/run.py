"""A run: one prompt, one agent, one end.

`TRANSITIONS` is the whole life of a run; a missing key IS the illegal move. The table is enforced where the log is
written, so the first terminal event wins and nothing follows it, whoever else is writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from agentkeel.core import events as ev
from agentkeel.core.events import Body, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.result import Route, RunResult, ToolCall
from agentkeel.core.status import RunStatus
from agentkeel.core.usage import Usage
from agentkeel.errors import Error, InvalidTransition, ProviderFailure, RunTerminal, failure

__all__ = ["EVOLVING", "TERMINAL", "TRANSITIONS", "RunState", "RunStatus", "check", "evolve", "failure_of", "result_of"]


TERMINAL = frozenset(set(RunStatus) - {RunStatus.QUEUED, RunStatus.RUNNING})

_UNHAPPY: Mapping[type[Body], RunStatus] = {
    ev.RunFailed: RunStatus.FAILED,
    ev.RunCancelled: RunStatus.CANCELLED,
    ev.RunTimeout: RunStatus.TIMEOUT,
    ev.RunInterrupted: RunStatus.INTERRUPTED,
}

TRANSITIONS: Mapping[RunStatus | None, Mapping[type[Body], RunStatus]] = {
    None: {ev.RunQueued: RunStatus.QUEUED},
    RunStatus.QUEUED: {ev.RunStarted: RunStatus.RUNNING, **_UNHAPPY},
    RunStatus.RUNNING: {ev.RunStarted: RunStatus.RUNNING, ev.RunCompleted: RunStatus.COMPLETED, **_UNHAPPY},
    **{status: {} for status in TERMINAL},
}

LIFECYCLE = frozenset(body for moves in TRANSITIONS.values() for body in moves)
EVOLVING = LIFECYCLE | {
    ev.RouteSelected,
    ev.ContinuityPrepared,
    ev.AttemptFailed,
    ev.TokenUsageUpdated,
    ev.TurnCompleted,
    ev.ToolCallStarted,
    ev.ToolCallCompleted,
    ev.ToolCallFailed,
}
"""Bodies that change a `RunState`; the others only need the run to be alive."""


class RunState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run as its events tell it. `usage` and `cost_usd` are kept whatever the outcome.

    `process` names the agent's process (pid, start time, token), so that a later owner can end what is left of it.
    """

    id: RunId
    session_id: SessionId
    status: RunStatus
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration_ms: int | None = None
    provider: str | None = None
    model: str | None = None
    attempt: int = 0
    workspace: str | None = None
    timeout: float | None = None
    key: str | None = None
    options: Mapping[str, Any] = {}
    metadata: Mapping[str, Any] = {}
    order: tuple[str, ...] = ()
    skipped: Mapping[str, str] = {}
    reasons: tuple[str, ...] = ()
    provider_session_id: str | None = None
    usage: Usage = Usage()
    cost_usd: str | None = None
    cost_source: str | None = None
    unpriced: bool = False
    continuity: str | None = None
    process: Mapping[str, Any] = {}
    turns: int = 0
    tool_calls: int = 0
    open_tool_calls: tuple[str, ...] = ()
    stop_reason: str | None = None
    text: str | None = None
    output: Any = None
    error_code: str | None = None
    error_message: str | None = None
    error_details: Mapping[str, Any] = {}
    provider_error: ProviderFailure | None = None
    retry_after: float | None = None
    first_sequence: int = 0
    last_sequence: int = 0

    @property
    def duration(self) -> float | None:
        """Seconds from its slot to its end, the agent's start included; None while it runs."""
        if self.ended_at is None:
            return None
        if self.duration_ms is not None:
            return self.duration_ms / 1000
        return (self.ended_at - (self.started_at or self.created_at)).total_seconds()

    @property
    def terminal(self) -> bool:
        """Whether the run has ended."""
        return self.status in TERMINAL


def check(state: RunState | None, data: Body, *, run_id: RunId) -> None:
    """Say nothing if `data` may be the run's next event.

    Raises:
        RunTerminal: The run has ended.
        InvalidTransition: The table has no such move from where the run is.
    """
    status = None if state is None else state.status
    if status in TERMINAL:
        raise RunTerminal(
            f"Run {run_id} has ended ({status}); {data.type} was not added. Its first end stands.",
            details={"run_id": run_id, "status": str(status), "event": data.type},
        )
    if type(data) in TRANSITIONS[status] or (state is not None and type(data) not in LIFECYCLE):
        return
    raise InvalidTransition(
        f"Run {run_id} is {status or 'not queued yet'}: {data.type} is not a move it can make. Nothing was added.",
        details={"run_id": run_id, "status": None if status is None else str(status), "event": data.type},
    )


def evolve(state: RunState | None, event: Event) -> RunState:
    """The run after `event`.

    Raises:
        RunTerminal: The run has ended.
        InvalidTransition: The table has no such move from where the run is.
    """
    assert event.run_id is not None
    check(state, event.data, run_id=event.run_id)
    if state is None:
        return _queued(event)
    data = event.data
    changes: dict[str, Any] = {"last_sequence": event.sequence}
    match data:
        case ev.RouteSelected():
            changes |= {
                "provider": data.provider,
                "attempt": data.attempt,
                "order": data.order,
                "skipped": data.skipped,
                "reasons": data.reasons,
            }
        case ev.ContinuityPrepared():
            changes |= {"continuity": data.mode, "process": data.process}
        case ev.RunStarted():
            changes |= _started(state, data, event.at)
        case ev.TokenUsageUpdated():
            changes |= {"usage": state.usage + data.usage, **_dearer(state, data)}
        case ev.TurnCompleted():
            changes["turns"] = max(state.turns, data.turns)
        case ev.ToolCallStarted():
            changes |= {
                "tool_calls": state.tool_calls + 1,
                "open_tool_calls": (*state.open_tool_calls, data.tool_call_id),
            }
        case ev.ToolCallCompleted() | ev.ToolCallFailed():
            ended = data.tool_call_id
            changes["open_tool_calls"] = tuple(call for call in state.open_tool_calls if call != ended)
        case ev.RunCompleted() | ev.RunFailed() | ev.RunCancelled() | ev.RunTimeout() | ev.RunInterrupted():
            changes |= _ended(state, data, event.at)
        case _:
            pass
    return msgspec.structs.replace(state, **changes)


def failure_of(state: RunState) -> Error | None:
    """The error that a caller of this run gets, or None while it runs and when it went well."""
    if not state.terminal or state.status is RunStatus.COMPLETED:
        return None
    return failure(
        state.error_code or "unknown_error",
        state.error_message or f"The run ended as {state.status}.",
        details=state.error_details,
        provider_error=state.provider_error,
        retry_after=state.retry_after,
    )


def result_of(state: RunState, tool_calls: tuple[ToolCall, ...] = ()) -> RunResult:
    """The result that a run's state tells."""
    return RunResult(
        run_id=state.id,
        session_id=state.session_id,
        status=state.status,
        text=state.text or "",
        output=state.output,
        stop_reason=state.stop_reason,
        tool_calls=tool_calls,
        usage=state.usage,
        cost_usd=None if state.cost_usd is None else Decimal(state.cost_usd),
        cost_source=state.cost_source,
        turns=state.turns,
        continuity=state.continuity,
        route=None if state.provider is None else _route(state, state.provider),
        duration=state.duration,
    )


def _route(state: RunState, provider: str) -> Route:
    return Route(
        provider=provider,
        model=state.model,
        attempt=max(1, state.attempt),
        order=state.order or (provider,),
        skipped=state.skipped,
        reasons=state.reasons,
    )


def _queued(event: Event) -> RunState:
    data = event.data
    assert isinstance(data, ev.RunQueued)
    assert event.run_id is not None
    return RunState(
        id=event.run_id,
        session_id=event.session_id,
        status=RunStatus.QUEUED,
        created_at=event.at,
        provider=data.provider,
        model=data.model,
        workspace=data.workspace,
        timeout=data.timeout,
        key=data.key,
        options=data.options,
        metadata=data.metadata,
        first_sequence=event.sequence,
        last_sequence=event.sequence,
    )


def _started(state: RunState, data: ev.RunStarted, at: datetime) -> dict[str, Any]:
    return {
        "status": RunStatus.RUNNING,
        "provider": data.provider,
        "model": data.model or state.model,
        "attempt": data.attempt,
        "started_at": state.started_at or at,
        "provider_session_id": data.provider_session_id or state.provider_session_id,
        "process": data.details.get("process") or state.process,
    }


def _dearer(state: RunState, data: ev.TokenUsageUpdated) -> dict[str, Any]:
    """The running cost, which is known as long as all tokens had a price."""
    if state.unpriced or (data.cost_usd is None and data.usage.total_tokens):
        return {"unpriced": True, "cost_usd": None, "cost_source": None}
    if data.cost_usd is None:
        return {}
    total = Decimal(state.cost_usd or 0) + Decimal(data.cost_usd)
    return {"cost_usd": str(total), "cost_source": data.price_source}


def _ended(state: RunState, data: Body, at: datetime) -> dict[str, Any]:
    """Terminal bodies share most fields. One that says what was used replaces the running sums, the cost with them."""
    changes: dict[str, Any] = {
        "status": TRANSITIONS[state.status][type(data)],
        "ended_at": at,
        "open_tool_calls": (),
    }
    for name in ("text", "output", "stop_reason", "provider_session_id", "retry_after", "duration_ms"):
        value = getattr(data, name, None)
        if value is not None:
            changes[name] = value
    usage: Usage = getattr(data, "usage", Usage())
    cost: str | None = getattr(data, "cost_usd", None)
    if usage.total_tokens:
        changes["usage"] = usage
    if usage.total_tokens or cost is not None:
        # A cost that is not known for all of the usage is no cost, whatever its priced part came to.
        changes |= {"cost_usd": cost, "cost_source": getattr(data, "cost_source", None)}
    if isinstance(data, ev.RunCompleted):
        changes["turns"] = state.turns if data.turns is None else data.turns
    return changes | _error_of(data)


def _error_of(data: Body) -> dict[str, Any]:
    """What a terminal body says went wrong."""
    match data:
        case ev.RunFailed():
            return {
                "error_code": data.error_code,
                "error_message": data.error_message,
                "error_details": data.details,
                "provider_error": data.provider_error,
            }
        case ev.RunCancelled():
            reason = f": {data.reason}" if data.reason else ""
            return {"error_code": "cancelled", "error_message": f"The run was cancelled{reason}."}
        case ev.RunTimeout():
            return {
                "error_code": "timeout",
                "error_message": f"The {data.deadline} deadline of {data.seconds:g} s passed; the agent was stopped.",
                "error_details": {"deadline": data.deadline, "seconds": data.seconds},
            }
        case ev.RunInterrupted():
            return {
                "error_code": "interrupted",
                "error_message": _INTERRUPTED[data.outcome],
                "error_details": {"outcome": data.outcome, "open_tool_calls": list(data.open_tool_calls)},
            }
        case _:
            return {}


_INTERRUPTED = {
    "not_started": "The run's owner died before an agent was started. Nothing happened; submit it again.",
    "unknown": "The run's owner died. What was acknowledged is in the log; whether its last step happened is unknown.",
}

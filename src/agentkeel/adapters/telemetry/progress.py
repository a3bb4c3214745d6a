"""From events to what is counted and timed. Pure: times are the events' own.

Every token and every dollar counts once, however often it is reported: what a run's end says it used, less what its
updates said before. An event that comes twice counts once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias

import msgspec

from agentkeel.core import events as ev
from agentkeel.core.events import Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.usage import Usage

__all__ = [
    "Answered",
    "Progress",
    "Recent",
    "RunBegan",
    "RunEnded",
    "RunQueued",
    "Signal",
    "Spent",
    "ToolEnded",
    "Troubled",
    "error_code_of",
]

MAX_RUNS = 10_000
"""Runs remembered at a time. Beyond it the oldest is forgotten: its end counts, without its durations."""
_RECENT = 4096
_SILENT = frozenset({ev.MessageStreamed, ev.ReasoningStreamed, ev.MessageReceived, ev.MessageSent})

_STATUS: dict[type[ev.Body], str] = {
    ev.RunCompleted: "completed",
    ev.RunFailed: "failed",
    ev.RunCancelled: "cancelled",
    ev.RunTimeout: "timeout",
    ev.RunInterrupted: "interrupted",
}


class RunQueued(msgspec.Struct, frozen=True, kw_only=True):
    """A run waits."""

    provider: str


class RunBegan(msgspec.Struct, frozen=True, kw_only=True):
    """An agent works on a run that waited so many seconds; None if its beginning was not seen."""

    provider: str
    waited: float | None


class RunEnded(msgspec.Struct, frozen=True, kw_only=True):
    """A run has its end. `took` counts from its agent's start; None if it had none, or nobody saw it."""

    provider: str
    model: str | None
    status: str
    error_code: str | None
    took: float | None
    began: bool
    queued: bool


class ToolEnded(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call ended: completed, failed, denied or interrupted."""

    provider: str
    tool_name: str
    kind: str
    outcome: str
    seconds: float | None


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and dollars that nothing counted before."""

    provider: str
    model: str | None
    usage: Usage
    cost: Decimal | None = None


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A permission request has its answer."""

    decision: str


class Troubled(msgspec.Struct, frozen=True, kw_only=True):
    """Something went wrong and the run goes on."""

    code: str


Signal: TypeAlias = RunQueued | RunBegan | RunEnded | ToolEnded | Spent | Answered | Troubled


class Recent:
    """The places of the last few thousand events: one that is stored again under its key comes twice."""

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[SessionId, int, datetime], None] = OrderedDict()

    def has_seen(self, event: Event) -> bool:
        """Whether it came before. From now on it did."""
        place = (event.session_id, event.sequence, event.at)  # A deleted session may begin again under its id.
        if place in self._places:
            return True
        self._places[place] = None
        if len(self._places) > _RECENT:
            self._places.popitem(last=False)
        return False


class _Run:
    def __init__(self, provider: str, model: str | None = None) -> None:
        self.provider = provider
        self.model = model
        self.queued_at: datetime | None = None
        self.began_at: datetime | None = None
        self.tools: dict[str, datetime] = {}
        self.usage = Usage()
        self.cost = Decimal(0)


class Progress:
    """Follows runs from event to event."""

    def __init__(self) -> None:
        self._runs: OrderedDict[RunId, _Run] = OrderedDict()
        self._recent = Recent()

    def signals(self, event: Event) -> Sequence[Signal]:
        """What this event adds to the counts."""
        if type(event.data) in _SILENT or self._recent.has_seen(event):
            return ()
        match event.data:
            case ev.PermissionResolved(decision=decision):
                return [Answered(decision=decision)]
            case ev.ErrorOccurred(error_code=code) | ev.AttemptFailed(error_code=code):
                return [Troubled(code=code)]
            case _:
                return () if event.run_id is None else self._of_run(self._run(event.run_id, event), event)

    def _of_run(self, run: _Run, event: Event) -> Sequence[Signal]:
        found: Sequence[Signal] = ()
        match event.data:
            case ev.RunQueued() as data:
                run.queued_at, run.model = event.at, data.model
                run.provider = data.provider or run.provider
                found = [RunQueued(provider=run.provider)]
            case ev.RunStarted() as data:
                run.provider, run.model = data.provider, data.model or run.model
                if run.began_at is None:  # A later attempt goes on with the same run.
                    run.began_at = event.at
                    found = [RunBegan(provider=run.provider, waited=_seconds(run.queued_at, event.at))]
            case ev.TokenUsageUpdated() as data:
                run.model = data.model or run.model
                found = [self._spent(run, data.usage, _dollars(data.cost_usd))]
            case ev.ToolCallStarted() as data:
                run.tools[data.tool_call_id] = event.at
            case ev.ToolCallCompleted() | ev.ToolCallFailed() as data:
                found = [_tool(run, data, event.at)]
            case data if type(data) in _STATUS:
                found = self._ended(run, event)
            case _:
                pass
        return found

    def _run(self, run_id: RunId, event: Event) -> _Run:
        run = self._runs.get(run_id)
        if run is None:
            run = self._runs[run_id] = _Run(event.provider or "unknown")
            if len(self._runs) > MAX_RUNS:
                self._runs.popitem(last=False)
        return run

    def _ended(self, run: _Run, event: Event) -> list[Signal]:
        assert event.run_id is not None
        data = event.data
        del self._runs[event.run_id]
        signals: list[Signal] = []
        usage = getattr(data, "usage", Usage()).minus(run.usage)
        cost = (_dollars(getattr(data, "cost_usd", None)) or Decimal(0)) - run.cost
        if usage.total_tokens or cost > 0:
            signals.append(self._spent(run, usage, cost if cost > 0 else None))
        ended = RunEnded(
            provider=run.provider,
            model=run.model,
            status=_STATUS[type(data)],
            error_code=error_code_of(data),
            took=_seconds(run.began_at, event.at),
            began=run.began_at is not None,
            queued=run.queued_at is not None,
        )
        return [*signals, ended]

    def _spent(self, run: _Run, usage: Usage, cost: Decimal | None) -> Spent:
        run.usage += usage
        run.cost += cost or 0
        return Spent(provider=run.provider, model=run.model, usage=usage, cost=cost)


def error_code_of(data: ev.Body) -> str | None:
    """Why a run did not end well, as one of the stable codes; None if it did, or was called off."""
    match data:
        case ev.RunFailed():
            return data.error_code
        case ev.RunTimeout():
            return "timeout"
        case ev.RunInterrupted():
            return "interrupted"
        case _:
            return None


def _tool(run: _Run, data: ev.ToolCallCompleted | ev.ToolCallFailed, at: datetime) -> ToolEnded:
    seconds = _seconds(run.tools.pop(data.tool_call_id, None), at)
    if data.duration_ms is not None:
        seconds = data.duration_ms / 1000
    return ToolEnded(
        provider=run.provider,
        tool_name=data.tool_name,
        kind=data.kind,
        outcome="completed" if isinstance(data, ev.ToolCallCompleted) else data.reason,
        seconds=seconds,
    )


def _seconds(start: datetime | None, end: datetime) -> float | None:
    """From start to end, never below 0: wall clocks jump."""
    return None if start is None else max(0.0, (end - start).total_seconds())


def _dollars(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)

"""Committed events as spans: a session, in it runs, in them model usage and tool calls.

Times are the events' own, so spans say what the log says. A span is begun by the event that begins it and ended by the
one that ends it; what is still open when its run ends, or when `close` is called, is ended and marked as incomplete.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from agentkeel.adapters.telemetry import conventions as names
from agentkeel.adapters.telemetry.progress import Recent, error_code_of
from agentkeel.core import events as ev
from agentkeel.core.events import TERMINAL_TYPES, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.usage import Usage

__all__ = ["Spans"]

MAX_OPEN = 10_000
"""Spans of sessions, and of runs, kept open at a time. Beyond it the oldest is ended as incomplete."""
MAX_CONTENT = 16_384
"""Characters of one text, where content is asked for."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SESSION_ENDS = {
    ev.SessionCompleted: "completed",
    ev.SessionFailed: "failed",
    ev.SessionCancelled: "cancelled",
}


class _Run:
    def __init__(self, span: Span, at: int) -> None:
        self.span = span
        self.agent = "unknown"
        self.model: str | None = None
        self.boundary = at
        """When the last thing ended that is known to have: a model's answer begins after it."""
        self.tools: dict[str, Span] = {}


class Spans:
    """Makes spans with a tracer.

    Args:
        content: Whether prompts, answers, arguments and results are put on spans, and errors' messages.
    """

    def __init__(self, tracer: Tracer, *, content: bool = False) -> None:
        self._tracer = tracer
        self._content = content
        self._sessions: OrderedDict[SessionId, Span] = OrderedDict()
        self._runs: OrderedDict[RunId, _Run] = OrderedDict()
        self._recent = Recent()
        self._latest = 0

    def observe(self, event: Event) -> None:
        """The event is part of a span, if it is of any."""
        if isinstance(event.data, ev.MessageStreamed | ev.ReasoningStreamed) or self._recent.has_seen(event):
            return
        at = _nanoseconds(event.at)
        self._latest = max(self._latest, at)
        if event.run_id is None:
            self._of_session(event, at)
        else:
            self._of_run(event, event.run_id, at)

    def close(self) -> None:
        """Every span is ended. What comes later begins new ones."""
        for run in self._runs.values():
            self._end_early(run, self._latest)
        for span in self._sessions.values():
            _incomplete(span, self._latest)
        self._runs.clear()
        self._sessions.clear()

    # -- sessions ---------------------------------------------------------------------------------------------------

    def _of_session(self, event: Event, at: int) -> None:
        data = event.data
        if isinstance(data, ev.SessionCreated) and event.session_id not in self._sessions:
            about = {names.CONVERSATION: event.session_id, names.AGENT_NAME: data.provider or data.agent_id}
            self._sessions[event.session_id] = self._span("agentkeel.session", None, at, about)
            if len(self._sessions) > MAX_OPEN:
                _incomplete(self._sessions.popitem(last=False)[1], at)
        elif (status := _SESSION_ENDS.get(type(data))) and (span := self._sessions.pop(event.session_id, None)):
            span.set_attribute(names.SESSION_STATUS, status)
            if isinstance(data, ev.SessionFailed):
                self._failed(span, data.error_code, data.error_message)
            span.end(at)

    # -- runs -------------------------------------------------------------------------------------------------------

    def _of_run(self, event: Event, run_id: RunId, at: int) -> None:
        run, data = self._runs.get(run_id), event.data
        if run is None:
            if isinstance(data, ev.RunQueued | ev.RunStarted):
                run = self._begin(event, run_id, at)
            else:
                return  # It ended, or its beginning was not seen: half a span tells nothing.
        match data:
            case ev.RunStarted():
                self._started(run, data, at)
            case ev.MessageSent() if self._content and data.role == "user":
                run.span.set_attribute(names.INPUT_MESSAGES, _message("user", data.content))
            case ev.TokenUsageUpdated():
                self._used(run, event, data, at)
            case ev.ToolCallStarted():
                self._tool_started(run, event, data, at)
            case ev.ToolCallCompleted() | ev.ToolCallFailed():
                self._tool_ended(run, event, data, at)
            case ev.RouteSelected():
                run.span.add_event("route_selected", {"agentkeel.provider": data.provider}, at)
            case ev.AttemptFailed() | ev.ErrorOccurred():
                run.span.add_event(event.type, {names.ERROR_TYPE: data.error_code}, at)
            case _ if event.type in TERMINAL_TYPES:
                self._ended(run, event, at)
            case _:
                pass

    def _begin(self, event: Event, run_id: RunId, at: int) -> _Run:
        data = event.data
        assert isinstance(data, ev.RunQueued | ev.RunStarted)
        agent = data.provider or event.provider or "unknown"
        about = {
            names.OPERATION: names.INVOKE_AGENT,
            names.CONVERSATION: event.session_id,
            names.RUN_ID: run_id,
            names.AGENT_NAME: agent,
            names.PROVIDER: names.provider_name(agent),
            names.REQUEST_MODEL: data.model,
        }
        span = self._span(f"{names.INVOKE_AGENT} {agent}", self._sessions.get(event.session_id), at, about)
        run = self._runs[run_id] = _Run(span, at)
        run.agent, run.model = agent, data.model
        if len(self._runs) > MAX_OPEN:
            self._end_early(self._runs.popitem(last=False)[1], at)
        return run

    def _started(self, run: _Run, data: ev.RunStarted, at: int) -> None:
        run.agent, run.model, run.boundary = data.provider, data.model or run.model, at
        _set(
            run.span,
            {
                names.AGENT_NAME: data.provider,
                names.PROVIDER: names.provider_name(data.provider),
                names.AGENT_VERSION: data.agent_version,
                names.RESPONSE_MODEL: data.model,
            },
        )
        run.span.update_name(f"{names.INVOKE_AGENT} {data.provider}")
        run.span.add_event("run_started", {"agentkeel.attempt": data.attempt}, at)

    def _used(self, run: _Run, event: Event, data: ev.TokenUsageUpdated, at: int) -> None:
        """A model answered. The log has when, and how much; when it was asked is estimated."""
        run.model = data.model or run.model
        about = {
            names.OPERATION: names.CHAT,
            names.CONVERSATION: event.session_id,
            names.PROVIDER: names.provider_name(run.agent),
            names.REQUEST_MODEL: run.model,
            names.ESTIMATED_START: True,
            **_tokens(data.usage),
        }
        name = f"{names.CHAT} {run.model}" if run.model else names.CHAT
        self._span(name, run.span, min(run.boundary, at), about, kind=SpanKind.CLIENT).end(at)
        run.boundary = at

    def _tool_started(self, run: _Run, event: Event, data: ev.ToolCallStarted, at: int) -> None:
        about = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.CONVERSATION: event.session_id,
            names.TOOL_NAME: data.tool_name,
            names.TOOL_CALL_ID: data.tool_call_id,
            names.TOOL_TYPE: "extension",
            names.TOOL_KIND: data.kind,
        }
        parent = run.tools.get(data.parent_tool_call_id or "", run.span)
        span = self._span(f"{names.EXECUTE_TOOL} {data.tool_name}", parent, at, about)
        if self._content and data.tool_input is not None:
            span.set_attribute(names.TOOL_ARGUMENTS, _text(data.tool_input))
        if (doubled := run.tools.pop(data.tool_call_id, None)) is not None:
            _incomplete(doubled, at)
        run.tools[data.tool_call_id] = span

    def _tool_ended(self, run: _Run, event: Event, data: ev.ToolCallCompleted | ev.ToolCallFailed, at: int) -> None:
        run.boundary = at
        if data.tool_call_id not in run.tools:
            start = at if data.duration_ms is None else at - data.duration_ms * 1_000_000
            begun = ev.ToolCallStarted(
                tool_call_id=data.tool_call_id, tool_name=data.tool_name, kind=data.kind, tool_input=data.tool_input
            )
            self._tool_started(run, event, begun, start)
        span = run.tools.pop(data.tool_call_id)
        outcome = "completed" if isinstance(data, ev.ToolCallCompleted) else data.reason
        _set(span, {names.TOOL_OUTCOME: outcome, names.EXIT_CODE: data.exit_code})
        if self._content and data.tool_output is not None:
            span.set_attribute(names.TOOL_RESULT, _text(data.tool_output))
        if outcome != "completed":
            self._failed(span, outcome)
        span.end(at)

    def _ended(self, run: _Run, event: Event, at: int) -> None:
        assert event.run_id is not None
        data = event.data
        del self._runs[event.run_id]
        self._end_tools(run, at)
        cost = getattr(data, "cost_usd", None)
        about = {
            names.RUN_STATUS: event.type.removeprefix("run_"),
            names.RUN_COST: None if cost is None else float(cost),
            names.RESPONSE_MODEL: run.model,
            **_tokens(getattr(data, "usage", Usage())),
        }
        _set(run.span, about)
        if isinstance(data, ev.RunCompleted):
            run.span.set_attribute(names.FINISH_REASONS, [data.stop_reason])
        text = getattr(data, "text", None)
        if self._content and text:
            run.span.set_attribute(names.OUTPUT_MESSAGES, _message("assistant", text))
        if (code := error_code_of(data)) is not None:
            self._failed(run.span, code, getattr(data, "error_message", None))
        run.span.end(at)

    # -- spans ------------------------------------------------------------------------------------------------------

    def _span(
        self,
        name: str,
        parent: Span | None,
        at: int,
        about: Mapping[str, Any],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        """A span under `parent` alone: whatever the program happens to be tracing just now is not its parent."""
        context = Context() if parent is None else set_span_in_context(parent, Context())
        attributes: dict[str, AttributeValue] = {key: value for key, value in about.items() if value is not None}
        return self._tracer.start_span(name, context, kind=kind, attributes=attributes, start_time=at)

    def _failed(self, span: Span, code: str, message: str | None = None) -> None:
        span.set_attribute(names.ERROR_TYPE, code)
        description = message[:MAX_CONTENT] if self._content and message else code
        span.set_status(Status(StatusCode.ERROR, description))

    def _end_tools(self, run: _Run, at: int) -> None:
        for span in reversed(run.tools.values()):
            _incomplete(span, at)
        run.tools.clear()

    def _end_early(self, run: _Run, at: int) -> None:
        self._end_tools(run, at)
        _incomplete(run.span, at)


def _incomplete(span: Span, at: int) -> None:
    span.set_attribute(names.INCOMPLETE, True)
    span.end(at)


def _set(span: Span, about: Mapping[str, Any]) -> None:
    for name, value in about.items():
        if value is not None:
            span.set_attribute(name, value)


def _tokens(usage: Usage) -> dict[str, int | None]:
    if not usage.total_tokens:
        return {}
    return {
        names.INPUT_TOKENS: usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
        names.OUTPUT_TOKENS: usage.output_tokens,
        names.CACHE_READ_TOKENS: usage.cache_read_tokens or None,
        names.CACHE_WRITE_TOKENS: usage.cache_write_tokens or None,
        names.REASONING_TOKENS: usage.reasoning_tokens or None,
    }


def _message(role: str, content: str) -> str:
    """One message as the conventions spell it in an attribute."""
    part = {"type": "text", "content": content[:MAX_CONTENT]}
    return msgspec.json.encode([{"role": role, "parts": [part]}]).decode()


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text[:MAX_CONTENT]


def _nanoseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000

"""Events to entries: pieces are put together, a call meets its result, a run is counted.

Only what the events to come may change is kept: the open runs, each with its open calls and the words that are being
said. A streamed piece is dropped where its whole follows, and told as partial where the run ended without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from agentkeel.core import events as ev
from agentkeel.core import figures
from agentkeel.core.codec import encode_body, kind_of
from agentkeel.core.document.entries import (
    Call,
    CallEnd,
    Entry,
    Fact,
    Note,
    Opening,
    RunBegan,
    RunEnded,
    Said,
    Thought,
    Totals,
)
from agentkeel.core.document.parts import Block, Diff, about, blocks_of, gave, given
from agentkeel.core.document.shorten import shortened
from agentkeel.core.events import Body, Event, Unknown
from agentkeel.core.ids import RunId
from agentkeel.core.usage import Usage

__all__ = ["Reading"]

MAX_SAID = 500_000
"""Characters of one message that a document shows."""
MAX_PENDING = 4_000_000
"""Characters of streamed pieces that wait for their whole, per run; more are told as they are."""
MAX_OPEN = 256
"""Open calls and questions per run that wait for their end; older ones are told as unfinished."""

_ENDS = (ev.RunCompleted, ev.RunFailed, ev.RunCancelled, ev.RunTimeout, ev.RunInterrupted)
_QUIET = (ev.TokenUsageUpdated, ev.TurnCompleted, ev.RouteSelected, ev.ContinuityPrepared)
_SILENT = (ev.SessionStarted, ev.SessionIdle, *_QUIET)


class _Words:
    """A text that comes in pieces."""

    def __init__(self, at: datetime) -> None:
        self.at = at
        self.pieces: list[str] = []
        self.size = 0

    def add(self, piece: str) -> None:
        self.pieces.append(piece)
        self.size += len(piece)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class _Run:
    """A run that has not ended."""

    def __init__(self, number: int, at: datetime, who: str) -> None:
        self.number = number
        self.at = at
        self.who = who
        self.usage = Usage()
        self.cost: Decimal | None = None
        self.spoke = False
        self.said: dict[str | None, _Words] = {}
        self.thought: tuple[str | None, _Words] | None = None
        self.calls: dict[str, tuple[ev.ToolCallStarted, datetime]] = {}
        self.asked: dict[str, ev.PermissionRequested] = {}


class Reading:
    """Takes the events of one session in order, and gives the entries they come to."""

    def __init__(self) -> None:
        self._runs: dict[RunId, _Run] = {}
        self._count = 0
        self._ends: Counter[str] = Counter()
        self._calls = 0
        self._messages = 0
        self._events = 0
        self._usage = Usage()
        self._cost: Decimal | None = None
        self._first: datetime | None = None
        self._last: datetime | None = None

    def take(self, event: Event) -> Iterator[Entry]:
        """The entries that are complete now."""
        self._events += 1
        self._first = self._first or event.at
        self._last = event.at
        data = event.data
        run = self._run_of(event)
        if isinstance(data, ev.RunQueued):
            yield self._began(event, data)
            return
        if run is None:
            yield from self._of_session(event, data)
            return
        if not isinstance(data, (ev.ReasoningStreamed, *_QUIET)):
            yield from _thoughts(run)
        yield from self._of_run(run, event, data)

    def end(self) -> Iterator[Entry]:
        """What was still going on where the log ends, and the sums."""
        for run in list(self._runs.values()):
            yield from _thoughts(run)
            yield from self._left(run)
            self._count_run(run, "not ended", run.usage, None)
        self._runs.clear()
        yield Totals(facts=tuple(self._totals()))

    def _run_of(self, event: Event) -> _Run | None:
        if event.run_id is None or isinstance(event.data, ev.RunQueued):
            return None
        run = self._runs.get(event.run_id)
        if run is None:  # Its beginning was pruned, or cannot be read.
            self._count += 1
            run = self._runs[event.run_id] = _Run(self._count, event.at, event.provider or "agent")
        return run

    # -- a session's own events -------------------------------------------------------------------------------------

    def _of_session(self, event: Event, data: Body) -> Iterator[Entry]:
        match data:
            case ev.SessionCreated():
                yield _opening(event, data)
            case ev.MessageSent():
                self._messages += 1
                yield _said(event, data.role, data.role, data.content, None)
            case ev.MessageReceived():
                self._messages += 1
                yield _said(event, data.role, event.provider or data.role, data.content, None, partial=data.partial)
            case ev.SessionSummarized():
                yield Note(
                    tone="plain",
                    text=f"Summary by {data.made_by}",
                    at=event.at,
                    run=None,
                    parts=tuple(blocks_of("", data.content)),
                )
            case ev.SessionFailed():
                yield Note(
                    tone="error",
                    text=f"The session failed: {data.error_message} [{data.error_code}]",
                    at=event.at,
                    run=None,
                )
            case _ if not isinstance(data, _SILENT):
                yield _other(event, None)
            case _:
                pass

    # -- a run's events ---------------------------------------------------------------------------------------------

    def _began(self, event: Event, data: ev.RunQueued) -> RunBegan:
        self._count += 1
        if event.run_id is not None:
            self._runs[event.run_id] = _Run(self._count, event.at, data.provider or event.provider or "agent")
        facts = _facts(provider=data.provider, model=data.model, run=event.run_id)
        return RunBegan(number=self._count, at=event.at, facts=facts)

    def _of_run(self, run: _Run, event: Event, data: Body) -> Iterator[Entry]:
        match data:
            case ev.MessageSent():
                self._messages += 1
                yield _said(event, data.role, data.role, data.content, run.number)
            case ev.MessageReceived():
                yield self._whole(run, event, data)
            case ev.MessageStreamed():
                yield from _piece(run, event, data)
            case ev.ReasoningStreamed():
                yield from _thinking(run, event, data)
            case ev.ToolCallStarted():
                self._calls += 1
                run.calls[data.tool_call_id] = (data, event.at)
                if len(run.calls) > MAX_OPEN:
                    yield _unfinished(run, next(iter(run.calls)))
            case ev.ToolCallCompleted() | ev.ToolCallFailed():
                yield _call(run, event, data)
            case ev.TokenUsageUpdated():
                run.usage += data.usage
                run.cost = figures.added(run.cost, data.cost_usd)
            case ev.RunStarted():
                run.who = data.provider
                yield _started(run, event, data)
            case ev.RunCompleted() | ev.RunFailed() | ev.RunCancelled() | ev.RunTimeout() | ev.RunInterrupted():
                yield from self._ended(run, event, data)
            case _ if not isinstance(data, _SILENT):
                yield from _beside(run, event, data)
            case _:
                pass

    def _whole(self, run: _Run, event: Event, data: ev.MessageReceived) -> Said:
        """A whole message takes the place of the pieces it came in."""
        if data.parent_tool_call_id is None:
            run.said.pop(data.message_id, None)
            run.said.pop(None, None)
            if data.message_id is None:
                run.said.clear()
            run.spoke = True
        self._messages += 1
        who = run.who if data.role == "assistant" else data.role
        nested = data.parent_tool_call_id is not None
        return _said(event, data.role, who, data.content, run.number, partial=data.partial, nested=nested)

    def _left(self, run: _Run) -> Iterator[Entry]:
        """Words and calls of a run that nothing more is heard of."""
        self._messages += len(run.said)
        left: list[Said | Call] = [_partial(run, said) for said in run.said.values()]
        run.said.clear()
        left += [_unfinished(run, call) for call in list(run.calls)]
        yield from sorted(left, key=lambda entry: entry.at)

    def _ended(self, run: _Run, event: Event, data: Any) -> Iterator[Entry]:
        spoke = run.spoke or bool(run.said)
        yield from self._left(run)
        if not spoke and data.text:
            self._messages += 1
            yield _said(event, "assistant", run.who, data.text, run.number)
        usage = data.usage if data.usage.total_tokens else run.usage
        cost = data.cost_usd if data.cost_usd is not None else None if run.cost is None else str(run.cost)
        status = type(data).type.removeprefix("run_")
        self._count_run(run, status, usage, cost)
        facts = (figures.tokens(usage), figures.money(cost), figures.duration((event.at - run.at).total_seconds()))
        yield RunEnded(
            number=run.number,
            status=status,
            at=event.at,
            facts=tuple(fact for fact in facts if fact),
            error=_why(data),
            parts=_stderr(data),
        )
        assert event.run_id is not None
        self._runs.pop(event.run_id, None)

    def _count_run(self, run: _Run, status: str, usage: Usage, cost: str | None) -> None:
        self._ends[status] += 1
        self._usage += usage
        self._cost = figures.added(self._cost, cost) if cost is not None or run.cost is None else self._sum(run.cost)

    def _sum(self, cost: Decimal) -> Decimal:
        return cost + (self._cost or 0)

    def _totals(self) -> Iterator[Fact]:
        runs = ", ".join(f"{count} {status}" for status, count in self._ends.items())
        if self._count:
            yield "runs", f"{self._count:,} ({runs})"
        yield "messages", f"{self._messages:,}"
        if self._calls:
            yield "tool calls", f"{self._calls:,}"
        if used := figures.tokens(self._usage):
            yield "used", used
        if self._usage.cache_read_tokens or self._usage.cache_write_tokens:
            yield "cache", f"{self._usage.cache_read_tokens:,} read, {self._usage.cache_write_tokens:,} written"
        if self._cost is not None:
            yield "cost", figures.money(self._cost)
        if self._first is not None and self._last is not None:
            yield "from", figures.day(self._first)
            yield "to", figures.day(self._last)
        yield "events", f"{self._events:,}"


def _opening(event: Event, data: ev.SessionCreated) -> Opening:
    return Opening(
        title=data.agent_id,
        facts=_facts(
            session=event.session_id,
            provider=data.provider,
            workspace=data.workspace,
            created=figures.day(event.at),
            parent=data.parent_session_id,
            tags=", ".join(data.tags) or None,
        ),
        system_prompt=data.system_prompt,
    )


def _facts(**facts: str | None) -> tuple[Fact, ...]:
    return tuple((name, value) for name, value in facts.items() if value)


def _said(
    event: Event, role: str, who: str, text: str, run: int | None, *, partial: bool = False, nested: bool = False
) -> Said:
    text = shortened(text, MAX_SAID)
    return Said(role=role, who=who, text=text, at=event.at, run=run, partial=partial, nested=nested)


def _piece(run: _Run, event: Event, data: ev.MessageStreamed) -> Iterator[Entry]:
    if data.message_id not in run.said:
        run.said[data.message_id] = _Words(event.at)
    run.said[data.message_id].add(data.delta)
    if sum(each.size for each in run.said.values()) > MAX_PENDING or len(run.said) > MAX_OPEN:
        yield _partial(run, run.said.pop(next(iter(run.said))))


def _partial(run: _Run, said: _Words) -> Said:
    return Said(
        role="assistant", who=run.who, text=shortened(said.text, MAX_SAID), at=said.at, run=run.number, partial=True
    )


def _thinking(run: _Run, event: Event, data: ev.ReasoningStreamed) -> Iterator[Entry]:
    if run.thought is not None and (run.thought[0] != data.message_id or run.thought[1].size > MAX_PENDING):
        yield from _thoughts(run)
    if run.thought is None:
        run.thought = (data.message_id, _Words(event.at))
    run.thought[1].add(data.delta)


def _thoughts(run: _Run) -> Iterator[Entry]:
    if run.thought is None:
        return
    thought = run.thought[1]
    run.thought = None
    if text := thought.text.strip():
        yield Thought(text=shortened(text, MAX_SAID), at=thought.at, run=run.number)


def _call(run: _Run, event: Event, data: ev.ToolCallCompleted | ev.ToolCallFailed) -> Call:
    began, at = run.calls.pop(data.tool_call_id, (None, event.at))
    tool_input = began.tool_input if began is not None and began.tool_input is not None else data.tool_input
    end: CallEnd = data.reason if isinstance(data, ev.ToolCallFailed) else "done"
    taken, output = given(tool_input), gave(data.tool_output)
    if all(isinstance(part, Diff) for part in taken) and any(isinstance(part, Diff) for part in output):
        taken = []  # The result tells the same change, with its lines around it.
    facts = [f"exit {data.exit_code}"] if data.exit_code else []
    took = data.duration_ms / 1000 if data.duration_ms is not None else (event.at - at).total_seconds()
    if took >= 0.05:
        facts.append(figures.duration(took))
    if data.truncated and data.output_bytes is not None:
        facts.append(f"output cut, it had {figures.bytes_of(data.output_bytes)}")
    return Call(
        name=data.tool_name,
        kind=data.kind,
        about=about(tool_input),
        end=end,
        at=at,
        run=run.number,
        facts=tuple(facts),
        parts=(*taken, *output),
        nested=began is not None and began.parent_tool_call_id is not None,
    )


def _unfinished(run: _Run, call: str) -> Call:
    data, at = run.calls.pop(call)
    return Call(
        name=data.tool_name,
        kind=data.kind,
        about=about(data.tool_input),
        end="unfinished",
        at=at,
        run=run.number,
        facts=(),
        parts=tuple(given(data.tool_input)),
        nested=data.parent_tool_call_id is not None,
    )


def _started(run: _Run, event: Event, data: ev.RunStarted) -> Note:
    who = " ".join(part for part in (data.provider, data.agent_version) if part)
    again = f", attempt {data.attempt}" if data.attempt > 1 else ""
    model = f" with {data.model}" if data.model else ""
    return Note(tone="plain", text=f"{who}{model} started{again}", at=event.at, run=run.number)


def _beside(run: _Run, event: Event, data: Body) -> Iterator[Entry]:
    """What happened beside the conversation, each kind in its figures."""
    tone: Any = "plain"
    parts: tuple[Any, ...] = ()
    match data:
        case ev.PermissionRequested():
            run.asked[data.request_id] = data
            if len(run.asked) > MAX_OPEN:
                run.asked.pop(next(iter(run.asked)))
            return
        case ev.PermissionResolved():
            asked = run.asked.pop(data.request_id, None)
            what = f": {asked.tool_name} {about(asked.tool_input)}".rstrip() if asked is not None else ""
            why = f": {data.message}" if data.message else ""
            done = {"allow": "Allowed", "deny": "Denied", "withdrawn": "Withdrawn"}[data.decision]
            text = f"{done} by {data.by}{what}{why}"
            tone = "warning" if data.decision == "deny" else "plain"
        case ev.ErrorOccurred():
            more = "; it goes on" if data.will_retry else ""
            text, tone, parts = f"{data.error_message} [{data.error_code}]{more}", "error", _stderr(data)
        case ev.AttemptFailed():
            text = f"Attempt {data.attempt} with {data.provider} failed: {data.error_message} [{data.error_code}]"
            tone = "error"
        case ev.PolicyViolated():
            text, tone = f"Policy {data.policy}: {data.kind}, so {data.action}", "warning"
            parts = tuple(given(dict(data.details)))
        case ev.WorkspaceDiffComputed():
            text = f"The run changed {data.files_changed:,} files, +{data.insertions:,} -{data.deletions:,}"
            parts = tuple(blocks_of("", data.patch or "\n".join(data.changed_paths[:500])))
        case ev.WorkspaceRestored():
            text = "The workspace was restored" + (f": {data.reason}" if data.reason else "")
        case ev.ArtifactStored():
            text = f"Kept {data.name or 'an artifact'} as {data.ref}"
        case _:
            yield _other(event, run.number)
            return
    yield Note(tone=tone, text=text, at=event.at, run=run.number, parts=parts)


def _other(event: Event, run: int | None) -> Note:
    """A kind that has no words of its own: its name, and its body."""
    kind = kind_of(event.data)
    body = encode_body(event.data).decode("utf-8", "backslashreplace")
    parts = (Block("", shortened(body, 4_000)),) if body not in {"{}", ""} else ()
    known = not isinstance(event.data, Unknown)
    return Note(tone="plain", text=kind.replace("_", " ") if known else kind, at=event.at, run=run, parts=parts)


def _why(data: Any) -> str | None:
    match data:
        case ev.RunFailed():
            return f"{data.error_message} [{data.error_code}]"
        case ev.RunCancelled():
            return data.reason
        case ev.RunTimeout():
            return f"The {data.deadline} deadline of {data.seconds:g} s passed."
        case ev.RunInterrupted():
            return "It never started." if data.outcome == "not_started" else "How its last step ended is unknown."
        case _:
            return None


def _stderr(data: Any) -> tuple[Block, ...]:
    failure = getattr(data, "provider_error", None)
    return (Block("stderr", failure.stderr),) if failure is not None and failure.stderr else ()

"""The handles of one run: `Run` to wait for it or call it off, `RunStream` to watch it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from types import TracebackType

import anyio

from agentkeel.context import Context
from agentkeel.core import events as ev
from agentkeel.core.events import TERMINAL_TYPES, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.result import RunResult, ToolCall
from agentkeel.core.run import RunState, failure_of, result_of
from agentkeel.engine.job import Stop
from agentkeel.engine.subscription import POLL_SECONDS, follow, pages
from agentkeel.errors import Error, RunTerminal, StateError
from agentkeel.pages import Pages
from agentkeel.ports.store import EventFilter

__all__ = ["Run", "RunStream"]

_TOOLS = frozenset({ev.ToolCallStarted.type, ev.ToolCallCompleted.type, ev.ToolCallFailed.type})


class Run:
    """A run that was submitted. It belongs to its manager: who lets go of this handle stops nothing."""

    def __init__(self, context: Context, *, session_id: SessionId, run_id: RunId) -> None:
        self._context = context
        self.session_id = session_id
        self.id = run_id

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    @property
    def run_id(self) -> RunId:
        """The same as `id`."""
        return self.id

    async def info(self) -> RunState:
        """The run as its events tell it by now."""
        return await self._context.log.store.run(self.id)

    async def result(self) -> RunResult:
        """The run has ended well; this is what it gave.

        Raises:
            Error: It ended otherwise; `error.result` has what it said and used until then.
        """
        state = await self._ended()
        result = result_of(state, await self._tool_calls(state))
        error = failure_of(state)
        if error is not None:
            error.result = result
            raise error
        return result

    async def cancel(self, reason: str | None = None) -> None:
        """The run was told to end: an interrupt, a grace, then the agent and all it started are killed. Idempotent.

        A run that waits for a slot ends at once. One that has ended keeps its end.

        Raises:
            StateError: Another process has it, so it cannot be told from here.
        """
        queue = self._context.queue
        try:
            await queue.stop(self.id, Stop(kind="cancelled", reason=reason))
        except RunTerminal:
            if queue.job(self.id) is None and not (await self.info()).terminal:
                raise StateError(
                    f"Run {self.id} is not a run of this process, so it cannot be cancelled here. It goes on.",
                    details={"run_id": self.id},
                ) from None

    def events(self, *, after: int = 0, types: Collection[str] | None = None) -> Pages[Event]:
        """The run's events that are in the log now."""
        where = EventFilter(run_id=self.id, types=types)
        return Pages(lambda: pages(self._context.log, self.session_id, after=after, where=where))

    async def subscribe(self, *, after: int = 0) -> AsyncGenerator[Event]:
        """The run's events behind `after`, then those to come, up to its terminal event.

        Ends without it when the log cannot take that event; `result` then says why.
        """
        context = self._context
        job = context.queue.job(self.id)

        def untold() -> bool:
            return job is not None and job.done.is_set() and job.error is not None

        state = await self.info()
        cursor = max(after, state.first_sequence - 1)
        where = EventFilter(run_id=self.id)
        while not (state.terminal and state.last_sequence <= cursor):
            ticket = context.log.notifier.ticket(self.session_id)
            async with aclosing(follow(context.log, self.session_id, after=cursor, where=where, over=untold)) as events:
                async for event in events:
                    cursor = event.sequence
                    yield event
                    if event.type in TERMINAL_TYPES:
                        return
            if untold():
                return
            state = await self.info()
            if not state.terminal:
                await ticket.wait(POLL_SECONDS)  # Its session has ended before it.

    async def _ended(self) -> RunState:
        job = self._context.queue.job(self.id)
        if job is not None:
            await job.done.wait()
            if job.error is not None:
                job.error.result = await self._so_far()
                raise job.error
        state = await self.info()
        while not state.terminal:
            async with aclosing(self.subscribe(after=state.last_sequence)) as events:
                async for _event in events:
                    pass
            state = await self.info()
        return state

    async def _so_far(self) -> RunResult | None:
        """What the log has of a run whose end it could not take; None where it cannot even be read."""
        try:
            return result_of(await self.info())
        except Error:
            return None

    async def _tool_calls(self, state: RunState) -> tuple[ToolCall, ...]:
        if not state.tool_calls:
            return ()
        calls: dict[str, ToolCall] = {}
        async for event in self.events(after=state.first_sequence, types=_TOOLS):
            data = event.data
            match data:
                case ev.ToolCallStarted():
                    calls[data.tool_call_id] = ToolCall(
                        id=data.tool_call_id, name=data.tool_name, kind=data.kind, input=data.tool_input
                    )
                case ev.ToolCallCompleted() | ev.ToolCallFailed():
                    began = calls.get(data.tool_call_id)
                    calls[data.tool_call_id] = ToolCall(
                        id=data.tool_call_id,
                        name=data.tool_name,
                        kind=data.kind,
                        input=began.input if began is not None else data.tool_input,
                        output=data.tool_output,
                        exit_code=data.exit_code,
                        status="completed" if isinstance(data, ev.ToolCallCompleted) else data.reason,
                    )
                case _:
                    pass
        return tuple(calls.values())


class RunStream:
    """A run to watch: `async for event in stream`, then `await stream.result()`.

    Leaving the stream stops the watching, not the run. Iterating again goes on where it was left.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._cursor = 0
        self._over = False
        self._events: AsyncGenerator[Event] | None = None

    @property
    def run_id(self) -> RunId:
        """The run's id."""
        return self.run.id

    @property
    def session_id(self) -> SessionId:
        """Its session's id."""
        return self.run.session_id

    async def __aenter__(self) -> RunStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if self._events is not None:
            await self._events.aclose()

    def __aiter__(self) -> RunStream:
        return self

    async def __anext__(self) -> Event:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def next(self, timeout: float | None = None) -> Event | None:  # noqa: ASYNC109 - the API's own word
        """The next event; None after the run's last one, and after the stream was left.

        Raises:
            TimeoutError: Nothing came in `timeout` seconds. The run goes on; ask again.
        """
        if self._over:
            return None
        if self._events is None:
            self._events = self.run.subscribe(after=self._cursor)
        try:
            with anyio.fail_after(timeout):
                event = await anext(self._events, None)
        except BaseException:
            self._events = None  # It ended with that; the next one goes on behind the last event.
            raise
        if event is None:
            self._over = True
        else:
            self._cursor = event.sequence
        return event

    async def result(self) -> RunResult:
        """What the run gave; see `Run.result`."""
        return await self.run.result()

    async def cancel(self, reason: str | None = None) -> None:
        """The run was told to end; see `Run.cancel`."""
        await self.run.cancel(reason)

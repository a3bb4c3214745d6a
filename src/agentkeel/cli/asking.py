"""A person at the terminal answers when an agent asks before it uses a tool.

The question takes its place among the events that are shown: it waits until the reader has seen the request in the log,
and nothing else is drawn until it is answered, withdrawn, or its time is over.
"""

from __future__ import annotations

import os
import sys
import termios
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import anyio.to_thread

from agentkeel.cli.escape import escape_json
from agentkeel.cli.screen import Screen
from agentkeel.core.events import Event, PermissionRequested
from agentkeel.ports.provider import Decision

__all__ = ["Desk", "Question"]

_MAX_LINE = 65_536


class Question:
    """A request that waits for a person."""

    def __init__(self, request: PermissionRequested) -> None:
        self.request = request
        self.decision = Decision(allow=False, message=f"{request.tool_name} was not allowed.")
        self.over = anyio.Event()


class Desk:
    """Where requests are laid and answered. `lay` takes a question to whoever shows events, in their order."""

    def __init__(self, screen: Screen, lay: Callable[[Question], Awaitable[None]]) -> None:
        self._screen = screen
        self._lay = lay
        self._seen: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)

    def staffed(self) -> bool:
        """Whether a person can be asked: the ways to them and back are terminals."""
        return self._screen.animated and sys.stdin is not None and sys.stdin.isatty()

    def saw(self, event: Event) -> None:
        """The reader has this event."""
        if isinstance(event.data, PermissionRequested):
            self._seen[event.data.request_id].set()

    async def approve(self, request: PermissionRequested) -> Decision:
        """What the person says."""
        question = Question(request)
        try:
            await self._seen[request.request_id].wait()
            await self._lay(question)
            await question.over.wait()
        finally:
            question.over.set()
        return question.decision

    async def answer(self, question: Question, limiter: anyio.CapacityLimiter) -> None:
        """The question was shown and has its answer, unless it was withdrawn first."""
        if question.over.is_set():
            return
        await anyio.to_thread.run_sync(partial(self._show, question.request), limiter=limiter)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_after, question.over, tasks.cancel_scope)
            words = await _line()
            if words.strip().lower() in {"y", "yes"}:
                question.decision = Decision(allow=True)
            else:
                question.decision = Decision(
                    allow=False, message=f"{question.request.tool_name} was refused by the person at the terminal."
                )
            question.over.set()

    def _show(self, request: PermissionRequested) -> None:
        screen = self._screen
        screen.line(("? ", "bold yellow"), (request.tool_name, "bold"), " asks to run with exactly:")
        screen.line(f"  {escape_json(request.tool_input)}")
        if request.reason:
            screen.line((f"  reason: {request.reason}", "dim"))
        # What was typed before the question stood there is no answer to it.
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        screen.ask("  Allow it? [y/N] ")


async def _cancel_after(over: anyio.Event, scope: anyio.CancelScope) -> None:
    await over.wait()
    scope.cancel()


async def _line() -> str:
    """The next line a person types; empty at the end of input."""
    descriptor = sys.stdin.fileno()
    await anyio.wait_readable(descriptor)
    return os.read(descriptor, _MAX_LINE).decode("utf-8", "replace")

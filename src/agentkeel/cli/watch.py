"""From a run to a screen, event by event, while questions are asked in between.

One task reads, another shows what has come so far in one go, in a thread: a slow or stopped terminal holds up neither
the agent nor its deadlines. Nobody at the other end of the pipe any more means that the run is called off.
"""

from __future__ import annotations

from functools import partial

import anyio
import anyio.abc
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from agentkeel.cli.asking import Desk, Question
from agentkeel.cli.render import Show
from agentkeel.cli.screen import OutputClosed, Screen
from agentkeel.cli.signals import Interrupts
from agentkeel.core.events import Event
from agentkeel.run import Run

__all__ = ["Watch"]

_BUFFER = 1000
_TICK_SECONDS = 0.1

Item = Event | Question


class Watch:
    """The showing of one run."""

    def __init__(self, screen: Screen, show: Show, asking: Screen, interrupts: Interrupts) -> None:
        self._screen = screen
        self._show = show
        self._interrupts = interrupts
        self._limiter = anyio.CapacityLimiter(1)
        self._send: MemoryObjectSendStream[Item]
        self._receive: MemoryObjectReceiveStream[Item]
        self._send, self._receive = anyio.create_memory_object_stream[Item](_BUFFER)
        self.desk = Desk(asking, self._send.send)
        self.closed = False

    async def follow(self, run: Run) -> None:
        """All of the run was shown, up to its end."""
        async with anyio.create_task_group() as tasks, self._receive:
            tasks.start_soon(self._read, run)
            if self._screen.animated:
                tasks.start_soon(self._tick)
            async for item in self._receive:
                await self._take(item)
            tasks.cancel_scope.cancel()

    async def _read(self, run: Run) -> None:
        async with self._send:
            async for event in run.subscribe():
                await self._send.send(event)
                self.desk.saw(event)

    async def _take(self, item: Item) -> None:
        events: list[Event] = []
        following: Item | None = item
        while isinstance(following, Event):
            events.append(following)
            try:
                following = self._receive.receive_nowait()
            except (anyio.WouldBlock, anyio.EndOfStream):
                following = None
        try:
            if events and not self.closed:
                await anyio.to_thread.run_sync(partial(self._draw, events), limiter=self._limiter)
            if following is not None and not self.closed:
                await self.desk.answer(following, self._limiter)
        except OutputClosed as closed:
            await self._unread(closed)

    def _draw(self, events: list[Event]) -> None:
        self._show.events(events)
        self._screen.tick()

    async def _tick(self) -> None:
        while not self.closed:
            await anyio.sleep(_TICK_SECONDS)
            try:
                await anyio.to_thread.run_sync(self._screen.tick, limiter=self._limiter)
            except OutputClosed as closed:
                await self._unread(closed)

    async def _unread(self, closed: OutputClosed) -> None:
        self.closed = True
        await self._interrupts.stop(f"its output could not be written any more ({closed})")

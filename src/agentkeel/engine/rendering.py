"""A stream of events shown in several places at once, until it ends. For what must survive a crash, see `outbox`."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

import anyio
import msgspec

from agentkeel.core.events import Event
from agentkeel.core.rendering.renderer import Renderer
from agentkeel.ports.sink import Sink

__all__ = ["Rendered", "SinkTrouble", "render_stream"]

CLOSING_SECONDS = 5.0
"""How long a caller who is cancelled waits for its sinks to take what they have."""


class SinkTrouble(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong with one sink: how often, and the first error."""

    sink: Sink
    failures: int
    first: Exception


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a stream. `troubles` names the sinks that do not have all of it."""

    events: int
    troubles: Sequence[SinkTrouble] = ()


async def render_stream(
    events: AsyncIterable[Event] | Iterable[Event], renderer: Renderer, sinks: Sequence[Sink]
) -> Rendered:
    """Every sink was given every event and its text, then the closing words, and is flushed and closed.

    A sink that fails goes on with the next event and takes nothing from the others; its troubles are in what is
    returned. Sinks are flushed and closed also where the events end in an exception, or the caller is cancelled.

    Raises:
        Exception: What a sink's `open` raised, before the first event was taken; the sinks that were open are closed.
            And whatever `events` or the renderer raise.
    """
    audience = _Audience(sinks)
    await audience.open()
    count = 0
    try:
        async for event in _each(events):
            await audience.give(event, renderer.render(event))
            count += 1
        if closing := renderer.finish():
            await audience.give(None, closing)
        await audience.close()
    except BaseException:
        with anyio.move_on_after(CLOSING_SECONDS, shield=True):
            await audience.close()
        raise
    return Rendered(events=count, troubles=audience.troubles)


class _Audience:
    """Sinks side by side, none of which can hurt another."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self._troubles: dict[int, SinkTrouble] = {}

    @property
    def troubles(self) -> Sequence[SinkTrouble]:
        return tuple(self._troubles[number] for number in sorted(self._troubles))

    async def open(self) -> None:
        """All are open, or none is and the error of the first that could not is raised."""
        opened: list[Sink] = []
        try:
            for sink in self._sinks:
                opened.append(sink)
                await sink.open()
        except BaseException:
            with anyio.CancelScope(shield=True):
                for number, sink in enumerate(opened):
                    await self._isolated(number, sink.close)
            raise

    async def give(self, event: Event | None, text: str) -> None:
        """Each sink had its chance."""
        for number, sink in enumerate(self._sinks):
            await self._isolated(number, sink.write, event, text)

    async def close(self) -> None:
        """Each sink has been flushed and closed."""
        for number, sink in enumerate(self._sinks):
            await self._isolated(number, sink.flush)
            await self._isolated(number, sink.close)

    async def _isolated(self, number: int, act: Callable[..., Awaitable[None]], *given: Any) -> None:
        try:
            await act(*given)
        except Exception as error:  # noqa: BLE001 - another's code; becomes a value of the result
            known = self._troubles.get(number)
            self._troubles[number] = SinkTrouble(
                sink=self._sinks[number],
                failures=1 if known is None else known.failures + 1,
                first=error if known is None else known.first,
            )


async def _each(events: AsyncIterable[Event] | Iterable[Event]) -> AsyncIterator[Event]:
    if isinstance(events, AsyncIterable):
        async for event in events:
            yield event
    else:
        for event in events:
            yield event

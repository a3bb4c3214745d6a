"""Events to a function."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from agentkeel.core.events import Event

__all__ = ["Callback"]


class Callback:
    """Calls `fn(event, text)`, and awaits what it gives if that can be awaited. `event` is None for closing words.

    An exception from it means that the event was not taken: an outbox brings it again.
    """

    def __init__(self, fn: Callable[[Event | None, str], Awaitable[None] | None]) -> None:
        self._fn = fn

    async def open(self) -> None:
        """Nothing to open."""

    async def write(self, event: Event | None, text: str) -> None:
        """The function has returned."""
        given = self._fn(event, text)
        if inspect.isawaitable(given):
            await given

    async def flush(self) -> None:
        """Nothing is held back."""

    async def close(self) -> None:
        """Nothing to close."""

"""Hints within one process."""

from __future__ import annotations

import anyio

from agentkeel.core.ids import SessionId

__all__ = ["LocalNotifier", "LocalTicket"]


class LocalTicket:
    """One wait. Tickets taken between two notifications share one event, so a thousand waiters cost one wake-up."""

    def __init__(self, event: anyio.Event) -> None:
        self._event = event

    async def wait(self, timeout: float) -> bool:  # noqa: ASYNC109 - the port's word
        """Return True on a hint since the ticket was taken, False after `timeout` seconds without one."""
        with anyio.move_on_after(timeout):
            await self._event.wait()
        return self._event.is_set()


class LocalNotifier:
    """A notifier for readers in the process that writes."""

    def __init__(self) -> None:
        self._waiting: dict[SessionId, anyio.Event] = {}

    def ticket(self, session_id: SessionId) -> LocalTicket:
        """A ticket; it is kept only until the next notification of its session."""
        event = self._waiting.get(session_id)
        if event is None:
            event = self._waiting[session_id] = anyio.Event()
        return LocalTicket(event)

    def notify(self, session_id: SessionId) -> None:
        """Everyone who holds a ticket of the session is woken."""
        event = self._waiting.pop(session_id, None)
        if event is not None:
            event.set()

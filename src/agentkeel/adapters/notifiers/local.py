"""Hints within one process."""

from __future__ import annotations

from weakref import WeakValueDictionary

import anyio

from agentkeel.core.ids import SessionId

__all__ = ["LocalNotifier", "LocalTicket"]


class LocalTicket:
    """The wait for a session's next notification. All who come between two share it: one wake-up for a thousand."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    async def wait(self, timeout: float) -> bool:  # noqa: ASYNC109 - the port's word
        """Return True on a hint since the ticket was taken, False after `timeout` seconds without one."""
        with anyio.move_on_after(timeout):
            await self._event.wait()
        return self._event.is_set()

    def wake(self) -> None:
        """Whoever waits goes on."""
        self._event.set()


class LocalNotifier:
    """A notifier for readers in the process that writes. Keeps nothing for a session that nobody waits for."""

    def __init__(self) -> None:
        self._tickets: WeakValueDictionary[SessionId, LocalTicket] = WeakValueDictionary()

    def ticket(self, session_id: SessionId) -> LocalTicket:
        """A ticket, which lives as long as somebody holds it, and is good until the session's next notification."""
        ticket = self._tickets.get(session_id)
        if ticket is None:
            ticket = self._tickets[session_id] = LocalTicket()
        return ticket

    def notify(self, session_id: SessionId) -> None:
        """Everyone who holds a ticket of the session is woken."""
        ticket = self._tickets.pop(session_id, None)
        if ticket is not None:
            ticket.wake()

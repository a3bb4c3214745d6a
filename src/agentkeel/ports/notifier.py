"""Wake-up hints. Truth is in the log; a hint may be lost or doubled at no cost but latency."""

from __future__ import annotations

from typing import Protocol

from agentkeel.core.ids import SessionId

__all__ = ["Notifier", "Ticket"]


class Ticket(Protocol):
    """The right to be woken by what happens after the ticket was taken."""

    async def wait(self, timeout: float) -> bool:  # noqa: ASYNC109 - a bound, not an error
        """Return True on a hint since the ticket was taken, False after `timeout` seconds without one."""
        ...


class Notifier(Protocol):
    """Says "look again" to whoever waits for a session."""

    def ticket(self, session_id: SessionId) -> Ticket:
        """A ticket. Take it BEFORE reading: then no event slips between the read and the wait."""
        ...

    def notify(self, session_id: SessionId) -> None:
        """Everyone who holds a ticket of the session is woken. Costs nothing when nobody waits."""
        ...

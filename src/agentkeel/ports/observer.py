"""Whoever is told of committed events and has no say: telemetry, counters, a program's own bookkeeping."""

from __future__ import annotations

from typing import Protocol

from agentkeel.core.events import Event

__all__ = ["Observer"]


class Observer(Protocol):
    """Is told of every event behind its commit, in the process that committed it.

    Events of one session come in their order, nearly always; one may come twice, after a retry. What must not be
    missed when a process dies is read from the log instead.
    """

    def observe(self, event: Event) -> None:
        """The event was noticed. Returns at once: it is called on the event loop, between an agent and its log."""
        ...

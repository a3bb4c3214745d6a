"""Observers apart from the run: whatever one of them does, nobody else notices but its own counter of failures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agentkeel.core.events import Event
from agentkeel.ports.observer import Observer

__all__ = ["Observers", "Watched"]


class Watched:
    """An observer and how it fares.

    Attributes:
        failures: How often it raised. The event it raised at is lost to it, and to nobody else.
        last_failure: What it raised last, as text; None if it never did.
    """

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.failures = 0
        self.last_failure: str | None = None

    def observe(self, event: Event) -> None:
        """The observer was told; what it raised is counted."""
        try:
            self.observer.observe(event)
        except Exception as error:  # noqa: BLE001 - somebody else's exporter: its failure must not reach a run
            self.failures += 1
            self.last_failure = f"{type(error).__name__}: {error}"


class Observers:
    """All observers of one manager, and their switch.

    Attributes:
        enabled: Off, nobody is told anything; it may be turned at any time.
    """

    def __init__(self, observers: Iterable[Observer] = (), *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.watched: Sequence[Watched] = tuple(Watched(observer) for observer in observers)

    def observe(self, events: Iterable[Event]) -> None:
        """Every observer was told of these committed events, in order. Never raises what an observer raises."""
        if not self.enabled or not self.watched:
            return
        for event in events:
            for watched in self.watched:
                watched.observe(event)

"""What every renderer promises, and the one that says nothing."""

from __future__ import annotations

from typing import Protocol

from agentkeel.core.events import Event

__all__ = ["Passthrough", "Renderer"]


class Renderer(Protocol):
    """Turns the events of one session, in their order, into text.

    It keeps what it needs from one event to the next (open tools, counts), so each session and each reader has one of
    its own. Nothing in an event makes it raise, and nothing an agent says comes out as anything but visible text.
    """

    def render(self, event: Event) -> str:
        """What to add to the output for this event; empty for nothing. Line ends are part of the text."""
        ...

    def finish(self) -> str:
        """The closing words, after the last event. The renderer is as new afterwards."""
        ...


class Passthrough:
    """No text at all: for sinks that want the event itself."""

    def render(self, event: Event) -> str:
        """Nothing."""
        return ""

    def finish(self) -> str:
        """Nothing."""
        return ""

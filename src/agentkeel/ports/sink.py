"""Where events go beside the log: a terminal, a file, a broker. Truth is in the log; a sink has a copy of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from agentkeel.core.events import Event
from agentkeel.core.ids import SessionId

__all__ = ["Cursors", "Publisher", "Sink"]


class Sink(Protocol):
    """Takes events with their rendered text.

    What callers promise: one call at a time; the events of one session in the order of their `sequence`; each at least
    once, and again after a crash or a failure: `event.id` tells whether it has been there before.

    What a sink promises: an exception from any method means "not acknowledged", and harms neither other sinks nor the
    log. It does not wait for ever. It may raise anything; what it raises is shown to people.
    """

    async def open(self) -> None:
        """Ready for `write`. Called before the first event, and again after a failure and `close`.

        Raises: What keeps it from taking any event, such as a folder that is not there.
        """
        ...

    async def write(self, event: Event | None, text: str) -> None:
        """The event is taken, though perhaps not kept before `flush`. It is None for a renderer's closing words."""
        ...

    async def flush(self) -> None:
        """All that was written is acknowledged: as durable as this sink makes it."""
        ...

    async def close(self) -> None:
        """What the sink opened is closed, and only that. Idempotent; also fine if `open` failed."""
        ...


class Cursors(Protocol):
    """Remembers how far each sink has come in each session. One outbox at a time uses a sink's name."""

    async def load(self, sink: str) -> Mapping[SessionId, int]:
        """The last acknowledged sequence of each session; empty for a new sink.

        Raises:
            StorageError: What was saved cannot be read (`storage_read_failed`).
        """
        ...

    async def save(self, sink: str, cursors: Mapping[SessionId, int]) -> None:
        """These are the sink's cursors, all of them, and `load` gives them also after a crash. Old or new, never half.

        Raises:
            StorageError: They could not be saved; the old ones are still there (`storage_write_failed`).
        """
        ...


class Publisher(Protocol):
    """A broker's client, as much of it as we need: Redis, NATS, MQTT, or `adapters.sinks.Bus` within a process."""

    async def publish(self, topic: str, message: bytes) -> None:
        """The broker has the message. Raises anything where it has not."""
        ...

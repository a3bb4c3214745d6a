"""Events to the topics of a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from agentkeel.core.codec import event_to_json
from agentkeel.core.escape import escape_json
from agentkeel.core.events import Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.errors import ValidationError
from agentkeel.ports.sink import Publisher

__all__ = ["Publish", "Scope", "topic_of"]

Scope = Literal["session", "run", "type"]
Topics: TypeAlias = str | Iterable[str]
PREFIX = "agentkeel"


def topic_of(
    session_id: SessionId | str,
    *,
    run_id: RunId | str | None = None,
    type: str | None = None,
    prefix: str = PREFIX,
) -> str:
    """A session's topic, or the one of a run or of a type of event in it: what to publish to, and to subscribe to."""
    topic = f"{prefix}:session:{session_id}"
    if run_id is not None and type is not None:
        raise ValidationError("A topic is of a run or of a type, not of both.", code="invalid_input")
    return f"{topic}:run:{run_id}" if run_id is not None else f"{topic}:type:{type}" if type is not None else topic


class Publish:
    """Publishes each event, as JSON (`event_to_json`), to one topic or several.

    Every topic is tried for every event, whatever became of the ones before. If any failed, `write` raises after all
    were tried, so that an outbox brings the event again; who has it twice knows it by its `id`.

    Args:
        topic: The one topic of all events, or a function that gives each event's topic or topics.
        prefix, scope: Without `topic`: the topics of `topic_of`. An event of no run has its session's topic.
        with_text: Adds the rendered `text` to the message.

    Attributes:
        published: Messages the broker took.
        failed: Messages it did not take.
    """

    def __init__(
        self,
        publisher: Publisher,
        topic: str | Callable[[Event], Topics] | None = None,
        *,
        prefix: str = PREFIX,
        scope: Scope = "session",
        with_text: bool = False,
    ) -> None:
        if scope not in ("session", "run", "type"):
            raise ValidationError(f"{scope!r} is no scope. Use session, run or type.", code="invalid_input")
        self._publisher = publisher
        self._topic = topic
        self._prefix = prefix
        self._scope = scope
        self._with_text = with_text
        self.published = 0
        self.failed = 0

    async def open(self) -> None:
        """The publisher is its owner's to open."""

    async def write(self, event: Event | None, text: str) -> None:
        """Every topic of the event has it. Closing words are not published.

        Raises:
            ExceptionGroup: What the publisher raised, for each topic that failed.
        """
        if event is None:
            return
        values = event_to_json(event)
        if self._with_text:
            values["text"] = text
        message = escape_json(values).encode()
        errors: list[Exception] = []
        topics = self.topics(event)
        for topic in topics:
            try:
                await self._publisher.publish(topic, message)
            except Exception as error:  # noqa: BLE001 - the other topics go on; all errors are raised below
                self.failed += 1
                errors.append(error)
            else:
                self.published += 1
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {len(topics)} topics did not take event {event.id}", errors)

    async def flush(self) -> None:
        """Nothing is held back."""

    async def close(self) -> None:
        """The publisher is its owner's to close."""

    def topics(self, event: Event) -> tuple[str, ...]:
        """Where the event goes, each topic once."""
        if callable(self._topic):
            given = self._topic(event)
            return (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))
        return (self._topic if self._topic is not None else self._scoped(event),)

    def _scoped(self, event: Event) -> str:
        if self._scope == "type":
            return topic_of(event.session_id, type=event.type, prefix=self._prefix)
        run = event.run_id if self._scope == "run" else None
        return topic_of(event.session_id, run_id=run, prefix=self._prefix)

"""A broker within the process: for programs that are one process, and for tests of those that are not."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

__all__ = ["Bus", "Subscription"]

KEPT_MESSAGES = 1000


class Subscription:
    """The messages of one topic, for one reader, in their order. Iterate over it with `async for`.

    Attributes:
        dropped: How many the reader missed by being slow: the oldest go first. The log has them.
    """

    def __init__(self, limit: int) -> None:
        self._messages: deque[bytes] = deque(maxlen=limit)
        self._came = anyio.Event()
        self.dropped = 0

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> bytes:
        while not self._messages:
            self._came = anyio.Event()
            await self._came.wait()
        return self._messages.popleft()

    def put(self, message: bytes) -> None:
        """The reader gets the message, if it comes to it in time."""
        self.dropped += len(self._messages) == self._messages.maxlen
        self._messages.append(message)
        self._came.set()


class Bus:
    """`ports.sink.Publisher` without a broker. A topic nobody reads costs nothing; no reader holds up a writer."""

    def __init__(self) -> None:
        self._topics: dict[str, list[Subscription]] = {}

    async def publish(self, topic: str, message: bytes) -> None:
        """Everyone who has subscribed to the topic has the message."""
        for subscription in self._topics.get(topic, ()):
            subscription.put(message)

    @contextmanager
    def subscribe(self, topic: str, *, limit: int = KEPT_MESSAGES) -> Iterator[Subscription]:
        """The topic's messages from now on, up to `limit` of them waiting. `topic_of` names a session's or a run's."""
        subscription = Subscription(limit)
        readers = self._topics.setdefault(topic, [])
        readers.append(subscription)
        try:
            yield subscription
        finally:
            readers.remove(subscription)
            if not readers:
                del self._topics[topic]

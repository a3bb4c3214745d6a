"""The last events of the sessions somebody watches, decoded once and shared by all who watch.

A tail is a cache of the log and may be dropped at any time: a reader that it does not serve reads the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from agentkeel.core.events import Event
from agentkeel.core.ids import SessionId

__all__ = ["Tails"]

KEPT_EVENTS = 2048


class _Tail:
    """Consecutive events, the newest last."""

    def __init__(self) -> None:
        self.watchers = 0
        self.events: deque[Event] = deque(maxlen=KEPT_EVENTS)

    def extend(self, events: Sequence[Event]) -> None:
        """Go on with `events`; where they leave a gap, begin again with them. Late ones are the store's business."""
        if events[-1].sequence - events[0].sequence != len(events) - 1:
            return  # Some were in the log before: their keys were known.
        last = self.events[-1].sequence if self.events else None
        if last is not None and events[0].sequence <= last:
            return
        if last is not None and events[0].sequence != last + 1:
            self.events.clear()
        self.events.extend(events)

    def after(self, cursor: int, limit: int) -> Sequence[Event]:
        """The events behind `cursor`, or nothing if the tail does not reach back to it."""
        if not self.events or not self.events[0].sequence <= cursor + 1 <= self.events[-1].sequence:
            return ()
        start = cursor + 1 - self.events[0].sequence
        return list(islice(self.events, start, start + limit))


class Tails:
    """Tails by session; only watched sessions have one."""

    def __init__(self) -> None:
        self._tails: dict[SessionId, _Tail] = {}

    @contextmanager
    def watch(self, session_id: SessionId) -> Iterator[None]:
        """The session has a tail as long as anybody watches it."""
        tail = self._tails.setdefault(session_id, _Tail())
        tail.watchers += 1
        try:
            yield
        finally:
            tail.watchers -= 1
            if not tail.watchers:
                self._tails.pop(session_id, None)

    def watchers(self, session_id: SessionId) -> int:
        """How many watch the session."""
        tail = self._tails.get(session_id)
        return 0 if tail is None else tail.watchers

    def publish(self, session_id: SessionId, events: Sequence[Event]) -> None:
        """Committed events reach the tail, if there is one."""
        tail = self._tails.get(session_id)
        if tail is not None and events:
            tail.extend(events)

    def after(self, session_id: SessionId, cursor: int, limit: int) -> Sequence[Event]:
        """The events behind `cursor` that the tail has without a gap; empty if it cannot say."""
        tail = self._tails.get(session_id)
        return () if tail is None else tail.after(cursor, limit)

    def ends_at(self, session_id: SessionId, cursor: int) -> bool:
        """Whether the tail's last event is the one at `cursor`: then this process knows of nothing behind it."""
        tail = self._tails.get(session_id)
        return tail is not None and bool(tail.events) and tail.events[-1].sequence == cursor

"""One sink's way through the log: read behind its cursor, write, have it acknowledged, save the cursor. In this order.

So nothing is lost, whatever stops in between; what was written and not yet saved is written again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from itertools import islice

import anyio
import msgspec

from agentkeel.core.events import Event, SessionCancelled, SessionCompleted, SessionFailed
from agentkeel.core.ids import SessionId
from agentkeel.core.rendering.renderer import Passthrough, Renderer
from agentkeel.errors import CursorExpired, SessionNotFound
from agentkeel.ports.clock import Clock
from agentkeel.ports.sink import Cursors, Sink
from agentkeel.ports.store import EventStore

__all__ = ["Feed", "FeedState", "Relay"]

PAGE = 200
SESSIONS_A_PASS = 32
RENDERERS_KEPT = 1000
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds before a sink that failed is tried again: twice as many each time, up to a minute."""
CLOSING_SECONDS = 5.0

_LAST = (SessionCompleted, SessionFailed, SessionCancelled)


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent where.

    Attributes:
        name: Under which the cursors are kept: it stays the same over restarts, and no other outbox uses it.
        renderer: Makes a renderer; each session has its own. It starts anew after a restart or a failure.
        types: Only events of these types; None for all.
    """

    name: str
    sink: Sink
    renderer: Callable[[], Renderer] = Passthrough
    types: Collection[str] | None = None


class FeedState(msgspec.Struct, frozen=True, kw_only=True):
    """How a feed is doing: for metrics, health checks and people.

    Attributes:
        lag: Events that are known to be in the log and not acknowledged.
        sessions_behind: In how many sessions.
        delivered: Events acknowledged since the start.
        begun_again: Sessions whose log ended before the cursor, as after a restore from a backup: all of it is sent.
        missed: Events that were pruned from the log before the sink had them.
        failures: In a row, until now; 0 means well.
        failed: All failures since the start.
    """

    name: str
    lag: int
    sessions_behind: int
    delivered: int
    begun_again: int
    missed: int
    failures: int
    failed: int
    last_error: str | None


class Relay:
    """Brings one feed's sink up to the heads it is told of, at its own speed."""

    def __init__(self, feed: Feed, store: EventStore, cursors: Cursors, clock: Clock) -> None:
        self.feed = feed
        self._store = store
        self._cursors = cursors
        self._clock = clock
        self._acknowledged: dict[SessionId, int] | None = None
        """None until the cursors are loaded."""
        self._saved = True
        self._behind: dict[SessionId, int] = {}
        """Head of each session that has news, those that have waited longest first."""
        self._renderers: OrderedDict[SessionId, Renderer] = OrderedDict()
        self._news = anyio.Event()
        self._moved = anyio.Event()
        self._short: set[SessionId] = set()
        """Sessions that were told to end before their cursor; old news, or another log."""
        self._delivered = self._begun_again = self._missed = self._failures = self._failed = 0
        self._last_error: str | None = None

    def state(self) -> FeedState:
        """How the feed is doing now."""
        lags = [head - self._at(session_id) for session_id, head in self._behind.items()]
        return FeedState(
            name=self.feed.name,
            lag=sum(lags),
            sessions_behind=len(lags),
            delivered=self._delivered,
            begun_again=self._begun_again,
            missed=self._missed,
            failures=self._failures,
            failed=self._failed,
            last_error=self._last_error,
        )

    def tell(self, session_id: SessionId, head: int) -> None:
        """The session's log reaches up to `head`."""
        if head > max(self._at(session_id), self._behind.get(session_id, 0)):
            self._behind[session_id] = head
            self._news.set()
        elif head < self._at(session_id):
            self._short.add(session_id)
            self._news.set()

    def keep_only(self, sessions: Collection[SessionId]) -> None:
        """The cursors of all other sessions are forgotten: they are in the log no more."""
        for session_id in (self._acknowledged or {}).keys() - sessions:
            self._forget(session_id)

    async def reach(self) -> None:
        """Return once all that `tell` has told of until now is acknowledged, and the cursors are saved."""
        wanted = dict(self._behind)
        while any(session_id in self._behind and self._at(session_id) < head for session_id, head in wanted.items()):
            await self._moved.wait()
        while not self._saved:
            await self._moved.wait()

    async def run(self) -> None:
        """Deliver until cancelled. A failure closes the sink, and opens it again after a pause."""
        try:
            while True:
                try:
                    await self._deliver()
                except Exception as error:  # noqa: BLE001 - the task's edge: becomes the feed's state, and is tried again
                    await self._failed_with(error)
        finally:
            with anyio.move_on_after(CLOSING_SECONDS, shield=True):
                await self._leave()

    async def _deliver(self) -> None:
        if self._acknowledged is None:
            self._acknowledged = dict(await self._cursors.load(self.feed.name))
            self._behind = {key: head for key, head in self._behind.items() if head > self._at(key)}
            self._wake()
        await self.feed.sink.open()
        while True:
            await self._save()
            if self._short:
                await self._begin_again()
            elif self._behind:
                await self._pass()
                self._failures = 0
            else:
                self._failures = 0
                self._news = anyio.Event()
                await self._news.wait()

    async def _failed_with(self, error: Exception) -> None:
        self._failures += 1
        self._failed += 1
        self._renderers.clear()
        try:
            await self.feed.sink.close()
        except Exception as second:  # noqa: BLE001 - told with the error that led here
            error.add_note(f"Closing the sink failed too: {second!r}")
        self._tell_of(error)
        await self._clock.sleep(min(FIRST_PAUSE * 2 ** min(self._failures - 1, 30), LONGEST_PAUSE))

    async def _begin_again(self) -> None:
        """What was said of the log before the cursor moved is forgotten; a log that is too short even now is new."""
        session_id = next(iter(self._short))
        head = await self._store.head(session_id)
        self._short.discard(session_id)
        if head < self._at(session_id):
            self._forget(session_id)
            self._begun_again += head > 0
            self.tell(session_id, head)

    async def _leave(self) -> None:
        """What can be saved is, and the sink is closed."""
        for act in (self._save, self.feed.sink.close):
            try:
                await act()
            except Exception as error:  # noqa: BLE001 - the task's edge: is told; what is not saved is sent again
                self._tell_of(error)

    def _tell_of(self, error: Exception) -> None:
        self._last_error = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])

    async def _pass(self) -> None:
        """A page of each of some sessions is acknowledged; if one fails, what was written before it."""
        written: dict[SessionId, int] = {}
        try:
            for session_id in list(islice(self._behind, SESSIONS_A_PASS)):
                await self._page(session_id, written)
        except Exception as error:
            try:
                await self._acknowledge(written)
            except Exception as second:  # noqa: BLE001 - told with the error that led here
                error.add_note(f"What was written before was not acknowledged either: {second!r}")
            raise
        await self._acknowledge(written)

    async def _page(self, session_id: SessionId, written: dict[SessionId, int]) -> None:
        try:
            events = await self._read(session_id)
        except SessionNotFound:
            self._forget(session_id)
            return
        if not events:
            self._behind.pop(session_id, None)
        for event in events:
            await self._write(event)
            written[session_id] = event.sequence

    async def _read(self, session_id: SessionId) -> list[Event]:
        after = self._at(session_id)
        try:
            return list(await self._store.read(session_id, after=after, limit=PAGE))
        except CursorExpired as expired:
            floor = int(expired.details["floor"])
            self._missed += floor - 1 - after
            self._set(session_id, floor - 1)
            return list(await self._store.read(session_id, after=floor - 1, limit=PAGE))

    async def _write(self, event: Event) -> None:
        renderer = self._renderer(event.session_id)
        if self.feed.types is None or event.type in self.feed.types:
            await self.feed.sink.write(event, renderer.render(event))
        if isinstance(event.data, _LAST):
            self._renderers.pop(event.session_id, None)
            if closing := renderer.finish():
                await self.feed.sink.write(None, closing)

    async def _acknowledge(self, written: dict[SessionId, int]) -> None:
        """The sink has all of it for good, and the cursors say so."""
        if not written:
            return
        await self.feed.sink.flush()
        for session_id, sequence in written.items():
            self._delivered += sequence - self._at(session_id)
            self._set(session_id, sequence)
            head = self._behind.pop(session_id, 0)
            if head > sequence:
                self._behind[session_id] = head  # At the end: the others come first.
        await self._save()

    def _set(self, session_id: SessionId, sequence: int) -> None:
        if self._acknowledged is not None:
            self._acknowledged[session_id] = sequence
            self._saved = False

    def _wake(self) -> None:
        """Whoever waits in `reach` looks again."""
        self._moved.set()
        self._moved = anyio.Event()

    async def _save(self) -> None:
        if not self._saved and self._acknowledged is not None:
            await self._cursors.save(self.feed.name, self._acknowledged)
            self._saved = True
            self._wake()

    def _at(self, session_id: SessionId) -> int:
        return 0 if self._acknowledged is None else self._acknowledged.get(session_id, 0)

    def _forget(self, session_id: SessionId) -> None:
        self._behind.pop(session_id, None)
        self._renderers.pop(session_id, None)
        if self._acknowledged is not None and self._acknowledged.pop(session_id, None) is not None:
            self._saved = False
        self._wake()

    def _renderer(self, session_id: SessionId) -> Renderer:
        renderer = self._renderers.pop(session_id, None) or self.feed.renderer()
        self._renderers[session_id] = renderer
        if len(self._renderers) > RENDERERS_KEPT:
            self._renderers.popitem(last=False)
        return renderer

"""From the log to sinks: at least once, in order, from where it stopped, each sink at its own speed."""

from __future__ import annotations

import json
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from agentkeel.adapters.notifiers.local import LocalNotifier
from agentkeel.adapters.sinks import File, FileCursors, Jsonl, MemoryCursors
from agentkeel.adapters.stores.memory import MemoryStore
from agentkeel.core import events as ev
from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import SessionId
from agentkeel.core.redact import Redactor
from agentkeel.core.rendering import Compact
from agentkeel.engine.log import Log
from agentkeel.engine.outbox import Feed, Outbox
from agentkeel.engine.relay import Relay
from agentkeel.errors import CursorExpired, StoreUnavailable, ValidationError
from agentkeel.ports.store import EventFilter
from agentkeel.testing import VirtualClock
from agentkeel.testing.faulty_store import FaultyStore

pytestmark = pytest.mark.anyio

A, B = SessionId("ses_a"), SessionId("ses_b")


class Place:
    """A sink that remembers, and fails or waits where it is told to. `kept` is what was acknowledged."""

    def __init__(self) -> None:
        self.got: list[tuple[str, int]] = []
        self.kept: list[tuple[str, int]] = []
        self.texts: list[str] = []
        self.opened = 0
        self.closed = 0
        self.refuse: Callable[[Event], bool] = lambda _: False
        self.gate = anyio.Event()
        self.gate.set()

    async def open(self) -> None:
        self.opened += 1

    async def write(self, event: Event | None, text: str) -> None:
        await self.gate.wait()
        self.texts.append(text)
        if event is None:
            return
        if self.refuse(event):
            raise ConnectionError(f"refused {event.sequence}")
        self.got.append((event.session_id, event.sequence))

    async def flush(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.kept = list(self.got)

    async def close(self) -> None:
        self.closed += 1

    def of(self, session_id: SessionId) -> list[int]:
        return [sequence for at, sequence in self.got if at == session_id]


class House:
    """A log, and outboxes over it."""

    def __init__(self) -> None:
        self.store = FaultyStore(MemoryStore())
        self.log = Log(self.store, LocalNotifier(), Redactor())
        self.clock = VirtualClock()
        self.cursors = MemoryCursors()

    async def begin(self, *sessions: SessionId) -> None:
        for session_id in sessions:
            await self.log.append(session_id, [Draft(data=ev.SessionCreated(agent_id="a"))])

    async def say(self, session_id: SessionId, count: int = 1, words: str = "x") -> None:
        await self.log.append(session_id, [Draft(data=ev.MessageSent(content=words)) for _ in range(count)])

    def outbox(self, *feeds: Feed, **options: object) -> Outbox:
        return Outbox(self.store, self.log.notifier, self.clock, self.cursors, feeds, **options)  # type: ignore[arg-type]

    @asynccontextmanager
    async def running(self, *feeds: Feed, **options: object) -> AsyncIterator[Outbox]:
        outbox = self.outbox(*feeds, **options)
        with anyio.fail_after(10):
            async with outbox.running():
                yield outbox


async def test_a_sink_gets_the_whole_log_in_order_and_then_what_comes() -> None:
    house, place = House(), Place()
    await house.begin(A)
    await house.say(A, 500)
    async with house.running(Feed(name="s", sink=place)) as outbox:
        await outbox.caught_up()
        assert place.of(A) == list(range(1, 502))
        await house.say(A)
        await outbox.caught_up()
    assert place.of(A) == list(range(1, 503))
    assert place.kept == place.got
    assert await house.cursors.load("s") == {A: 502}


async def test_a_hint_brings_an_event_before_the_poll_does() -> None:
    house, place = House(), Place()
    await house.begin(A)
    async with house.running(Feed(name="s", sink=place)) as outbox:
        await outbox.caught_up()
        await house.clock.advance(0)
        await house.say(A)
        await house.clock.advance(0)
        assert place.of(A) == [1, 2]
        assert house.clock.monotonic() == 0


async def test_events_of_a_writer_who_gives_no_hint_come_with_the_poll() -> None:
    house, place = House(), Place()
    await house.begin(A)
    async with house.running(Feed(name="s", sink=place)) as outbox:
        await outbox.caught_up()
        await house.clock.advance(0)
        await house.store.append(A, [Draft(data=ev.SessionStarted())])
        await house.store.append(B, [Draft(data=ev.SessionCreated(agent_id="b"))])
        await house.clock.advance(1)
        assert place.of(A) + place.of(B) == [1]
        await house.clock.advance(1)
        assert (place.of(A), place.of(B)) == ([1, 2], [1])


async def test_sessions_that_have_ended_before_anyone_looked_are_sent_too() -> None:
    house, place = House(), Place()
    await house.begin(A)
    async with house.running(Feed(name="s", sink=place)) as outbox:
        await outbox.caught_up()
        ended = [ev.SessionCreated(agent_id="b"), ev.SessionStarted(), ev.SessionCompleted()]
        await house.store.append(B, [Draft(data=data) for data in ended])
        await house.clock.advance(2)
        assert place.of(B) == [1, 2, 3]


async def test_an_outbox_of_one_session_sends_no_other() -> None:
    house, place = House(), Place()
    await house.begin(A, B)
    async with house.running(Feed(name="s", sink=place), session_id=B) as outbox:
        await outbox.caught_up()
    assert place.got == [(B, 1)]


async def test_a_restart_goes_on_behind_the_cursor() -> None:
    house, one, two = House(), Place(), Place()
    await house.begin(A)
    await house.say(A, 2)
    async with house.running(Feed(name="s", sink=one)) as outbox:
        await outbox.caught_up()
    await house.say(A, 2)
    async with house.running(Feed(name="s", sink=two)) as outbox:
        await outbox.caught_up()
    assert (one.of(A), two.of(A)) == ([1, 2, 3], [4, 5])
    assert one.closed == 1


class Killed(MemoryCursors):
    """Cursors of a process that dies before it can save them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = anyio.Event()

    async def save(self, sink: str, cursors: Mapping[SessionId, int]) -> None:
        if self.asked.is_set():
            raise OSError("dead")
        self.asked.set()
        await anyio.sleep_forever()


async def test_what_was_written_when_the_process_died_comes_again_and_nothing_is_lost() -> None:
    house, place = House(), Place()
    await house.begin(A)
    await house.say(A, 4)
    house.cursors = Killed()
    async with house.running(Feed(name="s", sink=place)):
        await house.cursors.asked.wait()
    assert place.kept == [(A, number) for number in range(1, 6)]
    house.cursors = MemoryCursors()
    await house.say(A)
    async with house.running(Feed(name="s", sink=place)) as outbox:
        await outbox.caught_up()
    assert place.of(A) == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("turns", range(40))
async def test_killed_at_any_moment_nothing_is_lost_and_order_is_kept(turns: int) -> None:
    house, place = House(), Place()
    await house.begin(A, B)
    await house.say(A, 3)
    await house.say(B, 3)
    with anyio.fail_after(10):
        async with house.outbox(Feed(name="s", sink=place)).running():
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
    kept = await house.cursors.load("s")
    assert all(cursor in place.kept for cursor in kept.items())
    await house.say(A)
    async with house.running(Feed(name="s", sink=place)) as outbox:
        await outbox.caught_up()
    for session_id, head in ((A, 5), (B, 4)):
        first_seen = list(dict.fromkeys(place.of(session_id)))
        assert first_seen == list(range(1, head + 1))


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_fails_and_dies_every_sink_has_every_event_in_order_in_the_end(seed: int) -> None:
    chance, house = random.Random(seed), House()
    places = {"one": Place(), "two": Place()}
    sessions = [SessionId(f"ses_{number}") for number in range(4)]
    await house.begin(*sessions)
    for life in range(6):
        for place in places.values():
            place.refuse = lambda _, last=life == 5: not last and chance.random() < 0.1
        async with house.running(*(Feed(name=name, sink=place) for name, place in places.items())) as outbox:
            for _ in range(chance.randrange(8)):
                session_id = chance.choice(sessions)
                if chance.random() < 0.3:
                    await house.store.append(session_id, [Draft(data=ev.SessionIdle())])  # No hint.
                else:
                    await house.say(session_id, chance.randrange(1, 5))
                await house.clock.advance(chance.choice([0, 0.1, 3]))
            if life == 5:
                await house.clock.advance(120)
                await outbox.caught_up()
    for name, place in places.items():
        for session_id in sessions:
            head = await house.store.head(session_id)
            assert list(dict.fromkeys(place.of(session_id))) == list(range(1, head + 1))
            assert (session_id, head) in place.kept
            assert (await house.cursors.load(name))[session_id] == head


async def test_a_session_that_nobody_watches_and_that_ends_is_sent_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentkeel.engine.outbox.WATCHED_SESSIONS", 0)
    monkeypatch.setattr("agentkeel.engine.outbox._NEWEST", 1)
    house, place = House(), Place()
    await house.begin(A, B)
    async with house.running(Feed(name="s", sink=place)) as outbox:
        await outbox.caught_up()
        await house.clock.advance(0)
        for session_id in (A, B):
            await house.log.append(session_id, [Draft(data=ev.SessionStarted()), Draft(data=ev.SessionCompleted())])
        await house.clock.advance(0)
        assert place.of(A) == [1]
        await house.clock.advance(2)
        assert (place.of(A), place.of(B)) == ([1, 2, 3], [1, 2, 3])


async def test_a_sink_that_fails_is_tried_again_after_longer_and_longer_pauses() -> None:
    house, bad = House(), Place()
    await house.begin(A)
    tries: list[float] = []

    def refuse(_: Event) -> bool:
        tries.append(house.clock.monotonic())
        return len(tries) < 5

    bad.refuse = refuse
    async with house.running(Feed(name="s", sink=bad)) as outbox:
        await house.clock.advance(0)
        state = outbox.states()["s"]
        assert (state.lag, state.failures, state.last_error) == (1, 1, "ConnectionError: refused 1")
        await house.clock.advance(60)
        state = outbox.states()["s"]
        assert (state.lag, state.failures, state.failed, state.delivered) == (0, 0, 4, 1)
    assert tries == [0.0, 0.5, 1.5, 3.5, 7.5]
    assert bad.of(A) == [1]
    assert (bad.opened, bad.closed) == (5, 5)


async def test_a_sink_that_fails_holds_up_no_other_and_no_writer() -> None:
    house, bad, good = House(), Place(), Place()
    bad.refuse = lambda _: True
    await house.begin(A)
    async with house.running(Feed(name="bad", sink=bad), Feed(name="good", sink=good)) as outbox:
        for _ in range(20):
            await house.say(A)
            await house.clock.advance(1)
        states = outbox.states()
    assert good.of(A) == list(range(1, 22))
    assert (states["bad"].lag, states["good"].lag) == (21, 0)
    assert await house.cursors.load("bad") == {}


async def test_two_sinks_go_at_their_own_speed() -> None:
    house, slow, fast = House(), Place(), Place()
    slow.gate = anyio.Event()
    await house.begin(A)
    await house.say(A, 300)
    async with house.running(Feed(name="slow", sink=slow), Feed(name="fast", sink=fast)) as outbox:
        while len(fast.kept) < 301:
            await anyio.lowlevel.checkpoint()
        assert (fast.of(A), slow.of(A)) == (list(range(1, 302)), [])
        assert outbox.states()["slow"].lag == 301
        slow.gate.set()
        await outbox.caught_up()
        assert slow.of(A) == list(range(1, 302))


async def test_what_was_written_before_a_failure_is_acknowledged_and_not_sent_again() -> None:
    house, place = House(), Place()
    place.refuse = lambda event: event.session_id == A and event.sequence == 4
    await house.begin(B, A)
    await house.say(A, 5)
    async with house.running(Feed(name="s", sink=place)) as outbox:
        await house.clock.advance(30)
        assert place.of(A) == [1, 2, 3]
        assert (await house.cursors.load("s"))[A] == 3
        place.refuse = lambda _: False
        await house.clock.advance(60)
        await outbox.caught_up()
    assert place.of(A) == [1, 2, 3, 4, 5, 6]
    assert place.of(B) == [1]


async def test_cursors_that_cannot_be_saved_are_saved_later_and_nothing_is_sent_twice() -> None:
    house, place = House(), Place()

    class Full(MemoryCursors):
        broken = True

        async def save(self, sink: str, cursors: Mapping[SessionId, int]) -> None:
            if self.broken:
                raise OSError("disk full")
            await super().save(sink, cursors)

    house.cursors = Full()
    await house.begin(A)
    async with house.running(Feed(name="s", sink=place)) as outbox:
        await house.clock.advance(5)
        assert "disk full" in (outbox.states()["s"].last_error or "")
        house.cursors.broken = False
        await house.clock.advance(60)
    assert place.of(A) == [1]
    assert await house.cursors.load("s") == {A: 1}


async def test_a_store_that_is_away_is_asked_again() -> None:
    house, place = House(), Place()
    await house.begin(A)
    async with house.running(Feed(name="s", sink=place)) as outbox:
        await outbox.caught_up()
        house.store.broken = StoreUnavailable("gone")
        await house.clock.advance(10)
        assert "gone" in (outbox.last_error or "")
        house.store.broken = None
        await house.say(A)
        await house.clock.advance(10)
        assert place.of(A) == [1, 2]
        assert outbox.last_error is None


async def test_pruned_events_are_counted_and_the_rest_is_sent() -> None:
    house, place = House(), Place()

    class Pruned(FaultyStore):
        async def read(
            self, session_id: SessionId, *, after: int = 0, limit: int = 500, where: EventFilter | None = None
        ) -> list[Event]:
            if after < 3:
                raise CursorExpired("pruned", details={"floor": 4})
            return list(await super().read(session_id, after=after, limit=limit, where=where))

    await house.begin(A)
    await house.say(A, 5)
    house.store = Pruned(house.store.inner)
    async with house.running(Feed(name="s", sink=place)) as outbox:
        await outbox.caught_up()
        state = outbox.states()["s"]
    assert place.of(A) == [4, 5, 6]
    assert (state.missed, state.delivered, state.failed) == (3, 3, 0)


async def test_the_cursor_of_a_deleted_session_is_forgotten() -> None:
    house, place = House(), Place()
    await house.begin(A, B)
    async with house.running(Feed(name="s", sink=place)) as outbox:
        await outbox.caught_up()
        await house.store.delete_session(A)
        await house.clock.advance(301)
        await house.say(B)
        await outbox.caught_up()
    assert await house.cursors.load("s") == {B: 2}


async def test_a_log_that_was_restored_from_an_older_copy_is_sent_again() -> None:
    house, place = House(), Place()
    await house.begin(A, B)
    await house.cursors.save("s", {A: 9, B: 1})
    await house.say(A, 2)
    async with house.running(Feed(name="s", sink=place)) as outbox:
        await house.clock.advance(3)
        assert outbox.states()["s"].begun_again == 1
    assert (place.of(A), place.of(B)) == ([1, 2, 3], [])
    assert await house.cursors.load("s") == {A: 3, B: 1}


async def test_old_news_of_a_log_begins_nothing_again() -> None:
    house, place = House(), Place()
    await house.begin(A)
    await house.say(A, 4)
    relay = Relay(Feed(name="s", sink=place), house.store, house.cursors, house.clock)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(relay.run)
            relay.tell(A, 5)
            await relay.reach()
            relay.tell(A, 3)
            await house.clock.advance(1)
            tasks.cancel_scope.cancel()
    assert place.of(A) == [1, 2, 3, 4, 5]
    assert relay.state().begun_again == 0


async def test_a_feed_of_some_types_moves_its_cursor_over_the_others() -> None:
    house, place = House(), Place()
    await house.begin(A)
    await house.say(A, 2)
    async with house.running(Feed(name="s", sink=place, types={"session_created"})) as outbox:
        await outbox.caught_up()
    assert place.of(A) == [1]
    assert await house.cursors.load("s") == {A: 3}


async def test_each_session_has_its_own_renderer_and_its_closing_words_once() -> None:
    house, place = House(), Place()
    await house.begin(A, B)
    await house.say(B, 2)
    await house.log.append(A, [Draft(data=ev.SessionStarted()), Draft(data=ev.SessionCompleted())])
    feed = Feed(name="s", sink=place, renderer=lambda: Compact(color=False))
    async with house.running(feed) as outbox:
        await outbox.caught_up()
    async with house.running(feed) as outbox:
        await outbox.caught_up()
    assert [text for text in place.texts if "events" in text] == ["3 events, 0 tools\n"]


async def test_a_buffered_file_on_a_disk_that_fills_up_gets_every_event_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, write, calls = House(), os.write, 0
    path = tmp_path / "all.jsonl"
    await house.begin(A)
    await house.say(A, 999, words="x" * 600)

    def often_full(file: int, content: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls % 3:
            return write(file, content[: max(1, len(content) // 2)])
        raise OSError(28, "No space left on device")

    async with house.running(Feed(name="s", sink=Jsonl(path, buffered=True))) as outbox:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", often_full)
            for _ in range(3):
                await house.clock.wait_for_sleepers(2)  # The outbox, and the relay that pauses.
                await house.clock.advance(1)
        while outbox.states()["s"].lag:
            await house.clock.advance(60)
            await anyio.sleep(0.01)  # The file is written in a thread.
        assert outbox.states()["s"].failed >= 3
    seen: list[int] = []
    for line in path.read_bytes().splitlines():
        try:
            seen.append(json.loads(line)["sequence"])
        except ValueError:  # A line that the full disk cut off.
            continue
    assert list(dict.fromkeys(seen)) == list(range(1, 1001))


async def test_a_file_fed_over_a_restart_has_each_event_once(tmp_path: Path) -> None:
    house = House()
    house.cursors = FileCursors(tmp_path)  # type: ignore[assignment]
    await house.begin(A)
    for count in (2, 3):
        await house.say(A, count)
        feed = Feed(name="log", sink=File(tmp_path / "run.log"), renderer=lambda: Compact(color=False))
        async with house.running(feed) as outbox:
            await outbox.caught_up()
    assert (tmp_path / "run.log").read_text() == "s:created\n" + ".message_sent\n" * 5


async def test_two_feeds_cannot_share_a_name() -> None:
    with pytest.raises(ValidationError, match="name of its own"):
        House().outbox(Feed(name="s", sink=Place()), Feed(name="s", sink=Place()))


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    house = House()
    with pytest.raises(KeyError, match="mine"):
        async with house.running(Feed(name="s", sink=Place())):
            raise KeyError("mine")


async def test_a_sink_that_cannot_be_closed_stops_nothing() -> None:
    house, place, other = House(), Place(), Place()

    async def close() -> None:
        raise OSError("stuck")

    place.close = close  # type: ignore[method-assign]
    await house.begin(A)
    async with house.running(Feed(name="s", sink=place), Feed(name="t", sink=other)) as outbox:
        await outbox.caught_up()
    assert outbox.states()["s"].last_error == "OSError: stuck"
    assert other.closed == 1

"""Reading from a number: everything behind it, in order, each once, whoever writes and whenever one comes."""

from __future__ import annotations

import random

import anyio
import pytest

import agentkeel
from agentkeel.adapters.notifiers.local import LocalNotifier
from agentkeel.adapters.stores.memory import MemoryStore
from agentkeel.core import events as ev
from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import SessionId
from agentkeel.core.redact import Redactor
from agentkeel.engine.log import Log
from agentkeel.engine.subscription import follow
from agentkeel.ports.store import EventFilter
from agentkeel.testing import ScriptedProvider
from agentkeel.testing.scripted import Say

pytestmark = pytest.mark.anyio

S = SessionId("ses_test")


async def a_log() -> Log:
    log = Log(MemoryStore(), LocalNotifier(), Redactor())
    await log.append(S, [Draft(data=ev.SessionCreated(agent_id="a")), Draft(data=ev.SessionStarted())])
    return log


def said(n: int) -> Draft:
    return Draft(data=ev.MessageSent(content=str(n)))


async def collect(log: Log, after: int, until: int, where: EventFilter | None = None) -> list[int]:
    seen: list[int] = []
    async for event in follow(log, S, after=after, where=where, poll=0.05):
        seen.append(event.sequence)
        if event.sequence >= until:
            break
    return seen


@pytest.mark.parametrize("seed", range(25))
async def test_subscribing_from_any_cursor_at_any_time_equals_the_log(seed: int) -> None:
    chance = random.Random(seed)
    log = await a_log()
    total = 2 + 60
    results: dict[int, list[int]] = {}

    async def reader(key: int, after: int, delay: int) -> None:
        for _ in range(delay):
            await anyio.lowlevel.checkpoint()
        head = await log.store.head(S)
        results[key] = await collect(log, min(after, head), total)
        results[key].insert(0, min(after, head))

    async def writer(numbers: list[int]) -> None:
        while numbers:
            size = chance.randint(1, 4)
            batch, numbers[:] = numbers[:size], numbers[size:]
            await log.append(S, [said(n) for n in batch])
            for _ in range(chance.randint(0, 3)):
                await anyio.lowlevel.checkpoint()

    numbers = list(range(60))
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for key in range(8):
                tasks.start_soon(reader, key, chance.randint(0, total), chance.randint(0, 60))
            tasks.start_soon(writer, numbers)
            tasks.start_soon(writer, numbers)
    for cursor, *seen in results.values():
        assert seen == list(range(cursor + 1, total + 1))


async def test_a_hint_that_is_lost_costs_latency_only() -> None:
    log = await a_log()
    async with anyio.create_task_group() as tasks:
        seen: list[int] = []

        async def read() -> None:
            seen.extend(await collect(log, 0, 3))

        tasks.start_soon(read)
        await anyio.sleep(0.02)
        await log.store.append(S, [said(1)])  # another process wrote: no hint, no tail
    assert seen == [1, 2, 3]


async def test_a_slow_reader_reads_the_store_and_misses_nothing() -> None:
    log = await a_log()
    stream = follow(log, S, poll=0.05)
    first = await anext(stream)
    for n in range(60):
        await log.append(S, [said(n) for _ in range(50)])
    assert first.sequence == 1
    rest = [await anext(stream) for _ in range(3001)]
    assert [event.sequence for event in rest] == list(range(2, 3003))
    await stream.aclose()


async def test_live_readers_share_the_same_decoded_events() -> None:
    log = await a_log()
    got: list[list[Event]] = [[], []]

    async def read(to: list[Event]) -> None:
        async for event in follow(log, S, after=2):
            to.append(event)
            if len(to) == 3:
                return

    async with anyio.create_task_group() as tasks:
        for to in got:
            tasks.start_soon(read, to)
        await anyio.sleep(0.01)
        await log.append(S, [said(n) for n in range(3)])
    assert all(a is b for a, b in zip(*got, strict=True))


async def test_a_filter_lets_through_what_matches_before_and_after_the_live_tail() -> None:
    log = await a_log()
    await log.append(S, [said(1), Draft(data=ev.SessionIdle()), said(2)])
    found: list[int] = []

    async def read() -> None:
        found.extend(await collect(log, 0, 7, EventFilter(types={"message_sent"})))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.sleep(0.01)
        await log.append(S, [Draft(data=ev.SessionIdle()), said(3)])
    assert found == [3, 5, 7]


async def test_the_stream_ends_when_the_session_has_ended() -> None:
    log = await a_log()
    await log.append(S, [Draft(data=ev.SessionCompleted())])
    with anyio.fail_after(2):
        assert [event.type async for event in follow(log, S)][-1] == "session_completed"


@pytest.mark.parametrize("after", [-1, 3, 1_000_000])
async def test_a_cursor_that_is_not_in_the_log_is_refused(after: int) -> None:
    log = await a_log()
    with pytest.raises(agentkeel.ValidationError) as caught:
        await anext(follow(log, S, after=after))
    assert caught.value.code == "invalid_cursor"


async def test_no_session_is_said_so() -> None:
    log = await a_log()
    with pytest.raises(agentkeel.SessionNotFound):
        await anext(follow(log, SessionId("ses_none")))


async def test_nothing_is_kept_for_a_reader_that_went_away() -> None:
    log = await a_log()
    stream = follow(log, S)
    await anext(stream)
    assert log.tails.watchers(S) == 1
    await stream.aclose()
    assert log.tails.watchers(S) == 0


async def test_a_stream_of_a_run_ends_with_its_terminal_event() -> None:
    provider = ScriptedProvider([Say("hello", chunks=3)], "b")
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        async with manager.stream("hi") as stream:
            events = [event async for event in stream]
            assert events[0].type == "run_queued"
            assert events[-1].type == "run_completed"
            assert {event.run_id for event in events} == {stream.run_id}
            assert (await stream.result()).text == "hello"
        [state] = await manager.sessions()
        assert state.status == "completed"


async def test_next_gives_one_event_at_a_time_and_none_at_the_end() -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider("x")]) as manager:
        session = await manager.start_session()
        async with session.stream("hi") as stream:
            types = []
            while (event := await stream.next(timeout=5)) is not None:
                types.append(event.type)
            assert types[-1] == "run_completed"


async def test_a_filter_that_nothing_passes_reads_on_and_ends_with_the_session() -> None:
    log = await a_log()
    await log.append(S, [said(1)])
    await log.append(S, [Draft(data=ev.SessionCompleted())])
    with anyio.fail_after(2):
        assert [event async for event in follow(log, S, where=EventFilter(types={"run_completed"}))] == []


async def test_a_reader_at_the_live_end_asks_the_store_nothing() -> None:
    log = await a_log()
    asked: list[str] = []
    head = log.store.head

    async def counted(session_id: SessionId) -> int:
        asked.append(session_id)
        return await head(session_id)

    log.store.head = counted  # type: ignore[method-assign]
    stream = follow(log, S, after=2)
    got: list[int] = []

    async def read() -> None:
        got.extend([(await anext(stream)).sequence for _ in range(20)])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        for n in range(20):
            await anyio.sleep(0.001)
            await log.append(S, [said(n)])
    await stream.aclose()
    assert got == list(range(3, 23))
    assert len(asked) <= 3

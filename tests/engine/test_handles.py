"""The handles at their edges: late, early, twice, from elsewhere, after the end."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import anyio
import pytest

import agentkeel
from agentkeel.adapters.stores.memory import MemoryStore
from agentkeel.core import events as ev
from agentkeel.core.events import Draft
from agentkeel.registry import Fleet
from agentkeel.testing import ScriptedProvider
from agentkeel.testing.faulty_store import FaultyStore
from agentkeel.testing.scripted import Hang, Say, Wait

pytestmark = pytest.mark.anyio


async def test_next_that_timed_out_can_be_asked_again_and_nothing_is_lost() -> None:
    provider = ScriptedProvider([Wait(0.2), Say("late")])
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        session = await manager.start_session()
        async with session.stream("go") as stream:
            types: list[str] = []
            timeouts = 0
            while True:
                try:
                    event = await stream.next(timeout=0.03)
                except TimeoutError:
                    timeouts += 1
                    continue
                if event is None:
                    break
                types.append(event.type)
            assert timeouts > 0
            assert types == [event.type for event in await stream.run.events()]
            assert types[-1] == "run_completed"


async def test_a_stream_goes_on_where_a_loop_left_it() -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider("x")]) as manager:
        session = await manager.start_session()
        async with session.stream("go") as stream:
            async for event in stream:
                if event.type == "run_queued":
                    break
            rest = [event.type async for event in stream]
            assert rest[0] == "message_sent"
            assert rest[-1] == "run_completed"
            assert [event async for event in stream] == []


async def test_a_block_that_raises_calls_its_run_off_and_ends_its_session() -> None:
    provider = ScriptedProvider([Say("x"), Hang()])
    async with agentkeel.open("memory:", providers=[provider]) as manager:

        async def break_off() -> None:
            async with manager.stream("go") as stream:
                async for event in stream:
                    if event.type == "message_received":
                        raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await break_off()
        [run] = await manager.runs()
        [session] = await manager.sessions()
        assert (run.status, session.status) == ("cancelled", "failed")
        assert len(provider.closed) == 1


async def test_a_block_that_is_left_early_waits_for_its_run() -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider([Say("x", chunks=3), Say("y")])]) as manager:
        async with manager.stream("go") as stream:
            async for _event in stream:
                break
        [run] = await manager.runs()
        [session] = await manager.sessions()
        assert (run.status, session.status) == ("completed", "completed")
        assert (await stream.result()).text == "y"


@pytest.mark.parametrize("prompt", ["", 5, None, b"bytes", ["a", 1]])
async def test_a_prompt_that_is_none_leaves_no_session(prompt: Any) -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider("x")]) as manager:
        with pytest.raises(agentkeel.ValidationError):
            await manager.run(prompt)
        assert await manager.sessions() == []


async def test_a_result_can_be_had_again_and_from_another_manager(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/log.db"
    async with agentkeel.open(url, providers=[ScriptedProvider([Wait(0.2), Say("x")])]) as writer:
        session = await writer.start_session()
        run = await session.submit("go")
        async with agentkeel.open(url, read_only=True) as reader:
            theirs = await reader.run_handle(run.id)
            with pytest.raises(agentkeel.StateError, match="not a run of this process"):
                await theirs.cancel()
            with anyio.fail_after(10):
                assert (await theirs.result()).text == "x"
        for _ in range(2):
            assert (await run.result()).text == "x"


async def test_a_run_whose_session_ended_before_it_is_waited_for_without_spinning() -> None:
    store = MemoryStore()
    async with agentkeel.open(store, providers=[ScriptedProvider([Say("x"), Wait(0.2)])]) as manager:
        session = await manager.start_session()
        run = await session.submit("go")
        await store.append(session.id, [Draft(data=ev.SessionCompleted())])  # somebody else
        with anyio.fail_after(10):
            events = [event.type async for event in run.subscribe()]
            assert events[-1] == "run_completed"
            assert (await (await manager.run_handle(run.id)).result()).text == "x"


async def test_subscribing_behind_the_end_of_a_run_gives_nothing_and_ends() -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider("x", "y")]) as manager:
        session = await manager.start_session()
        first = await session.submit("1")
        await first.result()
        second = await session.submit("2")
        await second.result()
        head = (await session.events())[-1].sequence
        with anyio.fail_after(2):
            assert [event async for event in first.subscribe(after=head)] == []
        only = [event async for event in first.subscribe()]
        assert {event.run_id for event in only} == {first.id}


async def test_reads_may_be_awaited_twice_and_limited() -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider("x")]) as manager:
        session = await manager.start_session()
        await session.run("go")
        pages = session.events()
        assert await pages == await pages
        assert [event.sequence for event in await session.events(after=2, before=6, limit=2)] == [3, 4]
        assert await session.events(limit=0) == []


async def test_a_handle_of_a_closed_manager_says_so() -> None:
    async with agentkeel.open(_StaysOpen(), providers=[ScriptedProvider("x", "y")]) as manager:
        session = await manager.start_session()
        await session.run("go")
    with anyio.fail_after(2):
        with pytest.raises(agentkeel.StateError, match="closed"):
            await session.run("again")
        with pytest.raises(agentkeel.StateError, match="closed"):
            await manager.start_session()
    assert len(await session.runs()) == 1


async def test_a_run_that_was_being_stored_while_the_manager_closed_is_called_off(tmp_path: Path) -> None:
    store = FaultyStore(_StaysOpen())
    provider = ScriptedProvider([Say("x"), Hang()])
    runs: list[agentkeel.Run] = []
    with anyio.fail_after(5):
        async with (
            anyio.create_task_group() as tasks,
            agentkeel.open(store, providers=[provider], timeout=None) as manager,
        ):
            session = await manager.start_session()

            async def submit() -> None:
                runs.append(await session.submit("go"))

            tasks.start_soon(submit)
            while not manager._context.queue.line(session.id):
                await anyio.lowlevel.checkpoint()
    [run] = runs
    assert (await store.run(run.id)).status == "cancelled"


async def test_a_run_that_was_being_stored_while_its_session_was_cancelled_is_called_off() -> None:
    store = FaultyStore(MemoryStore())
    provider = ScriptedProvider([Say("x"), Hang()])
    with anyio.fail_after(5):
        async with agentkeel.open(store, providers=[provider]) as manager:
            session = await manager.start_session()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.submit, "go")
                while not manager._context.queue.line(session.id):
                    await anyio.lowlevel.checkpoint()
                await session.cancel()
            [run] = await session.runs()
            assert (run.status, (await session.info()).status) == ("cancelled", "cancelled")
            assert provider.prompts == []


async def test_interrupting_a_session_starts_none_of_those_that_wait() -> None:
    provider = ScriptedProvider([Say("x"), Hang()], "never")
    store = FaultyStore(MemoryStore())
    async with agentkeel.open(store, providers=[provider]) as manager:
        session = await manager.start_session()
        for _ in range(4):
            await session.submit("go")
        while not await session.events(types=["message_received"]):
            await anyio.lowlevel.checkpoint()
        await session.interrupt()
        await session.drain()
        assert len(provider.prompts) == 1
        assert [run.status for run in await session.runs()] == ["cancelled"] * 4


async def test_one_who_stops_draining_does_not_let_runs_in_while_another_drains() -> None:
    provider = ScriptedProvider([Say("x"), Hang()])
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        session = await manager.start_session()
        run = await session.submit("go")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.drain)
            with pytest.raises(TimeoutError):
                await session.drain(timeout=0.02)
            with pytest.raises(agentkeel.StateError, match="draining"):
                await session.submit("too late")
            await run.cancel()


async def test_a_session_that_is_paused_while_a_prompt_comes_in_does_not_start_it() -> None:
    store = FaultyStore(MemoryStore())
    provider = ScriptedProvider("x")
    async with agentkeel.open(store, providers=[provider]) as manager:
        session = await manager.start_session()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.pause)
            for _ in range(2):
                await anyio.lowlevel.checkpoint()
            tasks.start_soon(session.submit, "go")
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        status = await session.info()
        assert (status.status, (await session.status()).in_flight_count) == ("paused", 0)
        await session.resume()
        await session.drain()
        assert len(provider.prompts) == 1


async def test_the_first_provider_stays_the_first_whoever_was_asked_for_by_name() -> None:
    first = (await Fleet([]).choose(None)).name
    other = next(name for name in ("codex", "shell") if name != first)
    fleet = Fleet([])
    assert (await fleet.choose(other)).name == other
    assert (await fleet.choose(None)).name == first


@pytest.mark.parametrize(
    "options",
    [
        {"grace": None},
        {"startup_timeout": None},
        {"permission_timeout": None},
        {"timeout": True},
        {"timeout": float("nan")},
        {"on_permission": "yes"},
        {"key": ""},
        {"key": 5},
        {"metadata": ["a"]},
        {"tags": "abc"},
        {"context": 5},
        {"model": 5},
        {"correlation_id": 5},
        {"system_prompt": 5},
        {"workspace": 5},
    ],
)
async def test_options_that_would_only_fail_later_are_refused_at_once(options: dict[str, Any]) -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider("x")]) as manager:
        with pytest.raises(agentkeel.ValidationError, match=next(iter(options))):
            await manager.run("go", **options)
        assert await manager.sessions() == []


async def test_nothing_is_kept_for_sessions_that_are_idle() -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider(always="x")]) as manager:
        context = manager._context
        for n in range(30):
            session = await manager.start_session()
            async with session.stream("go") as stream:
                assert [event async for event in stream]
            await session.status()
            if n % 2:
                await session.complete()
        refused = session
        with pytest.raises(agentkeel.StateError):
            await refused.submit("go")
        context.connections.close_idle(0)
        while context.connections._keepers:
            await anyio.sleep(0.001)
        assert list(context.scratch.iterdir()) == []
        gc.collect()
        queue = context.queue
        assert (queue._lines, queue._jobs, dict(queue._shut), queue._stops, queue._paused) == ({}, {}, {}, {}, set())
        assert (context.log.tails._tails, len(context.log.notifier._tickets)) == ({}, 0)


class _StaysOpen(MemoryStore):
    """A store that somebody else closes."""

    async def aclose(self) -> None:
        return

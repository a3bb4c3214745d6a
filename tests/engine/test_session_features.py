"""What a session promises beside its queue: attaching, defaults, status, answers to a cancel, streams that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

import agentkeel
from agentkeel import Decision
from agentkeel.core.events import TERMINAL_TYPES, PermissionRequested
from agentkeel.testing import ScriptedProvider, VirtualClock
from agentkeel.testing.scripted import Crash, CutOff, Fail, Hang, Say, Step, Use

pytestmark = pytest.mark.anyio


async def test_a_session_can_be_attached_to_later_and_is_not_started_anew(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/log.db"
    async with agentkeel.open(url, providers=[ScriptedProvider("x")]) as manager:
        session = await manager.start_session(id="mine", model="small")
        await session.run("1")
    provider = ScriptedProvider("y")
    async with agentkeel.open(url, providers=[provider]) as manager:
        again = await manager.session("mine")
        result = await again.run("2")
        assert (result.text, result.continuity) == ("y", "native")
        assert provider.opened[0].model == "small"
        assert [event.type for event in await again.events()].count("session_started") == 1
        with pytest.raises(agentkeel.SessionNotFound):
            await manager.session("nobody")


@pytest.mark.parametrize("slots", [0, -1, 1.5, "2", True, None])
async def test_a_number_of_slots_that_is_none_is_refused(slots: Any) -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider("x")]) as manager:
        with pytest.raises(agentkeel.ValidationError, match="max_concurrent_runs"):
            await manager.start_session(max_concurrent_runs=slots)
        assert await manager.sessions() == []


async def test_a_cancel_of_a_running_a_finished_and_an_unknown_run_has_its_own_answer_each() -> None:
    provider = ScriptedProvider([Say("x"), Hang()])
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        session = await manager.start_session()
        run = await session.submit("go")
        await run.cancel("enough")
        with pytest.raises(agentkeel.RunCancelled, match="enough"):
            await run.result()
        await run.cancel("again")
        assert (await run.info()).error_message == "The run was cancelled: enough."
        with pytest.raises(agentkeel.RunNotFound):
            await manager.run_handle("run_nobody")


async def test_the_nearest_option_holds_manager_then_session_then_run() -> None:
    provider = ScriptedProvider(always="x")
    async with agentkeel.open("memory:", providers=[provider], model="manager", timeout=1000) as manager:
        plain = await manager.start_session()
        chosen = await manager.start_session(model="session")
        await plain.run("go")
        await chosen.run("go")
        await chosen.run("go", model="run")
        await (await manager.session(chosen.id)).run("go")
        assert [spec.model for spec in provider.opened] == ["manager", "session", "run", "session"]
        assert {run.timeout for run in await manager.runs()} == {1000}


async def test_the_status_shows_what_works_what_waits_and_who_watches() -> None:
    provider = ScriptedProvider([Say("x"), Hang()])
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        session = await manager.start_session(max_queued_runs=7)
        first, second = await session.submit("1"), await session.submit("2")
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                async for _ in session.subscribe():
                    pass

            tasks.start_soon(watch)
            await anyio.sleep(0.01)
            status = await session.status()
            assert (status.in_flight_runs, status.queued_runs) == ((first.id,), (second.id,))
            assert (status.in_flight_count, status.queued_count, status.subscribers) == (1, 1, 1)
            assert (status.max_concurrent_runs, status.max_queued_runs) == (1, 7)
            tasks.cancel_scope.cancel()
        await session.stop()
        idle = await session.status()
        assert (idle.in_flight_count, idle.queued_count, idle.subscribers) == (0, 0, 0)


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Fail("provider_unavailable"), "provider_unavailable"),
        (Crash(), "agent_crashed"),
        (CutOff(), "turn_cut_off"),
        (Hang(), "timeout"),
    ],
)
async def test_each_failure_silence_too_ends_a_stream_with_one_error(step: Step, code: str) -> None:
    provider = ScriptedProvider([Say("x"), step])
    async with agentkeel.open("memory:", providers=[provider], idle_timeout=0.1, timeout=None, grace=0.05) as manager:
        session = await manager.start_session()
        async with session.stream("go") as stream:
            types = [event.type async for event in stream]
            assert [kind in TERMINAL_TYPES for kind in types] == [False] * (len(types) - 1) + [True]
            for _ in range(2):
                with pytest.raises(agentkeel.Error) as caught:
                    await stream.result()
                assert caught.value.code == code


async def test_a_stream_may_be_left_twice_and_stops_only_the_watching() -> None:
    clock = VirtualClock()
    provider = ScriptedProvider([Say("x"), Hang()], clock=clock)
    async with agentkeel.open("memory:", providers=[provider], clock=clock) as manager:
        session = await manager.start_session()
        async with session.stream("go") as stream:
            assert await stream.next() is not None
        await stream.__aexit__(None, None, None)
        assert await stream.next() is None
        assert (await session.status()).subscribers == 0
        assert not (await stream.run.info()).terminal


async def test_every_watcher_gets_every_event_whoever_caused_it() -> None:
    async def approve(request: PermissionRequested) -> Decision:
        return Decision(allow=True)

    provider = ScriptedProvider([Say("x", chunks=3), Use("bash", ask=True)], [Hang()])
    async with agentkeel.open("memory:", providers=[provider], on_permission=approve) as manager:
        session = await manager.start_session()
        seen: list[list[int]] = [[], [], []]

        async def watch(to: list[int]) -> None:
            to.extend([event.sequence async for event in session.subscribe()])

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for to in seen:
                    tasks.start_soon(watch, to)
                await session.run("agent, engine, approver")
                run = await session.submit("caller")
                await run.cancel()
                await session.drain()
                await session.complete()
        log = await session.events()
        assert {event.source for event in log} == {"agent", "engine", "user"}
        assert seen == [[event.sequence for event in log]] * 3

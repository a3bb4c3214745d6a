"""Warm agents: used again where that is right, replaced where it is not, gone where they should be."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import agentkeel
from agentkeel.engine import connections
from agentkeel.testing import ScriptedProvider, VirtualClock
from agentkeel.testing.scripted import Hang, Say, ScriptedConnection

pytestmark = pytest.mark.anyio


def dying(prompt: object, connection: ScriptedConnection) -> Any:
    """A turn after which the agent dies by itself, while nobody looks."""
    connection.provider.last = connection  # type: ignore[attr-defined]
    return "one"


async def test_an_agent_that_died_while_it_was_idle_is_replaced_and_its_conversation_taken_up() -> None:
    provider = ScriptedProvider(dying, "two")
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        session = await manager.start_session()
        await session.run("1")
        provider.last.die()  # type: ignore[attr-defined]
        result = await session.run("2")
        assert (result.text, result.continuity) == ("two", "native")
        assert [spec.resume for spec in provider.opened] == [None, "scripted-1"]


async def test_an_agent_whose_death_is_only_seen_at_the_next_prompt_is_replaced_as_well() -> None:
    provider = ScriptedProvider(dying, "two")
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        session = await manager.start_session()
        await session.run("1")
        connection = provider.last  # type: ignore[attr-defined]

        async def prompt(_: object):  # type: ignore[no-untyped-def]
            connection.die()
            raise agentkeel.ProviderError("it is gone", code="agent_crashed")
            yield

        connection.prompt = prompt
        result = await session.run("2")
        assert (result.text, result.continuity) == ("two", "native")
        assert len(await session.events(types=["attempt_failed"])) == 1
        assert [event.data.attempt for event in await session.events(types=["run_started"])] == [1, 2]


async def test_an_agent_that_dies_in_its_first_turn_is_not_tried_again() -> None:
    provider = ScriptedProvider(always="x")
    played = 0

    class Dead(ScriptedProvider):
        def next_turn(self, prompt):  # type: ignore[no-untyped-def]
            nonlocal played
            played += 1
            raise agentkeel.ProviderError("dead", code="agent_crashed")

    provider = Dead("x")
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        with pytest.raises(agentkeel.ProviderError):
            await manager.run("go")
    assert played == 1


async def test_an_idle_agent_that_is_taken_while_others_are_closed_is_not_closed_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = VirtualClock()
    closing = anyio.Event()
    go_on = anyio.Event()

    class SlowToLeave(ScriptedProvider):
        def open(self, spec):  # type: ignore[no-untyped-def]
            from contextlib import asynccontextmanager

            @asynccontextmanager
            async def opened():  # type: ignore[no-untyped-def]
                async with super(SlowToLeave, self).open(spec) as connection:
                    yield connection
                    closing.set()
                    await go_on.wait()

            return opened()

    provider = SlowToLeave("a", "b", [Say("c"), Hang()], clock=clock)
    async with agentkeel.open("memory:", providers=[provider], clock=clock, timeout=None, idle_timeout=None) as manager:
        first, second = await manager.start_session(), await manager.start_session()
        await first.run("1")
        await second.run("2")
        store_connections = manager._context.connections
        monkeypatch.setattr(connections, "WARM_CONNECTIONS", 1)
        store_connections.close_idle()  # closes the agent of the first session, and takes its time
        with anyio.fail_after(5):
            await closing.wait()
            run = await second.submit("3")
            while not provider.prompts[2:]:
                await anyio.lowlevel.checkpoint()
            go_on.set()
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            assert not (await run.info()).terminal
            assert len(provider.closed) == 1
            await run.cancel()
            await second.drain()


async def test_a_run_waits_until_the_agent_that_has_its_conversation_is_gone() -> None:
    clock = VirtualClock()
    provider = ScriptedProvider("a", "b", clock=clock)
    async with agentkeel.open("memory:", providers=[provider], clock=clock) as manager:
        session = await manager.start_session()
        await session.run("1")
        manager._context.connections.close_idle(0)
        result = await session.run("2")
        assert (result.continuity, len(provider.opened), len(provider.closed)) == ("native", 2, 1)


async def test_agents_that_were_idle_for_long_are_gone_and_the_next_prompt_takes_up_their_conversation() -> None:
    clock = VirtualClock()
    provider = ScriptedProvider("a", "b", clock=clock)
    async with agentkeel.open("memory:", providers=[provider], clock=clock) as manager:
        session = await manager.start_session()
        await session.run("1")
        await clock.advance(connections.WARM_SECONDS + 20)
        assert len(provider.closed) == 1
        assert (await session.run("2")).continuity == "native"


async def test_no_more_agents_are_kept_warm_than_allowed() -> None:
    provider = ScriptedProvider(always="x")
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        for _ in range(connections.WARM_CONNECTIONS + 5):
            await (await manager.start_session()).run("go")
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert len(provider.opened) - len(provider.closed) == connections.WARM_CONNECTIONS


async def test_concurrent_runs_of_a_session_have_an_agent_and_a_conversation_each() -> None:
    provider = ScriptedProvider("0", [Say("x"), Hang()], [Say("x"), Hang()], always="later")
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        session = await manager.start_session(max_concurrent_runs=2)
        await session.run("0")
        for _ in range(2):
            await session.submit("go")
        while len(await session.events(types=["message_received"])) < 3:
            await anyio.lowlevel.checkpoint()
        assert len(provider.opened) == 2
        assert [spec.resume for spec in provider.opened] == [None, None]
        await session.interrupt()
        await session.drain()
        assert (await session.run("again")).text == "later"


@pytest.mark.parametrize("end", ["complete", "cancel", "delete", "stop"])
async def test_a_session_that_ends_leaves_no_warm_agent(end: str) -> None:
    provider = ScriptedProvider(always="x")
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        session = await manager.start_session()
        await session.run("go")
        assert provider.closed == []
        await (manager.delete_session(session.id) if end == "delete" else getattr(session, end)())
        assert len(provider.closed) == 1


async def test_deleting_a_session_with_a_run_is_refused_and_touches_nothing() -> None:
    provider = ScriptedProvider([Say("x"), Hang()], "waits")
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        session = await manager.start_session()
        run = await session.submit("go")
        await session.submit("waits")
        while not await session.events(types=["message_received"]):
            await anyio.lowlevel.checkpoint()
        with pytest.raises(agentkeel.StateError, match="cancel it first"):
            await manager.delete_session(session.id)
        assert provider.closed == []
        assert (await run.info()).status == "running"
        await session.cancel()
        await manager.delete_session(session.id)
        with pytest.raises(agentkeel.SessionNotFound):
            await session.info()


async def test_an_agent_has_its_private_folder_while_it_lives_and_what_it_left_there_stays() -> None:
    kept: list[bool] = []

    def looks(prompt: object, connection: ScriptedConnection) -> str:
        kept.append(connection.spec.scratch.is_dir())
        if len(kept) > 1:
            (connection.spec.scratch / "spilled").write_text("a long line")
        return "x"

    provider = ScriptedProvider(always=looks)
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        for _ in range(2):
            session = await manager.start_session()
            await session.run("go")
            await session.stop()
        folders = [spec.scratch for spec in provider.opened]
        assert kept == [True, True]
        assert [folder.exists() for folder in folders] == [False, True]
    assert not folders[1].exists()


async def test_a_private_folder_that_cannot_be_made_fails_the_run_with_a_clear_error() -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider("x", "y")]) as manager:
        session = await manager.start_session()
        (manager._context.scratch / session.id).write_text("in the way")
        with pytest.raises(agentkeel.StorageError, match="private folder"):
            await session.run("go")
        (manager._context.scratch / session.id).unlink()
        assert (await session.run("go")).status == "completed"

"""Slots: who works, who waits, who is refused, and what a session does at its end."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

import agentkeel
from agentkeel.adapters.stores.memory import MemoryStore
from agentkeel.testing import ScriptedProvider, VirtualClock
from agentkeel.testing.faulty_store import FaultyStore
from agentkeel.testing.scripted import Hang, Say, Wait

pytestmark = pytest.mark.anyio


def open_with(*turns: object, **options: object) -> tuple[agentkeel.Manager, ScriptedProvider, VirtualClock]:
    clock = VirtualClock()
    provider = ScriptedProvider(*turns, clock=clock)
    return agentkeel.open("memory:", providers=[provider], clock=clock, **options), provider, clock


async def until_prompted(provider: ScriptedProvider, times: int = 1) -> None:
    """The agent has had so many prompts and waits in the last of them."""
    with anyio.fail_after(5):
        while len(provider.prompts) < times:
            await anyio.lowlevel.checkpoint()
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def test_runs_of_one_slot_work_one_after_the_other_in_order() -> None:
    manager, provider, clock = open_with([Wait(1), Say("a")], [Wait(1), Say("b")], [Wait(1), Say("c")])
    async with manager as m:
        session = await m.start_session()
        runs = [await session.submit(f"p{n}") for n in range(3)]
        status = await session.status()
        assert (status.in_flight_runs, status.queued_runs) == ((runs[0].id,), (runs[1].id, runs[2].id))
        for count, (run, text) in enumerate(zip(runs, "abc", strict=True), start=1):
            await until_prompted(provider, count)
            await clock.advance(1)
            assert (await run.result()).text == text
        assert [prompt.text for prompt in provider.prompts] == ["p0", "p1", "p2"]


async def test_slots_are_never_exceeded() -> None:
    clock = VirtualClock()
    agent = ScriptedProvider(always=[Wait(1), Say("x")], clock=clock)
    async with agentkeel.open("memory:", providers=[agent], clock=clock, timeout=None, idle_timeout=None) as m:
        session = await m.start_session(max_concurrent_runs=3)
        runs = [await session.submit(f"{n}") for n in range(10)]
        most = 0
        with anyio.fail_after(5):
            while not all([(await run.info()).terminal for run in runs]):
                most = max(most, (await session.status()).in_flight_count)
                await clock.advance(0.5)
        assert most == 3


async def test_a_full_line_refuses_and_stores_nothing() -> None:
    manager, _, _ = open_with([Hang()], [Hang()])
    async with manager as m:
        session = await m.start_session(max_concurrent_runs=1, max_queued_runs=1)
        await session.submit("works")
        await session.submit("waits")
        before = await m.session(session.id).events()
        with pytest.raises(agentkeel.AtCapacity) as caught:
            await session.submit("one too many")
        assert caught.value.code == "max_runs_exceeded"
        after = await session.events()
        assert not any("one too many" in repr(event) for event in after)
        assert len([e for e in after if e.type == "run_queued"]) == len([e for e in before if e.type == "run_queued"])


async def test_a_session_without_places_refuses_while_its_slot_is_taken() -> None:
    manager, _, _ = open_with([Hang()])
    async with manager as m:
        session = await m.start_session(max_queued_runs=0)
        await session.submit("works")
        with pytest.raises(agentkeel.AtCapacity):
            await session.submit("no place")


async def test_cancelling_a_run_that_waits_does_not_touch_the_agent() -> None:
    manager, provider, _ = open_with([Hang()], "never")
    async with manager as m:
        session = await m.start_session()
        await session.submit("works")
        waiting = await session.submit("waits")
        await until_prompted(provider)
        await waiting.cancel("not needed")
        with pytest.raises(agentkeel.RunCancelled, match="not needed"):
            await waiting.result()
        assert [prompt.text for prompt in provider.prompts] == ["works"]
        assert (await session.status()).queued_count == 0


async def test_many_may_wait_for_one_run() -> None:
    manager, provider, clock = open_with([Wait(1), Say("x")])
    async with manager as m:
        session = await m.start_session()
        run = await session.submit("p")
        texts: list[str] = []

        async def wait() -> None:
            texts.append((await run.result()).text)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(wait)
            await until_prompted(provider)
            await clock.advance(1)
        assert texts == ["x"] * 5


async def test_idle_is_said_once_when_the_last_run_ends() -> None:
    manager, _, _ = open_with("a", "b", "c")
    async with manager as m:
        session = await m.start_session()
        runs = [await session.submit(f"{n}") for n in range(3)]
        for run in runs:
            await run.result()
        types = [event.type for event in await session.events()]
        assert types.count("session_idle") == 1
        assert types[-2:] == ["run_completed", "session_idle"]


async def test_draining_refuses_new_runs_and_waits_for_the_others() -> None:
    manager, provider, clock = open_with([Wait(1), Say("x")], "y")
    async with manager as m:
        session = await m.start_session()
        await session.submit("p")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.drain)
            await until_prompted(provider)
            with pytest.raises(agentkeel.StateError, match="draining"):
                await session.submit("too late")
            await clock.advance(1)
        assert (await session.run("again")).text == "y"


async def test_draining_gives_up_in_time_and_the_run_goes_on() -> None:
    manager, _, _ = open_with([Hang()])
    async with manager as m:
        session = await m.start_session()
        run = await session.submit("p")
        with pytest.raises(TimeoutError):
            await session.drain(timeout=0.05)
        assert (await run.info()).status in {"queued", "running"}


async def test_a_paused_session_starts_nothing_until_it_is_resumed() -> None:
    manager, provider, _ = open_with("x")
    async with manager as m:
        session = await m.start_session()
        await session.pause()
        run = await session.submit("p")
        assert (await session.status()).queued_count == 1
        assert provider.prompts == []
        await session.resume()
        assert (await run.result()).text == "x"


async def test_an_ended_session_takes_no_runs() -> None:
    manager, _, _ = open_with("x")
    async with manager as m:
        session = await m.start_session()
        await session.complete()
        with pytest.raises(agentkeel.StateError) as caught:
            await session.submit("p")
        assert caught.value.code == "invalid_status"
        await session.complete()
        with pytest.raises(agentkeel.InvalidTransition):
            await session.fail("late")


async def test_a_session_with_runs_cannot_end_but_can_be_called_off() -> None:
    manager, provider, _ = open_with([Say("x"), Hang()], "never")
    async with manager as m:
        session = await m.start_session()
        runs = [await session.submit("1"), await session.submit("2")]
        await until_prompted(provider)
        with pytest.raises(agentkeel.StateError, match="cannot end"):
            await session.complete()
        await session.cancel("enough")
        assert [(await run.info()).status for run in runs] == ["cancelled", "cancelled"]
        assert (await session.info()).status == "cancelled"
        assert len(provider.closed) == len(provider.opened)


async def test_a_repeated_key_joins_the_run_and_then_returns_it() -> None:
    manager, provider, clock = open_with([Wait(1), Say("x")])
    async with manager as m:
        session = await m.start_session()
        first = await session.submit("p", key="k")
        again = await session.submit("p", key="k")
        assert again.id == first.id
        await until_prompted(provider)
        await clock.advance(1)
        assert (await again.result()).text == "x"
        assert (await session.run("p", key="k")).run_id == first.id
        assert len(provider.prompts) == 1
        with pytest.raises(agentkeel.KeyConflict):
            await session.submit("another prompt", key="k")


@pytest.mark.parametrize("store", ["memory:", "sqlite:log.db"])
async def test_two_who_come_at_once_with_one_key_get_one_run(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    provider = ScriptedProvider("x", "y")
    async with agentkeel.open(store, providers=[provider]) as m:
        session = await m.start_session()
        ids: set[str] = set()

        async def submit() -> None:
            ids.add((await session.submit("p", key="k")).id)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(submit)
        await session.drain()
        assert len(ids) == 1
        assert len(provider.prompts) == 1


@pytest.mark.parametrize(
    ("prompt", "options", "word"),
    [
        ("", {}, "empty"),
        ("  \n", {}, "empty"),
        ("x" * (9 * 1024 * 1024), {}, "bytes"),
        ("a\0b", {}, "NUL"),
        ("lone \ud800", {}, "surrogate"),
        ("p", {"provider": "nobody"}, "nobody"),
        ("p", {"workspace": "no/such/folder"}, "does not exist"),
        ("p", {"timeout": -1}, "timeout"),
        ("p", {"permission_mode": "yolo"}, "permission_mode"),
        ("p", {"frobnicate": 1}, "frobnicate"),
    ],
)
async def test_bad_input_is_refused_and_nothing_is_stored(prompt: str, options: dict[str, object], word: str) -> None:
    manager, _, _ = open_with("x")
    async with manager as m:
        session = await m.start_session()
        with pytest.raises(agentkeel.ValidationError, match=word):
            await session.submit(prompt, **options)
        assert [event.type for event in await session.events()] == ["session_created", "session_started"]


async def test_a_handle_of_no_session_says_so_when_awaited() -> None:
    manager, _, _ = open_with("x")
    async with manager as m:
        with pytest.raises(agentkeel.SessionNotFound):
            await m.session("ses_nothing")
        session = await m.start_session(id="mine", agent_id="a", tags=["t"], metadata={"k": 1})
        again = await m.session("mine")
        assert (await again.info()).tags == ("t",)
        with pytest.raises(agentkeel.InvalidTransition):
            await m.start_session(id="mine")
        with pytest.raises(agentkeel.ValidationError):
            await m.start_session(id="../x")
        await session.complete()
        await m.delete_session("mine")
        with pytest.raises(agentkeel.SessionNotFound):
            await session.info()


async def test_idle_is_said_although_a_run_was_about_to_be_stored_and_then_was_not() -> None:
    stored, go_on = anyio.Event(), anyio.Event()

    class Slow(FaultyStore):
        async def append(self, session_id, drafts, **options):  # type: ignore[no-untyped-def]
            if any(getattr(draft.data, "content", "") == "refused" for draft in drafts):
                stored.set()
                await go_on.wait()
                raise agentkeel.StorageError("refused")
            return await super().append(session_id, drafts, **options)

    async with agentkeel.open(Slow(MemoryStore()), providers=[ScriptedProvider("x")]) as m:
        session = await m.start_session()
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:

                async def refused() -> None:
                    with pytest.raises(agentkeel.StorageError):
                        await session.submit("refused")

                tasks.start_soon(refused)
                await stored.wait()
                await session.run("go")
                assert "session_idle" not in [event.type for event in await session.events()]
                go_on.set()
            async for event in session.subscribe():
                if event.type == "session_idle":
                    break
        assert [event.type for event in await session.events()].count("session_idle") == 1

"""The log fails in the middle: the caller is told, nothing hangs, and once it works again it tells the truth."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

import agentkeel
from agentkeel.adapters.stores.memory import MemoryStore
from agentkeel.core.events import TERMINAL_TYPES, Draft
from agentkeel.errors import Error, Fenced, StoreFull, StoreUnavailable
from agentkeel.testing import ScriptedProvider, VirtualClock
from agentkeel.testing.faulty_store import FaultyStore
from agentkeel.testing.scripted import Hang, Say, Spend, Use

pytestmark = pytest.mark.anyio

TURN = [Say("hello", chunks=2), Spend(output_tokens=3), Use("bash", ask=True), Say("done")]
FAULTS = [StoreFull("full"), StoreUnavailable("gone"), Fenced("another owner")]


def ends_of(store: FaultyStore, run_id: str) -> list[str]:
    events = [event for log in store.inner._logs.values() for event in log.events if event.run_id == run_id]
    return [event.type for event in events if event.type in TERMINAL_TYPES]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("nth", range(1, 14))
async def test_whichever_append_fails_once_nobody_hangs_and_the_next_run_works(nth: int, fault: Error) -> None:
    store = FaultyStore(MemoryStore())
    clock = VirtualClock()
    provider = ScriptedProvider(always=TURN, clock=clock)
    with anyio.fail_after(10):
        async with agentkeel.open(store, providers=[provider], clock=clock) as manager:
            session = await manager.start_session()
            store.fail_append(nth, fault)
            outcome: Error | None = None
            try:
                await session.run("go")
            except Error as error:
                outcome = error
            store.append_fault = lambda _: None
            await clock.advance(30)  # a heartbeat
            assert (await session.run("again")).text == "done"
            for run in await session.runs():
                if isinstance(fault, Fenced) and not run.terminal:
                    continue  # It is another owner's now, as far as we were told; ours must not end it.
                again: Error | None = None
                try:
                    await (await manager.run_handle(run.id)).result()
                except Error as error:
                    again = error
                assert run.terminal
                assert ends_of(store, run.id) == [f"run_{run.status}"]
                assert outcome is None or again is None or type(again) is type(outcome)
            await session.stop()
            assert len(provider.closed) == len(provider.opened)
    assert store.closed


@pytest.mark.parametrize("nth", range(1, 10))
async def test_a_store_that_stays_broken_stops_neither_the_caller_nor_the_end_of_the_manager(nth: int) -> None:
    store = FaultyStore(MemoryStore())
    provider = ScriptedProvider(TURN)
    with anyio.fail_after(10):
        async with agentkeel.open(store, providers=[provider]) as manager:
            session = await manager.start_session()
            store.fail_append(nth, StoreFull("full"), times=1000)
            run = await _submitted(session)
            if run is not None:
                for _ in range(2):
                    with pytest.raises((StoreFull, agentkeel.RunCancelled)):
                        await run.result()
    assert len(provider.closed) == len(provider.opened)
    assert store.closed


async def _submitted(session: agentkeel.Session) -> agentkeel.Run | None:
    try:
        return await session.submit("go")
    except StoreFull:
        return None


async def test_a_run_of_its_own_session_on_a_full_disk_gives_the_error_and_does_not_hang() -> None:
    store = FaultyStore(MemoryStore())
    with anyio.fail_after(10):
        async with agentkeel.open(store, providers=[ScriptedProvider(TURN)]) as manager:
            store.fail_append(5, StoreFull("full"), times=1000)
            with pytest.raises(StoreFull):
                await manager.run("go")


async def test_who_watches_a_run_whose_end_the_log_cannot_take_does_not_wait_for_a_disk() -> None:
    store = FaultyStore(MemoryStore())
    with anyio.fail_after(10):
        async with agentkeel.open(store, providers=[ScriptedProvider("hello")]) as manager:
            session = await manager.start_session()
            store.append_fault = _when("run_completed", StoreFull("full"))
            async with session.stream("go") as stream:
                seen = [event.type async for event in stream]
                with pytest.raises(StoreFull):
                    await stream.result()
    assert seen[-1] == "message_received"


async def test_the_heartbeat_survives_a_store_that_is_away() -> None:
    store = FaultyStore(MemoryStore())
    clock = VirtualClock()
    provider = ScriptedProvider([Say("a"), Hang()], "b", clock=clock)
    async with agentkeel.open(store, providers=[provider], clock=clock, timeout=None, idle_timeout=None) as manager:
        session = await manager.start_session()
        run = await session.submit("go")
        while not await session.events(types=["message_received"]):
            await anyio.lowlevel.checkpoint()
        store.broken = StoreUnavailable("gone")
        await clock.advance(100)
        store.broken = None
        assert not (await run.info()).terminal
        await run.cancel()
        with pytest.raises(agentkeel.RunCancelled):
            await run.result()
        assert (await session.run("on")).text == "b"


async def test_an_end_that_could_not_be_written_is_written_when_the_store_works_again() -> None:
    store = FaultyStore(MemoryStore())
    clock = VirtualClock()
    async with agentkeel.open(store, providers=[ScriptedProvider("hello", clock=clock)], clock=clock) as manager:
        session = await manager.start_session()
        store.append_fault = _when("run_completed", StoreFull("full"))
        run = await session.submit("go")
        with pytest.raises(StoreFull) as caught:
            await run.result()
        assert caught.value.result is not None
        assert caught.value.result.text == ""
        store.append_fault = lambda _: None
        await clock.advance(30)
        assert (await run.result()).text == "hello"
        assert [event.type for event in await session.events()][-2:] == ["run_completed", "session_idle"]


async def test_a_turn_whose_last_words_were_lost_is_no_success() -> None:
    store = FaultyStore(MemoryStore())
    async with agentkeel.open(store, providers=[_AllAtOnce("x")]) as manager:
        session = await manager.start_session()
        store.append_fault = _when("message_received", StoreFull("full"), once=True)
        with pytest.raises(StoreFull):
            await session.run("go")
        [run] = await session.runs()
        assert (run.status, run.error_code) == ("failed", "store_full")


async def test_a_submit_whose_answer_was_lost_carries_on_with_the_run_that_is_in_the_log() -> None:
    store = FaultyStore(MemoryStore())
    async with agentkeel.open(store, providers=[ScriptedProvider("x", "y")]) as manager:
        session = await manager.start_session()
        store.lost_answer = _when("run_queued", StoreUnavailable("gone"), once=True)
        with anyio.fail_after(5):
            assert (await session.run("go")).text == "x"


async def test_a_submit_of_unknown_outcome_leaves_no_run_queued_for_ever() -> None:
    store = FaultyStore(MemoryStore())
    clock = VirtualClock()
    async with agentkeel.open(store, providers=[ScriptedProvider("x", clock=clock)], clock=clock) as manager:
        session = await manager.start_session()

        def lost(drafts: Sequence[Draft]) -> Error | None:
            if drafts[0].data.type == "run_queued":
                store.broken = StoreUnavailable("still gone")
                return StoreUnavailable("gone")
            return None

        store.lost_answer = lost
        with pytest.raises(StoreUnavailable):
            await session.submit("go")
        store.broken = None
        await clock.advance(30)
        [run] = await session.runs()
        assert (run.status, run.error_code) == ("failed", "storage_connection_failed")


async def test_a_manager_that_cannot_recover_says_why_in_one_error() -> None:
    memory = MemoryStore()
    store = FaultyStore(memory)
    store.broken = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable):
        async with agentkeel.open(store, providers=[ScriptedProvider()]):
            raise AssertionError("it cannot open")
    assert store.closed


class _AllAtOnce(ScriptedProvider):
    """An agent whose last words and whose end come in one batch."""

    def open(self, spec):  # type: ignore[no-untyped-def]
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def opened():  # type: ignore[no-untyped-def]
            async with super(_AllAtOnce, self).open(spec) as connection:
                play = connection.prompt

                async def prompt(words):  # type: ignore[no-untyped-def]
                    yield [said async for batch in play(words) for said in batch]

                connection.prompt = prompt
                yield connection

        return opened()


def _when(kind: str, error: Error, *, once: bool = False):  # type: ignore[no-untyped-def]
    left = 1 if once else 1000

    def fault(drafts: Sequence[Draft]) -> Error | None:
        nonlocal left
        if left and any(draft.data.type == kind for draft in drafts):
            left -= 1
            return error
        return None

    return fault

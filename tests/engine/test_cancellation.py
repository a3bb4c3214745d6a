"""Callers that are called off at every place where they can be: no run without its one end, no agent, no task is left.

The caller's coroutine is driven step by step; at its n-th wait it is cancelled, for every n until it gets through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import anyio
import pytest

import agentkeel
from agentkeel.adapters.stores.memory import MemoryStore
from agentkeel.core.events import TERMINAL_TYPES
from agentkeel.testing import ScriptedProvider
from agentkeel.testing.faulty_store import FaultyStore
from agentkeel.testing.scripted import Say, Spend, Use

pytestmark = pytest.mark.anyio

TURN = [Say("hello", chunks=2), Use("bash", ask=True), Spend(output_tokens=1), Say("done")]


class Steps:
    """Awaits `work`, and cancels `scope` at its n-th wait."""

    def __init__(self, work: Awaitable[Any], scope: anyio.CancelScope, nth: int) -> None:
        self.work, self.scope, self.left = work, scope, nth

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self.work.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                waits_for = inner.throw(error) if error is not None else inner.send(value)
            except StopIteration as stop:
                return stop.value
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()
            value, error = None, None
            try:
                value = yield waits_for
            except BaseException as thrown:  # noqa: BLE001 - handed on to the work
                error = thrown


async def called_off_at(nth: int, work: Callable[[], Awaitable[Any]]) -> bool:
    """`work` was cancelled at its n-th wait. Whether it got so far."""
    with anyio.CancelScope() as scope:
        steps = Steps(work(), scope, nth)
        await steps
        return steps.left <= 0
    return True


async def check_left(store: FaultyStore, provider: ScriptedProvider, tasks: set[asyncio.Task[Any]]) -> None:
    assert store.closed
    assert len(provider.closed) == len(provider.opened)
    assert {task for task in asyncio.all_tasks() if not task.done()} == tasks
    logs = store.inner._logs.values()
    for run in store.inner._runs.values():
        own = [event.type for log in logs for event in log.events if event.run_id == run.id]
        assert [kind in TERMINAL_TYPES for kind in own] == [False] * (len(own) - 1) + [True], own


async def whole_manager(store: FaultyStore, provider: ScriptedProvider) -> None:
    async with agentkeel.open(store, providers=[provider], grace=0.05) as manager:
        session = await manager.start_session(max_concurrent_runs=2)
        await session.submit("1")
        await session.submit("2")
        await session.submit("3")
        await session.run("4")


async def one_run_of_its_own(store: FaultyStore, provider: ScriptedProvider) -> None:
    async with agentkeel.open(store, providers=[provider], grace=0.05) as manager:
        await manager.run("go")


async def a_stream(store: FaultyStore, provider: ScriptedProvider) -> None:
    async with (
        agentkeel.open(store, providers=[provider], grace=0.05) as manager,
        manager.stream("go") as stream,
    ):
        async for _ in stream:
            await anyio.lowlevel.checkpoint()
        await stream.result()


@pytest.mark.parametrize("work", [whole_manager, one_run_of_its_own, a_stream])
async def test_a_manager_that_is_called_off_at_any_wait_leaves_nothing(
    work: Callable[[FaultyStore, ScriptedProvider], Awaitable[None]],
) -> None:
    tasks = asyncio.all_tasks()
    nth, reached = 0, True
    while reached:
        nth += 1
        store, provider = FaultyStore(MemoryStore()), ScriptedProvider(always=TURN)
        with anyio.fail_after(5):
            reached = await called_off_at(nth, lambda s=store, p=provider: work(s, p))  # type: ignore[misc]
        if provider.opened or store.inner._logs or store.closed:
            await check_left(store, provider, tasks)
        assert nth < 2000
    assert nth > 15


INSIDE: dict[str, Callable[[agentkeel.Manager, agentkeel.Session], Awaitable[Any]]] = {
    "start_session": lambda manager, _: manager.start_session(),
    "run": lambda _, session: session.run("go"),
    "manager.run": lambda manager, _: manager.run("go"),
    "submit with a key": lambda _, session: session.submit("go", key="k"),
    "cancel": lambda _, session: session.cancel(),
    "interrupt": lambda _, session: session.interrupt(),
    "stop": lambda _, session: session.stop(),
    "drain": lambda _, session: session.drain(),
    "pause": lambda _, session: session.pause(),
    "delete": lambda manager, session: manager.delete_session(session.id),
}


@pytest.mark.parametrize("what", INSIDE)
@pytest.mark.parametrize("busy", [True, False])
async def test_a_call_that_is_called_off_at_any_wait_leaves_the_manager_in_order(what: str, *, busy: bool) -> None:
    tasks = asyncio.all_tasks()
    nth, reached = 0, True
    while reached:
        nth += 1
        store, provider = FaultyStore(MemoryStore()), ScriptedProvider(always=TURN)
        with anyio.fail_after(5):
            async with agentkeel.open(store, providers=[provider], grace=0.05) as manager:
                session = await manager.start_session()
                if busy:
                    await session.submit("before")
                    await session.submit("waits")
                try:
                    reached = await called_off_at(nth, lambda m=manager, s=session: INSIDE[what](m, s))  # type: ignore[misc]
                except agentkeel.StateError:
                    reached = False
                other = await manager.start_session()
                assert (await other.run("go")).text == "done"
                if what != "pause":
                    await session.drain()
                    assert manager._context.queue.line(session.id) is None
                assert not manager._context.queue._stops
                assert not manager._context.queue._shut
        await check_left(store, provider, tasks)
        assert nth < 1000


async def test_calls_that_are_called_off_on_a_real_store_leave_no_run_without_a_worker(tmp_path: Path) -> None:
    for nth in range(1, 12):
        provider = ScriptedProvider(always="x")
        async with agentkeel.open(f"sqlite:{tmp_path}/{nth}.db", providers=[provider]) as manager:
            session = await manager.start_session()
            await called_off_at(nth, lambda s=session: s.run("go"))  # type: ignore[misc]
            with anyio.fail_after(5):
                await session.drain()
            for run in await session.runs():
                assert run.status == "completed"

"""Owning: claims, fences and orphans; closing, reopening and giving up."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from agentkeel.core import events as ev
from agentkeel.core.ids import RunId
from agentkeel.errors import (
    Fenced,
    RunTerminal,
    StateError,
)
from agentkeel.ports.store import EventStore
from agentkeel.testing.store_cases.common import (
    R,
    S,
    StoreCases,
    of_run,
    running,
    said,
    sequences,
    started,
    texts,
)

__all__ = ["OwningCases"]


class OwningCases(StoreCases):
    """What `claim` and `aclose` promise, and what survives."""

    # -- owners (reliability 17, 44) --------------------------------------------------------------------------------

    async def test_a_claim_shuts_others_out_until_it_lapses(self, store: EventStore) -> None:
        await started(store)
        await running(store)
        first = await store.claim(R, owner="a", ttl=60)
        with pytest.raises(Fenced):
            await store.claim(R, owner="b", ttl=60)
        await store.append(S, [of_run(ev.TurnCompleted(turns=1))], fence=first)
        await store.renew("a", ttl=0)
        await anyio.sleep(0.01)
        await store.append(S, [of_run(ev.TurnCompleted(turns=2))], fence=first)
        second = await store.claim(R, owner="b", ttl=60)
        assert second > first
        head = await store.head(S)
        with pytest.raises(Fenced):
            await store.append(S, [of_run(ev.TurnCompleted(turns=3))], fence=first)
        assert await store.head(S) == head
        await store.append(S, [of_run(ev.RunCompleted(stop_reason="end_turn"))], fence=second)
        with pytest.raises(RunTerminal):
            await store.claim(R, owner="b", ttl=60)
        with pytest.raises(RunTerminal):
            await store.append(S, [of_run(ev.TurnCompleted(turns=4))], fence=second)

    async def test_a_second_claim_of_the_same_owner_makes_the_first_stale(self, store: EventStore) -> None:
        await started(store)
        await running(store)
        first = await store.claim(R, owner="a", ttl=60)
        second = await store.claim(R, owner="a", ttl=60)
        with pytest.raises(Fenced):
            await store.append(S, [of_run(ev.TurnCompleted(turns=1))], fence=first)
        await store.append(S, [of_run(ev.TurnCompleted(turns=1))], fence=second)
        with pytest.raises(Fenced):
            await store.append(S, [said("of no owner")], fence=0)

    async def test_orphans_are_the_runs_nobody_looks_after(self, store: EventStore) -> None:
        await started(store)
        for n in range(4):
            await running(store, RunId(f"run_{n}"))
        await store.append(S, [of_run(ev.RunCancelled(), RunId("run_0"))])
        await store.claim(RunId("run_1"), owner="me", ttl=0)
        await store.claim(RunId("run_2"), owner="dead", ttl=0)
        await store.claim(RunId("run_3"), owner="alive", ttl=60)
        await anyio.sleep(0.01)
        assert {run.id for run in await store.orphans("me")} == {"run_2"}
        assert {run.id for run in await store.orphans("new")} == {"run_1", "run_2"}
        await store.renew("dead", ttl=60)
        assert {run.id for run in await store.orphans("me")} == set()

    # -- life and death of the store --------------------------------------------------------------------------------

    async def test_it_says_what_it_is(self, store: EventStore) -> None:
        info = await store.info()
        assert info.kind
        assert info.location
        assert info.schema >= 1
        assert info.writable

    async def test_closing_twice_is_closing_once_and_nothing_works_after(self, store: EventStore) -> None:
        await started(store)
        await store.aclose()
        await store.aclose()
        for question in (store.append(S, [said("late")]), store.read(S), store.head(S), store.sessions()):
            with pytest.raises(StateError) as caught:
                await question
            assert caught.value.code == "invalid_operation"

    async def test_what_survives_a_reopening_is_everything_or_nothing(self, store: EventStore, tmp_path: Path) -> None:
        await started(store, tags=("t",))
        await running(store, key="k")
        await store.append(S, [said("quick")], durability="process")
        await store.append(S, [said("keyed", key="k1", id="i1")])
        fence = await store.claim(R, owner="a", ttl=600)
        log, session, run = await store.read(S), await store.session(S), await store.run(R)
        await store.aclose()
        again = await self.make_store(tmp_path)
        try:
            if not self.durable:
                assert await again.sessions() == []
                assert await again.head(S) == 0
                return
            assert await again.read(S) == log
            assert await again.session(S) == session
            assert await again.run(R) == run
            assert await again.run_by_key(S, "k") == run
            assert [orphan.id for orphan in await again.orphans("a")] == [R], "its owner died with the store"
            with pytest.raises(Fenced):
                await again.append(S, [of_run(ev.TurnCompleted(turns=1))], fence=fence)
            assert sequences((await again.append(S, [said("keyed", key="k1", id="i1"), said("z")])).events) == [6, 7]
            assert await again.claim(R, owner="a", ttl=1) > fence
        finally:
            await again.aclose()

    async def test_a_caller_that_is_cancelled_leaves_a_whole_batch_or_none(self, store: EventStore) -> None:
        await started(store)

        async def write(n: int) -> None:
            await store.append(S, [said(f"{n}a", key=f"{n}a"), said(f"{n}b", key=f"{n}b")])

        async with anyio.create_task_group() as group:
            for n in range(20):
                group.start_soon(write, n)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await store.append(S, [said("end")])
        log = await store.read(S)
        assert sequences(log) == list(range(1, len(log) + 1))
        words = texts(log)[:-1]
        assert words == [word for n in range(20) if f"{n}a" in words for word in (f"{n}a", f"{n}b")]

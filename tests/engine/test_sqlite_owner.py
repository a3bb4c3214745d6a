"""One process writes, any may read; an owner that lost its turn writes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from agentkeel.adapters.stores.sqlite import SqliteStore
from agentkeel.core import events as ev
from agentkeel.core.events import Draft
from agentkeel.core.ids import RunId, SessionId
from agentkeel.errors import Fenced, StateError, StoreOwned

pytestmark = pytest.mark.anyio

S = SessionId("ses_1")
OWNER = """
import asyncio, sys
from agentkeel.adapters.stores.sqlite import SqliteStore
from agentkeel.core import events as ev
from agentkeel.core.events import Draft

async def main():
    store = await SqliteStore.open(sys.argv[1])
    await store.append("ses_1", [Draft(data=ev.SessionCreated(agent_id="a")), Draft(data=ev.SessionStarted())])
    await store.append("ses_1", [Draft(data=ev.RunQueued(), run_id="run_1")])
    await store.claim("run_1", owner="first", ttl=3600)
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def said(text: str) -> Draft:
    return Draft(data=ev.MessageReceived(content=text))


async def started(store: SqliteStore) -> None:
    await store.append(S, [Draft(data=ev.SessionCreated(agent_id="a")), Draft(data=ev.SessionStarted())])


@pytest.fixture
def owner(tmp_path: Path) -> Any:
    """Another process that owns the store."""
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path / "log.db")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


async def test_a_second_process_reads_and_does_not_write(owner: Any, tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with pytest.raises(StoreOwned) as caught:
        await SqliteStore.open(path)
    assert caught.value.details["pid"] == owner.pid
    assert str(owner.pid) in caught.value.message
    assert "read_only=True" in caught.value.message
    async with await SqliteStore.open(path, read_only=True) as store:
        assert await store.head(S) == 3
        said_owner = (await store.info()).owner
        assert said_owner is not None
        assert f"process {owner.pid} " in said_owner


async def test_a_stopped_owner_is_still_the_owner_and_a_killed_one_is_not(owner: Any, tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    owner.send_signal(signal.SIGSTOP)
    with pytest.raises(StoreOwned):
        await SqliteStore.open(path)
    owner.kill()
    owner.wait()
    async with await SqliteStore.open(path) as store:
        assert (await store.info()).epoch == 2
        assert [run.id for run in await store.orphans("second")] == ["run_1"]
        await store.claim(RunId("run_1"), owner="second", ttl=60)
        assert await store.orphans("second") == []


async def test_the_same_process_cannot_own_it_twice_by_any_of_its_names(tmp_path: Path) -> None:
    path, other = tmp_path / "log.db", tmp_path / "other.db"
    other.symlink_to(path)
    async with await SqliteStore.open(path):
        for name in (path, other, tmp_path / "." / "log.db"):
            with pytest.raises(StoreOwned) as caught:
                await SqliteStore.open(name)
            assert caught.value.details["pid"] == os.getpid()
            assert "this process" in caught.value.message
    async with await SqliteStore.open(other) as again:
        assert (await again.info()).epoch == 2


async def test_an_owner_whose_turn_is_over_is_fenced_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    store = await SqliteStore.open(path)
    await started(store)
    usurper = apsw.Connection(str(path))
    usurper.execute("UPDATE owner SET epoch = epoch + 1, clean = 0")
    for _ in range(2):
        with pytest.raises(Fenced):
            await store.append(S, [said("too late")])
    with pytest.raises(Fenced):
        await store.delete_session(S)
    assert await store.head(S) == 2
    await store.aclose()
    assert usurper.execute("SELECT clean FROM owner").fetchall() == [(0,)], "the turn was not ours to end"
    usurper.close()


async def test_a_failed_opening_gives_the_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with await SqliteStore.open(path):
        pass
    db = apsw.Connection(str(path))
    db.execute("PRAGMA user_version = 99")
    for _ in range(2):
        with pytest.raises(Exception, match="newer agentkeel"):
            await SqliteStore.open(path)
    db.execute("PRAGMA user_version = 1")
    db.close()
    async with await SqliteStore.open(path) as store:
        await started(store)


async def test_a_cancelled_opening_leaves_no_lock_and_no_second_writer(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    began = anyio.current_time()
    async with await SqliteStore.open(path):
        pass
    whole = anyio.current_time() - began
    cancelled = 0
    for n in range(30):
        with anyio.move_on_after(whole * n / 60) as scope:  # At any moment of it, on a fast machine and a slow one.
            async with await SqliteStore.open(path):
                pass
        cancelled += scope.cancelled_caught
        async with await SqliteStore.open(path) as store:
            await store.append(SessionId(f"ses_{n}"), [Draft(data=ev.SessionCreated(agent_id="a"))])
    assert cancelled > 5


async def test_a_store_belongs_to_one_event_loop(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "log.db") as store:
        await started(store)

        def elsewhere() -> None:
            with pytest.raises(StateError, match="another event loop"):
                asyncio.run(store.append(S, [said("x")]))

        await anyio.to_thread.run_sync(elsewhere)


async def test_closing_finishes_what_waits(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    store = await SqliteStore.open(path)
    await started(store)
    acknowledged: list[int] = []

    async def write(n: int) -> None:
        appended = await store.append(S, [said(str(n))])
        acknowledged.append(appended.events[0].sequence)

    async with anyio.create_task_group() as group:
        for n in range(50):
            group.start_soon(write, n)
        await anyio.lowlevel.checkpoint()
        group.start_soon(store.aclose)
        group.start_soon(store.aclose)
    assert sorted(acknowledged) == list(range(3, 53))
    async with await SqliteStore.open(path) as again:
        assert await again.head(S) == 52


async def test_a_caller_that_gives_up_does_not_undo_its_batch(tmp_path: Path) -> None:
    async with await SqliteStore.open(tmp_path / "log.db") as store:
        await started(store)
        with anyio.move_on_after(0):
            await store.append(S, [said("given up")])
        await store.append(S, [said("after")])
        texts = [
            event.data.content for event in await store.read(S, after=2) if isinstance(event.data, ev.MessageReceived)
        ]
        assert texts == ["given up", "after"]

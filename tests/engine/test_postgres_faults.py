"""A batch is stored once, whatever happens to the wire, the server or its neighbours (reliability 11 to 17)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import pairwise

import asyncpg
import pytest

from agentkeel.adapters.stores.postgres import PostgresStore
from agentkeel.core import events as ev
from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.errors import Error, SequenceConflict, StateError, StorageError, StoreUnavailable
from agentkeel.testing import store_suite  # noqa: F401 - before its cases: it arranges how their asserts read
from agentkeel.testing.postgres import PostgresServer
from agentkeel.testing.proxy import TcpProxy
from agentkeel.testing.store_cases.common import S, of_run, said, started, texts

pytestmark = pytest.mark.anyio

QUICK = {"statement_timeout": 1, "lock_timeout": 0.3, "idle_timeout": 0.5, "patience": 5}
COMMIT = b"COMMIT\0"


@pytest.fixture
async def proxy(postgres_server: PostgresServer) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(postgres_server.port) as proxy:
        yield proxy


@pytest.fixture
def url(postgres_server: PostgresServer, proxy: TcpProxy) -> str:
    """A store of its own behind the proxy."""
    return postgres_server.url(port=proxy.port, **QUICK)


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    async with await PostgresStore.open(url) as store:
        yield store


@pytest.fixture
async def direct(postgres_server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    """A client of another program."""
    connection = await asyncpg.connect(postgres_server.dsn)
    yield connection
    await connection.close()


def schema_of(store: PostgresStore) -> str:
    return store.address.schema


async def log_of(store: PostgresStore, session: SessionId = S) -> list[str]:
    """What was said, in a log that is dense."""
    events = await store.read(session, limit=10_000)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return texts(events)


# -- the commit in doubt (row 11) ---------------------------------------------------------------------------------


async def test_a_commit_that_never_arrived_is_sent_again(store: PostgresStore, proxy: TcpProxy) -> None:
    await started(store)
    proxy.at(COMMIT, "cut_before")
    (event,) = (await store.append(S, [said("once")])).events
    assert proxy.struck == 1
    assert await log_of(store) == ["once"]
    assert (await store.read(S, after=2)) == [event]


async def test_a_commit_whose_answer_was_lost_is_not_repeated(store: PostgresStore, proxy: TcpProxy) -> None:
    await started(store)
    proxy.at(COMMIT, "cut_after")
    (event,) = (await store.append(S, [said("without a key")])).events
    assert proxy.struck == 1
    assert await log_of(store) == ["without a key"]
    assert (await store.read(S, after=2)) == [event]
    assert (await store.append(S, [said("next")])).events[0].sequence == 4


async def test_a_commit_that_arrives_late_is_waited_for_and_not_repeated(store: PostgresStore, proxy: TcpProxy) -> None:
    await started(store)
    proxy.at(COMMIT, "late")
    appending = asyncio.ensure_future(store.append(S, [said("late")]))
    await asyncio.sleep(0.1)
    assert not appending.done(), "the first transaction still holds the writer's row"
    proxy.release()
    (event,) = (await appending).events
    assert await log_of(store) == ["late"]
    assert event.sequence == 3


async def test_a_half_open_transaction_is_ended_by_the_server_and_its_batch_sent_again(
    store: PostgresStore, proxy: TcpProxy
) -> None:
    await started(store)
    proxy.at(COMMIT, "late")
    await store.append(S, [said("again")])
    proxy.release()
    assert proxy.struck == 1
    assert await log_of(store) == ["again"]


async def test_a_lost_attempt_that_comes_after_its_repetition_is_not_stored(
    store: PostgresStore, direct: asyncpg.Connection
) -> None:
    await started(store)
    await store.append(S, [said("one")])
    writer = store._writer
    assert writer is not None
    lost = await direct.fetch(
        f"UPDATE {schema_of(store)}.writers SET batch = 99 WHERE number = $1 AND batch = 1 RETURNING 1", writer.number
    )
    assert lost == [], "its predecessor is no longer the last batch"


@pytest.mark.parametrize("word", [b"BEGIN", COMMIT])
async def test_a_server_that_falls_silent_is_given_up(store: PostgresStore, proxy: TcpProxy, word: bytes) -> None:
    await started(store)
    proxy.at(word, "stall")
    await store.append(S, [said("once")])
    proxy.release()
    assert await log_of(store) == ["once"]


async def test_an_unreachable_server_is_unknown_after_a_while_and_known_when_it_is_back(
    postgres_server: PostgresServer, proxy: TcpProxy
) -> None:
    options = {**QUICK, "patience": 0.3}
    async with await PostgresStore.open(postgres_server.url(port=proxy.port, **options)) as store:
        await started(store)
        proxy.refusing = True
        proxy.cut()
        with pytest.raises(StoreUnavailable):
            await store.append(S, [said("a", key="a")])
        with pytest.raises(StoreUnavailable):
            await store.read(S)
        proxy.refusing = False
        await store.append(S, [said("a", key="a"), said("b")])
        assert await log_of(store) == ["a", "b"]


async def test_writers_and_the_server_are_cut_at_random_and_nothing_is_lost_doubled_or_reordered(
    store: PostgresStore, proxy: TcpProxy, direct: asyncpg.Connection
) -> None:
    sessions = [await started(store, SessionId(f"ses_{n}")) for n in range(4)]
    acknowledged: dict[SessionId, list[Event]] = {session: [] for session in sessions}
    writing = True

    async def write(session: SessionId) -> None:
        for n in range(30):
            await asyncio.sleep(0.02)
            acknowledged[session] += (await store.append(session, [said(f"{n}a"), said(f"{n}b")])).events

    async def harm() -> None:
        turn = 0
        while writing:
            turn += 1
            match turn % 4:
                case 0:
                    proxy.at(COMMIT, "cut_after")
                case 1:
                    await direct.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                        "AND backend_type = 'client backend'"
                    )
                case 2:
                    proxy.at(COMMIT, "cut_before")
                case _:
                    proxy.cut()
            await asyncio.sleep(0.15)

    harming = asyncio.ensure_future(harm())
    await asyncio.gather(*(write(session) for session in sessions))
    writing = False
    await harming
    proxy._faults.clear()
    assert proxy.struck > 0
    for session in sessions:
        assert await log_of(store, session) == [f"{n}{half}" for n in range(30) for half in "ab"]
        assert await store.read(session, after=2, limit=100) == acknowledged[session]


async def test_a_database_that_went_back_is_written_no_more(
    store: PostgresStore, proxy: TcpProxy, direct: asyncpg.Connection
) -> None:
    await started(store)
    await store.append(S, [said("lost in the fail-over")])
    await direct.execute(f"UPDATE {schema_of(store)}.writers SET batch = 1")
    proxy.cut()
    for _ in range(2):
        with pytest.raises(StorageError) as caught:
            await store.append(S, [said("x")])
        assert caught.value.code == "storage_write_failed"
        assert (caught.value.details["found"], caught.value.details["acknowledged"]) == (1, 2)
    assert await log_of(store) == ["lost in the fail-over"]


async def test_a_writer_that_the_database_forgot_registers_again(
    store: PostgresStore, direct: asyncpg.Connection
) -> None:
    await started(store)
    await direct.execute(f"DELETE FROM {schema_of(store)}.writers")
    await store.append(S, [said("once")])
    assert await log_of(store) == ["once"]


async def test_a_server_that_crashes_keeps_what_was_acknowledged_and_is_written_again() -> None:
    with PostgresServer(durable=True) as server:
        async with await PostgresStore.open(server.url()) as store:
            await started(store)
            await store.append(S, [said("quick")], durability="process")
            await store.append(S, [said("full")])
            server.crash()
            assert await log_of(store) == ["quick", "full"]
            await store.append(S, [said("after")])
            assert await log_of(store) == ["quick", "full", "after"]


async def test_an_append_waits_for_the_disk_unless_it_need_not(store: PostgresStore) -> None:
    await started(store)
    assert store._writer is not None
    assert store._writer._link is not None
    link = store._writer._link
    for durability, said_by_server in (("full", "on"), ("process", "off")):
        await link.begin(durability)  # type: ignore[arg-type]
        assert await link.raw.fetchval("SELECT current_setting('synchronous_commit')") == said_by_server
        await link.rollback()


# -- neighbours (rows 13, 15, 17) -----------------------------------------------------------------------------------


async def test_who_holds_a_lock_and_falls_asleep_stops_writers_for_a_bounded_time(
    store: PostgresStore, direct: asyncpg.Connection
) -> None:
    await started(store)
    other = await started(store, SessionId("ses_2"))
    async with direct.transaction():
        await direct.execute(f"SELECT 1 FROM {schema_of(store)}.sessions WHERE id = $1 FOR UPDATE", S)
        appending = asyncio.ensure_future(store.append(S, [said("waits")]))
        assert await store.head(S) == 2, "readers do not wait"
        await asyncio.sleep(0.5)
        assert not appending.done()
    await appending
    await store.append(other, [said("x")])
    assert await log_of(store) == ["waits"]


async def test_a_sleeper_that_never_wakes_is_reported_and_nothing_was_stored(
    postgres_server: PostgresServer, direct: asyncpg.Connection
) -> None:
    url = postgres_server.url(**{**QUICK, "patience": 0.2})
    async with await PostgresStore.open(url) as store:
        await started(store)
        async with direct.transaction():
            await direct.execute(f"SELECT 1 FROM {schema_of(store)}.sessions WHERE id = $1 FOR UPDATE", S)
            with pytest.raises(StoreUnavailable) as caught:
                await store.append(S, [said("x")])
            assert caught.value.details["sqlstate"] == "55P03"
        assert await log_of(store) == []


async def test_a_session_that_somebody_holds_does_not_stop_the_others(
    postgres_server: PostgresServer, direct: asyncpg.Connection
) -> None:
    async with await PostgresStore.open(postgres_server.url(**{**QUICK, "patience": 0.5})) as store:
        sessions = [await started(store, SessionId(f"ses_{n}")) for n in range(4)]
        async with direct.transaction():
            await direct.execute(f"SELECT 1 FROM {schema_of(store)}.sessions WHERE id = $1 FOR UPDATE", sessions[1])
            outcomes = await asyncio.gather(
                *(store.append(session, [said(session)]) for session in sessions), return_exceptions=True
            )
        assert [isinstance(outcome, StoreUnavailable) for outcome in outcomes] == [False, True, False, False]
        assert [await log_of(store, session) for session in sessions] == [["ses_0"], [], ["ses_2"], ["ses_3"]]


async def test_a_batch_that_the_database_refuses_does_not_touch_its_neighbours(
    store: PostgresStore, direct: asyncpg.Connection
) -> None:
    sessions = [await started(store, SessionId(f"ses_{n}")) for n in range(4)]
    sessions.append(sessions[2])
    await direct.execute(
        f"ALTER TABLE {schema_of(store)}.events ADD CONSTRAINT c CHECK (sequence / (provider <> 'poison')::int > 0)"
    )
    outcomes = await asyncio.gather(
        *(
            store.append(session, [said("x", provider="poison" if n == 2 else "plain")])
            for n, session in enumerate(sessions)
        ),
        return_exceptions=True,
    )
    codes = [getattr(outcome, "code", "stored") for outcome in outcomes]
    assert codes == ["stored", "stored", "invalid_input", "stored", "stored"]
    assert [await store.head(session) for session in sessions] == [3] * 5


async def test_a_deadlock_is_tried_again_with_the_same_batch(store: PostgresStore, direct: asyncpg.Connection) -> None:
    first, second = await started(store), await started(store, SessionId("ses_2"))
    lock = f"SELECT 1 FROM {schema_of(store)}.sessions WHERE id = $1 FOR UPDATE"
    await direct.execute("SET deadlock_timeout = '10s'")
    async with direct.transaction():
        await direct.execute(lock, second)
        appending = [asyncio.ensure_future(store.append(session, [said("once")])) for session in (first, second)]
        await asyncio.sleep(0.03)
        await direct.execute(lock, first)
    await asyncio.gather(*appending)
    assert await log_of(store, first) == ["once"]
    assert await log_of(store, second) == ["once"]


CHILD = """
import asyncio, json, sys
from agentkeel.adapters.stores.postgres import PostgresStore
from agentkeel.testing.store_cases.common import S, said

async def main():
    async with await PostgresStore.open(sys.argv[1]) as store:
        print("ready", flush=True)
        places = []
        for n in range(60):
            places += [e.sequence for e in (await store.append(S, [said(f"child {n}a"), said(f"child {n}b")])).events]
        print(json.dumps(places), flush=True)

asyncio.run(main())
"""


async def test_two_processes_write_one_session_densely(store: PostgresStore, url: str) -> None:
    await started(store)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, url, stdout=subprocess.PIPE, env={**os.environ, "PYTHONWARNINGS": "error"}
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    mine: list[int] = []
    while child.stdout.at_eof() is False and len(mine) < 400:
        mine += [event.sequence for event in (await store.append(S, [said("parent"), said("parent")])).events]
        if child.returncode is not None:
            break
    theirs = json.loads(await child.stdout.readline())
    assert await child.wait() == 0
    log = await log_of(store)
    assert sorted(mine + theirs) == list(range(3, 3 + len(log)))
    assert [text for text in log if text != "parent"] == [f"child {n}{half}" for n in range(60) for half in "ab"]
    changes = sum(one != two for one, two in pairwise(log) if "parent" in (one, two))
    assert changes > 2, "they took turns"


async def test_of_two_writers_that_expect_the_same_head_one_is_told(url: str, store: PostgresStore) -> None:
    await started(store)
    async with await PostgresStore.open(url) as other:
        outcomes = await asyncio.gather(
            *(writer.append(S, [said("x")], expected=2) for writer in (store, other)), return_exceptions=True
        )
        lost = [outcome for outcome in outcomes if isinstance(outcome, SequenceConflict)]
        assert len(lost) == 1
        assert lost[0].details["head"] == 3
        await other.append(S, [said("y")], expected=3)
        with pytest.raises(SequenceConflict):
            await store.append(S, [said("z")], expected=3)


async def test_one_run_queued_in_two_sessions_at_once_belongs_to_one(url: str, store: PostgresStore) -> None:
    sessions = [await started(store, SessionId(f"ses_{n}")) for n in range(4)]
    async with await PostgresStore.open(url) as other:
        outcomes = await asyncio.gather(
            *(
                writer.append(session, [of_run(ev.RunQueued(), RunId("run_same"))])
                for writer, session in zip((store, store, other, other), sessions, strict=True)
            ),
            return_exceptions=True,
        )
        refused = [outcome.code for outcome in outcomes if isinstance(outcome, StateError)]
        assert refused == ["run_mismatch"] * 3


async def test_two_writers_that_create_one_session_at_once_agree(url: str, store: PostgresStore) -> None:
    async with await PostgresStore.open(url) as other:
        for n in range(5):
            drafts = [Draft(data=ev.SessionCreated(agent_id="a"))]
            session = SessionId(f"ses_{n}")
            outcomes = await asyncio.gather(
                *(writer.append(session, drafts) for writer in (store, other)), return_exceptions=True
            )
            assert sorted(getattr(outcome, "code", "stored") for outcome in outcomes) == [
                "invalid_transition",
                "stored",
            ]
            assert await store.head(session) == 1


# -- a pooler (row 13) ------------------------------------------------------------------------------------------------


async def test_without_a_statement_cache_nothing_is_left_on_a_connection(
    postgres_server: PostgresServer,
) -> None:
    async with await PostgresStore.open(postgres_server.url(statement_cache_size=0)) as store:
        assert store.channel is None, "there is no connection of one's own to listen on"
        await started(store)
        await store.append(S, [said("x", key="k")])
        await store.append(S, [said(str(n)) for n in range(1000)])
        assert await log_of(store) == ["x", *map(str, range(1000))]
        assert store._writer is not None
        assert store._writer._link is not None
        for raw in (store._writer._link.raw, *(link.raw for link in store._links._idle)):
            assert not raw.is_in_transaction()
            assert await raw.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                assert await raw.fetchval("SELECT current_setting($1)", name) == "0"


async def test_texts_that_postgresql_does_not_take_are_kept_all_the_same(store: PostgresStore) -> None:
    await started(store, provider="nul\0", tags=("a\0b", "a\ufffdb", "a\ufffd0000b"))
    odd = ev.Unknown(kind="odd\0kind")
    (event,) = (await store.append(S, [Draft(data=odd, provider="p\0\ufffd")])).events
    await store.append(S, [of_run(ev.RunQueued(key="k\0" * 2000), RunId("run_1"))])
    assert await store.read(S, after=2, limit=1) == [event]
    assert [state.id for state in await store.sessions(provider="nul\0", tags=["a\0b"])] == [S]
    assert await store.sessions(tags=["a\ufffd"]) == []
    found = await store.run_by_key(S, "k\0" * 2000)
    assert found is not None
    assert found.id == "run_1"
    for question in (store.session(SessionId("x\0")), store.run(RunId("\ud800"))):
        with pytest.raises(Error) as caught:
            await question
        assert caught.value.code.endswith("not_found")

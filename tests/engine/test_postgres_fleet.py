"""Many processes on one database: who holds a run, what the fleet's feed shows, who is woken, and who migrates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random

import asyncpg
import pytest

from agentkeel.adapters.notifiers.local import LocalNotifier
from agentkeel.adapters.notifiers.postgres import PostgresNotifier
from agentkeel.adapters.stores.postgres import PostgresStore, schema, sql
from agentkeel.core import events as ev
from agentkeel.core.events import Event
from agentkeel.core.ids import SessionId
from agentkeel.errors import Fenced, StateError, StorageError, StoreIncompatible, StoreUnavailable, ValidationError
from agentkeel.registry import notifier_for, open_store
from agentkeel.testing import store_suite  # noqa: F401 - before its cases: it arranges how their asserts read
from agentkeel.testing.postgres import PostgresServer
from agentkeel.testing.proxy import TcpProxy
from agentkeel.testing.store_cases.common import R, S, of_run, running, said, started, texts

pytestmark = pytest.mark.anyio


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.url()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    async with await PostgresStore.open(url) as store:
        yield store


@pytest.fixture
async def other(store: PostgresStore, url: str) -> AsyncIterator[PostgresStore]:
    """The same store, as another process has it open."""
    async with await PostgresStore.open(url) as other:
        yield other


@pytest.fixture
async def direct(postgres_server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_server.dsn)
    yield connection
    await connection.close()


# -- leases (rows 17, 44) -------------------------------------------------------------------------------------------


async def lapse(direct: asyncpg.Connection, store: PostgresStore) -> None:
    """A minute passes for the claims."""
    await direct.execute(f"UPDATE {store.address.schema}.claims SET until = until - interval '1 minute'")


async def test_an_owner_that_slept_past_its_lease_writes_nothing(
    store: PostgresStore, other: PostgresStore, direct: asyncpg.Connection
) -> None:
    await started(store)
    await running(store)
    fence = await store.claim(R, owner="sleeper", ttl=60)
    with pytest.raises(Fenced):
        await other.claim(R, owner="heir", ttl=60)
    await store.append(S, [of_run(ev.TurnCompleted(turns=1))], fence=fence)
    await lapse(direct, store)
    assert [run.id for run in await other.orphans("heir")] == [R]
    newer = await other.claim(R, owner="heir", ttl=60)
    head = await other.head(S)
    with pytest.raises(Fenced):
        await store.append(S, [of_run(ev.TurnCompleted(turns=2))], fence=fence)
    with pytest.raises(Fenced):
        await store.append(S, [said("of the session")], fence=fence)
    assert await other.head(S) == head
    await other.append(S, [of_run(ev.RunCompleted(stop_reason="end_turn"))], fence=newer)
    await other.append(S, [said("after the end")], fence=newer)


async def test_a_renewed_lease_keeps_the_run_and_renewing_reaches_all_processes(
    store: PostgresStore, other: PostgresStore, direct: asyncpg.Connection
) -> None:
    await started(store)
    await running(store)
    await store.claim(R, owner="a", ttl=60)
    await other.renew("a", ttl=90)
    await lapse(direct, store)
    assert await other.orphans("b") == []
    with pytest.raises(Fenced):
        await other.claim(R, owner="b", ttl=60)


async def test_a_queued_run_is_no_orphan_while_the_process_that_submitted_it_lives(
    store: PostgresStore, url: str, direct: asyncpg.Connection
) -> None:
    submitter = await PostgresStore.open(url)
    await submitter.renew("submitter", ttl=60)
    await started(submitter)
    await submitter.append(S, [of_run(ev.RunQueued())])
    assert await store.orphans("me") == []
    assert await submitter.orphans("submitter") == []
    assert [run.id for run in await submitter.orphans("somebody else in there")] == [R]
    await direct.execute(f"UPDATE {store.address.schema}.writers SET until = now() WHERE owner = 'submitter'")
    assert [run.id for run in await store.orphans("me")] == [R], "its lease lapsed"
    await submitter.renew("submitter", ttl=60)
    assert await store.orphans("me") == []
    await submitter.aclose()
    assert [run.id for run in await store.orphans("me")] == [R], "it left"


async def test_closing_a_store_frees_what_was_claimed_through_it_at_once(store: PostgresStore, url: str) -> None:
    await started(store)
    await running(store)
    leaver = await PostgresStore.open(url)
    fence = await leaver.claim(R, owner="leaver", ttl=600)
    assert await store.orphans("me") == []
    await leaver.aclose()
    assert [run.id for run in await store.orphans("me")] == [R]
    with pytest.raises(Fenced):
        await store.append(S, [of_run(ev.TurnCompleted(turns=1))], fence=fence)


# -- the feed of the fleet (row 14) -----------------------------------------------------------------------------------


async def test_eight_writers_lose_no_event_of_the_feed_where_a_naive_poller_loses_some(
    postgres_server: PostgresServer, store: PostgresStore, direct: asyncpg.Connection
) -> None:
    chance = Random(7)
    naive: set[int] = set()
    feed: list[Event] = []
    name = store.address.schema

    async def write(number: int, proxy: TcpProxy) -> None:
        async with await PostgresStore.open(postgres_server.url(name, port=proxy.port)) as writer:
            session = await started(writer, SessionId(f"ses_{number}"))
            for n in range(25):
                await writer.append(session, [said(f"{number}.{n}"), said("and")])

    async def poll() -> None:
        last = 0
        while True:
            rows = await direct.fetch(f"SELECT number FROM {name}.events WHERE number > $1 ORDER BY number", last)
            naive.update(row[0] for row in rows)
            last = max([last, *(row[0] for row in rows)])

    async def follow() -> None:
        cursor = None
        while len(feed) < 8 * 52:
            events, cursor = await store.feed(cursor, limit=40)
            feed.extend(events)
            await asyncio.sleep(0.001)

    async with TcpProxy(postgres_server.port) as proxy:
        proxy.delay = lambda piece: chance.random() / 100 if piece.startswith(b"Q") and b"COMMIT" in piece else 0.0
        following, polling = asyncio.ensure_future(follow()), asyncio.ensure_future(poll())
        await asyncio.gather(*(write(number, proxy) for number in range(8)))
        await asyncio.wait_for(following, 10)
    polling.cancel()
    await asyncio.wait([polling])
    assert len({(event.session_id, event.sequence) for event in feed}) == len(feed) == 8 * 52, "each once"
    for number in range(8):
        of_one = [event for event in feed if event.session_id == f"ses_{number}"]
        assert of_one == list(await store.read(SessionId(f"ses_{number}"))), "in the order of its log"
    assert len(naive) < 8 * 52, "the naive poller saw everything: the test shows nothing"


async def test_the_feed_goes_on_from_any_cursor_and_refuses_what_is_none(store: PostgresStore) -> None:
    empty, start = await store.feed()
    assert list(empty) == []
    for n in range(3):
        await started(store, SessionId(f"ses_{n}"))
    whole, end = await store.feed(start)
    assert len(whole) == 6
    one_by_one: list[Event] = []
    cursor: str | None = None
    while len(one_by_one) < 6:
        page, cursor = await store.feed(cursor, limit=1)
        one_by_one += page
    assert one_by_one == list(whole)
    assert await store.feed(end) == ([], end)
    for wrong in ("", "x", "1", "-1.2", "1.2.3", f"{1 << 64}.1", "1.x", "٣.1"):
        with pytest.raises(ValidationError):
            await store.feed(wrong)


async def test_an_open_transaction_holds_the_feed_back_and_loses_nothing(
    store: PostgresStore, direct: asyncpg.Connection
) -> None:
    await started(store)
    _, cursor = await store.feed()
    async with direct.transaction():
        await direct.execute("SELECT pg_current_xact_id()")
        await store.append(S, [said("behind an older transaction")])
        assert list((await store.feed(cursor))[0]) == []
    assert texts((await store.feed(cursor))[0]) == ["behind an older transaction"]


# -- wake-ups (rows 22, 23) --------------------------------------------------------------------------------------------


async def test_a_reader_in_another_process_is_woken(store: PostgresStore, other: PostgresStore) -> None:
    async with notifier_for(store) as here, notifier_for(other) as there:
        assert isinstance(here, PostgresNotifier)
        assert isinstance(there, PostgresNotifier)
        await here.listening()
        await there.listening()
        ticket, stranger = there.ticket(S), there.ticket(SessionId("ses_2"))
        here.notify(S)
        assert await ticket.wait(10)
        assert not await stranger.wait(0.01)
        crowd = [there.ticket(SessionId(f"ses_{n:060}")) for n in range(200)]
        for n in range(200):
            here.notify(SessionId(f"ses_{n:060}"))
        assert all([await ticket.wait(10) for ticket in crowd]), "more than one payload holds"


async def test_a_lost_wake_up_is_made_good_when_the_line_is_back(
    postgres_server: PostgresServer, store: PostgresStore
) -> None:
    async with TcpProxy(postgres_server.port) as proxy:
        far = await PostgresStore.open(postgres_server.url(store.address.schema, port=proxy.port))
        async with far, notifier_for(store) as here, notifier_for(far) as there:
            assert isinstance(here, PostgresNotifier)
            assert isinstance(there, PostgresNotifier)
            await here.listening()
            await there.listening()
            proxy.refusing = True
            proxy.cut()
            ticket = there.ticket(S)
            here.notify(S)
            assert not await ticket.wait(0.1), "nobody listened"
            proxy.refusing = False
            assert await ticket.wait(10)
            assert there.lines == 2
            again = there.ticket(S)
            here.notify(S)
            assert await again.wait(10)


async def test_appends_and_local_readers_do_not_need_the_line(store: PostgresStore) -> None:
    async def dead() -> asyncpg.Connection:
        raise OSError("nobody there")

    async with PostgresNotifier(dead, "agentkeel_x") as notifier:
        ticket = notifier.ticket(S)
        await started(store)
        notifier.notify(S)
        assert await ticket.wait(10)


async def test_a_store_of_one_process_has_a_notifier_of_one_process() -> None:
    async with await open_store("memory:") as store, notifier_for(store) as notifier:  # type: ignore[attr-defined]
        assert isinstance(notifier, LocalNotifier)


# -- migrations, and what is refused -----------------------------------------------------------------------------------


async def test_many_that_open_an_empty_store_at_once_migrate_it_once(
    postgres_server: PostgresServer, direct: asyncpg.Connection
) -> None:
    url = postgres_server.url()
    stores = await asyncio.gather(*(PostgresStore.open(url) for _ in range(5)))
    name = stores[0].address.schema
    assert await direct.fetchval(f"SELECT count(*) FROM {name}.migrations") == schema.latest()
    for store in stores:
        await store.aclose()


async def test_an_older_store_is_migrated_and_keeps_its_log(
    store: PostgresStore, url: str, direct: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started(store)
    await store.aclose()
    step = sql.Migration(schema.latest() + 1, "more", "CREATE TABLE agentkeel.more (one integer);", "sum")
    steps = (*sql.migrations(), step)
    monkeypatch.setattr(schema, "migrations", lambda: steps)
    with pytest.raises(StoreIncompatible) as caught:
        await PostgresStore.open(url, read_only=True)
    assert caught.value.code == "migration_required"
    async with await PostgresStore.open(url) as newer:
        assert (await newer.info()).schema == step.number
        assert len(await newer.read(S)) == 2
    assert await direct.fetchval(f"SELECT count(*) FROM {store.address.schema}.more") == 0
    monkeypatch.undo()
    with pytest.raises(StoreIncompatible, match="newer"):
        await PostgresStore.open(url)


async def test_a_migration_that_fails_changes_nothing(
    store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = sql.Migration(99, "broken", "CREATE TABLE agentkeel.half (one integer); SELECT 1/0;", "sum")
    steps = (*sql.migrations(), broken)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "migrations", lambda: steps)
        with pytest.raises(StorageError):
            await PostgresStore.open(url)
    async with await PostgresStore.open(url) as again:
        assert (await again.info()).schema == schema.latest()


async def test_an_edited_migration_and_another_programs_tables_are_refused(
    store: PostgresStore, url: str, postgres_server: PostgresServer, direct: asyncpg.Connection
) -> None:
    await direct.execute(f"UPDATE {store.address.schema}.migrations SET checksum = 'edited'")
    with pytest.raises(StoreIncompatible, match="unreleased"):
        await PostgresStore.open(url)
    await direct.execute("CREATE SCHEMA theirs; CREATE TABLE theirs.users (id integer)")
    with pytest.raises(StoreIncompatible, match="another program"):
        await PostgresStore.open(postgres_server.url("theirs"))


async def test_a_store_can_be_read_without_the_right_to_write(store: PostgresStore, url: str) -> None:
    await started(store)
    async with await PostgresStore.open(url, read_only=True) as reader:
        assert len(await reader.read(S)) == 2
        assert not (await reader.info()).writable
        with pytest.raises(StateError):
            await reader.append(S, [said("x")])


async def test_it_says_where_it_is_without_the_password(store: PostgresStore) -> None:
    info = await store.info()
    password = store.address.dsn.split(":")[2].split("@")[0]
    assert info.kind == "postgresql"
    assert password not in repr(info)
    assert info.owner is not None
    assert info.warnings, "the test server does not sync"


@pytest.mark.parametrize(
    "wrong",
    [
        "postgresql://h/d?schema=a%22b",
        "postgresql://h:x/d",
        "postgresql://h/d?pool_size=0",
        "postgresql://h/d?patience=x",
    ],
)
async def test_a_url_that_cannot_be_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        await open_store(wrong)


async def test_a_server_that_is_not_there_or_does_not_let_us_in_is_told_apart(postgres_server: PostgresServer) -> None:
    with pytest.raises(StoreUnavailable):
        await open_store(postgres_server.url(port=1))
    with pytest.raises(StorageError, match="password"):
        await open_store(f"postgresql://agentkeel:wrong@127.0.0.1:{postgres_server.port}/agentkeel")
    with pytest.raises(StorageError, match="createdb"):
        await open_store(postgres_server.dsn.replace("/agentkeel", "/nowhere", 2).replace("//nowhere", "//agentkeel"))

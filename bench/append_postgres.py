"""How fast durable appends to PostgreSQL are, beside its driver used by hand in the same process.

Goal C1 (d): 64 sessions, each awaiting each event, over one connection: at least 10 single inserts. In batches of 64:
at least 0.5 of an insertion of 100 rows by one statement. Medians of 5 interleaved rounds against a server of its own,
on loopback, with fsync. Run: python bench/append_postgres.py
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import asyncpg

from agentkeel.adapters.stores.postgres import PostgresStore
from agentkeel.core import events as ev
from agentkeel.core.codec import encode_body
from agentkeel.core.events import Draft
from agentkeel.core.ids import RunId, SessionId
from agentkeel.ports.store import Durability
from agentkeel.testing.postgres import PostgresServer

ROUNDS = 5
SESSIONS = [SessionId(f"ses_{n:032x}") for n in range(64)]
BODY = ev.MessageStreamed(delta="The quick brown fox jumps over the lazy dog. " * 3, message_id="msg_0123456789abcdef")
ROW = (1, 1, "message_streamed", 1_700_000_000_000_000, encode_body(BODY))
TABLE = "CREATE TABLE raw (id bigserial PRIMARY KEY, sid bigint, seq bigint, type text, at bigint, body bytea)"
SINGLE = "INSERT INTO raw (sid, seq, type, at, body) VALUES ($1, $2, $3, $4, $5)"
UNNEST = (
    "INSERT INTO raw (sid, seq, type, at, body) "
    "SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::bytea[])"
)


async def single(raw: asyncpg.Connection, count: int) -> int:
    for _ in range(count):
        await raw.execute(SINGLE, *ROW)
    return count


async def unnest(raw: asyncpg.Connection, count: int, size: int) -> int:
    for _ in range(count):
        columns = zip(*([ROW] * size), strict=True)
        await raw.execute(UNNEST, *columns)
    return count * size


async def awaiting(store: PostgresStore, clients: int, each: int, size: int, durability: Durability = "full") -> int:
    """`clients` sessions that append `size` events and wait, `each` times."""

    async def client(n: int) -> None:
        run_id = RunId(f"run_{n:032x}")
        batch = [Draft(data=BODY, run_id=run_id, source="agent", provider="claude") for _ in range(size)]
        for _ in range(each):
            await store.append(SESSIONS[n], batch, durability=durability)

    async with asyncio.TaskGroup() as group:
        for n in range(clients):
            group.create_task(client(n))
    return clients * each * size


async def raw_read(raw: asyncpg.Connection) -> int:
    after = count = 0
    page = "SELECT id, seq, type, at, body FROM raw WHERE id > $1 ORDER BY id LIMIT 500"
    while count < 20_000 and (rows := await raw.fetch(page, after)):
        after, count = rows[-1][0], count + len(rows)
    return count


async def read_back(store: PostgresStore) -> int:
    after = count = 0
    while count < 20_000 and (events := await store.read(SESSIONS[0], after=after)):
        after, count = events[-1].sequence, count + len(events)
    return count


async def prepared(store: PostgresStore) -> None:
    for n, session in enumerate(SESSIONS):
        run_id = RunId(f"run_{n:032x}")
        start = [Draft(data=ev.SessionCreated(agent_id="bench")), Draft(data=ev.SessionStarted())]
        start += [Draft(data=data, run_id=run_id) for data in (ev.RunQueued(), ev.RunStarted(provider="claude"))]
        await store.append(session, start)


async def measured(server: PostgresServer) -> dict[str, float]:
    raw = await asyncpg.connect(server.dsn)
    await raw.execute(TABLE)
    async with await PostgresStore.open(server.url()) as store:
        await prepared(store)
        works: dict[str, Callable[[], Awaitable[int]]] = {
            "raw single insert": lambda: single(raw, 400),
            "raw unnest 100": lambda: unnest(raw, 80, 100),
            "raw unnest 1000": lambda: unnest(raw, 10, 1000),
            "   1 session, 1 event": lambda: awaiting(store, 1, 200, 1),
            "   1 session, 1 event, process": lambda: awaiting(store, 1, 200, 1, "process"),
            "   8 sessions, 1 event": lambda: awaiting(store, 8, 100, 1),
            "d  64 sessions, 1 event": lambda: awaiting(store, 64, 60, 1),
            "   1 session, batches of 64": lambda: awaiting(store, 1, 80, 64),
            "d  64 sessions, batches of 64": lambda: awaiting(store, 64, 5, 64),
            "raw read, pages of 500": lambda: raw_read(raw),
            "   read, pages of 500": lambda: read_back(store),
        }
        rates: dict[str, list[float]] = {title: [] for title in works}
        for _ in range(ROUNDS):
            for title, work in works.items():
                begun = time.perf_counter()
                count = await work()
                rates[title].append(count / (time.perf_counter() - begun))
    await raw.close()
    return {title: statistics.median(values) for title, values in rates.items()}


def show(median: dict[str, float]) -> None:
    goals = {"d  64 sessions, 1 event": "10 single inserts", "d  64 sessions, batches of 64": "0.5 of unnest 100"}
    print(f"{'events/s (body ' + str(len(ROW[4])) + ' bytes)':40}{'rate':>10}{'/ single':>10}{'/ unnest':>10}   goal")
    for title, rate in median.items():
        read = median["raw read, pages of 500"] if "read" in title else None
        one = rate / (read or median["raw single insert"])
        many = "" if read else f"{rate / median['raw unnest 100']:.2f}"
        print(f"{title:40}{rate:>10,.0f}{one:>10.2f}{many:>10}   {goals.get(title, '')}")


if __name__ == "__main__":
    with PostgresServer(durable=True) as server:
        show(asyncio.run(measured(server)))

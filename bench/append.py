"""How fast durable appends are, beside SQLite driven by hand in the same process.

Goals (C1): (a) one session, one event, `full`: at least 0.5 of a raw commit. (b) 64 sessions, each awaiting each event:
at least 10 raw commits. (c) batches of 64: at least 0.5 of a raw batch of 512. (e) p99 of an append at half load: at
most 3 commits. Medians of 5 interleaved rounds. Run: python bench/append.py
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import msgspec

from agentkeel.adapters.stores.memory import MemoryStore
from agentkeel.adapters.stores.sqlite import SqliteStore
from agentkeel.core import events as ev
from agentkeel.core.codec import encode_body
from agentkeel.core.events import Draft
from agentkeel.core.ids import RunId, SessionId
from agentkeel.ports.store import Durability, EventStore

ROUNDS = 5
SESSIONS = [SessionId(f"ses_{n:032x}") for n in range(64)]
BODY = ev.MessageStreamed(delta="The quick brown fox jumps over the lazy dog. " * 3, message_id="msg_0123456789abcdef")
RAW = "CREATE TABLE raw (id INTEGER PRIMARY KEY, sid INTEGER, seq INTEGER, type TEXT, at INTEGER, body BLOB)"
INSERT = "INSERT INTO raw (sid, seq, type, at, body) VALUES (?, ?, ?, ?, ?)"
ROW = (1, 1, "message_streamed", 1_700_000_000_000_000, encode_body(BODY))


def drafts(session: int, size: int) -> list[Draft]:
    run_id = RunId(f"run_{session:032x}")
    return [Draft(data=BODY, run_id=run_id, source="agent", provider="claude") for _ in range(size)]


class Raw:
    """The floor: SQLite by hand, no checks, no index, no states."""

    def __init__(self, folder: Path, level: str) -> None:
        self.std = sqlite3.connect(folder / f"std-{level}.db", isolation_level=None)
        self.apsw = apsw.Connection(str(folder / f"apsw-{level}.db"))
        for db in (self.std, self.apsw):
            db.execute("PRAGMA journal_mode = WAL").fetchall()
            db.execute(f"PRAGMA synchronous = {level}").fetchall()
            db.execute(RAW)

    def single(self, count: int) -> int:
        for _ in range(count):
            self.std.execute(INSERT, ROW)
        return count

    def single_apsw(self, count: int) -> int:
        for _ in range(count):
            self.apsw.execute(INSERT, ROW)
        return count

    def latencies(self, count: int) -> list[float]:
        """What raw commits take: the tail that is the machine's own."""
        took: list[float] = []
        for _ in range(count):
            begun = time.perf_counter()
            self.std.execute(INSERT, ROW)
            took.append(time.perf_counter() - begun)
        return took

    def read_back(self) -> int:
        """The rows of `batch`, in pages of 500, their bodies decoded."""
        decode, after, count = msgspec.json.Decoder().decode, 0, 0
        page = "SELECT id, seq, type, at, body FROM raw WHERE id > ? ORDER BY id LIMIT 500"
        while count < 20_000 and (rows := self.std.execute(page, (after,)).fetchall()):
            for row in rows:
                decode(row[4])
            after, count = rows[-1][0], count + len(rows)
        return count

    def batch(self, db: sqlite3.Connection | apsw.Connection, count: int) -> int:
        rows = [ROW] * 512
        for _ in range(count // 512):
            db.execute("BEGIN IMMEDIATE")
            db.executemany(INSERT, rows)
            db.execute("COMMIT")
        return count // 512 * 512


async def awaiting(store: EventStore, clients: int, each: int, size: int, durability: Durability) -> int:
    """`clients` sessions that append `size` events and wait, `each` times."""

    async def client(n: int) -> None:
        batch = drafts(n, size)
        for _ in range(each):
            await store.append(SESSIONS[n], batch, durability=durability)

    async with asyncio.TaskGroup() as group:
        for n in range(clients):
            group.create_task(client(n))
    return clients * each * size


async def read_back(store: EventStore) -> int:
    """A session's log in pages of 500."""
    after = count = 0
    while count < 20_000 and (events := await store.read(SESSIONS[0], after=after)):
        after, count = events[-1].sequence, count + len(events)
    return count


async def prepared(store: EventStore) -> EventStore:
    for n, session in enumerate(SESSIONS):
        run_id = RunId(f"run_{n:032x}")
        start = [Draft(data=ev.SessionCreated(agent_id="bench")), Draft(data=ev.SessionStarted())]
        start += [Draft(data=data, run_id=run_id) for data in (ev.RunQueued(), ev.RunStarted(provider="claude"))]
        await store.append(session, start)
    return store


async def latencies(store: EventStore, rate: float, seconds: float) -> list[float]:
    """What appends take, spread over 16 sessions, at `rate` events a second."""
    took: list[float] = []

    async def client(n: int) -> None:
        batch, due = drafts(n, 1), time.perf_counter() + n / rate
        end = due + seconds
        while due < end:
            await asyncio.sleep(max(0, due - time.perf_counter()))
            begun = time.perf_counter()
            await store.append(SESSIONS[n], batch)
            took.append(time.perf_counter() - begun)
            due += 16 / rate

    async with asyncio.TaskGroup() as group:
        for n in range(16):
            group.create_task(client(n))
    return took


Work = Callable[[], Awaitable[int] | int]


async def rate_of(work: Work) -> float:
    begun = time.perf_counter()
    done = work()
    count = done if isinstance(done, int) else await done
    return count / (time.perf_counter() - begun)


async def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("AGENTKEEL_BENCH_DIR")) as name:
        folder = Path(name)
        full, normal = Raw(folder, "FULL"), Raw(folder, "NORMAL")
        store = await prepared(await SqliteStore.open(folder / "ours.db"))
        memory = await prepared(MemoryStore())
        works: dict[str, Work] = {
            "raw commit, stdlib, FULL": lambda: full.single(400),
            "raw commit, apsw, FULL": lambda: full.single_apsw(400),
            "raw batch 512, stdlib, FULL": lambda: full.batch(full.std, 40_960),
            "raw batch 512, apsw, FULL": lambda: full.batch(full.apsw, 40_960),
            "raw commit, stdlib, NORMAL": lambda: normal.single(4000),
            "a  1 session, 1 event, full": lambda: awaiting(store, 1, 400, 1, "full"),
            "   1 session, 1 event, process": lambda: awaiting(store, 1, 1000, 1, "process"),
            "   8 sessions, 1 event, full": lambda: awaiting(store, 8, 200, 1, "full"),
            "b  64 sessions, 1 event, full": lambda: awaiting(store, 64, 80, 1, "full"),
            "   64 sessions, 1 event, process": lambda: awaiting(store, 64, 80, 1, "process"),
            "   1 session, batches of 64, full": lambda: awaiting(store, 1, 300, 64, "full"),
            "   8 sessions, batches of 64, full": lambda: awaiting(store, 8, 80, 64, "full"),
            "c  64 sessions, batches of 64, full": lambda: awaiting(store, 64, 10, 64, "full"),
            "   memory: 64 sessions, batches of 64": lambda: awaiting(memory, 64, 10, 64, "full"),
            "raw read, stdlib": full.read_back,
            "   read, pages of 500": lambda: read_back(store),
        }
        rates: dict[str, list[float]] = {title: [] for title in works}
        for _ in range(ROUNDS):
            for title, work in works.items():
                rates[title].append(await rate_of(work))
        median = {title: statistics.median(values) for title, values in rates.items()}
        show(median)
        commit = 1 / median["raw commit, stdlib, FULL"]
        half = median["a  1 session, 1 event, full"] / 2
        await store.aclose()
        store = await SqliteStore.open(folder / "ours.db")
        alone = sorted(full.latencies(4000))
        took = sorted(await latencies(store, half, 3))
        print(f"\ne  append at half load ({half:,.0f}/s over 16 sessions), in raw commits (goal: p99 <= 3)")
        for title, times in (("raw commits, one after another", alone), ("ours", took)):
            p50, p95, p99 = (times[len(times) * part // 100] / commit for part in (50, 95, 99))
            print(f"   {title:35} p50 {p50:5.1f}   p95 {p95:5.1f}   p99 {p99:5.1f}")
        payload = sum([len(encode_body(BODY)) for _ in range(await total(store))])
        await store.aclose()
        print(f"   file: {(folder / 'ours.db').stat().st_size / payload:.2f} bytes for each byte of body (goal: <= 2)")


async def total(store: EventStore) -> int:
    return sum([await store.head(session) for session in SESSIONS])


def show(median: dict[str, float]) -> None:
    single, normal = median["raw commit, stdlib, FULL"], median["raw commit, stdlib, NORMAL"]
    batch, batch_apsw = median["raw batch 512, stdlib, FULL"], median["raw batch 512, apsw, FULL"]
    print(f"{'events/s':40}{'rate':>10}{'/ commit':>10}{'/ batch':>10}{'/ batch':>10}   goal")
    print(f"{'(body ' + str(len(encode_body(BODY))) + ' bytes)':40}{'':>10}{'stdlib':>10}{'stdlib':>10}{'apsw':>10}")
    goals = {"a": "0.5 commit (stretch 0.65)", "b": "10 commits", "c": "0.5 batch (stretch 0.6)"}
    goals["   read, pages of 500"] = "0.5 raw read (first column)"
    for title, rate in median.items():
        base = (
            normal
            if title.endswith(("process", "NORMAL"))
            else median["raw read, stdlib"]
            if "read" in title
            else single
        )
        print(
            f"{title:40}{rate:>10,.0f}{rate / base:>10.2f}{rate / batch:>10.2f}{rate / batch_apsw:>10.2f}"
            f"   {goals.get(title if 'read' in title else title[0], '')}"
        )


if __name__ == "__main__":
    asyncio.run(main())

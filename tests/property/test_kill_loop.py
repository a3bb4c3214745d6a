"""kill -9 at any moment loses no acknowledged event, leaves no gap and no half batch, and the lock is free at once."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import apsw
import asyncpg
import pytest

from agentkeel.adapters.stores.postgres import PostgresStore
from agentkeel.adapters.stores.sqlite import SqliteStore
from agentkeel.core import events as ev
from agentkeel.core import run as runs
from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import SessionId
from agentkeel.core.run import RunState
from agentkeel.ports.store import EventStore
from agentkeel.testing.postgres import PostgresServer

pytestmark = pytest.mark.anyio

KILLS = 220
LIVES_PER_FILE = 22
SESSIONS = [SessionId(name) for name in ("single", "quick", "chunks", "few", "runs")]


class Victim:
    """The child process, one life after another."""

    def __init__(self) -> None:
        child = Path(__file__).with_name("kill_child.py")
        self._process = subprocess.Popen([sys.executable, str(child)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()
        self._buffer = b""

    def live_and_die(self, life: int, path: Path | str, *, acks: int, seconds: float, late: float) -> list[str]:
        """One life, killed `late` seconds after so many acknowledgements or seconds. What was acknowledged."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{life} {path}\n".encode())
        self._process.stdin.flush()
        pid = int(self._line(10).removeprefix("pid "))
        lines: list[str] = []
        end = time.monotonic() + seconds
        while len(lines) < acks and (line := self._line(end - time.monotonic())):
            lines.append(line)
        time.sleep(late)
        os.kill(pid, signal.SIGKILL)
        while not (line := self._line(20)).startswith("dead"):
            assert line, "the child's parent went away"
            lines.append(line)
        assert line == "dead 9"
        return [line.removeprefix("ack ") for line in lines if line.startswith("ack ")]

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _line(self, seconds: float) -> str:
        """The next line, or nothing after so many seconds."""
        end = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._out], [], [], max(0, end - time.monotonic()))
            if not ready:
                return ""
            self._buffer += os.read(self._out, 1 << 16)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()


@pytest.fixture
def victim() -> Iterator[Victim]:
    victim = Victim()
    yield victim
    victim.end()


class Witness:
    """Everything that was acknowledged in one file, and how far it has been checked."""

    def __init__(self) -> None:
        self.acked: dict[SessionId, dict[int, str]] = defaultdict(dict)
        self.seen: dict[SessionId, int] = defaultdict(int)
        self.total = 0

    def note(self, lines: list[str]) -> None:
        for line in lines:
            session, sequence, text = line.split(" ")
            self.acked[SessionId(session)][int(sequence)] = text
            self.total += 1

    async def check(self, store: EventStore) -> None:
        """Every acknowledged event is where it was acknowledged, with no gap and no half batch."""
        present = {state.id for state in await store.sessions()}
        for session in SESSIONS:
            acked, after = self.acked.pop(session, {}), self.seen[session]
            if session not in present:
                assert not acked
                continue
            events = await store.read(session, after=after, limit=1_000_000)
            assert [event.sequence for event in events] == list(range(after + 1, after + 1 + len(events)))
            assert await store.head(session) == after + len(events)
            texts = {event.sequence: _text(event) for event in events}
            assert {sequence: texts.get(sequence) for sequence in acked} == acked
            _whole_batches([text for text in texts.values() if "/" in text])
            self.seen[session] += len(events)

    async def check_runs(self, store: EventStore) -> None:
        """A run's state is what its events tell. Those that were alive are ended."""
        told: dict[str, RunState] = {}
        if "runs" in {state.id for state in await store.sessions()}:
            for event in await store.read(SessionId("runs"), limit=1_000_000):
                if event.run_id is not None and type(event.data) in runs.EVOLVING:
                    told[event.run_id] = runs.evolve(told.get(event.run_id), event)
        assert {run.id: run for run in await store.runs(limit=1_000_000)} == told
        for orphan in await store.orphans("heir"):
            end = Draft(data=ev.RunInterrupted(outcome="unknown"), run_id=orphan.id)
            await store.append(orphan.session_id, [end])
        assert await store.orphans("heir") == []


def _text(event: Event) -> str:
    return event.data.content if isinstance(event.data, ev.MessageReceived) else event.data.type


def _whole_batches(texts: list[str]) -> None:
    parts: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        life, n, part = text.split(".")
        parts[f"{life}.{n}"].append(part)
    for batch in parts.values():
        size = int(batch[0].split("/")[1])
        assert batch == [f"{part}/{size}" for part in range(size)]


def _integrity(path: Path) -> str:
    db = apsw.Connection(str(path))
    try:
        return str(db.execute("PRAGMA integrity_check").fetchall()[0][0])
    finally:
        db.close()


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_no_kill_loses_an_acknowledged_event(victim: Victim, tmp_path: Path) -> None:
    seed = int(os.environ.get("AGENTKEEL_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    print(f"AGENTKEEL_SEED={seed}")
    chance = random.Random(seed)
    witness, path, total = Witness(), tmp_path / "none", 0
    for life in range(KILLS):
        if life % LIVES_PER_FILE == 0:
            total += witness.total
            witness, path = Witness(), tmp_path / f"{life}.db"
        early = chance.random() < 0.2
        acks = chance.choice([1, 5, 50, 300, 600])
        seconds = chance.uniform(0, 0.06) if early else chance.uniform(0.1, 0.5)
        late = chance.uniform(0, 0.005)
        witness.note(victim.live_and_die(life, path, acks=acks, seconds=seconds, late=late))
        if not path.exists() or path.stat().st_size == 0:
            continue
        if chance.random() < 0.5:
            async with await SqliteStore.open(path) as store:
                await witness.check(store)
                await witness.check_runs(store)
        elif _integrity(path) == "ok" and _has_schema(path):
            async with await SqliteStore.open(path, read_only=True) as store:
                await witness.check(store)
        assert _integrity(path) == "ok"
    assert total + witness.total > KILLS * 20, "the loop has hardly written anything"


async def test_no_kill_of_a_writer_loses_what_postgresql_acknowledged(
    victim: Victim, postgres_server: PostgresServer
) -> None:
    chance, witness, url = random.Random(11), Witness(), postgres_server.url()
    schema = url.partition("schema=")[2]
    for life in range(12):
        seconds, late = chance.uniform(0.1, 0.4), chance.uniform(0, 0.005)
        witness.note(victim.live_and_die(life, url, acks=chance.choice([5, 100, 400]), seconds=seconds, late=late))
        async with await PostgresStore.open(url) as store:
            await witness.check(store)
            assert await store.orphans("heir") == [], "the lease of the dead has not lapsed yet"
            direct = await asyncpg.connect(postgres_server.dsn)
            await direct.execute(f"UPDATE {schema}.writers SET until = now() WHERE number <> {store._writer.number}")
            await direct.close()
            await witness.check_runs(store)
    assert witness.total > 100, "the loop has hardly written anything"


def _has_schema(path: Path) -> bool:
    db = apsw.Connection(str(path))
    try:
        return bool(db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall())
    finally:
        db.close()

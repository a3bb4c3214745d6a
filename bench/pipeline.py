"""From an agent's stdout to a subscriber, durably: agentkeel beside the design everyone writes first.

Both read the same child process, which prints JSON lines of 200 bytes of text; both decode, redact with 16 patterns or
more, store each event durably (synchronous FULL) and hand it to one subscriber. The naive design is `readline`,
`json.loads`, one regular expression after the other, an async SQLite wrapper that hops to its thread for each statement
(insert, then commit), and a queue.

Goals: at least 30 times the naive design, at least 15,000 durable events a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec

import agentkeel
from agentkeel.adapters.providers._wire.environment import allowed_environment
from agentkeel.adapters.providers._wire.process import Process
from agentkeel.core.capabilities import Capabilities
from agentkeel.core.content import Prompt
from agentkeel.core.events import Draft, MessageStreamed, ToolCallCompleted
from agentkeel.core.redact import DEFAULT
from agentkeel.ports.provider import Began, Decision, Ended, OpenSpec, Probe, Said

ROUNDS = 5
NAIVE_EVENTS = 1_500
FAST_EVENTS = 30_000
TEXT = ("the quick brown fox jumps over the lazy dog; " * 5)[:200]

AGENT = """
import sys
n, text = int(sys.argv[1]), sys.argv[2]
out = sys.stdout
for i in range(n):
    out.write('{"type":"delta","id":"m1","n":%d,"text":"%s"}\\n' % (i, text))
out.flush()
"""


class Line(msgspec.Struct):
    """One line of the bench's agent."""

    text: str
    id: str


class LineAgent:
    """The bench's agent as a provider. `durable` says each line in a body that is synced to the disk at once."""

    name = "bench"
    capabilities = Capabilities(text_deltas=True)
    secrets = frozenset[str]()

    def __init__(self, events: int, *, durable: bool) -> None:
        self._argv = [sys.executable, "-c", AGENT, str(events), TEXT]
        self._durable = durable

    @asynccontextmanager
    async def open(self, spec: OpenSpec) -> AsyncIterator[LineConnection]:
        env = allowed_environment(os.environ, extra={})
        async with Process.start(self._argv, cwd=spec.workspace, env=env, stdin="null") as process:
            yield LineConnection(process, durable=self._durable)

    async def probe(self) -> Probe:
        return Probe(name=self.name, installed=True)


class LineConnection:
    """One child that prints its lines and ends."""

    provider_session_id = None
    alive = False
    process: Mapping[str, object] = {}

    def __init__(self, process: Process, *, durable: bool) -> None:
        self._process = process
        self._durable = durable

    async def prompt(self, prompt: Prompt) -> AsyncIterator[Sequence[Said]]:
        decode = msgspec.json.Decoder(Line).decode
        yield [Began()]
        async for lines in self._process.lines():
            yield [self._draft(decode(line)) for line in lines]
        yield [Ended(status="completed")]

    def _draft(self, line: Line) -> Draft:
        if self._durable:
            return Draft(data=ToolCallCompleted(tool_call_id=line.id, tool_name="bench", tool_output=line.text))
        return Draft(data=MessageStreamed(delta=line.text, message_id=line.id))

    async def answer(self, request_id: str, decision: Decision) -> None: ...

    async def interrupt(self) -> None: ...


async def ours(folder: Path, events: int, sessions: int, *, durable: bool) -> float:
    """Events a second, from the first submit to the last event in the subscribers' hands."""
    provider = LineAgent(events // sessions, durable=durable)
    async with agentkeel.open(f"sqlite:{folder / 'log.db'}", providers=[provider]) as manager:
        handles = [await manager.start_session() for _ in range(sessions)]
        counts = [0] * sessions

        async def watch(index: int, session: agentkeel.Session) -> None:
            async for event in session.subscribe(after=2):
                counts[index] += event.type in {"message_streamed", "tool_call_completed"}
                if event.type == "run_completed":
                    return

        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for index, session in enumerate(handles):
                tasks.start_soon(watch, index, session)
                await session.submit("go")
        took = time.perf_counter() - began
        assert all(abs(count - events // sessions) <= 1 for count in counts), counts
        return events / took


async def naive(folder: Path, events: int) -> float:
    """The same, as it is usually written."""
    database = sqlite3.connect(folder / "naive.db", check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE events (session TEXT, seq INTEGER, body TEXT, UNIQUE (session, seq))")
    patterns = [re.compile(pattern.regex) for pattern in DEFAULT]
    queue: asyncio.Queue[dict[str, str] | None] = asyncio.Queue()

    def insert(seq: int, body: str) -> sqlite3.Cursor:
        return database.execute("INSERT INTO events VALUES (?, ?, ?)", ("s", seq, body))

    async def watch() -> int:
        count = 0
        while await queue.get() is not None:
            count += 1
        return count

    hop = asyncio.get_running_loop().run_in_executor
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, str(events), TEXT, stdout=asyncio.subprocess.PIPE
    )
    watcher = asyncio.ensure_future(watch())
    assert process.stdout is not None
    seq = 0
    while line := await process.stdout.readline():
        message = json.loads(line)
        for pattern in patterns:
            message["text"] = pattern.sub("[REDACTED]", message["text"])
        seq += 1
        cursor = await hop(None, insert, seq, json.dumps(message))
        await hop(None, cursor.close)
        await hop(None, database.commit)
        queue.put_nowait(message)
    queue.put_nowait(None)
    assert await watcher == events
    await process.wait()
    took = time.perf_counter() - began
    database.close()
    return events / took


async def main() -> None:
    columns = {
        "naive, 1 session": lambda d: naive(d, NAIVE_EVENTS),
        "text deltas, 1 session": lambda d: ours(d, FAST_EVENTS, 1, durable=False),
        "durable FULL, 1 session": lambda d: ours(d, FAST_EVENTS, 1, durable=True),
        "durable FULL, 16 sessions": lambda d: ours(d, FAST_EVENTS, 16, durable=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in columns}
    for _ in range(ROUNDS):
        for name, measure in columns.items():
            with tempfile.TemporaryDirectory() as folder:
                rates[name].append(await measure(Path(folder)))
    base = statistics.median(rates["naive, 1 session"])
    print(f"agent stdout -> subscriber, 200 B text, medians of {ROUNDS} interleaved rounds")
    print(f"{'design':28} {'events/s':>10} {'x naive':>8}")
    for name, values in rates.items():
        rate = statistics.median(values)
        print(f"{name:28} {rate:10,.0f} {rate / base:8.1f}")


if __name__ == "__main__":
    anyio.run(main)

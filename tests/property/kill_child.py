"""A process that appends until it is killed, and says on its standard output what was acknowledged.

It forks for each life, so that a life starts in milliseconds. Each line of its input is `LIFE PATH` or `LIFE URL`; it
answers with `pid N`, `open`, one `ack SESSION SEQUENCE TEXT` for each acknowledged event, and `dead` once the life has
been ended.
"""

from __future__ import annotations

import asyncio
import os
import sys

from agentkeel.adapters.stores.postgres import PostgresStore
from agentkeel.adapters.stores.sqlite import SqliteStore
from agentkeel.core import events as ev
from agentkeel.core.events import Draft
from agentkeel.core.ids import RunId, SessionId
from agentkeel.ports.store import Appended, Durability, EventStore


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def acknowledged(appended: Appended) -> None:
    """One write for all of a batch, which a pipe takes whole."""
    lines = []
    for event in appended.events:
        text = event.data.content if isinstance(event.data, ev.MessageReceived) else event.data.type
        lines.append(f"ack {event.session_id} {event.sequence} {text}")
    say("\n".join(lines))


async def create(store: EventStore, session: SessionId) -> None:
    if await store.head(session) == 0:
        start = [Draft(data=ev.SessionCreated(agent_id="kill")), Draft(data=ev.SessionStarted())]
        acknowledged(await store.append(session, start))


async def talk(store: EventStore, session: SessionId, life: str, size: int, durability: Durability) -> None:
    await create(store, session)
    n = 0
    while True:
        n += 1
        texts = [f"{life}.{n}.{part}/{size}" for part in range(size)]
        drafts = [Draft(data=ev.MessageReceived(content=text), key=text if n % 5 == 0 else None) for text in texts]
        acknowledged(await store.append(session, drafts, durability=durability))


async def work(store: EventStore, session: SessionId, life: str) -> None:
    """Runs, one after another, from their first event to their last."""
    await create(store, session)
    n = 0
    while True:
        n += 1
        run_id = RunId(f"run_{life}_{n}")
        moves = [
            ev.RunQueued(),
            ev.RunStarted(provider="x"),
            ev.TurnCompleted(turns=1),
            ev.RunCompleted(stop_reason="x"),
        ]
        for move in moves:
            acknowledged(await store.append(session, [Draft(data=move, run_id=run_id)]))


async def opened(path: str) -> EventStore:
    if path.startswith("postgresql:"):
        return await PostgresStore.open(path)
    return await SqliteStore.open(path)


async def live(life: str, path: str) -> None:
    store = await opened(path)
    say("open")
    async with asyncio.TaskGroup() as group:
        group.create_task(talk(store, SessionId("single"), life, 1, "full"))
        group.create_task(talk(store, SessionId("quick"), life, 1, "process"))
        group.create_task(talk(store, SessionId("chunks"), life, 40, "full"))
        group.create_task(talk(store, SessionId("few"), life, 3, "process"))
        group.create_task(work(store, SessionId("runs"), life))


def main() -> None:
    while line := sys.stdin.readline():
        life, path = line.rstrip("\n").split(" ", 1)
        child = os.fork()
        if child == 0:
            try:
                say(f"pid {os.getpid()}")
                asyncio.run(live(life, path))
            finally:
                os._exit(3)
        _, status = os.waitpid(child, 0)
        say(f"dead {os.WTERMSIG(status) if os.WIFSIGNALED(status) else f'of itself: {status}'}")


if __name__ == "__main__":
    main()

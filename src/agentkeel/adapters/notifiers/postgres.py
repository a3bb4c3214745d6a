"""Hints between processes that share a PostgreSQL database: a doorbell, never the news itself.

One connection of its own listens and rings. Rings of one moment are one NOTIFY, sent outside of any appending
transaction: in one, it would make all commits of the database wait for each other. Whatever is lost while the
connection is down is made good by waking everybody when it is back; readers poll besides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Protocol, runtime_checkable
from weakref import WeakValueDictionary

import anyio

from agentkeel.adapters.notifiers.local import LocalTicket
from agentkeel.core.ids import SessionId

__all__ = ["Exchange", "Line", "PostgresNotifier"]

PAYLOAD_BYTES = 7900
"""PostgreSQL takes less than 8000 bytes with one NOTIFY."""
EVERYBODY = "*"
HEARTBEAT_SECONDS = 5.0
"""How long a dead connection may stay unseen."""
ANSWER_SECONDS = 5.0
PAUSES = (0.05, 0.2, 1.0, 3.0)
"""Seconds between the tries to connect; the last one goes on."""


class Line(Protocol):
    """A connection as the driver gives it."""

    async def add_listener(self, channel: str, callback: Callable[..., Any], /) -> Any: ...
    async def execute(self, query: str, /, *values: Any, timeout: float | None = None) -> Any: ...  # noqa: ASYNC109 - theirs
    def add_termination_listener(self, callback: Callable[[Any], Any], /) -> None: ...
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...


@runtime_checkable
class Exchange(Protocol):
    """A store that others may write, whose readers wait on a channel of its server."""

    @property
    def channel(self) -> str | None:
        """Where to listen; None if nobody can."""
        ...

    async def line(self) -> Any:
        """A new `Line` to the server."""
        ...


class PostgresNotifier:
    """A `Notifier` for all processes that listen on `channel`. Use it as `async with PostgresNotifier(…) as notifier`.

    `connect` gives a new connection that no pooler shares; what it raises is taken as "not now". Who waits in this
    process is woken at once, without the database.
    """

    def __init__(self, connect: Callable[[], Awaitable[Line]], channel: str) -> None:
        self._connect = connect
        self._channel = channel
        self._tickets: WeakValueDictionary[SessionId, LocalTicket] = WeakValueDictionary()
        self._rung: set[SessionId] = set()
        self._ring = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listening = anyio.Event()
        self.lines = 0

    async def __aenter__(self) -> PostgresNotifier:
        self._task = asyncio.get_running_loop().create_task(self._serve(), name=f"agentkeel-notifier {self._channel}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([task])

    async def listening(self) -> None:
        """Returns once it has listened for the first time."""
        await self._listening.wait()

    def ticket(self, session_id: SessionId) -> LocalTicket:
        """A ticket, which lives as long as somebody holds it, and is good until the session's next notification."""
        ticket = self._tickets.get(session_id)
        if ticket is None:
            ticket = self._tickets[session_id] = LocalTicket()
        return ticket

    def notify(self, session_id: SessionId) -> None:
        """Everyone who holds a ticket of the session is woken: here now, elsewhere soon."""
        self._wake(session_id)
        self._rung.add(session_id)
        self._ring.set()

    def _wake(self, session_id: SessionId) -> None:
        ticket = self._tickets.pop(session_id, None)
        if ticket is not None:
            ticket.wake()

    def _wake_everybody(self) -> None:
        for session_id in list(self._tickets.keys()):
            self._wake(session_id)

    def _heard(self, _line: Any, _pid: int, _channel: str, payload: str) -> None:
        if payload == EVERYBODY:
            self._wake_everybody()
            return
        for session_id in payload.split(" "):
            self._wake(SessionId(session_id))

    async def _serve(self) -> None:
        """A line is up, or is being tried for, until the task is cancelled."""
        tries = 0
        while True:
            line: Line | None = None
            try:
                line = await self._connect()
                await line.add_listener(self._channel, self._heard)
                self.lines += 1
                self._listening.set()
                self._wake_everybody()  # what was rung while nobody listened
                tries = 0
                await self._answer(line)
            except Exception:  # noqa: BLE001 - the task's outer edge: a hint is lost, and polling goes on
                await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1
            finally:
                if line is not None:
                    line.terminate()

    async def _answer(self, line: Line) -> None:
        """Send what is rung; ask now and then whether the line is dead. Ends only with what the driver raises."""
        line.add_termination_listener(lambda _: self._ring.set())
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._ring.wait()
            except TimeoutError:
                await line.execute("SELECT 1", timeout=ANSWER_SECONDS)
                continue
            await asyncio.sleep(0)  # the commits of one moment ring once
            self._ring.clear()
            if line.is_closed():
                raise ConnectionError("The line to the server is lost.")
            if not self._rung:
                continue
            rung, self._rung = self._rung, set()
            payload = " ".join(sorted(rung))
            if len(payload.encode()) > PAYLOAD_BYTES:
                payload = EVERYBODY
            try:
                await line.execute("SELECT pg_notify($1, $2)", self._channel, payload, timeout=ANSWER_SECONDS)
            except BaseException:
                self._rung |= rung  # the next line sends them
                self._ring.set()
                raise

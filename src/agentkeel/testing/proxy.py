"""A wire that can be cut: a TCP proxy on loopback that drops, delays or stalls what passes, at a word.

::

    async with TcpProxy(server.port) as proxy:
        store = await PostgresStore.open(server.url(port=proxy.port))
        proxy.at(b"COMMIT", "cut_after")
        await store.append(…)  # the commit happened, its answer was lost
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Literal

__all__ = ["Fault", "TcpProxy"]

Fault = Literal["cut_before", "cut_after", "late", "stall"]
"""cut_before: both sides are cut, the word is lost. cut_after: the word arrives, is answered, and the answer is lost.
late: the caller is cut; the word arrives when `release` is called. stall: nothing passes any more, nobody is cut."""

CHUNK = 65536


class TcpProxy:
    """Stands before a port of loopback, on a free one of its own (`port`).

    Attributes:
        refusing: New connections are cut at once.
        delay: Seconds that each piece from the caller waits; asked anew for every piece.
        connections: How many were made so far.
        struck: How many faults happened.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._faults: list[tuple[bytes, Fault]] = []
        self._released = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.refusing = False
        self.delay: Callable[[bytes], float] = lambda _: 0.0
        self.connections = self.struck = 0

    async def __aenter__(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def at(self, word: bytes, fault: Fault) -> None:
        """The next piece from a caller that has `word` in it meets `fault`; once."""
        self._faults.append((word, fault))

    def release(self) -> None:
        """What was held back arrives."""
        self._released.set()

    def cut(self) -> None:
        """All connections are cut."""
        for pair in list(self._pairs):
            self._cut(pair)

    def _cut(self, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self._pairs.discard(pair)
        for side in pair:
            side.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, caller: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        if self.refusing:
            caller.transport.abort()
            return
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            caller.transport.abort()
            return
        pair = (caller, server)
        self._pairs.add(pair)
        swallow = asyncio.Event()
        back = asyncio.create_task(self._back(answers, caller, swallow))
        self._tasks.add(back)
        back.add_done_callback(self._tasks.discard)
        try:
            while piece := await reader.read(CHUNK):
                await asyncio.sleep(self.delay(piece))
                if not await self._passed(piece, pair, swallow, back):
                    return
        except OSError:
            pass  # cut by either side: the same end
        finally:
            self._cut(pair)

    async def _passed(
        self,
        piece: bytes,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        swallow: asyncio.Event,
        back: asyncio.Task[None],
    ) -> bool:
        """Whether the piece went its way and others may follow."""
        caller, server = pair
        due = [number for number, (word, _) in enumerate(self._faults) if word in piece]
        if not due:
            server.write(piece)
            await server.drain()
            return True
        _, fault = self._faults.pop(due[0])
        self.struck += 1
        match fault:
            case "cut_before":
                return False
            case "cut_after":
                swallow.set()
                server.write(piece)
                await back
                return False
            case "late":
                caller.transport.abort()
                await self._released.wait()
                swallow.set()
                server.write(piece)
                await back
                return False
            case "stall":
                await self._released.wait()
                return False

    async def _back(self, answers: asyncio.StreamReader, caller: asyncio.StreamWriter, swallow: asyncio.Event) -> None:
        """Answers go to the caller, until one is to be swallowed."""
        try:
            while piece := await answers.read(CHUNK):
                if swallow.is_set():
                    return
                caller.write(piece)
                await caller.drain()
        except OSError:
            return
        if not caller.is_closing():
            caller.close()

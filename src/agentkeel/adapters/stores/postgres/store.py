"""`PostgresStore`: the log of many machines in one database. This module is the door; its neighbours do the work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import anyio

from agentkeel.adapters.stores.asking import check_limit, check_page, closed
from agentkeel.adapters.stores.postgres import leases, questions, schema
from agentkeel.adapters.stores.postgres.address import Address
from agentkeel.adapters.stores.postgres.faults import DRIVER_ERRORS, hope_of, of_opening, of_reading, of_writing
from agentkeel.adapters.stores.postgres.link import Link, Links
from agentkeel.adapters.stores.postgres.writer import PAUSES, Writer
from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.run import RunState, RunStatus
from agentkeel.core.session import SessionState, SessionStatus
from agentkeel.errors import Error, StateError, StoreIncompatible
from agentkeel.ports.store import Appended, Durability, EventFilter, StoreInfo

__all__ = ["PostgresStore"]

T = TypeVar("T")

LEAVE_SECONDS = 5.0
"""How long closing waits for a server that does not answer."""
DELETE_SECONDS = 600.0
"""How long the deletion of a large session may take."""


class PostgresStore:
    """An `EventStore` in a PostgreSQL database, which many processes may write at once.

    Made by `open`, and used on one event loop. A caller that is cancelled while it waits for `append` leaves its batch
    in the log or not, whole either way; a retry with the same keys tells.
    """

    def __init__(
        self, address: Address, writer: Writer | None, *, now: Callable[[], datetime], engine: str, warnings: list[str]
    ) -> None:
        self._address = address
        self._links = Links(address)
        self._writer = writer
        self._now = now
        self._engine = engine
        self._warnings = warnings
        self._loop = asyncio.get_running_loop()
        self._closed: anyio.Event | None = None

    @classmethod
    async def open(
        cls, url: str, *, read_only: bool = False, now: Callable[[], datetime] | None = None
    ) -> PostgresStore:
        """The store that `url` names (`address.py`) is open. Missing tables are made, older ones brought up to date.

        Close it with `aclose`, or use it as `async with await PostgresStore.open(url) as store`.

        Args:
            read_only: Only look. Writes raise `StateError`.
            now: Wall time in UTC for events that bring none.
        Raises:
            ValidationError: The URL cannot be read.
            StoreIncompatible: The tables are not ours, or a newer version's, or the server is too old.
            StoreUnavailable: The server cannot be reached.
            StorageError: It does not let us in, or not do what is needed.
        """
        address = Address.of(url)
        try:
            link = await Link.open(address)
            try:
                engine, warnings = await schema.check_server(link, address.location)
                writer = None
                if read_only:
                    await _check_readable(link, address)
                    await link.close()
                else:
                    await schema.migrate(link, address.location, address.schema)
                    writer = Writer(address)
                    await writer.start(link)
            except BaseException:
                link.drop()
                raise
        except DRIVER_ERRORS as error:
            raise of_opening(error, address.location) from error
        return cls(address, writer, now=now or _utc_now, engine=engine, warnings=warnings)

    @property
    def address(self) -> Address:
        """Where it is."""
        return self._address

    @property
    def channel(self) -> str | None:
        """Where processes tell each other of news; None if the URL gives no connection to listen on."""
        return f"agentkeel_{self._address.schema}"[:63] if self._address.listens else None

    async def line(self) -> Any:
        """A new connection to the server itself, for a notifier: the driver's own. Raises what the driver raises."""
        return (await Link.open(self._address, direct=True)).raw

    async def __aenter__(self) -> PostgresStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def append(
        self,
        session_id: SessionId,
        drafts: Sequence[Draft],
        *,
        expected: int | None = None,
        fence: int | None = None,
        durability: Durability = "full",
    ) -> Appended:
        writer = self._writer_or_refusal()
        return await writer.append(
            session_id, tuple(drafts), self._now(), expected=expected, fence=fence, durability=durability
        )

    async def read(
        self, session_id: SessionId, *, after: int = 0, limit: int = 500, where: EventFilter | None = None
    ) -> Sequence[Event]:
        check_page(after, limit)
        return await self._ask(lambda link: questions.events(link, session_id, after, limit, where))

    async def feed(self, after: str | None = None, limit: int = 500) -> tuple[Sequence[Event], str]:
        """The first `limit` events of all sessions behind a cursor, and the cursor behind them; None is the beginning.

        Each event is shown once, and none is ever committed behind a cursor that was given: events of transactions that
        an older open one could still precede are held back until it ends. Within a session the order is the log's as
        long as one process writes it; with several, order by `sequence`. The cursor is opaque.

        Raises:
            ValidationError: `after` is no cursor of a feed (`invalid_cursor`).
        """
        check_limit(limit)
        return await self._ask(lambda link: questions.feed(link, after, limit))

    async def head(self, session_id: SessionId) -> int:
        return await self._ask(lambda link: questions.head(link, session_id))

    async def session(self, session_id: SessionId) -> SessionState:
        return await self._ask(lambda link: questions.session(link, session_id))

    async def sessions(
        self,
        *,
        status: Collection[SessionStatus] | None = None,
        agent_id: str | None = None,
        provider: str | None = None,
        tags: Collection[str] = (),
        after: SessionId | None = None,
        limit: int = 50,
    ) -> Sequence[SessionState]:
        check_limit(limit)
        asked = {
            "status": status,
            "agent_id": agent_id,
            "provider": provider,
            "tags": tags,
            "after": after,
            "limit": limit,
        }
        return await self._ask(lambda link: questions.sessions(link, asked))

    async def delete_session(self, session_id: SessionId) -> None:
        self._writer_or_refusal()
        await self._change(lambda link: leases.delete(link, session_id), seconds=DELETE_SECONDS)

    async def run(self, run_id: RunId) -> RunState:
        return await self._ask(lambda link: questions.run(link, run_id))

    async def runs(
        self,
        *,
        session_id: SessionId | None = None,
        status: Collection[RunStatus] | None = None,
        after: RunId | None = None,
        limit: int = 50,
    ) -> Sequence[RunState]:
        check_limit(limit)
        asked = {"session_id": session_id, "status": status, "after": after, "limit": limit}
        return await self._ask(lambda link: questions.runs(link, asked))

    async def run_by_key(self, session_id: SessionId, key: str) -> RunState | None:
        return await self._ask(lambda link: questions.run_by_key(link, session_id, key))

    async def claim(self, run_id: RunId, *, owner: str, ttl: float) -> int:
        writer = self._writer_or_refusal()
        return await self._change(lambda link: leases.claim(link, run_id, owner=owner, ttl=ttl, writer=writer.number))

    async def renew(self, owner: str, *, ttl: float) -> None:
        writer = self._writer_or_refusal()
        await self._change(lambda link: leases.renew(link, owner, ttl=ttl, writer=writer.number))

    async def orphans(self, owner: str) -> Sequence[RunState]:
        writer = self._writer_or_refusal()
        return await self._ask(lambda link: leases.orphans(link, owner, writer=writer.number))

    async def info(self) -> StoreInfo:
        writers = await self._ask(lambda link: link.ask("writer_list"))
        here = [f"process {pid} on {host}, since {at.isoformat(timespec='seconds')}" for _, _, host, pid, at in writers]
        return StoreInfo(
            kind="postgresql",
            location=self._address.location,
            schema=schema.latest(),
            writable=self._writer is not None,
            owner="; ".join(here) or None,
            epoch=0 if self._writer is None else self._writer.number,
            engine=f"PostgreSQL {self._engine}",
            warnings=tuple(self._warnings),
        )

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            if self._closed is not None:
                await self._closed.wait()
                return
            self._closed = anyio.Event()
            try:
                if self._writer is not None:
                    await self._writer.stop()
                    await self._leave(self._writer.number)
                await self._links.aclose()
            finally:
                self._closed.set()

    async def _leave(self, writer: int) -> None:
        """What was claimed here is free for others at once, if the database can be told; else its leases lapse."""
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._transact(partial(leases.release, writer=writer), patience=0.0)
        except DRIVER_ERRORS:
            self._links.forget()

    async def _ask(self, question: Callable[[Link], Awaitable[T]]) -> T:
        self._check_usable()
        for last in (False, True):
            try:
                async with self._links.reading() as link:
                    return await question(link)
            except DRIVER_ERRORS as error:
                if last or hope_of(error) == "none":
                    raise of_reading(error, self._address.location) from error
                self._links.forget()  # the server may have been restarted under all of them
        raise AssertionError

    async def _change(self, work: Callable[[Link], Awaitable[T]], *, seconds: float = 0.0) -> T:
        try:
            return await self._transact(work, patience=self._address.patience, seconds=seconds)
        except DRIVER_ERRORS as error:
            raise of_writing(error, self._address.location) from error

    async def _transact(self, work: Callable[[Link], Awaitable[T]], *, patience: float, seconds: float = 0.0) -> T:
        """`work` is done and committed, once at least: it is such that doing it twice is doing it once."""
        until, tries = self._loop.time() + patience, 0
        while True:
            try:
                async with self._links.link() as link:
                    await link.begin(seconds=seconds)
                    try:
                        done = await work(link)
                    except Error:
                        await link.rollback()
                        raise
                    await link.commit()
                    return done
            except DRIVER_ERRORS as error:
                if hope_of(error) == "none" or self._loop.time() >= until:
                    raise
                if hope_of(error) == "elsewhere":
                    self._links.forget()
            await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
            tries += 1

    def _writer_or_refusal(self) -> Writer:
        self._check_usable()
        if self._writer is None:
            raise StateError(
                f"{self._address.location} is open for reading only. Nothing was stored.", code="invalid_operation"
            )
        return self._writer

    def _check_usable(self) -> None:
        if self._closed is not None:
            raise closed(self._address.location)
        if asyncio.get_running_loop() is not self._loop:
            raise StateError(
                f"The store {self._address.location} was opened on another event loop. Open one per loop, or share the "
                "loop.",
                code="invalid_operation",
            )


async def _check_readable(link: Link, address: Address) -> None:
    found = await schema.check(link, address.location, address.schema)
    if found < schema.latest():
        raise StoreIncompatible(
            f"{address.location} has schema {found}; this version reads {schema.latest()}. Open it once for writing.",
            code="migration_required",
            details={"location": address.location, "schema": found},
        )


def _utc_now() -> datetime:
    return datetime.now(UTC)

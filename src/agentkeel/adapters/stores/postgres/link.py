"""One connection to the server, with every wait bounded. All of `asyncpg` that the store uses is in here.

Timeouts are set in each transaction and nothing is left on a connection, so a pooler may stand between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agentkeel.adapters.stores.postgres.address import Address
from agentkeel.adapters.stores.postgres.sql import query
from agentkeel.errors import Error, StorageError
from agentkeel.ports.store import Durability

try:
    import asyncpg  # type: ignore[import-untyped]
except ImportError as error:
    raise StorageError(
        "PostgreSQL stores need the package asyncpg. Install agentkeel[postgres].", code="dependency_not_available"
    ) from error

__all__ = ["Link", "Links", "Row", "asyncpg"]

Row = Sequence[Any]

_PLANS = "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off"
"""What writers ask is planned once, and as for large tables: a plan made while they were empty stays good."""

CONNECT_SECONDS = 10
CLOSE_SECONDS = 2.0
GRACE_SECONDS = 1.0
"""Beyond the server's own timeout, before the connection is given up as dead."""


class Link:
    """A connection. A call that raises anything but a `PostgresError` leaves it unusable: `drop` it."""

    def __init__(self, connection: Any, address: Address) -> None:
        self._connection = connection
        self._schema = address.schema
        self._wait = address.statement_timeout + GRACE_SECONDS
        self._limits = (
            f"SET LOCAL statement_timeout = {_ms(address.statement_timeout)}; "
            f"SET LOCAL lock_timeout = {_ms(address.lock_timeout)}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {_ms(address.idle_timeout)}; "
            "SET LOCAL jit = off"
        )

    @classmethod
    async def open(cls, address: Address, *, direct: bool = False) -> Link:
        """A connection of its own. Raises what the driver raises."""
        connection = await asyncpg.connect(
            address.direct if direct else address.dsn,
            timeout=CONNECT_SECONDS,
            statement_cache_size=address.statement_cache_size,
        )
        return cls(connection, address)

    @property
    def raw(self) -> Any:
        """The driver's connection."""
        return self._connection

    @property
    def usable(self) -> bool:
        """Whether the driver still believes in it."""
        return not self._connection.is_closed()

    async def ask(self, name: str, *values: Any) -> list[Row]:
        """The rows that answer the question `name`."""
        rows: list[Row] = await self._connection.fetch(query(name, self._schema), *values, timeout=self._wait)
        return rows

    async def tell(self, name: str, rows: Sequence[Sequence[Any]]) -> None:
        """The statement `name`, once for each of `rows`."""
        await self._connection.executemany(query(name, self._schema), rows, timeout=self._wait)

    async def copy(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """The rows are in the table, sent as one stream."""
        await self._connection.copy_records_to_table(
            table, schema_name=self._schema, columns=list(columns), records=rows, timeout=self._wait
        )

    async def do(self, text: str, *, wait: float | None = None) -> str:
        """A script without values is done; what the server says of its last statement."""
        said: str = await self._connection.execute(text, timeout=wait or self._wait)
        return said

    async def begin(self, durability: Durability = "full", *, read_only: bool = False, seconds: float = 0) -> None:
        """A transaction is open, and bounded. `seconds` allows its statements more than the address does."""
        kind = "READ ONLY" if read_only else "READ WRITE"
        more = ""
        if not read_only:
            more = f"; SET LOCAL synchronous_commit = {'on' if durability == 'full' else 'off'}; {_PLANS}"
        if seconds:
            more += f"; SET LOCAL statement_timeout = {_ms(seconds)}; SET LOCAL lock_timeout = {_ms(seconds)}"
        await self.do(f"BEGIN ISOLATION LEVEL READ COMMITTED {kind}; {self._limits}{more}")

    async def commit(self) -> None:
        """The transaction is in the log.

        Raises:
            StorageError: The server rolled it back instead.
        """
        said = await self.do("COMMIT")
        if said != "COMMIT":
            raise StorageError(
                f"The database answered a commit with {said}. Nothing was stored.", code="storage_write_failed"
            )

    async def rollback(self) -> None:
        """Nothing of the transaction happened."""
        await self.do("ROLLBACK")

    def drop(self) -> None:
        """The connection is cut, at once."""
        self._connection.terminate()

    async def close(self) -> None:
        """The connection is closed in order, if the server answers soon."""
        try:
            await self._connection.close(timeout=CLOSE_SECONDS)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._connection.terminate()  # it is dead: there is nobody to say goodbye to


class Links:
    """The connections that readers share. They are made when they are needed, and again when they died."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: list[Link] = []
        self._room = asyncio.Semaphore(address.pool_size)
        self._closed = False

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        """A connection for the length of the block; outside of any transaction, before and after."""
        async with self._room:
            link = self._taken() or await Link.open(self._address)
            try:
                yield link
            except Error:
                self._put_back(link)
                raise
            except BaseException:  # a question may have been left half asked
                link.drop()
                raise
            self._put_back(link)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Link]:
        """A connection for questions; within a transaction where the next one may be another connection's."""
        async with self.link() as link:
            if not self._address.pooled:
                yield link
                return
            await link.begin(read_only=True)
            yield link
            await link.rollback()

    def forget(self) -> None:
        """The idle ones are cut: the server they knew is gone."""
        while self._idle:
            self._idle.pop().drop()

    async def aclose(self) -> None:
        """All of them are closed."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()

    def _taken(self) -> Link | None:
        while self._idle:
            link = self._idle.pop()
            if link.usable:
                return link
        return None

    def _put_back(self, link: Link) -> None:
        if self._closed or not link.usable or link.raw.is_in_transaction():
            link.drop()
        else:
            self._idle.append(link)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))

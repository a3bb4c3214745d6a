"""`SqliteStore`: the log of a machine in one file. This module is the door; the work is done in its neighbours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TypeVar

import anyio
import apsw

from agentkeel.adapters.stores.asking import check_limit, check_page, closed
from agentkeel.adapters.stores.sqlite import backup, questions, schema
from agentkeel.adapters.stores.sqlite.faults import check_version
from agentkeel.adapters.stores.sqlite.files import filesystem_of, is_network, prepare, sealed
from agentkeel.adapters.stores.sqlite.ledger import Ledger
from agentkeel.adapters.stores.sqlite.lock import OwnerLock
from agentkeel.adapters.stores.sqlite.readers import Readers
from agentkeel.adapters.stores.sqlite.writer import Writer
from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.run import RunState, RunStatus
from agentkeel.core.session import SessionState, SessionStatus
from agentkeel.errors import StateError, StorageError, StoreIncompatible
from agentkeel.ports.store import Appended, Durability, EventFilter, StoreInfo

__all__ = ["SqliteStore"]

T = TypeVar("T")


class SqliteStore:
    """An `EventStore` in one SQLite file, owned by one process and one event loop.

    Made by `open`. Other processes may read it with `read_only=True`, also while it is written. A caller that is
    cancelled while it waits for `append` leaves its batch in the log or not, whole either way; a retry with the same
    keys tells.
    """

    def __init__(
        self, path: Path, readers: Readers, *, lock: OwnerLock | None, now: Callable[[], datetime], warnings: list[str]
    ) -> None:
        self._path = path
        self._readers = readers
        self._lock = lock
        self._now = now
        self._warnings = warnings
        self._writer: Writer | None = None
        self._loop = asyncio.get_running_loop()
        self._closed: anyio.Event | None = None

    @classmethod
    async def open(
        cls,
        path: str | PathLike[str],
        *,
        read_only: bool = False,
        older: bool = False,
        allow_network: bool = False,
        now: Callable[[], datetime] | None = None,
        monotonic: Callable[[], float] | None = None,
        filesystem: Callable[[Path], str] = filesystem_of,
        vfs: str | None = None,
    ) -> SqliteStore:
        """The store in the file `path` is open; a missing file and its folder are made, for this user alone.

        Close it with `aclose`, or use it as `async with await SqliteStore.open(path) as store`.

        Args:
            read_only: Only look, beside an owner or without one. Writes raise `StateError`.
            older: With `read_only`: open a store of an older schema too, for its `backup` before it is migrated.
            allow_network: Own a file on a network file system all the same. Only one machine may ever use it.
            now: Wall time in UTC for events that bring none.
            monotonic: Seconds, for claims.
            filesystem: Tells the type of the file system a path is on.
            vfs: Name of a registered SQLite VFS.
        Raises:
            StoreOwned: Another process writes it, or this one has it open already.
            StoreIncompatible: It is no store of ours, a newer version's, or SQLite is too old to be safe.
            NotFound: `read_only`, and there is no store.
            StorageError: The path cannot be a store, or the store is damaged.
        """
        check_version(apsw.sqlite_lib_version())
        place, warnings = await anyio.to_thread.run_sync(_prepare, Path(path), read_only, allow_network, filesystem)
        lock = None if read_only else _acquire(place)
        immutable = read_only and sealed(place)
        store = cls(
            place,
            Readers(place, immutable=immutable, vfs=vfs),
            lock=lock,
            now=now or _utc_now,
            warnings=warnings,
        )
        try:
            if read_only:
                await store._ask(partial(_check_readable, str(place), older=older))
            else:
                writer = Writer(Ledger(str(place), vfs=vfs), str(place), monotonic or time.monotonic)
                await writer.start()
                store._writer = writer
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return store

    async def __aenter__(self) -> SqliteStore:
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
            session_id, drafts, self._now(), expected=expected, fence=fence, durability=durability
        )

    async def read(
        self, session_id: SessionId, *, after: int = 0, limit: int = 500, where: EventFilter | None = None
    ) -> Sequence[Event]:
        check_page(after, limit)
        return await self._ask(lambda db: questions.events(db, session_id, after, limit, where))

    async def head(self, session_id: SessionId) -> int:
        return await self._ask(lambda db: questions.head(db, session_id))

    async def session(self, session_id: SessionId) -> SessionState:
        return await self._ask(lambda db: questions.session(db, session_id))

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
            "statuses": status,
            "agent_id": agent_id,
            "provider": provider,
            "tags": tags,
            "after": after,
            "limit": limit,
        }
        return await self._ask(lambda db: questions.sessions(db, asked))

    async def delete_session(self, session_id: SessionId) -> None:
        writer = self._writer_or_refusal()

        def delete() -> None:
            for run_id in writer.ledger.delete(session_id):
                writer.claims.ended(run_id)

        await writer.call(delete)

    async def run(self, run_id: RunId) -> RunState:
        return await self._ask(lambda db: questions.run(db, run_id))

    async def runs(
        self,
        *,
        session_id: SessionId | None = None,
        status: Collection[RunStatus] | None = None,
        after: RunId | None = None,
        limit: int = 50,
    ) -> Sequence[RunState]:
        check_limit(limit)
        asked = {"session": session_id, "statuses": status, "after": after, "limit": limit}
        return await self._ask(lambda db: questions.runs(db, asked))

    async def run_by_key(self, session_id: SessionId, key: str) -> RunState | None:
        return await self._ask(lambda db: questions.run_by_key(db, session_id, key))

    async def claim(self, run_id: RunId, *, owner: str, ttl: float) -> int:
        writer = self._writer_or_refusal()

        def claim() -> int:
            writer.ledger.claimable(run_id)
            return writer.claims.claim(run_id, owner, ttl)

        return await writer.call(claim)

    async def renew(self, owner: str, *, ttl: float) -> None:
        writer = self._writer_or_refusal()
        await writer.call(lambda: writer.claims.renew(owner, ttl))

    async def orphans(self, owner: str) -> Sequence[RunState]:
        writer = self._writer_or_refusal()
        return await writer.call(
            lambda: [run for run in writer.ledger.alive() if not writer.claims.taken(run.id, but=owner)]
        )

    async def info(self) -> StoreInfo:
        epoch, pid, host, started, clean = await self._ask(questions.owner)
        owner = None
        if not clean and started is not None:
            since = datetime.fromtimestamp(started // 1_000_000, UTC).isoformat()
            owner = f"process {pid} on {host}, since {since}"
        return StoreInfo(
            kind="sqlite",
            location=str(self._path),
            schema=schema.latest(),
            writable=self._writer is not None,
            owner=owner,
            epoch=epoch,
            engine=f"SQLite {apsw.sqlite_lib_version()}",
            warnings=tuple(self._warnings),
        )

    async def backup(self, path: str | PathLike[str], *, replace: bool = False) -> int:
        """The file `path` is a store with all that was acknowledged before the call, checked; its size in bytes.

        Nobody waits for it, neither the owner of this store nor its readers. A caller that is cancelled leaves no file.

        Args:
            replace: Take the place of a file that is there.
        Raises:
            ValidationError: There is such a file, or none can be made of this name.
            StorageError: It cannot be written, or the copy is damaged. What was at `path` is as it was.
        """
        return await self._ask(lambda db: backup.copy(db, self._path, Path(path), replace=replace))

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            if self._closed is not None:
                await self._closed.wait()
                return
            self._closed = anyio.Event()
            try:
                await self._readers.close()  # first, so that the writer can empty the log file
                if self._writer is not None:
                    await self._writer.stop()
            finally:
                if self._lock is not None:
                    self._lock.release()
                self._closed.set()

    async def _ask(self, question: Callable[[apsw.Connection], T]) -> T:
        self._check_usable()
        return await self._readers.ask(question)

    def _writer_or_refusal(self) -> Writer:
        self._check_usable()
        if self._writer is None:
            raise StateError(f"{self._path} is open for reading only. Nothing was stored.", code="invalid_operation")
        return self._writer

    def _check_usable(self) -> None:
        if self._closed is not None:
            raise closed(str(self._path))
        if asyncio.get_running_loop() is not self._loop:
            raise StateError(
                f"The store {self._path} was opened on another event loop. Open one per loop, or share the loop.",
                code="invalid_operation",
            )


def _prepare(
    path: Path, read_only: bool, allow_network: bool, filesystem: Callable[[Path], str]
) -> tuple[Path, list[str]]:
    """The file is there and on a disk we may use: where it really is, and what a person should know about that.

    Raises:
        StoreIncompatible, StorageError, NotFound: As `SqliteStore.open`.
    """
    path = path.expanduser().absolute()
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    kind = filesystem(existing)
    warnings: list[str] = []
    if is_network(kind):
        if not (read_only or allow_network):
            raise StoreIncompatible(
                f"{path} is on a network file system ({kind}), where a log can be damaged by a second machine. Nothing "
                "was opened; use a local disk, or allow_network=True if no other machine ever opens it.",
                details={"path": str(path), "filesystem": kind},
            )
        warnings.append(f"on a network file system ({kind}): safe only while one machine uses it")
    prepare(path, read_only=read_only)
    return path.resolve(), warnings


def _acquire(path: Path) -> OwnerLock:
    try:
        return OwnerLock.acquire(path, started=_utc_now().isoformat(timespec="seconds"))
    except OSError as error:
        raise StorageError(
            f"{path} cannot be owned: its lock file beside it cannot be written ({error.strerror}). Nothing was "
            "opened; read it with read_only=True, or check the permissions of the folder.",
            details={"path": str(path), "reason": error.strerror},
        ) from error


def _check_readable(location: str, db: apsw.Connection, *, older: bool) -> None:
    found = schema.check(db, location)
    if found < schema.latest() and not (older and found):
        raise StoreIncompatible(
            f"{location} has schema {found}; this version reads {schema.latest()}. Open it once for writing.",
            code="migration_required",
            details={"location": location, "schema": found},
        )


def _utc_now() -> datetime:
    return datetime.now(UTC)

"""Readers: a few connections that cannot write, used by worker threads, one short question at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import apsw
from anyio import CapacityLimiter, to_thread

from agentkeel.adapters.stores.sqlite.faults import no_space, of_reading
from agentkeel.adapters.stores.sqlite.lock import unowned
from agentkeel.adapters.stores.sqlite.sql import pragma
from agentkeel.errors import ValidationError

__all__ = ["READERS", "Readers"]

T = TypeVar("T")

READERS = 4
"""Connections that read at the same time."""
BUSY_MS = 5000


class Readers:
    """The pool. A question sees all that was acknowledged before it was asked."""

    def __init__(self, path: Path, *, immutable: bool = False, vfs: str | None = None) -> None:
        self._path = path
        self._immutable = immutable
        self._vfs = vfs
        self._limiter = CapacityLimiter(READERS)
        self._idle: list[apsw.Connection] = []

    async def ask(self, question: Callable[[apsw.Connection], T]) -> T:
        """The answer of `question`, which runs in a worker thread and leaves no transaction open.

        Raises:
            StoreUnavailable, StorageError: The file cannot be read.
        """
        return await to_thread.run_sync(self._answer, question, limiter=self._limiter)

    async def close(self) -> None:
        """No connection is open and no question is being answered."""
        for _ in range(READERS):
            await self._limiter.acquire_on_behalf_of(object())
        while self._idle:
            self._idle.pop().close()

    def _answer(self, question: Callable[[apsw.Connection], T]) -> T:
        db: apsw.Connection | None = None
        try:
            db = self._take()
            answer = question(db)
        except apsw.Error as error:
            if db is not None:
                db.close(force=True)
            if no_space(error):
                return self._as_it_stands(question, error)
            raise of_reading(error, str(self._path)) from error
        except BaseException as error:
            if db is not None:
                self._idle.append(db)
            if isinstance(error, UnicodeEncodeError):
                raise ValidationError(
                    "An id or a text of the question is not Unicode.", code="invalid_format"
                ) from error
            raise
        self._idle.append(db)
        return answer

    def _as_it_stands(self, question: Callable[[apsw.Connection], T], full: apsw.Error) -> T:
        """The answer on a full disk, where not even the memory that readers share with a writer can be made."""
        with unowned(self._path) as still:
            if not still or _size(self._path.with_name(self._path.name + "-wal")):
                raise of_reading(full, str(self._path)) from full
            try:
                db = self._connect(immutable=True)
                try:
                    return question(db)
                finally:
                    db.close(force=True)
            except apsw.Error as error:
                raise of_reading(error, str(self._path)) from error

    def _take(self) -> apsw.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect(immutable=self._immutable)

    def _connect(self, *, immutable: bool) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_NOMUTEX
        name = str(self._path)
        if immutable:
            name, flags = f"file:{quote(name)}?immutable=1", flags | apsw.SQLITE_OPEN_URI
        db = apsw.Connection(name, flags=flags, vfs=self._vfs)
        db.set_busy_timeout(BUSY_MS)
        pragma(db, "query_only = ON")
        pragma(db, "trusted_schema = OFF")
        return db


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

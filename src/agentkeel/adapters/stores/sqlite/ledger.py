"""The writer's connection and what it remembers of open sessions, so that an event costs no question.

What is remembered is true because this is the only writer: the owner's epoch is checked inside each transaction, and a
transaction that fails for any reason empties the memory.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import apsw

from agentkeel.adapters.stores.asking import ended, no_run, still_running
from agentkeel.adapters.stores.sqlite import schema
from agentkeel.adapters.stores.sqlite.rows import (
    checksum,
    events_of,
    extra_of,
    micros,
    run_of,
    run_row,
    session_of,
    session_row,
)
from agentkeel.adapters.stores.sqlite.sql import ask, pragma, query, repeated
from agentkeel.core.append import Extension, Name
from agentkeel.core.events import Event, Unknown
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.run import RunState
from agentkeel.core.session import SessionState
from agentkeel.errors import Fenced, StorageError, StoreUnavailable
from agentkeel.ports.store import Durability

__all__ = ["Ledger", "Log"]

ROWS_PER_STEP = 32
"""Events one statement inserts. SQLite's fixed cost per step, and a handover of the interpreter's lock, are shared."""
BLOCK_BITS = 12
"""Events of a block, as a power of two. See `migrations/0001_log.sql`."""
REMEMBERED = 4096
"""Sessions and runs to keep in mind."""
CHECKPOINT_PAGES = 4000
"""Pages in the log file after which a commit moves them into the database: 16 MB. Fewer pages mean more syncs."""
BUSY_MS = 5000
"""How long another program may hold the write lock."""
LAST_BUSY_MS = 200
"""How long a reader elsewhere may keep the log file from being emptied at the end; the log is synced by then."""


class Log:
    """One session's log as `core.append` wants to know it: committed events and those of the open transaction."""

    __slots__ = ("_ledger", "block", "head", "id", "number", "session")

    def __init__(self, ledger: Ledger, session_id: SessionId) -> None:
        self._ledger = ledger
        self.id = session_id
        self.number: int | None = None
        self.session: SessionState | None = None
        self.head = 0
        self.block = -1

    def run(self, run_id: RunId) -> RunState | None:
        known = self._ledger.run(run_id)
        return None if known is None else known[1]

    def named(self, name: Name) -> Event | None:
        return None if self.number is None else self._ledger.named(self.number, self.id, name)

    def at(self, sequence: int) -> Event:
        assert self.number is not None
        return self._ledger.at(self.number, self.id, sequence)


class Ledger:
    """The one connection that writes. Used by one thread."""

    def __init__(self, location: str, *, vfs: str | None = None) -> None:
        self._location = location
        self._file = Path(location)
        self._vfs = vfs
        self._db: apsw.Connection | None = None
        self._synchronous: Durability | None = None
        self._synced = False
        self._dirty = False
        self.epoch = 0
        self._identity: tuple[int, int] | None = None
        self._logs: dict[SessionId, Log] = {}
        self._runs: dict[RunId, tuple[int, RunState]] = {}
        self._pending: list[Any] = []
        self._blocks: list[tuple[int, int, int]] = []
        self._names: dict[tuple[int, Name], Event] = {}
        self._sessions_changed: dict[int, tuple[SessionState, bool]] = {}
        self._runs_changed: dict[int, tuple[int, RunState, bool]] = {}
        self._last_session = self._last_run = self._last_event = 0
        self._numbers_read = False
        self._last_at: tuple[Any, int] = (None, 0)

    # -- life ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """The store is in order, has the latest schema, and a new owner's turn has begun.

        Raises:
            StoreIncompatible, StorageError: It cannot be ours, or it is damaged.
            apsw.Error: SQLite could not open it.
        """
        db = self._connect()
        schema.check(db, self._location)  # before the first write
        mode = pragma(db, "journal_mode = WAL")
        if mode != "wal":
            raise StoreUnavailable(
                f"{self._location} cannot keep a write-ahead log here (journal mode {mode}). Use a local disk.",
                details={"location": self._location},
            )
        schema.migrate(db, self._location)
        ((_, _, _, _, clean),) = ask(db, "owner_row")
        if not clean:
            schema.verify(db, self._location)
        pragma(db, "synchronous = FULL")
        turn = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.time_ns() // 1000}
        ((self.epoch,),) = ask(db, "owner_take", turn)
        self._synced = True
        self._identity = self._identified()

    def close(self) -> None:
        """All is in the database file, the log file is empty, and the next owner knows that nothing went wrong."""
        db = self._db
        if db is None:
            return
        try:
            if self.epoch and self._own(db):
                pragma(db, "synchronous = FULL")
                ask(db, "owner_leave")
                db.set_busy_timeout(LAST_BUSY_MS)
                pragma(db, "wal_checkpoint(TRUNCATE)")
        finally:
            self.drop()

    def drop(self) -> None:
        """The connection is closed and nothing is remembered; the next transaction opens another one."""
        db, self._db = self._db, None
        self._synchronous = None
        self._forget()
        if db is not None:
            db.close(force=True)

    def _connect(self) -> apsw.Connection:
        self._db = db = apsw.Connection(
            self._location,
            flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_NOMUTEX,
            vfs=self._vfs,
        )
        db.set_busy_timeout(BUSY_MS)
        pragma(db, f"wal_autocheckpoint = {CHECKPOINT_PAGES}")
        pragma(db, "trusted_schema = OFF")
        return db

    def _reconnect(self) -> apsw.Connection:
        """A connection after a failed disk operation. What the failed sync may have lost is written again first.

        A page whose sync failed may be marked clean by the kernel, and no later sync of the log would write it. So all
        of the log goes into the database file, with a sync of its own, before anything new is promised.
        """
        db = self._connect()
        pragma(db, "synchronous = FULL")
        if pragma(db, "wal_checkpoint(RESTART)"):
            self.drop()
            raise StoreUnavailable(
                f"{self._location} recovers from a disk failure while it is being read. Nothing was stored; retry with "
                "the same keys.",
                details={"location": self._location},
            )
        self._synced = True
        return db

    def _identified(self) -> tuple[int, int] | None:
        """Which file is at the place; None if there is none."""
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _own(self, db: apsw.Connection) -> bool:
        ((epoch,),) = ask(db, "owner_epoch")
        return bool(epoch == self.epoch)

    # -- transactions -------------------------------------------------------------------------------------------

    def begin(self, durability: Durability) -> None:
        """A write transaction is open, and this owner's turn is not over.

        Raises:
            Fenced: Another owner took its turn.
            StorageError: The file is not the one that was opened.
        """
        if self._identified() != self._identity:
            raise StorageError(
                f"{self._location} was removed or replaced while it was open. Nothing was stored; put the file back or "
                "open the store again.",
                code="storage_write_failed",
                details={"location": self._location},
            )
        db = self._db or self._reconnect()
        if durability != self._synchronous:
            pragma(db, f"synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
            self._synchronous = durability
        db.execute("BEGIN IMMEDIATE")
        if not self._own(db):
            self.rollback()
            raise Fenced(
                f"Another process owns {self._location} now. Nothing was stored; stop, and do not retry.",
                details={"location": self._location, "epoch": self.epoch},
            )

    def commit(self) -> None:
        """What was taken since `begin` is in the log, at its durability."""
        db = self._db
        assert db is not None
        self._flush()
        for number, (session, new) in self._sessions_changed.items():
            self._put("session", new, session_row(number, session))
        for number, (of, run, new) in self._runs_changed.items():
            self._put("run", new, run_row(number, of, run))
        if not self._dirty and not self._synced and self._synchronous == "full":
            ask(db, "owner_pulse")
            self._dirty = True
        db.execute("COMMIT")
        if self._dirty:
            self._synced = self._synchronous == "full"
        for _, run, _ in self._runs_changed.values():
            if run.terminal:
                del self._runs[run.id]
        self._clear()
        self._trim()

    def rollback(self) -> None:
        """Nothing since `begin` happened."""
        if self._db is not None and self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._forget()

    # -- the log ------------------------------------------------------------------------------------------------

    def log(self, session_id: SessionId) -> Log:
        """The session's log, there or not."""
        log = self._logs.pop(session_id, None)
        if log is None:
            rows = self._ask("session_at_hand", (session_id,))
            log = Log(self, session_id)
            if rows:
                ((log.number, state, log.block, log.head),) = rows
                log.session = session_of(state)
        self._logs[session_id] = log
        return log

    def take(self, log: Log, extension: Extension) -> None:
        """The events of `extension` are at the log's end, in this transaction."""
        if not extension.added:
            return
        self._dirty = True
        if extension.session is not None:
            new = log.number is None
            if log.number is None:
                log.number = self._next_session()
            log.session = extension.session
            already = self._sessions_changed.get(log.number)
            self._sessions_changed[log.number] = (extension.session, new or (already is not None and already[1]))
        number = log.number
        assert number is not None
        for run_id, run in extension.runs.items():
            known = self._runs.get(run_id)
            row = self._next_run() if known is None else known[0]
            was = self._runs_changed.get(row)
            self._runs[run_id] = (row, run)
            self._runs_changed[row] = (number, run, known is None or (was is not None and was[2]))
        log.head = extension.head
        for name, event in extension.names.items():
            self._names[number, name] = event
        self._place(log, number, extension)

    def run(self, run_id: RunId) -> tuple[int, RunState] | None:
        """The run's number and state, as of this transaction."""
        known = self._runs.get(run_id)
        if known is None:
            rows = self._ask("run_at_hand", (run_id,))
            if not rows:
                return None
            ((number, fixed, state),) = rows
            known = self._runs[run_id] = (number, run_of(fixed, state))
        return known

    def named(self, number: int, session_id: SessionId, name: Name) -> Event | None:
        """The event known by `name`, as of this transaction."""
        pending = self._names.get((number, name))
        if pending is not None:
            return pending
        rows = self._ask("name_find", (number, name.kind, name.text))
        return self.at(number, session_id, rows[0][0]) if rows else None

    def at(self, number: int, session_id: SessionId, sequence: int) -> Event:
        """The event at a place, as of this transaction."""
        self._flush()
        (event,) = events_of(
            session_id, self._ask("event_page", {"session": number, "after": sequence - 1, "limit": 1})
        )
        return event

    def delete(self, session_id: SessionId) -> list[RunId]:
        """The session and all of it is gone; the ids of its runs that were alive.

        Raises:
            StateError: One of its runs is at work.
        """
        self.begin("full")
        number = self.log(session_id).number
        if number is None:
            self.rollback()
            return []
        at_work = self._ask("run_at_work", (number,))
        if at_work:
            self.rollback()
            raise still_running(at_work[0][0], session_id)
        alive = [run.id for run in self.alive() if run.session_id == session_id]
        for what in ("name", "event", "block", "run", "session"):
            self._ask(f"{what}_delete", (number,))
        self._dirty = True
        self.commit()
        self._forget()
        return alive

    def alive(self) -> list[RunState]:
        """The runs that have not ended, oldest first."""
        return [run_of(fixed, state) for fixed, state in self._ask("run_alive", ())]

    def claimable(self, run_id: RunId) -> None:
        """Say nothing if the run is there and has not ended.

        Raises:
            RunNotFound, RunTerminal: It is not, or it has.
        """
        known = self.run(run_id)
        if known is None:
            raise no_run(run_id)
        if known[1].terminal:
            raise ended(run_id, known[1].status)

    # -- inside -------------------------------------------------------------------------------------------------

    def _place(self, log: Log, number: int, extension: Extension) -> None:
        if not self._numbers_read:
            self._read_numbers()
        pending, names, numbers = self._pending, extension.names, self._runs
        last_at, last_micros = self._last_at
        place = self._last_event
        for event, body in zip(extension.added, extension.bodies, strict=True):
            sequence, run_id, data = event.sequence, event.run_id, event.data
            if event.at is not last_at:
                last_at, last_micros = event.at, micros(event.at)
            place += 1
            if place >> BLOCK_BITS != log.block:
                log.block = place >> BLOCK_BITS
                self._blocks.append((number, sequence, log.block))
            pending += (
                place,
                log.block,
                number,
                sequence,
                last_micros,
                data.kind if type(data) is Unknown else data.type,
                None if run_id is None else numbers[run_id][0],
                event.source,
                event.provider,
                event.schema_version,
                checksum(body, sequence),
                body,
                event.raw,
                extra_of(event, own_id=bool(names) and Name("id", event.id) in names),
            )
        self._last_at = (last_at, last_micros)
        self._last_event = place

    def _flush(self) -> None:
        """What is pending is in the transaction."""
        pending, db = self._pending, self._db
        if pending:
            assert db is not None
            step = ROWS_PER_STEP * _COLUMNS
            for start in range(0, len(pending), step):
                values = pending if len(pending) <= step else pending[start : start + step]
                db.execute(repeated("event_add", len(values) // _COLUMNS), values)
            self._pending = []
        if self._blocks:
            assert db is not None
            db.executemany(query("block_add"), self._blocks)
            self._blocks = []
        for (number, name), event in self._names.items():
            self._ask("name_add", (number, name.kind, name.text, event.sequence))
        self._names.clear()

    def _put(self, what: str, new: bool, row: dict[str, Any]) -> None:
        self._ask(f"{what}_{'add' if new else 'set'}", row)

    def _ask(self, name: str, values: Any) -> list[Any]:
        db = self._db or self._reconnect()
        return ask(db, name, values)

    def _next_session(self) -> int:
        self._read_numbers()
        self._last_session += 1
        return self._last_session

    def _next_run(self) -> int:
        self._read_numbers()
        self._last_run += 1
        return self._last_run

    def _read_numbers(self) -> None:
        if self._numbers_read:
            return
        self._numbers_read = True
        ((sessions, runs, events),) = self._ask("numbers_used", ())
        self._last_session, self._last_run, self._last_event = sessions or 0, runs or 0, events or 0

    def _clear(self) -> None:
        """Nothing waits to be written."""
        self._pending = []
        self._blocks = []
        self._names.clear()
        self._sessions_changed.clear()
        self._runs_changed.clear()
        self._dirty = False

    def _forget(self) -> None:
        """Nothing is remembered that a failed transaction may have made untrue."""
        self._clear()
        self._logs.clear()
        self._runs.clear()
        self._numbers_read = False

    def _trim(self) -> None:
        """The sessions longest out of use are forgotten, and the runs longest known."""
        while len(self._logs) > REMEMBERED:
            del self._logs[next(iter(self._logs))]
        while len(self._runs) > REMEMBERED:
            del self._runs[next(iter(self._runs))]


_COLUMNS = 14

"""A group of batches within one transaction: what the log knows of their sessions, and what becomes of it.

The sessions' rows are locked first, in one order, and everything a batch is judged by is read under that lock. What is
remembered of a session between two transactions is used only if its version is still the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from agentkeel.adapters.stores.asking import no_session
from agentkeel.adapters.stores.postgres.link import Link
from agentkeel.adapters.stores.postgres.rows import (
    EVENT_COLUMNS,
    event_rows,
    events_of,
    plain,
    run_of,
    run_parts,
    session_of,
    session_row,
    state_of,
)
from agentkeel.adapters.stores.postgres.rows import micros as micros_of
from agentkeel.core import events as ev
from agentkeel.core.append import Extension, Name
from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import RunId, SessionId, place_of
from agentkeel.core.run import RunState
from agentkeel.core.session import SessionState
from agentkeel.errors import Fenced

__all__ = ["Batch", "Ledger", "Log"]

REMEMBERED = 4096
"""Sessions to keep in mind."""
COPIED_ROWS = 192
COPIED_BYTES = 1024 * 1024
"""From so many events or bytes on they are copied in: more round trips, and less work for both machines for each event
(measured with 2048 events of 183 bytes: 7.7 ms for 12.3 in all, 1.4 ms for 4.5 of our processor)."""


class Batch(Protocol):
    """What the ledger needs to know of a caller's batch."""

    @property
    def session_id(self) -> SessionId: ...
    @property
    def drafts(self) -> Sequence[Draft]: ...
    @property
    def fence(self) -> int | None: ...


class _Run(NamedTuple):
    """A run of the session: its number, its newest fence if it was ever claimed, and its state."""

    number: int
    fence: int | None
    state: RunState


class Log:
    """One session's log as `core.append` wants to know it: committed events and those of the open transaction."""

    __slots__ = ("added", "base", "fences", "found", "head", "id", "number", "places", "runs", "session", "strangers",
                 "version")  # fmt: skip

    def __init__(self, session_id: SessionId, strangers: dict[RunId, RunState]) -> None:
        self.id = session_id
        self.number: int | None = None
        self.version = 0
        self.head = 0
        self.session: SessionState | None = None
        self.runs: dict[RunId, _Run] = {}
        self.fences: set[int] = set()
        self.begin(strangers)

    def begin(self, strangers: dict[RunId, RunState]) -> None:
        """A transaction begins: nothing is added yet, and nothing was looked up. `strangers` are others' runs."""
        self.base = self.head
        self.added: list[Event] = []
        self.found: dict[Name, Event] = {}
        self.places: dict[int, Event] = {}
        self.strangers = strangers

    def run(self, run_id: RunId) -> RunState | None:
        known = self.runs.get(run_id)
        return self.strangers.get(run_id) if known is None else known.state

    def named(self, name: Name) -> Event | None:
        return self.found.get(name)

    def at(self, sequence: int) -> Event:
        return self.added[sequence - self.base - 1] if sequence > self.base else self.places[sequence]

    def check_fence(self, drafts: Iterable[Draft], fence: int) -> None:
        """Say nothing if `fence` is the newest of every run the drafts belong to, and of a run of this session.

        Raises:
            SessionNotFound: There is no such session.
            Fenced: It is stale.
        """
        if self.number is None:
            raise no_session(self.id)
        ids = {draft.run_id for draft in drafts if draft.run_id is not None}
        fences = {known.fence for run_id in ids if (known := self.runs.get(run_id)) is not None} - {None}
        if fences - {fence} or (fence not in fences and fence not in self.fences):
            raise Fenced(
                "Another owner has taken the run. Nothing was added; stop, and do not retry.", details={"fence": fence}
            )


class Ledger:
    """The sessions a writer remembers, and the group at hand."""

    def __init__(self) -> None:
        self._remembered: dict[SessionId, Log] = {}
        self._spare: deque[int] = deque()
        self._clear()

    def _clear(self) -> None:
        self._held: dict[SessionId, Log] = {}
        self._strangers: dict[RunId, RunState] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._moved: dict[int, Log] = {}
        self._evolved: set[int] = set()
        self._new: set[int] = set()
        self._runs_added: dict[int, tuple[int, RunState]] = {}
        self._runs_changed: dict[int, RunState] = {}
        self._names: list[tuple[int, str, str, int]] = []

    # -- the order of a transaction -----------------------------------------------------------------------------

    def recall(self, batches: Sequence[Batch]) -> bool:
        """Whether all that `core.append` will ask about `batches` is remembered. It is not locked, and may be stale:
        `write` finds out. What is refused on this ground must be judged again, after `hold`."""
        self._clear()
        for batch in batches:
            log = self._remembered.get(batch.session_id)
            if log is None:
                return False
            fences = {batch.fence}
            for draft in batch.drafts:
                if draft.key is not None or draft.id is not None:
                    return False
                if draft.run_id is not None:
                    run = log.runs.get(draft.run_id)
                    if run is None:
                        return False
                    fences.discard(run.fence)
            if fences - {None} - log.fences:
                return False
            if batch.session_id not in self._held:
                log.begin(self._strangers)
                self._held[batch.session_id] = log
        return True

    async def hold(self, link: Link, batches: Sequence[Batch]) -> None:
        """The sessions of `batches` are locked, and all that `core.append` will ask about them is known."""
        self._clear()
        await self._lock(link, {batch.session_id for batch in batches})
        creations = await self._read_runs(link, batches)
        await self._read_fences(link, batches)
        await self._read_names(link, batches)
        if creations > len(self._spare):
            self._spare += [number for (number,) in await link.ask("numbers_next", creations)]

    def log(self, session_id: SessionId) -> Log:
        """A session that is held."""
        return self._held[session_id]

    def take(self, log: Log, extension: Extension) -> None:
        """The events of `extension` are at the log's end, in this transaction.

        Raises:
            ValidationError: The database cannot hold one of them; nothing has changed.
        """
        if not extension.added:
            return
        known, new = log.runs, [run_id for run_id in extension.runs if run_id not in log.runs]
        number = self._spare[len(new)] if log.number is None else log.number
        numbers = {run_id: run.number for run_id, run in known.items()}
        numbers.update(zip(new, self._spare, strict=False))
        rows = event_rows(number, extension, numbers)
        for run_id in new:
            known[run_id] = _Run(self._spare.popleft(), None, extension.runs[run_id])
            self._runs_added[known[run_id].number] = (number, extension.runs[run_id])
            self._strangers[run_id] = extension.runs[run_id]
        for run_id, state in extension.runs.items():
            run = known[run_id] = known[run_id]._replace(state=state)
            if run.number in self._runs_added:
                self._runs_added[run.number] = (number, state)
            else:
                self._runs_changed[run.number] = state
        if log.number is None:
            log.number = self._spare.popleft()
            self._new.add(number)
        if extension.session is not None:
            log.session = extension.session
            self._evolved.add(number)
        log.head = extension.head
        log.added += extension.added
        log.found |= extension.names
        self._moved[number] = log
        self._rows += rows
        self._names += [
            (number, name.kind, plain(name.text), event.sequence) for name, event in extension.names.items()
        ]

    async def write(self, link: Link, writer: int, batch: int, was: int) -> bool:
        """Everything taken is in the transaction.

        False if it must not be committed: it was not this writer's turn, or what was remembered was not true any more.
        """
        await self._write_new_sessions(link)
        moved = [log for number, log in self._moved.items() if number not in self._new]
        states = [
            (str(log.session.status), state_of(log.session))
            if log.number in self._evolved and log.session is not None
            else (None, None)
            for log in moved
        ]
        copied = len(self._rows) >= COPIED_ROWS or sum(map(_size, self._rows)) >= COPIED_BYTES
        ((turns, changed),) = await link.ask(
            "group_add",
            writer,
            batch,
            was,
            [log.number for log in moved],
            [log.version for log in moved],
            [log.head for log in moved],
            [status for status, _ in states],
            [state for _, state in states],
            *_columns([] if copied else self._rows, len(EVENT_COLUMNS)),
        )
        if not turns or changed != len(moved):
            return False
        if copied:
            await link.copy("events", EVENT_COLUMNS, self._rows)
        await self._write_runs(link, writer)
        if self._names:
            await link.ask("name_add", *_columns(self._names, 4))
        return True

    def keep(self) -> None:
        """The transaction is committed: what is known of its sessions is worth remembering."""
        for session_id, log in self._held.items():
            self._remembered.pop(session_id, None)
            if log.number is None:
                continue
            if log.number in self._moved:
                log.version += 1
                log.runs = {run_id: run for run_id, run in log.runs.items() if not run.state.terminal}
            self._remembered[session_id] = log
        while len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._clear()

    def forget(self) -> None:
        """The transaction is not committed, or nobody knows: what was thought of its sessions may be untrue."""
        for session_id in self._held:
            self._remembered.pop(session_id, None)
        self._clear()

    # -- reading under the lock ---------------------------------------------------------------------------------

    async def _lock(self, link: Link, session_ids: Iterable[SessionId]) -> None:
        known = [self._remembered.get(name) or Log(name, self._strangers) for name in session_ids]
        self._held = {log.id: log for log in known}
        rows = await link.ask(
            "session_hold",
            [plain(log.id) for log in known],
            [log.number or 0 for log in known],
            [log.version for log in known],
        )
        found = {row[0]: row for row in rows}
        for session_id, remembered in self._held.items():
            row = found.get(plain(session_id))
            if row is not None and row[4] is None:
                remembered.begin(self._strangers)
                continue
            log = self._held[session_id] = Log(session_id, self._strangers)
            if row is not None:
                _, log.number, log.version, log.head, state = row
                log.session = session_of(state)
                log.begin(self._strangers)

    async def _read_runs(self, link: Link, batches: Sequence[Batch]) -> int:
        """The runs that are not remembered are known. How many sessions and runs the batches may create."""
        creations = 0
        asked: dict[RunId, set[SessionId]] = {}
        for batch in batches:
            log = self._held[batch.session_id]
            for draft in batch.drafts:
                if draft.run_id is not None and draft.run_id not in log.runs:
                    asked.setdefault(draft.run_id, set()).add(batch.session_id)
                    creations += _is(draft, ev.RunQueued)
                if log.number is None:
                    creations += _is(draft, ev.SessionCreated)
        if not asked:
            return creations
        rows = await link.ask("run_at_hand", [plain(run_id) for run_id in asked])
        for name, number, session, fence, fixed, stored in rows:
            state = run_of(fixed, stored)
            for session_id in asked.get(RunId(name), ()):
                log = self._held[session_id]
                if log.number == session:
                    log.runs[state.id] = _Run(number, fence, state)
                else:
                    self._strangers[state.id] = state
        return creations

    async def _read_fences(self, link: Link, batches: Sequence[Batch]) -> None:
        """Fences that no run at hand has are known for what they are."""
        unknown: set[int] = set()
        for batch in batches:
            log = self._held[batch.session_id]
            if batch.fence is None or batch.fence in log.fences:
                continue
            runs = (log.runs.get(draft.run_id) for draft in batch.drafts if draft.run_id is not None)
            if not any(run is not None and run.fence == batch.fence for run in runs):
                unknown.add(batch.fence)
        if not unknown:
            return
        by_number = {log.number: log for log in self._held.values()}
        for session, fence in await link.ask("claim_fences", list(unknown)):
            if session in by_number:
                by_number[session].fences.add(fence)

    async def _read_names(self, link: Link, batches: Sequence[Batch]) -> None:
        """The events that drafts may repeat are known."""
        names: dict[tuple[int, str, str], tuple[Log, Name]] = {}
        places: dict[tuple[int, int], Log] = {}
        for batch in batches:
            log = self._held[batch.session_id]
            if log.number is None:
                continue
            for draft in batch.drafts:
                if draft.key is not None:
                    names[log.number, "key", plain(draft.key)] = (log, Name("key", draft.key))
                if draft.id is not None:
                    names[log.number, "id", plain(draft.id)] = (log, Name("id", draft.id))
                    place = place_of(log.id, draft.id)
                    if place is not None and 0 < place <= log.head:
                        places[log.number, place] = log
        if names:
            for number, kind, text, *row in await link.ask("name_find", *_columns(list(names), 3)):
                log, name = names[number, kind, text]
                (log.found[name],) = events_of(log.id, [row])
        if places:
            for number, *row in await link.ask("event_at", *_columns(list(places), 2)):
                log = places[number, row[0]]
                (log.places[row[0]],) = events_of(log.id, [row])

    # -- writing ------------------------------------------------------------------------------------------------

    async def _write_new_sessions(self, link: Link) -> None:
        if self._new:
            made = [log for number, log in self._moved.items() if number in self._new]
            await link.tell(
                "session_add",
                [session_row(log.number, log.head, log.session) for log in made if log.number and log.session],
            )

    async def _write_runs(self, link: Link, writer: int) -> None:
        if self._runs_added:
            rows = []
            for number, (session, run) in sorted(self._runs_added.items()):
                fixed, state = run_parts(run, new=True)
                key = None if run.key is None else plain(run.key)
                created = micros_of(run.created_at)
                placed = (run.first_sequence, str(run.status))
                rows.append((number, run.id, session, writer, key, created, *placed, fixed, state))
            await link.ask("run_add", *_columns(rows, 10))
        if self._runs_changed:
            changed = [
                (number, str(run.status), run_parts(run, new=False)[1])
                for number, run in sorted(self._runs_changed.items())
            ]
            await link.ask("run_set", *_columns(changed, 3))


def _is(draft: Draft, kind: type[ev.Body]) -> bool:
    """Whether a draft is of this kind, or an unknown body that says so."""
    return type(draft.data) is kind or (type(draft.data) is ev.Unknown and draft.data.kind == kind.type)


def _columns(rows: Sequence[Sequence[Any]], count: int) -> list[Sequence[Any]]:
    """The columns of `rows`, as the arrays that `unnest` takes."""
    return list(zip(*rows, strict=True)) if rows else [()] * count


def _size(row: tuple[Any, ...]) -> int:
    """The bytes of an event's body and raw message."""
    return len(row[_BODY]) + (0 if row[_RAW] is None else len(row[_RAW]))


_BODY, _RAW = EVENT_COLUMNS.index("body"), EVENT_COLUMNS.index("raw")

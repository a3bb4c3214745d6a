"""Committed decisions into the audit log, each at least once and none twice.

Decisions are audited right behind their commit. What a crash or a failing audit log leaves out is found by `catch_up`
when the log is opened next: the session logs are the truth, and the audit log says which of their events it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import anyio

from agentkeel.core import events as ev
from agentkeel.core.audit import Entry, chain
from agentkeel.core.events import TERMINAL_TYPES, Draft, Event
from agentkeel.core.ids import SessionId
from agentkeel.core.redact import Redactor
from agentkeel.engine.audited import AUDITED, REMEMBERED, Fact, Questions, Seen
from agentkeel.errors import CursorExpired, Error, SessionNotFound, StorageError
from agentkeel.ports.audit import AuditLog
from agentkeel.ports.clock import Clock
from agentkeel.ports.store import EventFilter, EventStore

__all__ = ["Audit", "OnFailure"]

OnFailure = Literal["report", "fail"]
"""report: work goes on, the session's log says that the audit failed, and what is missing is written later.
fail: nothing more is decided while decisions cannot be audited."""

MAX_WAITING = 10_000
"""Facts kept in memory while the audit log fails. Older ones of events are let go: `catch_up` finds them again."""
_PAGE = 500
_GATED = frozenset({ev.PermissionResolved.type, ev.ToolApprovalGranted.type, ev.ToolApprovalDenied.type})
"""Decisions that are not acted upon, under `fail`, before they are audited."""


class Audit:
    """Writes an audit log. Made by `start`; one for each store, and the log is its alone.

    Attributes:
        trouble: Why the audit log could not be written the last time; None when it could.
        redactor: Takes the secrets out of what `record` is given; events come without theirs.
    """

    def __init__(
        self,
        log: AuditLog,
        clock: Clock,
        *,
        redactor: Redactor | None = None,
        on_failure: OnFailure = "report",
        actions: Mapping[str, str] = AUDITED,
    ) -> None:
        self.trouble: Error | None = None
        self._log = log
        self._clock = clock
        self.redactor = redactor or Redactor()
        self._on_failure = on_failure
        self._actions = actions
        self._relevant = actions.keys() | REMEMBERED
        self._questions = Questions(actions)
        self._seen = Seen()
        self._waiting: list[Fact] = []
        self._lost = 0
        self._told = False
        self._lock = anyio.Lock()

    @classmethod
    async def start(
        cls,
        log: AuditLog,
        clock: Clock,
        *,
        redactor: Redactor | None = None,
        on_failure: OnFailure = "report",
        actions: Mapping[str, str] = AUDITED,
    ) -> Audit:
        """An audit that knows what its log has. A log that had to be repaired says so in an entry.

        Raises:
            StorageError: The log cannot be read.
        """
        audit = cls(log, clock, redactor=redactor, on_failure=on_failure, actions=actions)
        async for entry in log.entries():
            audit._seen.add(entry)
        if log.damage is not None:
            await audit.record("audit.repaired", subject="audit", details=log.damage)
        return audit

    @property
    def waiting(self) -> int:
        """How many facts are kept until the audit log can be written."""
        return len(self._waiting)

    async def admit(self, drafts: Sequence[Draft]) -> None:
        """Say nothing if these may be stored. Ask before every append.

        Raises:
            StorageError: Only under `fail`: a decision is among them and the audit log cannot be written. A run's
                end is let through, for what has happened cannot be refused.
        """
        if self.trouble is None or self._on_failure == "report" or not self._decides(drafts):
            return
        with anyio.CancelScope(shield=True):
            async with self._lock:
                await self._write(())
        if self.trouble is not None:
            raise self._refused("Nothing was stored.")

    async def observe(self, events: Sequence[Event]) -> Sequence[Draft]:
        """The decisions among these committed events of one session are in the audit log, those that are new to it.

        Call it behind every append, before anything is done about what was stored.

        Returns:
            What the session's log should say about the audit log itself: that it fails, or works again. Nothing else.

        Raises:
            StorageError: Only under `fail`: an answer to a question is stored, and could not be audited. Do not act
                on it.
        """
        relevant = [event for event in events if event.type in self._relevant]
        if not relevant:
            return ()
        with anyio.CancelScope(shield=True):  # They are stored: whoever stored them may leave, the audit may not.
            async with self._lock:
                facts = self._questions.facts(relevant)
                await self._write([fact for fact in facts if not self._seen.has(fact.subject, fact.event)])
        kinds = {event.type for event in relevant}
        if self.trouble is not None and self._on_failure == "fail" and kinds & _GATED and not kinds & TERMINAL_TYPES:
            raise self._refused("The answer is stored and was not given.")
        return self._news()

    async def record(
        self, action: str, *, subject: str, actor: str = "user", details: Mapping[str, Any] | None = None
    ) -> None:
        """An act that no session's log tells is in the audit log: a store opened, a session deleted.

        Record before the act: under `fail`, what cannot be audited is then not done.

        Raises:
            StorageError: Only under `fail`: the audit log cannot be written.
            ValidationError: The details are no JSON.
        """
        fact = Fact(
            at=self._clock.now(),
            actor=self.redactor.text(actor),
            action=action,
            subject=self.redactor.text(subject),
            details=self.redactor.value(dict(details or {})),
        )
        _entry(None, fact)  # What cannot be written down is refused here, not kept waiting for ever.
        with anyio.CancelScope(shield=True):
            async with self._lock:
                await self._write([fact])
                if self.trouble is not None and self._on_failure == "fail":
                    self._waiting.remove(fact)  # It will not be done, so it must not be told later.
                    raise self._refused(f"Do not go on with {action}.")

    async def catch_up(self, store: EventStore) -> int:
        """Every decision in the store is in the audit log. How many were missing.

        For a store that has just been opened, before anything is written to it.

        Raises what `EventStore.read` raises, and under `fail` a StorageError if the audit log cannot be written.
        """
        missing = 0
        last: SessionId | None = None
        while page := await store.sessions(after=last, limit=_PAGE):
            for state in page:
                missing += await self._catch_up_session(store, state.id)
            last = page[-1].id
        return missing

    async def aclose(self) -> None:
        """What waits was tried once more, and the audit log is closed."""
        with anyio.CancelScope(shield=True):
            async with self._lock:
                if self._waiting:
                    await self._write(())
                await self._log.aclose()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _catch_up_session(self, store: EventStore, session_id: SessionId) -> int:
        where = EventFilter(types=frozenset(self._relevant))
        missing, after = 0, 0
        while True:
            try:
                events = await store.read(session_id, after=after, limit=_PAGE, where=where)
            except CursorExpired as error:
                after = int(error.details["floor"]) - 1
                continue
            except SessionNotFound:
                return missing  # It was deleted meanwhile.
            if not events:
                return missing
            missing += sum(
                event.type in self._actions and not self._seen.has(event.session_id, event.id) for event in events
            )
            await self.observe(events)
            after = events[-1].sequence

    def _decides(self, drafts: Iterable[Draft]) -> bool:
        kinds = {draft.data.type for draft in drafts}
        return not kinds.isdisjoint(self._actions) and kinds.isdisjoint(TERMINAL_TYPES)

    async def _write(self, facts: Sequence[Fact]) -> None:
        """What waits and then these are in the log; or they wait, and `trouble` says why. The lock is held."""
        due = [*self._waiting, *facts]
        if not due:
            self.trouble = None  # Nothing is missing; whether it works again shows with the next fact.
            return
        try:
            entries: list[Entry] = []
            before = self._log.head
            for fact in due:
                before = _entry(before, fact)
                entries.append(before)
            await self._log.append(entries)
        except Error as error:
            self.trouble = error
            self._keep(due)
            return
        self.trouble = None
        self._waiting = []
        self._seen.waiting.clear()
        for entry in entries:
            self._seen.add(entry)

    def _keep(self, facts: list[Fact]) -> None:
        over = len(facts) - MAX_WAITING
        if over > 0:  # Acts stay: nothing else tells of them, and they are few.
            let_go = {id(fact) for fact in [fact for fact in facts if fact.event is not None][:over]}
            self._lost += len(let_go)
            facts = [fact for fact in facts if id(fact) not in let_go]
        self._waiting = facts
        self._seen.waiting = {fact.event for fact in facts if fact.event is not None}

    def _news(self) -> Sequence[Draft]:
        """One event when the audit begins to fail, and one when it works again."""
        if self.trouble is not None and not self._told:
            self._told = True
            said = ev.ErrorOccurred(
                error_code=self.trouble.code,
                error_message=f"Decisions are not audited: {self.trouble.message} They are kept in the session's log "
                "and are audited once the audit log can be written.",
                will_retry=True,
                details={"audit": True, "waiting": len(self._waiting)},
            )
            return [Draft(data=said)]
        if self.trouble is None and self._told:
            self._told = False
            lost, self._lost = self._lost, 0
            return [Draft(data=ev.ErrorRecovered(details={"audit": True, "left_for_next_opening": lost}))]
        return ()

    def _refused(self, kept: str) -> StorageError:
        trouble = self.trouble
        assert trouble is not None
        return StorageError(
            f"Decisions cannot be audited: {trouble.message} {kept} Mend the audit log, or open the store with an "
            "audit that only reports.",
            code="storage_write_failed",
            details={"audit": True, "cause": trouble.code},
        )


def _entry(before: Entry | None, fact: Fact) -> Entry:
    return chain(
        before,
        at=fact.at,
        actor=fact.actor,
        action=fact.action,
        subject=fact.subject,
        details=fact.details,
        event=fact.event,
    )

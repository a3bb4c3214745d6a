"""The connection that appends: all that waits becomes one transaction, with no timer, and is stored exactly once.

Each batch has a number, and is committed from the one before (`writers.batch`). When a connection is lost after COMMIT
was sent, the next one asks which batch the database has: if it is the one in doubt, its callers are acknowledged; if
not, it is sent again from the same predecessor, and should the lost one arrive after all, it is no longer its turn.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from agentkeel.adapters.stores.postgres.address import Address
from agentkeel.adapters.stores.postgres.faults import concerns_one, hope_of, is_busy, of_writing
from agentkeel.adapters.stores.postgres.ledger import Ledger
from agentkeel.adapters.stores.postgres.link import Link
from agentkeel.core.append import extend
from agentkeel.core.events import Draft
from agentkeel.core.ids import SessionId
from agentkeel.errors import Error, StorageError, StoreUnavailable, wrap
from agentkeel.ports.store import Appended, Durability

__all__ = ["Append", "Writer"]

DRAFTS_PER_GROUP = 2048
"""A transaction takes no further batch once it has this many drafts."""
LEASE_SECONDS = 60.0
"""How long a writer lives that nobody renews."""
PAUSES = (0.0, 0.01, 0.05, 0.2, 0.5)
"""Seconds between the tries of a batch; the last one goes on."""


@dataclass(slots=True, eq=False)
class Append:
    """One batch of one caller, and the future that waits for it."""

    future: asyncio.Future[Any]
    session_id: SessionId
    drafts: Sequence[Draft]
    now: datetime
    expected: int | None
    fence: int | None
    durability: Durability
    result: Any = ()
    adds: bool = False
    error: Error | None = None


@dataclass(slots=True, eq=False)
class _Group:
    """Batches that share a transaction. `doubtful` are the outcomes of commits that were sent, by their number;
    `surprised` says that memory was not true once, and is not to be trusted again."""

    jobs: list[Append]
    durability: Durability
    doubtful: dict[int, list[tuple[Any, Error | None]]] = field(default_factory=dict)
    surprised: bool = False

    def outcome(self) -> list[tuple[Any, Error | None]]:
        return [(job.result, job.error) for job in self.jobs]

    def divides_after(self, error: Exception) -> bool:
        """Whether parts of it may be stored though the whole met `error`; never while a commit is in doubt."""
        if self.doubtful or len(self.jobs) == 1:
            return False
        return concerns_one(error) or (is_busy(error) and len({job.session_id for job in self.jobs}) > 1)

    def parts(self) -> list[_Group]:
        """A group for each session, the order of its batches kept; of a single session, one for each batch."""
        by_session: dict[SessionId, list[Append]] = {}
        for job in self.jobs:
            by_session.setdefault(job.session_id, []).append(job)
        lists = list(by_session.values()) if len(by_session) > 1 else [[job] for job in self.jobs]
        return [_Group(jobs, self.durability) for jobs in lists]

    def resolve(self, failure: Error | None) -> None:
        """Tell who waits, where somebody still does."""
        for job in self.jobs:
            error = job.error or failure
            if job.future.done():
                continue
            if error is None:
                job.future.set_result(Appended(job.result, self.durability))
            else:
                job.future.set_exception(error)

    def settle(self, outcome: list[tuple[Any, Error | None]]) -> None:
        for job, (result, error) in zip(self.jobs, outcome, strict=True):
            job.result, job.error = result, error


class _Failure(NamedTuple):
    """Why a group is not committed; whether a part of it may be; whether a lock was not to be had."""

    error: Error
    divides: bool = False
    busy: bool = False


class _NotTheTurn(Exception):
    """What the batch was made from is not what the database has: the batch before, a session, or the writer itself."""


class Writer:
    """A queue, a task that empties it, and its connection."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._location = address.location
        self._ledger = Ledger()
        self._jobs: deque[Append] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self._link: Link | None = None
        self._number = 0
        self._batch: int | None = 0
        self._issued = self._acknowledged = 0
        self._broken: Error | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def number(self) -> int:
        """Who this is, in the table of writers."""
        return self._number

    async def start(self, link: Link) -> None:
        """Batches are taken, and written over `link`. Raises what the driver raises."""
        self._link = link
        await self._register(link)
        self._task = asyncio.get_running_loop().create_task(self._work(), name=f"agentkeel-writer {self._location}")

    async def stop(self) -> None:
        """Everything handed over before is decided, and the connection is closed."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def append(
        self,
        session_id: SessionId,
        drafts: Sequence[Draft],
        now: datetime,
        *,
        expected: int | None,
        fence: int | None,
        durability: Durability,
    ) -> asyncio.Future[Appended]:
        """Hand over a batch. Whoever stops waiting for it does not stop it."""
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._jobs.append(
            Append(future, session_id, drafts, now, expected=expected, fence=fence, durability=durability)
        )
        self._wake.set()
        return future

    # -- the task -------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        try:
            while self._jobs or not self._stopping:
                if not self._jobs:
                    self._wake.clear()
                    await self._wake.wait()
                await asyncio.sleep(0)  # whoever was just acknowledged may have more: it shares the next commit
                if self._jobs:
                    await self._commit(self._gathered())
        finally:
            for job in self._jobs:
                job.future.cancel()

    def _gathered(self) -> _Group:
        jobs: list[Append] = []
        drafts = 0
        while self._jobs and drafts < DRAFTS_PER_GROUP:
            jobs.append(self._jobs.popleft())
            drafts += len(jobs[-1].drafts)
        return _Group(jobs, "full" if any(job.durability == "full" for job in jobs) else "process")

    async def _commit(self, group: _Group) -> None:
        """Each batch of the group is acknowledged, or its caller knows the error.

        Where one of them may be to blame, its parts are committed apart, and those that must wait come last.
        """
        until = asyncio.get_running_loop().time() + self._address.patience
        failure = await self._tried(group, until)
        if failure is None or not failure.divides:
            group.resolve(failure and failure.error)
            return
        late: list[_Group] = []
        for part in group.parts():
            failure = await self._tried(part, 0.0)
            if failure is not None and failure.busy:
                late.append(part)
            elif failure is not None and failure.divides:
                await self._commit(part)
            else:
                part.resolve(failure and failure.error)
        for part in late:
            failure = await self._tried(part, until)
            part.resolve(failure and failure.error)

    async def _tried(self, group: _Group, until: float) -> _Failure | None:
        """The group is committed, or why it is not. It is tried again while there is hope and time."""
        loop, tries = asyncio.get_running_loop(), 0
        while self._broken is None:
            try:
                await self._attempt(group)
            except Exception as error:  # noqa: BLE001 - the task's outer edge: it becomes every caller's error
                self._ledger.forget()
                hope = "again" if isinstance(error, _NotTheTurn) else hope_of(error)
                await self._clean(lost=hope == "elsewhere")
                divides = group.divides_after(error)
                if divides or hope == "none" or loop.time() > until:
                    return _Failure(self._failed(error), divides=divides, busy=is_busy(error))
            else:
                return None
            await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
            tries += 1
        return _Failure(self._broken)

    def _failed(self, error: Exception) -> Error:
        if isinstance(error, _NotTheTurn):
            return StoreUnavailable(
                f"Nobody can say whether {self._location} has the batch. Retry with the same keys.",
                details={"location": self._location},
            )
        return of_writing(error, self._location)

    async def _clean(self, *, lost: bool) -> None:
        """The connection is outside of any transaction, or gone."""
        link = self._link
        if link is None:
            return
        try:
            if not lost and link.usable:
                await link.rollback()
                return
        except Exception:  # noqa: BLE001 - what matters is the error before; this connection is given up
            lost = True
        link.drop()
        self._link = None

    # -- one transaction --------------------------------------------------------------------------------------------

    async def _attempt(self, group: _Group) -> None:
        link = self._link or await self._connect()
        await link.begin(group.durability)
        if self._batch is None and await self._found(link, group):
            return
        assert self._batch is not None
        if not self._recalled(group):
            await self._ledger.hold(link, group.jobs)
            for job in group.jobs:
                self._extend(job)
        if not any(job.result for job in group.jobs):
            await link.rollback()
            self._ledger.keep()
            return
        was, batch = self._batch, self._issued + 1
        self._issued = batch
        if not await self._ledger.write(link, self._number, batch, was):
            self._batch = None
            group.surprised = True
            raise _NotTheTurn
        group.doubtful[batch] = group.outcome()
        self._batch = None
        await link.commit()
        self._batch = self._acknowledged = batch
        self._ledger.keep()

    def _recalled(self, group: _Group) -> bool:
        """Whether all of the group is good by what is remembered.

        What is refused must be judged under the lock. So must what adds nothing: no write would find out that the
        session is another by now, or gone.
        """
        if group.surprised or not self._ledger.recall(group.jobs):
            return False
        for job in group.jobs:
            self._extend(job)
            if job.error is not None or not job.adds:
                self._ledger.forget()
                return False
        return True

    def _extend(self, job: Append) -> None:
        job.result, job.error, job.adds = (), None, False
        try:
            log = self._ledger.log(job.session_id)
            if job.fence is not None:
                log.check_fence(job.drafts, job.fence)
            extension = extend(log, job.session_id, job.drafts, now=job.now, expected=job.expected)
            self._ledger.take(log, extension)
        except Exception as error:  # noqa: BLE001 - this caller's alone: nothing has changed
            job.error = wrap(error)
            return
        job.result, job.adds = extension.events, bool(extension.added)

    async def _found(self, link: Link, group: _Group) -> bool:
        """Which batch the database has is known. True if it is one of this group's: its callers have their events.

        Raises:
            _NotTheTurn: The database forgot this writer.
            StorageError: The database forgot batches that were acknowledged.
        """
        rows = await link.ask("writer_turn", self._number)
        if not rows:
            await link.rollback()
            await self._register(link)
            if group.doubtful:
                self._broken_for(group)
            raise _NotTheTurn
        ((batch,),) = rows
        if batch < self._acknowledged:
            self._broken = StorageError(
                f"{self._location} went back: it has batch {batch} of this writer, which was told of batch "
                f"{self._acknowledged}. Events that were acknowledged are lost, as after a fail-over to a copy that "
                "was behind. Nothing more is written; open the store again and check what is there.",
                code="storage_write_failed",
                details={"location": self._location, "found": batch, "acknowledged": self._acknowledged},
            )
            raise self._broken
        self._batch = self._acknowledged = batch
        if batch not in group.doubtful:
            return False
        group.settle(group.doubtful[batch])
        await link.commit()
        self._ledger.forget()
        return True

    def _broken_for(self, group: _Group) -> None:
        """A batch in doubt cannot be looked up any more: its callers must look for their keys."""
        raise StoreUnavailable(
            f"{self._location} forgot this writer while a batch was in doubt. Whether it was stored is unknown; retry "
            "with the same keys.",
            details={"location": self._location, "batches": list(group.doubtful)},
        )

    async def _connect(self) -> Link:
        self._batch = None  # another server may answer now: ask what it has
        self._link = await Link.open(self._address)
        return self._link

    async def _register(self, link: Link) -> None:
        ((self._number,),) = await link.ask("writer_add", socket.gethostname(), os.getpid(), LEASE_SECONDS)
        self._batch = self._issued = self._acknowledged = 0

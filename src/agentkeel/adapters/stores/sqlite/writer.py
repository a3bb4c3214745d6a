"""The thread that owns the writing connection: all that waits becomes one transaction, with no timer.

A caller hands over a job and awaits its future. A lone append is committed at once; while a commit syncs, others gather
and share the next one. One batch that is refused does not touch its neighbours. Results go back to the loop with one
call per group.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import apsw
from anyio import CancelScope

from agentkeel.adapters.stores.claims import Claims
from agentkeel.adapters.stores.sqlite.faults import is_dead, of_writing
from agentkeel.adapters.stores.sqlite.ledger import Ledger
from agentkeel.core.append import extend
from agentkeel.core.events import Draft
from agentkeel.core.ids import RunId, SessionId
from agentkeel.errors import Error, wrap
from agentkeel.ports.store import Appended, Durability

__all__ = ["Append", "Writer"]

T = TypeVar("T")

DRAFTS_PER_GROUP = 2048
"""A transaction takes no further batch once it has this many drafts."""


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
    error: Error | None = None


@dataclass(slots=True, eq=False)
class _Call:
    """A question or an order that is no append."""

    future: asyncio.Future[Any]
    work: Callable[[], Any]
    result: Any = None
    error: Error | None = None


class Writer:
    """The owned thread, its queue, and the claims it guards. Called from one event loop."""

    def __init__(self, ledger: Ledger, location: str, monotonic: Callable[[], float]) -> None:
        self._ledger = ledger
        self._location = location
        self._monotonic = monotonic
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Append | _Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"agentkeel-writer {location}", daemon=True)
        self._claims = Claims(0, monotonic)

    async def start(self) -> None:
        """The store is open and owned.

        Raises:
            StoreIncompatible, StorageError: It cannot be.
        """
        self._thread.start()
        try:
            await self.call(self._open)
        except BaseException:
            with CancelScope(shield=True):  # the lock must not be free while the thread may still take its turn
                await self.stop()
            raise

    async def stop(self) -> None:
        """Everything handed over before is done, the store is closed, and the thread is gone."""
        closing = self.call(self._ledger.close)
        self._jobs.put(None)
        try:
            await closing
        finally:
            self._thread.join()

    @property
    def epoch(self) -> int:
        """Which owner's turn it is: ours."""
        return self._ledger.epoch

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
        future: asyncio.Future[Appended] = self._loop.create_future()
        self._jobs.put(Append(future, session_id, drafts, now, expected=expected, fence=fence, durability=durability))
        return future

    def call(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Hand over a piece of work that is done in its turn, outside of any group."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Call(future, work))
        return future

    # -- called in the thread, through `call` ---------------------------------------------------------------------

    def _open(self) -> None:
        self._ledger.open()
        self._claims = Claims(self._ledger.epoch, self._monotonic)

    @property
    def claims(self) -> Claims:
        """Who may write which run; for work handed to `call` only."""
        return self._claims

    @property
    def ledger(self) -> Ledger:
        """The connection that writes; for work handed to `call` only."""
        return self._ledger

    # -- the thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        job: Append | _Call | None = self._jobs.get()
        while job is not None:
            if isinstance(job, _Call):
                self._do(job)
                self._deliver([job])
                job = self._jobs.get()
                continue
            group, job = self._gather(job)
            self._commit(group)
            self._deliver(group)
            group = []
            if job is _NOTHING:
                job = self._jobs.get()

    def _gather(self, first: Append) -> tuple[list[Append], Append | _Call | None]:
        """All appends that wait, and the first job that is none (or that is too many)."""
        group, drafts = [first], len(first.drafts)
        while drafts < DRAFTS_PER_GROUP:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return group, _NOTHING
            if not isinstance(job, Append):
                return group, job
            group.append(job)
            drafts += len(job.drafts)
        return group, _NOTHING

    def _commit(self, group: list[Append]) -> None:
        """One transaction for all of them. Each is acknowledged, or knows its error."""
        durability: Durability = "full" if any(job.durability == "full" for job in group) else "process"
        by_session: dict[SessionId, list[Append]] = {}
        for job in group:
            by_session.setdefault(job.session_id, []).append(job)
        ended: list[RunId] = []
        try:
            self._ledger.begin(durability)
            for jobs in by_session.values():
                for job in jobs:
                    self._extend(job, ended)
            self._ledger.commit()
        except Exception as error:  # noqa: BLE001 - the thread's outer edge: it becomes every caller's error
            failure = self._failed(error)
            for job in group:
                job.error = job.error or failure
            return
        for run_id in ended:
            self._claims.ended(run_id)
        for job in group:
            job.result = Appended(job.result, durability)

    def _extend(self, job: Append, ended: list[RunId]) -> None:
        try:
            log = self._ledger.log(job.session_id)
            if job.fence is not None:
                self._claims.check(job.drafts, job.fence)
            extension = extend(log, job.session_id, job.drafts, now=job.now, expected=job.expected)
        except apsw.Error:
            raise
        except Exception as error:  # noqa: BLE001 - this caller's alone: nothing has changed
            job.error = wrap(error)
            return
        self._ledger.take(log, extension)
        job.result = extension.events
        ended += [run.id for run in extension.runs.values() if run.terminal]

    def _do(self, job: _Call) -> None:
        try:
            job.result = job.work()
        except Exception as error:  # noqa: BLE001 - as in _commit
            job.error = self._failed(error)

    def _failed(self, error: Exception) -> Error:
        """The error for those who wait; the connection is as good as new, or gone."""
        try:
            if isinstance(error, apsw.Error) and is_dead(error):
                self._ledger.drop()
            else:
                self._ledger.rollback()
        except apsw.Error:
            self._ledger.drop()
        return of_writing(error, self._location) if isinstance(error, apsw.Error) else wrap(error)

    def _deliver(self, jobs: Sequence[Append | _Call]) -> None:
        try:
            self._loop.call_soon_threadsafe(_resolve, jobs)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


def _resolve(jobs: Sequence[Append | _Call]) -> None:
    """Tell who waits, where somebody still does."""
    for job in jobs:
        if job.future.done():
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)


_NOTHING: Any = object()
"""No job was left over."""

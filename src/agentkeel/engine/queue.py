"""Slots: which runs of a session work and which wait their turn, first come first served.

A place in the line is reserved before anything is stored, so a session that is at its limit refuses without a trace.
A line exists only while it has runs: idle sessions cost nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import anyio
import anyio.abc

from agentkeel.core import events as ev
from agentkeel.core.events import Draft
from agentkeel.core.ids import RunId, SessionId
from agentkeel.engine.ends import End
from agentkeel.engine.job import Job, Stop
from agentkeel.engine.runner import Runner
from agentkeel.errors import AtCapacity, Error, RunTerminal, StateError

__all__ = ["Line", "Queue"]


class Line:
    """The runs of one session in this process."""

    def __init__(self, session_id: SessionId, *, slots: int, places: int, paused: bool) -> None:
        self.session_id = session_id
        self.slots = slots
        self.places = places
        self.paused = paused
        self.reserved = 0
        self.waiting: deque[Job] = deque()
        self.running: dict[RunId, Job] = {}
        self.leaving: set[RunId] = set()
        """Called off while they waited; their ends are being written."""
        self.quieted = anyio.Event()
        self.owes_idle = False
        """Its last run ended while another one was about to be stored, so nobody said yet that it is idle."""

    @property
    def quiet(self) -> bool:
        """No run works, waits, or is about to be stored."""
        return not (self.running or self.waiting or self.leaving or self.reserved)

    @property
    def jobs(self) -> list[Job]:
        """Those at work first."""
        return [*self.running.values(), *self.waiting]

    def last(self, job: Job) -> bool:
        """Whether the session is idle once `job` has ended: every other run's end is written, or on its way."""
        last = all(other is job or other.ending for other in self.jobs)
        self.owes_idle = last and self.reserved > 0
        return last and not self.reserved

    def check_room(self) -> None:
        """Say nothing if one more run may come.

        Raises:
            AtCapacity: All slots are taken and all places to wait too.
        """
        left = sum(not job.ending for job in self.jobs)
        if left + self.reserved >= self.slots + self.places:
            raise AtCapacity(
                f"Session {self.session_id} has {len(self.running)} runs at work and {len(self.waiting)} waiting, "
                f"which is its limit ({self.slots} and {self.places}). Nothing was stored; wait for one to end.",
                details={"max_concurrent_runs": self.slots, "max_queued_runs": self.places},
            )


class Queue:
    """The lines of one manager. A run belongs to the manager's task group, never to its caller."""

    def __init__(self, make_runner: Callable[[Callable[[Job], bool]], Runner], tasks: anyio.abc.TaskGroup) -> None:
        self._runner = make_runner(self._last)
        self._tasks = tasks
        self._lines: dict[SessionId, Line] = {}
        self._jobs: dict[RunId, Job] = {}
        self._paused: set[SessionId] = set()
        self._shut: Counter[SessionId] = Counter()
        self._stops: dict[SessionId, Stop] = {}
        self._closed: Stop | None = None

    # -- what there is ----------------------------------------------------------------------------------------------

    def line(self, session_id: SessionId) -> Line | None:
        """The session's line; None for a session without runs in this process."""
        return self._lines.get(session_id)

    def job(self, run_id: RunId) -> Job | None:
        """The run's job, while this process has it, or owes the log its end."""
        return self._jobs.get(run_id) or self._runner.ends.owed(run_id)

    def jobs(self, session_id: SessionId | None = None) -> list[Job]:
        """The jobs of a session, or all, those at work first."""
        lines = self._lines.values() if session_id is None else filter(None, [self._lines.get(session_id)])
        return [job for line in list(lines) for job in line.jobs]

    async def settle_ends(self) -> None:
        """Ends that the log could not take were tried again."""
        await self._runner.ends.settle()

    # -- in and out -------------------------------------------------------------------------------------------------

    @contextmanager
    def place(self, session_id: SessionId, *, slots: int, places: int, paused: bool) -> Iterator[Line]:
        """A place for one more run, held while the run is stored. The line is made if there is none.

        Raises:
            AtCapacity: All slots are taken and all places to wait too.
            StateError: The session takes no more runs: it drains or ends, or the manager does.
        """
        if self._closed is not None:
            raise StateError("This manager is closed, or about to be. Nothing was stored; open another one.")
        if self._shut[session_id]:
            raise StateError(f"Session {session_id} is draining and takes no runs. Nothing was stored.")
        line = self._lines.get(session_id)
        if line is None:
            paused = paused or session_id in self._paused
            line = self._lines[session_id] = Line(session_id, slots=slots, places=places, paused=paused)
        line.check_room()
        line.reserved += 1
        try:
            yield line
        finally:
            line.reserved -= 1
            self._tidy(line)

    def add(self, line: Line, job: Job) -> None:
        """The job is at work, or waits at the end of its line."""
        self._jobs[job.run_id] = job
        stop = self._closed or self._stops.get(line.session_id)
        if stop is not None:
            job.request_stop(stop)
        line.owes_idle = False
        line.waiting.append(job)
        self._fill(line)

    async def refuse(self, job: Job, drafts: Iterable[Draft]) -> None:
        """A run that may be in the log and will not be worked on has the end `drafts` say, now or later."""
        await self._runner.ends.write(End(job, list(drafts), Draft(data=ev.SessionIdle())))
        job.done.set()

    async def stop(self, run_id: RunId, stop: Stop) -> None:
        """The run was told to end; one that waits has ended when this returns, its agent untouched.

        Raises:
            RunTerminal: It has ended, or is another process's.
        """
        job = self._jobs.get(run_id)
        if job is None or not job.request_stop(stop):
            raise RunTerminal(f"Run {run_id} has ended, or another process has it.", details={"run_id": run_id})
        line = self._lines[job.session_id]
        if job in line.waiting:
            line.waiting.remove(job)
            await self._end_unstarted(line, job, stop)

    # -- all of a session -------------------------------------------------------------------------------------------

    def pause(self, session_id: SessionId) -> None:
        """No run of the session is started any more; those at work go on."""
        self._paused.add(session_id)
        if (line := self._lines.get(session_id)) is not None:
            line.paused = True

    def resume(self, session_id: SessionId) -> None:
        """Runs of the session are started again."""
        self._paused.discard(session_id)
        if (line := self._lines.get(session_id)) is not None:
            line.paused = False
            self._fill(line)

    @contextmanager
    def shut(self, session_id: SessionId) -> Iterator[None]:
        """The session takes no new runs meanwhile."""
        self._shut[session_id] += 1
        try:
            yield
        finally:
            self._shut[session_id] -= 1
            if not self._shut[session_id]:
                del self._shut[session_id]

    async def check_idle(self, session_id: SessionId) -> None:
        """No run of the session is left. Those whose end is in the log were waited for.

        Raises:
            StateError: Runs are at work or waiting.
        """
        line = self._lines.get(session_id)
        if line is None:
            return
        if line.reserved or not all(job.ending for job in line.jobs):
            raise StateError(
                f"Session {session_id} has runs at work or waiting, so it cannot end. Drain it, or cancel it first.",
                details={"session_id": session_id, "runs": [job.run_id for job in line.jobs]},
            )
        await line.quieted.wait()

    async def drain(self, session_id: SessionId) -> None:
        """No run of the session works or waits. It takes no new ones meanwhile."""
        with self.shut(session_id):
            if (line := self._lines.get(session_id)) is not None:
                await line.quieted.wait()

    async def call_off(self, session_id: SessionId, reason: str | None) -> None:
        """Every run of the session was told to end and has, also one that was just being stored."""
        stop = Stop(kind="cancelled", reason=reason)
        before = self._stops.get(session_id)
        self._stops[session_id] = stop
        try:
            with self.shut(session_id):
                await self.stop_all(session_id, stop)
                await self.drain(session_id)
        finally:
            if before is None:
                self._stops.pop(session_id, None)
            else:
                self._stops[session_id] = before

    async def stop_all(self, session_id: SessionId | None, stop: Stop) -> None:
        """Every run of the session, or all, were told to end; those that waited have, their agents untouched."""
        jobs = self.jobs(session_id)
        for job in jobs:
            job.request_stop(stop)
        for job in jobs:
            line = self._lines.get(job.session_id)
            if line is not None and job in line.waiting:
                line.waiting.remove(job)
                await self._end_unstarted(line, job, stop)

    async def aclose(self, reason: str) -> None:
        """Every run was told to end, and has. No further ones are taken."""
        self._closed = Stop(kind="cancelled", reason=reason)
        await self.stop_all(None, self._closed)
        for line in list(self._lines.values()):
            await line.quieted.wait()
        await self.settle_ends()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _fill(self, line: Line) -> None:
        """As many runs work as there are slots."""
        while line.waiting and len(line.running) < line.slots and not line.paused:
            job = line.waiting.popleft()
            line.running[job.run_id] = job
            self._tasks.start_soon(self._work, line, job, name=f"run {job.run_id}")

    async def _work(self, line: Line, job: Job) -> None:
        try:
            await self.settle_ends()
            if job.stop is not None:
                await self._end_unstarted(line, job, job.stop)
            else:
                await self._runner.execute(job)
        finally:
            line.running.pop(job.run_id, None)
            self._jobs.pop(job.run_id, None)
            self._fill(line)
            self._tidy(line)

    async def _end_unstarted(self, line: Line, job: Job, stop: Stop) -> None:
        drafts = [Draft(data=ev.RunCancelled(reason=stop.reason), run_id=job.run_id, source="user")]
        line.leaving.add(job.run_id)
        try:
            await self._runner.ends.write(End(job, drafts, Draft(data=ev.SessionIdle())))
        finally:
            job.done.set()
            self._jobs.pop(job.run_id, None)
            line.leaving.discard(job.run_id)
            self._tidy(line)

    def _last(self, job: Job) -> bool:
        line = self._lines.get(job.session_id)
        return line is None or line.last(job)

    def _tidy(self, line: Line) -> None:
        """What can be read from the log is not kept here."""
        if line.quiet and self._lines.get(line.session_id) is line:
            del self._lines[line.session_id]
            line.quieted.set()
            if line.owes_idle:
                self._tasks.start_soon(self._say_idle, line.session_id)

    async def _say_idle(self, session_id: SessionId) -> None:
        with suppress(Error):  # The log is away, or the session is gone: then this hint is of no use.
            await self._runner.log.append(session_id, [Draft(data=ev.SessionIdle())])

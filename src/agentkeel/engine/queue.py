"""Slots: which runs of a session work and which wait their turn, first come first served.

A place in the line is reserved before anything is stored, so a session that is at its limit refuses without a trace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import anyio.abc

from agentkeel.core import events as ev
from agentkeel.core.events import Draft
from agentkeel.core.ids import RunId, SessionId
from agentkeel.engine.job import Job, Stop
from agentkeel.engine.runner import Runner
from agentkeel.errors import AtCapacity, Error, RunTerminal, StateError

__all__ = ["Line", "Queue"]


class Line:
    """The runs of one session in this process."""

    def __init__(self, session_id: SessionId, *, slots: int, places: int) -> None:
        self.session_id = session_id
        self.slots = slots
        self.places = places
        self.paused = False
        self.closed = False
        self.reserved = 0
        self.waiting: deque[Job] = deque()
        self.running: dict[RunId, Job] = {}
        self._settled: anyio.Event | None = None

    @property
    def quiet(self) -> bool:
        """No run works, waits, or is about to be stored."""
        return not self.running and not self.waiting and not self.reserved

    def last(self, job: Job) -> bool:
        """Whether the session is idle once `job` has ended: every other run's end is written, or on its way."""
        others = (*self.running.values(), *self.waiting)
        return not self.reserved and all(other is job or other.ending for other in others)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one more run, held while the run is stored.

        Raises:
            AtCapacity: All slots are taken and all places to wait too.
            StateError: The line takes no more runs: it drains.
        """
        if self.closed:
            raise StateError(f"Session {self.session_id} is draining and takes no runs. Nothing was stored.")
        taken = len(self.running) + len(self.waiting) + self.reserved
        if taken >= self.slots + self.places:
            raise AtCapacity(
                f"Session {self.session_id} has {len(self.running)} runs at work and {len(self.waiting)} waiting, "
                f"which is its limit ({self.slots} and {self.places}). Nothing was stored; wait for one to end.",
                details={"max_concurrent_runs": self.slots, "max_queued_runs": self.places},
            )
        self.reserved += 1
        try:
            yield
        finally:
            self.reserved -= 1
            self.settle()

    async def until_quiet(self) -> None:
        """Return when no run works, waits, or is about to be stored."""
        while not self.quiet:
            self._settled = self._settled or anyio.Event()
            await self._settled.wait()

    def settle(self) -> None:
        """Wake those who wait for quiet, if it is quiet."""
        if self.quiet and self._settled is not None:
            self._settled.set()
            self._settled = None


class Queue:
    """The lines of one manager. A run belongs to the manager's task group, never to its caller."""

    def __init__(self, runner: Runner, tasks: anyio.abc.TaskGroup) -> None:
        self._runner = runner
        self._tasks = tasks
        self._lines: dict[SessionId, Line] = {}
        self._jobs: dict[RunId, Job] = {}

    def line(self, session_id: SessionId, *, slots: int, places: int) -> Line:
        """The session's line; made at first use."""
        line = self._lines.get(session_id)
        if line is None:
            line = self._lines[session_id] = Line(session_id, slots=slots, places=places)
        return line

    def job(self, run_id: RunId) -> Job | None:
        """The run's job, while this process has it."""
        return self._jobs.get(run_id)

    def jobs(self, session_id: SessionId | None = None) -> list[Job]:
        """The jobs of a session, or all, those at work first."""
        lines = self._lines.values() if session_id is None else filter(None, [self._lines.get(session_id)])
        return [job for line in list(lines) for job in (*line.running.values(), *line.waiting)]

    def add(self, line: Line, job: Job) -> None:
        """The job is at work, or waits at the end of its line."""
        self._jobs[job.run_id] = job
        line.waiting.append(job)
        self.fill(line)

    def fill(self, line: Line) -> None:
        """As many runs work as there are slots."""
        while line.waiting and len(line.running) < line.slots and not line.paused:
            job = line.waiting.popleft()
            line.running[job.run_id] = job
            self._tasks.start_soon(self._work, line, job, name=f"run {job.run_id}")

    async def stop(self, run_id: RunId, stop: Stop) -> None:
        """The run was told to end; one that waits has ended when this returns, its agent untouched.

        Raises:
            RunTerminal: It has ended.
        """
        job = self._jobs.get(run_id)
        if job is None or not job.request_stop(stop):
            raise RunTerminal(f"Run {run_id} has ended, or another process has it.", details={"run_id": run_id})
        line = self._lines[job.session_id]
        if job in line.waiting:
            line.waiting.remove(job)
            await self._end_unstarted(line, job, stop)

    async def drain(self, session_id: SessionId) -> None:
        """No run of the session works or waits. The line is closed to new ones meanwhile."""
        line = self._lines.get(session_id)
        if line is None:
            return
        line.closed = True
        try:
            await line.until_quiet()
        finally:
            line.closed = False

    async def aclose(self, reason: str) -> None:
        """Every run was told to end, and has."""
        for line in self._lines.values():
            line.closed = True
        for job in self.jobs():
            line = self._lines[job.session_id]
            stop = Stop(kind="cancelled", reason=reason)
            job.request_stop(stop)
            if job in line.waiting:
                line.waiting.remove(job)
                await self._end_unstarted(line, job, stop)
        for line in list(self._lines.values()):
            await line.until_quiet()

    async def _work(self, line: Line, job: Job) -> None:
        try:
            await self._runner.execute(job, lambda: line.last(job))
        finally:
            line.running.pop(job.run_id, None)
            self._forget(line, job)
            self.fill(line)

    async def _end_unstarted(self, line: Line, job: Job, stop: Stop) -> None:
        job.ending = True
        drafts = [Draft(data=ev.RunCancelled(reason=stop.reason), run_id=job.run_id, source="user")]
        if line.last(job):
            drafts.append(Draft(data=ev.SessionIdle()))
        try:
            with anyio.CancelScope(shield=True):
                await self._runner.log.append(job.session_id, drafts)
        except Error as error:
            job.error = error
        finally:
            job.done.set()
            self._forget(line, job)

    def _forget(self, line: Line, job: Job) -> None:
        """Idle sessions cost nothing: what can be read from the log is not kept here."""
        self._jobs.pop(job.run_id, None)
        line.settle()
        if line.quiet and not line.paused:
            self._lines.pop(line.session_id, None)

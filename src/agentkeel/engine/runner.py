"""One run, from its slot to its one terminal event.

Only this file says started, completed, failed, cancelled, timed out. An agent that ends its turn is believed; one that
goes silent, dies, floods or refuses to stop is ended, and the log says how it went. Whatever happens, the run gets one
terminal event that keeps what was said and used, or, if the log cannot be written, the caller gets that error and the
next start of the store finds the run interrupted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.abc

from agentkeel.core import events as ev
from agentkeel.core.events import Body, Draft
from agentkeel.engine.account import Account, cut_off
from agentkeel.engine.connections import Connections, Lease
from agentkeel.engine.deadlines import watch_deadlines
from agentkeel.engine.job import Job, Stop
from agentkeel.engine.log import Log
from agentkeel.engine.permissions import Permissions
from agentkeel.engine.pipeline import Pipeline
from agentkeel.errors import Error, Fenced, RunTerminal, StorageError, wrap
from agentkeel.ports.clock import Clock
from agentkeel.ports.pricing import Pricing
from agentkeel.ports.provider import Began, Connection, Ended, OpenSpec, Said

__all__ = ["Runner"]

CLAIM_SECONDS = 60.0


class Runner:
    """Runs runs. Holds what all runs of a manager share."""

    def __init__(self, log: Log, connections: Connections, clock: Clock, pricing: Pricing, *, owner: str) -> None:
        self.log = log
        self.connections = connections
        self.clock = clock
        self.pricing = pricing
        self.owner = owner

    async def execute(self, job: Job, last: Callable[[], bool]) -> None:
        """The run has ended and the log says how; `job.done` is set. Never raises but when it is cancelled itself.

        Args:
            last: Whether no other run of the session is running or waiting; then the end carries `session_idle`.
        """
        turn = _Turn(self, job, last)
        try:
            await turn.run()
        except anyio.get_cancelled_exc_class():
            job.stop = job.stop or Stop(kind="cancelled", reason="the manager was closed")
            with anyio.CancelScope(shield=True):
                await turn.end(None)
            raise
        except (Fenced, RunTerminal) as error:
            job.error = error
        except Exception as error:  # noqa: BLE001 - the run's outer edge: any failure becomes its terminal event
            await turn.end(wrap(_first(error)))
        finally:
            job.done.set()


class _Turn:
    """One run's one turn with its agent."""

    def __init__(self, runner: Runner, job: Job, last: Callable[[], bool]) -> None:
        self._runner = runner
        self._job = job
        self._last = last
        self._log = runner.log
        self._clock = runner.clock
        self._began_at = runner.clock.monotonic()
        self._account = Account()
        self._permissions = Permissions(
            mode=job.options.permission_mode,
            workspace=job.options.workspace,
            approver=job.approver,
            timeout=job.options.permission_timeout,
        )
        self._scope = anyio.CancelScope()
        self._connection: Connection | None = None
        self._ended: Ended | None = None
        self._pipeline: Pipeline | None = None
        self._warm = False
        self.started = False
        self.closed = False
        self.heard_at = self._began_at
        self.asking = 0

    async def run(self) -> None:
        """The agent did its turn and the run has its end.

        Raises:
            Error: The run failed before or while the agent worked; the end is not written yet.
        """
        job = self._job
        fence = await self._log.store.claim(job.run_id, owner=self._runner.owner, ttl=CLAIM_SECONDS)
        self._pipeline = self._pipeline_of(fence)
        await self._accept([Draft(data=self._route())], source="engine")
        failed: Error | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch_deadlines, self, self._clock, job)
                tasks.start_soon(self._enforce)
                with self._scope:
                    async with self._runner.connections.lease(job.provider, await self._spec()) as lease:
                        await self._converse(lease, tasks)
                        if self._ended is not None and self._ended.status == "completed":
                            await self.end(None)
                tasks.cancel_scope.cancel()
        except* Error as group:
            failed = wrap(_first(group))
        if not self.closed:
            await self.end(failed)

    async def end(self, error: Error | None) -> None:
        """The run has its one terminal event, unless the log cannot be written; then `job.error` says why."""
        if self.closed:
            return
        self.closed = self._job.ending = True
        duration = round((self._clock.monotonic() - self._began_at) * 1000)
        drafts = [Draft(data=body) for body in self._terminal(error, duration)]
        if self._last():
            drafts.append(Draft(data=ev.SessionIdle()))
        try:
            with anyio.CancelScope(shield=True):
                if self._pipeline is None:
                    self._pipeline = self._pipeline_of(None)
                await self._pipeline.close(drafts)
        except Error as unwritten:
            self._job.error = error if isinstance(error, StorageError) else unwritten
        self._job.done.set()

    def _terminal(self, error: Error | None, duration: int) -> list[Body]:
        job, ended, account = self._job, self._ended, self._account
        if ended is not None and ended.status == "completed":
            begin = [] if self.started else [self._started(Began())]
            return [*begin, account.completed(ended, duration)]
        if job.stop is not None:
            return [account.stopped(job.stop, duration, ended)]
        if error is None and ended is not None:
            if ended.status == "interrupted":
                return [account.stopped(Stop(kind="cancelled", reason="the agent was interrupted"), duration, ended)]
            error = ended.error
        return [account.failed(error or cut_off(job.provider.name), duration, ended)]

    async def _converse(self, lease: Lease, tasks: anyio.abc.TaskGroup) -> None:
        self._connection = lease.connection
        self._warm = lease.warm
        lease.discard = True
        await self._accept([Draft(data=_prepared(lease))], source="engine")
        async with _closing(lease.connection.prompt(self._job.prompt)) as said:
            async for batch in said:
                with anyio.CancelScope(shield=True):
                    await self._take(batch, tasks)
        lease.discard = self._ended is None

    async def _take(self, batch: Sequence[Said], tasks: anyio.abc.TaskGroup) -> None:
        self.heard_at = self._clock.monotonic()
        drafts: list[Draft] = []
        asked: list[ev.PermissionRequested] = []
        for said in batch:
            if isinstance(said, Draft):
                drafts.append(said)
                if isinstance(said.data, ev.PermissionRequested):
                    asked.append(said.data)
            elif isinstance(said, Began):
                drafts.append(Draft(data=self._started(said), source="agent"))
            else:
                self._ended = said
        if drafts:
            await self._accept(drafts)
        for request in asked:
            self.asking += 1
            tasks.start_soon(self._resolve, request)

    async def _resolve(self, request: ev.PermissionRequested) -> None:
        """The agent has its answer, and the log had it first."""
        assert self._connection is not None
        try:
            answer = await self._permissions.answer(request)
            resolved = ev.PermissionResolved(
                request_id=request.request_id,
                decision="allow" if answer.decision.allow else "deny",
                by=answer.by,
                message=answer.decision.message,
            )
            await self._accept([Draft(data=resolved)], source="engine")
            await self._connection.answer(request.request_id, answer.decision)
        finally:
            self.asking -= 1
            self.heard_at = self._clock.monotonic()

    async def _enforce(self) -> None:
        """Once the run is told to stop: interrupt, a grace in which the agent's last words count, then no more."""
        job = self._job
        await job.stopping.wait()
        connection = self._connection
        if connection is not None:
            async with anyio.create_task_group() as ladder:
                ladder.start_soon(self._interrupt, connection)
                await self._clock.sleep(job.options.grace)
                ladder.cancel_scope.cancel()
        self._scope.cancel()

    async def _interrupt(self, connection: Connection) -> None:
        try:
            await connection.interrupt()
        except Error:
            self._scope.cancel()

    async def _accept(self, drafts: Sequence[Draft], *, source: ev.Source = "agent") -> None:
        assert self._pipeline is not None
        with anyio.CancelScope(shield=True):
            await self._pipeline.accept(drafts, source=source)

    def _pipeline_of(self, fence: int | None) -> Pipeline:
        job = self._job
        return Pipeline(
            self._log,
            session_id=job.session_id,
            run_id=job.run_id,
            provider=job.provider.name,
            fence=fence,
            pricing=self._runner.pricing,
            tally=self._account,
            correlation_id=job.options.correlation_id,
        )

    def _route(self) -> ev.RouteSelected:
        name = self._job.provider.name
        return ev.RouteSelected(provider=name, order=(name,), reasons=("the only candidate",))

    def _started(self, began: Began) -> ev.RunStarted:
        self.started = True
        self._account.provider_session_id = began.provider_session_id
        return ev.RunStarted(
            provider=self._job.provider.name,
            model=began.model or self._job.options.model,
            provider_session_id=began.provider_session_id,
            tools=began.tools,
            agent_version=began.agent_version,
            warm=self._warm,
            details=began.details,
        )

    async def _spec(self) -> OpenSpec:
        job = self._job
        options = job.options
        resume: str | None = None
        if options.continuity != "off":
            session = await self._log.store.session(job.session_id)
            resume = session.provider_sessions.get(job.provider.name)
        await anyio.Path(options.scratch).mkdir(mode=0o700, parents=True, exist_ok=True)
        return OpenSpec(
            session_id=job.session_id,
            workspace=options.workspace,
            scratch=options.scratch,
            model=options.model,
            permission_mode=options.permission_mode,
            system_prompt=options.system_prompt,
            resume=resume,
            startup_timeout=options.startup_timeout,
        )


def _prepared(lease: Lease) -> ev.ContinuityPrepared:
    return ev.ContinuityPrepared(
        mode="warm" if lease.warm else "native" if lease.resumed else "new",
        provider_session_id=lease.connection.provider_session_id,
        process=lease.connection.process,
    )


@asynccontextmanager
async def _closing(said: AsyncIterator[Sequence[Said]]) -> AsyncIterator[AsyncIterator[Sequence[Said]]]:
    """The iterator is closed at the end of the block, if it is one that can be."""
    try:
        yield said
    finally:
        close = getattr(said, "aclose", None)
        if close is not None:
            with anyio.CancelScope(shield=True):
                await close()


def _first(error: BaseException) -> BaseException:
    """The first cause inside nested groups: the others followed from it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

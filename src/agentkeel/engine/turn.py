"""One run's one turn with its agent, up to the run's one terminal event.

Only this file says started, completed, failed, cancelled, timed out. The first end that the agent says counts; what
went wrong with the log counts more, since a run whose words were lost is no success.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import anyio.lowlevel

from agentkeel.core import events as ev
from agentkeel.core.events import Body, Draft
from agentkeel.engine.account import Account, cut_off
from agentkeel.engine.connections import Connections, Lease, cause_of
from agentkeel.engine.deadlines import watch_deadlines
from agentkeel.engine.ends import End, Ends
from agentkeel.engine.job import Job, Stop
from agentkeel.engine.log import Log
from agentkeel.engine.permissions import Answer, Permissions
from agentkeel.engine.pipeline import Pipeline
from agentkeel.engine.questions import Questions
from agentkeel.errors import Error, ProviderError, StorageError, ValidationError, wrap
from agentkeel.ports.clock import Clock
from agentkeel.ports.pricing import Pricing
from agentkeel.ports.provider import Began, Connection, Ended, OpenSpec, Said

__all__ = ["Turn"]

LINGER_SECONDS = 2.0
"""How long an agent may go on after its end before it is no longer listened to, nor kept."""
BATCH_DRAFTS = 512
"""How many drafts go into the log at once, so that a flood does not stop the others."""


class Turn:
    """What one run does with its agent, and how it ends."""

    def __init__(
        self, job: Job, *, log: Log, connections: Connections, clock: Clock, pricing: Pricing, ends: Ends
    ) -> None:
        self._job = job
        self._log = log
        self._connections = connections
        self._clock = clock
        self._pricing = pricing
        self._ends = ends
        self._began_at = clock.monotonic()
        self._account = Account()
        permissions = Permissions(
            mode=job.options.permission_mode,
            workspace=job.options.workspace,
            approver=job.approver,
            timeout=job.options.permission_timeout,
        )
        self._questions = Questions(permissions, self._answer)
        self._scope = anyio.CancelScope()
        self._fence: int | None = None
        self._pipeline = self._pipeline_of(None)
        self._connection: Connection | None = None
        self._ended: Ended | None = None
        self._attempt = 1
        self._warm = False
        self._heard = False
        self._started = False
        self._closed = False
        self._silent_since: float | None = None

    @property
    def silent_since(self) -> float | None:
        """Monotonic seconds of the agent's last word; None while it is not its turn to speak."""
        return None if self._questions.pending else self._silent_since

    async def run(self, fence: int) -> None:
        """The agent did its turn and the run has its end.

        Raises:
            Error: The run failed before the agent was asked for; the end is not written yet.
        """
        job = self._job
        self._fence = fence
        self._pipeline = self._pipeline_of(fence)
        await self._accept([Draft(data=self._route())], source="engine")
        failed: Error | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch_deadlines, self, self._clock, job)
                tasks.start_soon(self._enforce)
                with self._scope:
                    await self._work(tasks)
                tasks.cancel_scope.cancel()
        except* Error as group:
            failed = wrap(cause_of(group))
        if not self._closed:
            await self.end(failed)

    async def end(self, error: Error | None) -> None:
        """The run has its one terminal event, unless the log cannot take it; then `job.error` says why."""
        if self._closed:
            return
        self._closed = True
        duration = round((self._clock.monotonic() - self._began_at) * 1000)
        await self._write(self._terminal(error, duration))
        if isinstance(self._job.error, ValidationError):
            # The log refuses what the agent gave at its end: the run ends without that, and says so.
            await self._write([Account().failed(self._job.error, duration)])
        if self._job.error is not None and isinstance(error, StorageError):
            self._job.error = error

    async def _write(self, bodies: Sequence[Body]) -> None:
        drafts = self._pipeline.close([Draft(data=body) for body in bodies])
        [idle] = self._pipeline.close([Draft(data=ev.SessionIdle())])
        await self._ends.write(End(self._job, drafts, idle, self._fence))

    def _terminal(self, error: Error | None, duration: int) -> list[Body]:
        job, ended, account = self._job, self._ended, self._account
        open_questions: list[Body] = [*self._questions.close()]
        if isinstance(error, StorageError):
            return [*open_questions, account.failed(error, duration, ended)]
        if ended is not None and ended.status == "completed":
            begin = [] if self._started else [self._start(Began())]
            return [*begin, *open_questions, account.completed(ended, duration)]
        if job.stop is not None:
            return [*open_questions, account.stopped(job.stop, duration, ended)]
        if error is None and ended is not None:
            if ended.status == "interrupted":
                stop = Stop(kind="cancelled", reason="the agent was interrupted")
                return [*open_questions, account.stopped(stop, duration, ended)]
            error = ended.error
        return [*open_questions, account.failed(error or cut_off(job.provider.name), duration, ended)]

    # -- the agent's part -------------------------------------------------------------------------------------------

    async def _work(self, tasks: anyio.abc.TaskGroup) -> None:
        """The agent did its turn. One that died unheard since its last turn is replaced, once.

        Raises:
            Error: It could not be opened, or failed in its turn.
        """
        try:
            await self._converse(tasks)
        except ProviderError as error:
            connection = self._connection
            if not self._warm or self._heard or connection is None or connection.alive or self._job.stop is not None:
                raise
            failed = ev.AttemptFailed(
                provider=self._job.provider.name,
                attempt=self._attempt,
                error_code=error.code,
                error_message=error.message,
            )
            await self._accept([Draft(data=failed)], source="engine")
            self._attempt += 1
            self._connection = None
            await self._converse(tasks)

    async def _converse(self, tasks: anyio.abc.TaskGroup) -> None:
        async with self._connections.lease(self._job.provider, await self._spec()) as lease:
            self._connection = lease.connection
            self._warm = lease.warm
            lease.discard = True
            tasks.start_soon(lease.until_lost)
            await self._accept([Draft(data=_prepared(lease))], source="engine")
            if self._job.stopping.is_set():
                return
            self._silent_since = self._clock.monotonic()
            async with _closing(lease.connection.prompt(self._job.prompt)) as said:
                lingers = await self._listen(said, tasks)
            lease.discard = lingers or self._ended is None
            if self._ended is not None and self._ended.status == "completed":
                await self.end(None)

    async def _listen(self, said: AsyncIterator[Sequence[Said]], tasks: anyio.abc.TaskGroup) -> bool:
        """All was heard that the agent said, up to its end and for a moment behind it. Whether it did not stop then."""
        async for batch in said:
            with anyio.CancelScope(shield=True):
                await self._take(batch, tasks)
            if self._ended is not None:
                break
        else:
            return False
        with anyio.move_on_after(LINGER_SECONDS) as patience:
            async for batch in said:
                with anyio.CancelScope(shield=True):
                    await self._take(batch, tasks)
        return patience.cancelled_caught

    async def _take(self, batch: Sequence[Said], tasks: anyio.abc.TaskGroup) -> None:
        self._heard = True
        ended: Ended | None = None
        drafts: list[Draft] = []
        asked: list[ev.PermissionRequested] = []
        for said in batch:
            match said:
                case Draft(data=data):
                    drafts.append(said)
                    if isinstance(data, ev.PermissionRequested):
                        asked.append(data)
                    elif isinstance(data, ev.PermissionResolved):
                        self._questions.withdraw(data.request_id)
                case Began():
                    drafts.append(Draft(data=self._start(said), source="agent"))
                    if self._job.stopping.is_set() and self._connection is not None:
                        # Told to stop before it had the prompt: it did not listen then.
                        tasks.start_soon(self._interrupt, self._connection)
                case Ended():
                    ended = ended or said
        if drafts:
            await self._accept(drafts)
        self._silent_since = self._clock.monotonic()
        if self._ended is None and ended is not None:
            self._ended = ended
            await self._withdraw_questions()
        if self._ended is None:
            for request in asked:
                self._questions.ask(request, tasks)

    async def _withdraw_questions(self) -> None:
        withdrawn = self._questions.close()
        if withdrawn:
            await self._accept([Draft(data=body) for body in withdrawn], source="engine")

    async def _answer(self, request: ev.PermissionRequested, answer: Answer) -> None:
        """The agent has its answer, and the log had it first."""
        assert self._connection is not None
        resolved = ev.PermissionResolved(
            request_id=request.request_id,
            decision="allow" if answer.decision.allow else "deny",
            by=answer.by,
            message=answer.decision.message,
        )
        await self._accept([Draft(data=resolved)], source="engine")
        self._silent_since = self._clock.monotonic()
        await self._connection.answer(request.request_id, answer.decision)

    # -- its end by force -------------------------------------------------------------------------------------------

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
        except Exception:  # noqa: BLE001 - an agent that cannot be interrupted is ended; the run says why it was stopped
            self._scope.cancel()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _accept(self, drafts: Sequence[Draft], *, source: ev.Source = "agent") -> None:
        with anyio.CancelScope(shield=True):
            for start in range(0, len(drafts), BATCH_DRAFTS):
                if start:
                    await anyio.lowlevel.checkpoint()
                await self._pipeline.accept(drafts[start : start + BATCH_DRAFTS], source=source)

    def _pipeline_of(self, fence: int | None) -> Pipeline:
        job = self._job
        return Pipeline(
            self._log,
            session_id=job.session_id,
            run_id=job.run_id,
            provider=job.provider.name,
            fence=fence,
            pricing=self._pricing,
            tally=self._account,
            correlation_id=job.options.correlation_id,
        )

    def _route(self) -> ev.RouteSelected:
        name = self._job.provider.name
        return ev.RouteSelected(provider=name, order=(name,), reasons=("the only candidate",))

    def _start(self, began: Began) -> ev.RunStarted:
        self._started = True
        self._account.provider_session_id = began.provider_session_id
        return ev.RunStarted(
            provider=self._job.provider.name,
            model=began.model or self._job.options.model,
            provider_session_id=began.provider_session_id,
            tools=began.tools,
            agent_version=began.agent_version,
            attempt=self._attempt,
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
    """The iterator is closed at the end of the block, if it is one that can be, and does not take too long."""
    try:
        yield said
    finally:
        close = getattr(said, "aclose", None)
        if close is not None:
            with anyio.move_on_after(LINGER_SECONDS, shield=True):
                await close()

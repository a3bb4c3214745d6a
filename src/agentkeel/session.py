"""The handle of one session."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Unpack

import anyio
import msgspec

from agentkeel.context import Context, shielded
from agentkeel.core import events as ev
from agentkeel.core.content import Prompt, prompt_of
from agentkeel.core.events import Body, Draft, Event
from agentkeel.core.ids import RunId, SessionId, run_id
from agentkeel.core.result import RunResult
from agentkeel.core.run import RunState, RunStatus
from agentkeel.core.session import SessionState, SessionStatus
from agentkeel.engine.job import Job, Stop
from agentkeel.engine.subscription import follow, pages
from agentkeel.errors import CapabilityNotSupported, Error, KeyConflict, RunNotFound, StorageError, StoreUnavailable
from agentkeel.options import RunKeywords, checked, resolved, storable
from agentkeel.pages import Pages
from agentkeel.ports.provider import Provider
from agentkeel.ports.store import EventFilter
from agentkeel.run import Run, RunStream

if TYPE_CHECKING:
    from agentkeel.transfer import ExportFormat

__all__ = ["Session", "SessionLoad"]


class SessionLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is busy with in this process."""

    session_id: SessionId
    in_flight_runs: tuple[RunId, ...]
    queued_runs: tuple[RunId, ...]
    max_concurrent_runs: int
    max_queued_runs: int
    subscribers: int

    @property
    def in_flight_count(self) -> int:
        """How many runs are at work."""
        return len(self.in_flight_runs)

    @property
    def queued_count(self) -> int:
        """How many wait for a slot."""
        return len(self.queued_runs)


class Session:
    """A line of runs over one log. The handle keeps nothing of the log: any number of them may exist, anywhere.

    Awaiting a handle checks that the session is there, and gives the handle.
    """

    def __init__(self, context: Context, id: SessionId, defaults: Mapping[str, Any] | None = None) -> None:
        self._context = context
        self.id = id
        self._defaults = dict(defaults or {})

    def __repr__(self) -> str:
        return f"<Session {self.id}>"

    def __await__(self) -> Generator[Any, None, Session]:
        return self._checked().__await__()

    async def _checked(self) -> Session:
        await self.info()
        return self

    # -- what it is -------------------------------------------------------------------------------------------------

    async def info(self) -> SessionState:
        """The session as its events tell it: status, agent_id, provider, metadata, tags and so on."""
        return await self._context.log.store.session(self.id)

    async def status(self) -> SessionLoad:
        """What it is busy with in this process."""
        state = await self.info()
        line = self._context.queue.line(self.id)
        return SessionLoad(
            session_id=self.id,
            in_flight_runs=() if line is None else tuple(line.running),
            queued_runs=() if line is None else tuple(job.run_id for job in line.waiting),
            max_concurrent_runs=state.max_concurrent_runs,
            max_queued_runs=state.max_queued_runs,
            subscribers=self._context.log.tails.watchers(self.id),
        )

    # -- runs -------------------------------------------------------------------------------------------------------

    async def run(self, prompt: str | Sequence[str] | Prompt, **options: Unpack[RunKeywords]) -> RunResult:
        """The prompt was carried out; this is the result.

        Raises:
            Error: The run failed; `error.result` has what it said and used until then.
        """
        return await (await self.submit(prompt, **options)).result()

    @asynccontextmanager
    async def stream(
        self, prompt: str | Sequence[str] | Prompt, **options: Unpack[RunKeywords]
    ) -> AsyncIterator[RunStream]:
        """The run is under way and can be watched. Leaving the block stops the watching, not the run."""
        async with RunStream(await self.submit(prompt, **options)) as stream:
            yield stream

    async def submit(self, prompt: str | Sequence[str] | Prompt, **options: Unpack[RunKeywords]) -> Run:
        """The run is in the log, and works or waits for a slot. It goes on whatever happens to the caller.

        Raises:
            ValidationError: The prompt or an option is impossible. Nothing was stored.
            AtCapacity: Too many runs wait. Nothing was stored.
            StateError: The session takes no runs.
            KeyConflict: The key names a run with another prompt.
            SessionNotFound: There is no such session.
        """
        words = prompt_of(prompt)
        given = checked(options, allowed=RunKeywords)
        state = await self.info()
        merged = {**self._context.defaults, **_stored(state), **self._defaults, **given, "key": given.get("key")}
        provider = await self._context.fleet.choose(merged.get("provider"))
        if merged.get("continuity") == "native" and not provider.capabilities.resume:
            raise CapabilityNotSupported(
                f"{provider.name} cannot take up a conversation of its own. Nothing was stored; use continuity='auto'.",
                details={"capability": "resume", "provider": provider.name},
            )
        job = self._job(words, provider, merged, state)
        self._context.log.keep_out(job.provider.secrets)
        queued = _queued(job, merged)
        if queued.key is not None:
            recorded = await self._context.log.store.run_by_key(self.id, queued.key)
            if recorded is not None:
                return self._joined(recorded, queued)
        # The run is the manager's from here on: a caller that is called off now does not leave it without a worker.
        return await shielded(self._enqueue(job, queued, state))

    async def _enqueue(self, job: Job, queued: ev.RunQueued, state: SessionState) -> Run:
        queue = self._context.queue
        paused = state.status is SessionStatus.PAUSED
        with queue.place(self.id, slots=state.max_concurrent_runs, places=state.max_queued_runs, paused=paused) as line:
            if job.provider.capabilities.tokens:
                self._context.prepare()
            recorded = await self._store(job, _first_drafts(job, queued))
            if recorded != job.run_id:
                # Somebody else came with the key between the look-up and the append.
                return self._joined(await self._context.log.store.run(recorded), queued)
            queue.add(line, job)
        if paused and (await self.info()).status is not SessionStatus.PAUSED:
            queue.resume(self.id)  # It was resumed while the run was stored.
        return Run(self._context, session_id=self.id, run_id=job.run_id)

    async def _store(self, job: Job, drafts: Sequence[Draft]) -> RunId:
        """The run is in the log, under this id.

        Raises what `EventStore.append` raises; a run that may be in the log all the same is ended there.
        """
        try:
            events = await self._context.log.append(self.id, drafts)
        except StoreUnavailable as error:
            try:
                await self._context.log.store.run(job.run_id)
            except RunNotFound:
                raise error from None
            except StorageError:
                await self._context.queue.refuse(job, [_lost(job, error)])
                raise error from None
            return job.run_id  # It is there: only the answer was lost.
        return events[0].run_id or job.run_id

    def _job(self, words: Prompt, provider: Provider, merged: Mapping[str, Any], state: SessionState) -> Job:
        context = self._context
        return Job(
            run_id=run_id(context.clock.entropy()),
            session_id=self.id,
            provider=provider,
            prompt=words,
            approver=merged.get("on_permission"),
            options=resolved(
                {**merged, "system_prompt": state.system_prompt},
                workspace=merged.get("workspace") or context.workspace,
                scratch=context.scratch / self.id,
            ),
        )

    def _joined(self, recorded: RunState, queued: ev.RunQueued) -> Run:
        if recorded.options.get("prompt_digest") != queued.options["prompt_digest"]:
            raise KeyConflict(
                f"The key {queued.key!r} names run {recorded.id}, which had another prompt. Nothing was stored.",
                details={"key": queued.key, "run_id": recorded.id},
            )
        return Run(self._context, session_id=self.id, run_id=recorded.id)

    def runs(self, *, status: Collection[RunStatus] | None = None) -> Pages[RunState]:
        """The session's runs, newest first."""
        return self._context.runs(session_id=self.id, status=status)

    # -- the log ----------------------------------------------------------------------------------------------------

    def events(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        run_id: RunId | str | None = None,
        types: Collection[str] | None = None,
        limit: int | None = None,
    ) -> Pages[Event]:
        """What is in the log now, in order: iterate, or await a list. `after` and `before` are sequences, exclusive."""
        where = EventFilter(run_id=None if run_id is None else RunId(run_id), types=types, before=before)

        async def read() -> AsyncIterator[Event]:
            count = 0
            async for event in pages(self._context.log, self.id, after=after, where=where):
                if limit is not None and count >= limit:
                    return
                count += 1
                yield event

        return Pages(read)

    def export(self, format: ExportFormat = "jsonl") -> AsyncGenerator[str]:
        """The log as it is now, in pieces of text: `jsonl` to keep or import, a line each; `markdown`, `html` to read.

        Raises:
            SessionNotFound: There is no such session.
            ValidationError: There is no such format.
        """
        from agentkeel.transfer import export_session

        return export_session(self._context, self.id, format)

    def subscribe(
        self,
        *,
        after: int = 0,
        run_id: RunId | str | None = None,
        types: Collection[str] | None = None,
    ) -> AsyncIterator[Event]:
        """Everything behind `after`, then what comes; each event once, in order. Come back with `event.sequence`.

        Ends when the session has ended. Raises what `engine.subscription.follow` raises.
        """
        where = EventFilter(run_id=None if run_id is None else RunId(run_id), types=types)
        return follow(self._context.log, self.id, after=after, where=None if where == EventFilter() else where)

    # -- its life ---------------------------------------------------------------------------------------------------

    async def pause(self) -> None:
        """The session starts no more runs; those at work go on, those that wait keep their place."""
        await self._move(ev.SessionPaused())
        self._context.queue.pause(self.id)

    async def resume(self) -> None:
        """The session starts runs again."""
        await self._move(ev.SessionResumed())
        self._context.queue.resume(self.id)

    async def complete(self) -> None:
        """The session has ended well. Ending it twice changes nothing.

        Raises:
            StateError: Runs are at work or waiting; drain or cancel it.
        """
        if not await self._ended_as(SessionStatus.COMPLETED):
            await self._end(ev.SessionCompleted())

    async def fail(self, error: BaseException | str) -> None:
        """The session has ended badly, because of `error`.

        Raises:
            StateError: Runs are at work or waiting; drain or cancel it.
        """
        if isinstance(error, Error):
            body = ev.SessionFailed(
                error_code=error.code,
                error_message=error.message,
                provider_error=error.provider_error,
                details=error.details,
            )
        else:
            body = ev.SessionFailed(error_code="internal_error", error_message=str(error) or repr(error))
        if not await self._ended_as(SessionStatus.FAILED):
            await self._end(body)

    async def cancel(self, reason: str | None = None) -> None:
        """All its runs were called off and have ended; so has the session."""
        if await self._ended_as(SessionStatus.CANCELLED):
            return
        with self._context.queue.shut(self.id):
            await self._context.queue.call_off(self.id, reason)
            await self._end(ev.SessionCancelled(reason=reason))

    async def interrupt(self, reason: str | None = None) -> None:
        """Every run of the session in this process was told to end. The session takes further runs."""
        await self._context.queue.stop_all(self.id, Stop(kind="cancelled", reason=reason))

    async def drain(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the API's own word
        """No run of the session in this process works or waits; new ones were refused meanwhile.

        Raises:
            TimeoutError: Some still do after `timeout` seconds. They go on.
        """
        with anyio.fail_after(timeout):
            await self._context.queue.drain(self.id)

    async def stop(self) -> None:
        """No agent of the session lives: its runs were called off, its warm agents ended. The log stays as it is."""
        await self._context.queue.call_off(self.id, "the session was stopped")
        await self._context.connections.close_session(self.id)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _move(self, body: Body) -> None:
        await self._context.log.append(self.id, [Draft(data=body, source="user")])

    async def _ended_as(self, status: SessionStatus) -> bool:
        return (await self.info()).status is status

    async def _end(self, body: Body) -> None:
        queue = self._context.queue
        with queue.shut(self.id):
            await queue.check_idle(self.id)
            await self._context.connections.close_session(self.id)
            await queue.settle_ends()
            await self._move(body)
            queue.resume(self.id)


def _stored(state: SessionState) -> dict[str, Any]:
    """The defaults that the session's own log has for its runs."""
    own = {"provider": state.provider, "workspace": state.workspace, "continuity": state.continuity}
    return {**state.options, **{name: value for name, value in own.items() if value is not None}}


def _queued(job: Job, merged: Mapping[str, Any]) -> ev.RunQueued:
    return ev.RunQueued(
        provider=job.provider.name,
        model=job.options.model,
        workspace=str(job.options.workspace),
        timeout=job.options.timeout,
        key=merged["key"],
        options={**storable(merged), "prompt_digest": _digest(job.prompt)},
        metadata=merged.get("metadata") or {},
    )


def _first_drafts(job: Job, queued: ev.RunQueued) -> list[Draft]:
    bodies = {"run": queued, "prompt": ev.MessageSent(content=job.prompt.text)}
    return [
        Draft(
            data=body,
            run_id=job.run_id,
            source="user",
            provider=queued.provider,
            key=None if queued.key is None else f"{what}:{queued.key}",
            correlation_id=job.options.correlation_id,
        )
        for what, body in bodies.items()
    ]


def _lost(job: Job, error: Error) -> Draft:
    """The end of a run that nobody knows to be in the log."""
    return Draft(
        data=ev.RunFailed(
            error_code=error.code, error_message=f"It was not known whether the run was stored: {error.message}"
        ),
        run_id=job.run_id,
    )


def _digest(prompt: Prompt) -> str:
    return hashlib.blake2b(msgspec.json.encode(prompt), digest_size=16).hexdigest()

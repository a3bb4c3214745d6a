"""The handle of everything, and the one place that puts the floors together."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import anyio
import anyio.abc
import anyio.to_thread

from agentkeel.adapters.clock import SystemClock
from agentkeel.adapters.pricing import GenaiPrices
from agentkeel.context import Context, shielded
from agentkeel.core import events as ev
from agentkeel.core.content import Prompt, prompt_of
from agentkeel.core.events import Draft
from agentkeel.core.ids import RunId, SessionId, session_id
from agentkeel.core.naming import check_id
from agentkeel.core.redact import Redactor
from agentkeel.core.result import RunResult
from agentkeel.core.run import RunState, RunStatus
from agentkeel.core.session import SessionState, SessionStatus
from agentkeel.engine.auditing import Audit
from agentkeel.engine.connections import Connections
from agentkeel.engine.log import Log
from agentkeel.engine.observing import Observers
from agentkeel.engine.queue import Queue
from agentkeel.engine.recovery import recover
from agentkeel.engine.runner import CLAIM_SECONDS, Runner
from agentkeel.errors import Error, StateError, StorageError, ValidationError
from agentkeel.options import RunKeywords, SessionKeywords, checked, storable
from agentkeel.pages import Pages
from agentkeel.ports.audit import AuditLog
from agentkeel.ports.clock import Clock
from agentkeel.ports.observer import Observer
from agentkeel.ports.pricing import Pricing
from agentkeel.ports.provider import Probe, Provider
from agentkeel.ports.store import EventStore, StoreInfo
from agentkeel.registry import Fleet, notifier_for, open_store
from agentkeel.run import Run, RunStream
from agentkeel.session import Session

if TYPE_CHECKING:
    from agentkeel.transfer import Source

__all__ = ["Manager", "open"]

_PAGE = 200
Status = TypeVar("Status", SessionStatus, RunStatus)
_SESSION_ONLY = SessionKeywords.__annotations__.keys() - RunKeywords.__annotations__.keys()


class Manager:
    """Sessions and runs over one log. Use it as `async with agentkeel.open(…) as manager`.

    Runs belong to the manager. Leaving the block calls off those that are left, ends every agent and closes the store.
    """

    def __init__(
        self,
        store: str | EventStore | None = None,
        *,
        providers: Iterable[Provider | str] = (),
        read_only: bool = False,
        redactor: Redactor | None = None,
        pricing: Pricing | None = None,
        clock: Clock | None = None,
        audit: AuditLog | None = None,
        observers: Iterable[Observer] = (),
        **defaults: Unpack[RunKeywords],
    ) -> None:
        self._audit_log = audit
        self._observers = Observers(observers)
        self._given_store = store
        self._read_only = read_only
        self._fleet = Fleet(providers)
        self._redactor = redactor
        self._pricing = pricing
        self._clock = clock or SystemClock()
        self._defaults = checked(defaults, allowed=RunKeywords)
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{self._clock.entropy().hex()}"
        self._stack = AsyncExitStack()
        self._made: Context | None = None
        self._closed = False
        self.recovered: Sequence[RunState] = ()

    async def __aenter__(self) -> Manager:
        if self._made is not None:
            raise StateError("This manager is open already; use another one.")
        try:
            await self._open()
        except BaseException:
            self._closed = True
            await self._stack.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The error of the block is not shown to the task group inside, which would wrap it into a group of errors.
        self._closed = True
        await self._stack.__aexit__(None, None, None)

    async def _open(self) -> None:
        stack = self._stack
        store = await open_store(self._given_store, read_only=self._read_only)
        stack.push_async_callback(_shielded_close, store)
        scratch = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="agentkeel-", ignore_cleanup_errors=True))
        )
        audit: Audit | None = None
        if self._audit_log is not None and not self._read_only:
            audit = await Audit.start(self._audit_log, self._clock, redactor=self._redactor)
            stack.push_async_callback(audit.aclose)
            await audit.catch_up(store)
            await audit.record("store.opened", subject=(await store.info()).location, actor=self._owner)
        log = Log(
            store,
            await stack.enter_async_context(notifier_for(store)),
            self._redactor or Redactor(),
            learns_secrets=self._redactor is None,
            audit=audit,
            observers=self._observers,
        )
        for provider in self._fleet.providers.values():
            log.keep_out(provider.secrets)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        connections = Connections(tasks, self._clock)
        pricing = self._pricing or GenaiPrices()
        queue = Queue(lambda last: Runner(log, connections, self._clock, pricing, owner=self._owner, last=last), tasks)
        self._made = Context(
            log=log,
            fleet=self._fleet,
            clock=self._clock,
            queue=queue,
            connections=connections,
            defaults=self._defaults,
            workspace=str(Path.cwd()),
            scratch=scratch,
            prepare=_once(lambda: tasks.start_soon(_load, pricing)),
        )
        stack.push_async_callback(self._quit, self._made, tasks)
        if not self._read_only:
            self.recovered = await recover(log, owner=self._owner, reap=_reap)
            tasks.start_soon(self._tend, self._made, name="heartbeat")

    async def _tend(self, context: Context) -> None:
        """Claims stay alive, idle agents do not, and ends that are owed to the log reach it."""
        while True:
            await self._clock.sleep(CLAIM_SECONDS / 3)
            context.connections.close_idle()
            try:
                await context.log.store.renew(self._owner, ttl=CLAIM_SECONDS)
            except StorageError:
                continue  # The store is away: whoever writes is told; a claim survives two beats that fail.
            await context.queue.settle_ends()

    async def _quit(self, context: Context, tasks: anyio.abc.TaskGroup) -> None:
        with anyio.CancelScope(shield=True):
            await context.queue.aclose("the manager was closed")
            await context.connections.aclose()
        tasks.cancel_scope.cancel()

    @property
    def _context(self) -> Context:
        if self._made is None:
            raise StateError("This manager is not open. Use `async with agentkeel.open(…) as manager`.")
        if self._closed:
            raise StateError("This manager is closed. Open another one; what was stored is in its store.")
        return self._made

    # -- sessions ---------------------------------------------------------------------------------------------------

    async def start_session(self, **options: Unpack[SessionKeywords]) -> Session:
        """A session exists and, unless `activate` is false, takes runs.

        Raises:
            ValidationError: An option is impossible. Nothing was stored.
            InvalidTransition: There is a session of this `id`.
        """
        context = self._context
        given = checked(options, allowed=SessionKeywords)
        provider = await context.fleet.choose(given.get("provider") or context.defaults.get("provider"))
        context.log.keep_out(provider.secrets)
        chosen = given.get("id")
        identity = SessionId(check_id(chosen, what="session id")) if chosen else session_id(context.clock.entropy())
        agent_id = given.get("agent_id", provider.name)
        if not isinstance(agent_id, str) or not agent_id.strip():
            raise ValidationError("agent_id must be a text that is not empty.", code="missing_required_field")
        parent = given.get("parent")
        created = ev.SessionCreated(
            agent_id=agent_id,
            provider=provider.name,
            workspace=given.get("workspace"),
            system_prompt=given.get("system_prompt"),
            parent_session_id=None if parent is None else SessionId(parent),
            continuity=given.get("continuity"),
            max_concurrent_runs=given.get("max_concurrent_runs", 1),
            max_queued_runs=given.get("max_queued_runs", 100),
            options=storable(given),
            metadata={**(given.get("metadata") or {}), "provider": provider.name},
            context=given.get("context") or {},
            tags=tuple(given.get("tags") or ()),
        )
        drafts = [Draft(data=created, source="user", provider=provider.name)]
        if given.get("activate", True):
            drafts.append(Draft(data=ev.SessionStarted(), source="user", provider=provider.name))
        await context.log.append(identity, drafts)
        return Session(context, identity, {name: given[name] for name in given if name not in _SESSION_ONLY | {"key"}})

    def session(self, id: str) -> Session:
        """A handle of the session. `await` it to check that the session is there."""
        return Session(self._context, SessionId(id))

    def sessions(
        self,
        *,
        status: SessionStatus | str | Collection[SessionStatus | str] | None = None,
        agent_id: str | None = None,
        provider: str | None = None,
        tags: Collection[str] = (),
        limit: int | None = None,
    ) -> Pages[SessionState]:
        """Sessions, newest first: iterate, or await a list."""
        context = self._context
        wanted = _statuses(SessionStatus, status)

        async def read() -> AsyncIterator[SessionState]:
            last: SessionId | None = None
            count = 0
            while page := await context.log.store.sessions(
                status=wanted, agent_id=agent_id, provider=provider, tags=tags, after=last, limit=_PAGE
            ):
                for state in page:
                    if limit is not None and count >= limit:
                        return
                    count += 1
                    yield state
                last = page[-1].id

        return Pages(read)

    async def delete_session(self, id: str) -> None:
        """The session and its log are gone. Also true if there was none.

        Raises:
            StateError: One of its runs is at work or waits. Nothing was touched.
        """
        context, session = self._context, SessionId(id)
        with context.queue.shut(session):
            await context.queue.check_idle(session)
            await context.connections.close_session(session)
            if context.log.audit is not None:
                await context.log.audit.record("session.deleted", subject=session)
            await context.log.store.delete_session(session)
        context.log.notifier.notify(session)

    async def import_session(self, source: Source, *, id: str | None = None) -> Session:
        """The session that `Session.export` wrote as `jsonl` is in this store, as it was; or nothing of it is.

        Args:
            source: The path of a file, an open binary file, or the pieces themselves. gzip is understood.
            id: The session's id here, where its own is taken.
        Raises:
            ValidationError: The file is not whole, or tells what cannot be. Nothing was stored.
            StateError: There is a session of this id. It was not touched.
        """
        from agentkeel.transfer import import_session

        return self.session((await import_session(self._context, source, id=id)).session_id)

    # -- runs -------------------------------------------------------------------------------------------------------

    async def run(self, prompt: str | Sequence[str] | Prompt, **options: Unpack[SessionKeywords]) -> RunResult:
        """The prompt was carried out in a session of its own, which has ended; this is the result.

        Raises:
            Error: The run failed; `error.result` has what it said and used until then.
        """
        async with self.stream(prompt, **options) as stream:
            return await stream.result()

    @asynccontextmanager
    async def stream(
        self, prompt: str | Sequence[str] | Prompt, **options: Unpack[SessionKeywords]
    ) -> AsyncIterator[RunStream]:
        """The prompt is being carried out in a session of its own and can be watched.

        At the end of the block the run has ended, and the session with it; a block that is left by an exception
        calls the run off.
        """
        given = checked(options, allowed=SessionKeywords)
        session, run = await shielded(self._begun(prompt_of(prompt), given))
        try:
            async with RunStream(run) as stream:
                yield stream
                await _settled(run)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await run.cancel("its caller left")
                await _settled(run)
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await self._close_after(session, run)

    async def _begun(self, prompt: Prompt, given: dict[str, Any]) -> tuple[Session, Run]:
        """The session and its run; a session that got no run has failed."""
        key = given.pop("key", None)
        session = await self.start_session(**given)
        try:
            return session, await session.submit(prompt, key=key)
        except Error as error:
            await session.fail(error)
            raise

    async def _close_after(self, session: Session, run: Run) -> None:
        await session.drain()
        try:
            await run.result()
        except Error as error:
            await session.fail(error)
        else:
            await session.complete()

    def runs(
        self, *, session_id: str | None = None, status: RunStatus | str | Collection[RunStatus | str] | None = None
    ) -> Pages[RunState]:
        """Runs, newest first: iterate, or await a list."""
        where = None if session_id is None else SessionId(session_id)
        return self._context.runs(session_id=where, status=_statuses(RunStatus, status))

    async def run_handle(self, id: str) -> Run:
        """The handle of a run that is in the log.

        Raises:
            RunNotFound: There is none of this id.
        """
        state = await self._context.log.store.run(RunId(id))
        return Run(self._context, session_id=state.session_id, run_id=state.id)

    # -- about ------------------------------------------------------------------------------------------------------

    async def probe(self) -> list[Probe]:
        """What is known of every provider without running a turn."""
        return [await provider.probe() for provider in self._context.fleet.providers.values()]

    async def store_info(self) -> StoreInfo:
        """What the store is, where it is, and what a person should know about it."""
        return await self._context.log.store.info()


def open(  # noqa: A001 - the API's own word: agentkeel.open
    store: str | EventStore | None = None,
    *,
    providers: Iterable[Provider | str] = (),
    read_only: bool = False,
    redactor: Redactor | None = None,
    pricing: Pricing | None = None,
    clock: Clock | None = None,
    audit: AuditLog | None = None,
    observers: Iterable[Observer] = (),
    **defaults: Unpack[RunKeywords],
) -> Manager:
    """A manager, to be used as `async with`.

    Args:
        store: `memory:`, `sqlite:PATH`, an object, or None for the SQLite file in the user's data folder.
        providers: The agents, in order of preference; objects or names. Without any, those that are installed.
        read_only: Open a store that another process may be writing; nothing can be run.
        redactor: Takes the place of the default patterns; `Redactor(patterns=())` switches redaction off.
        pricing: Takes the place of the bundled price list.
        clock: Takes the place of the system's, for tests.
        audit: Keeps who decided what in a hash chain; see `adapters.audit`. Written by itself, from committed events.
        observers: Told every committed event: telemetry, for example. One that raises disturbs nobody.
        **defaults: Run options that hold where a session or a run says nothing.
    """
    return Manager(
        store,
        providers=providers,
        read_only=read_only,
        redactor=redactor,
        pricing=pricing,
        clock=clock,
        audit=audit,
        observers=observers,
        **defaults,
    )


def _statuses(kind: type[Status], given: Status | str | Collection[Status | str] | None) -> frozenset[Status] | None:
    if given is None:
        return None
    values: list[str] = [given] if isinstance(given, str) else list(given)
    try:
        return frozenset(kind(value) for value in values)
    except ValueError as error:
        raise ValidationError(
            f"{error}. Known are {', '.join(kind)}.", code="invalid_status", details={"got": [str(v) for v in values]}
        ) from error


async def _settled(run: Run) -> None:
    try:
        await run.result()
    except Error:
        return


async def _shielded_close(store: EventStore) -> None:
    with anyio.CancelScope(shield=True):
        await store.aclose()


def _once(action: Callable[[], object]) -> Callable[[], object]:
    """`action` at the first call, nothing at the others."""
    actions = [action]
    return lambda: actions.pop()() if actions else None


async def _load(pricing: Pricing) -> None:
    """The price list is in memory before the first token is counted."""
    if isinstance(pricing, GenaiPrices):
        await anyio.to_thread.run_sync(pricing.load, abandon_on_cancel=True)


async def _reap(process: Mapping[str, Any]) -> None:
    """What is left of an agent whose manager died is gone."""
    from agentkeel.adapters.providers._wire.descendants import kill_tree

    await kill_tree(process["pid"], process["start_time"], process["token"])

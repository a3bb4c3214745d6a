"""A session out of a store and into one: export for machines and for readers, import all or none.

An export is read page by page up to the head the log had when it began, so a session of any length takes the memory
of one page. An import reads its file twice: first to the end, to know that it is whole; only then is anything stored.
What fails after that is taken out of the store again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from hashlib import blake2b
from typing import Literal, get_args

import anyio
import msgspec

from agentkeel._version import __version__
from agentkeel.context import Context
from agentkeel.core import events as ev
from agentkeel.core.archive import Manifest, Writer
from agentkeel.core.document import FORMATS, document
from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.naming import check_id
from agentkeel.core.redact import Redactor
from agentkeel.core.run import RunState, RunStatus
from agentkeel.engine.pipeline import PieceScrub
from agentkeel.errors import (
    CursorExpired,
    Error,
    InvalidTransition,
    KeyConflict,
    NotFound,
    RunNotFound,
    RunTerminal,
    SessionNotFound,
    StateError,
    StorageError,
    ValidationError,
)
from agentkeel.incoming import MAX_BYTES, Incoming, Plan, Source, seekable
from agentkeel.ports.store import EventFilter

__all__ = ["ExportFormat", "Imported", "Source", "export_session", "import_session"]

ExportFormat = Literal["jsonl", "markdown", "html"]

_PAGE = 500


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What an import made.

    Attributes:
        session_id: The session that is there now.
        events: How many events came from the file.
        interrupted: Runs that had not ended where the file was made; they were ended as interrupted.
        renamed: Runs whose id was taken in this store, and the id each has here.
    """

    session_id: SessionId
    events: int
    interrupted: tuple[RunId, ...] = ()
    renamed: Mapping[RunId, RunId] = {}


async def export_session(
    context: Context, session_id: SessionId, format: ExportFormat = "jsonl"
) -> AsyncGenerator[str]:
    """The session's log as it is now, in pieces of text; with `jsonl`, each piece is one line.

    `jsonl` can be imported again. `markdown` and `html` are for reading: what is long is cut there.

    Raises:
        SessionNotFound: There is no such session.
        ValidationError: There is no such format.
    """
    if format not in get_args(ExportFormat):
        raise ValidationError(
            f"There is no export format {format!r}. Use one of {', '.join(get_args(ExportFormat))}.",
            code="invalid_input",
            details={"format": format},
        )
    state = await context.log.store.session(session_id)
    first = await _first(context, session_id)
    events = _events(context, session_id, first=first, head=await context.log.store.head(session_id))
    if format in FORMATS:
        made = document(format)
        async for page in events:
            for event in page:
                for piece in made.add(event):
                    yield piece
        for piece in made.end():
            yield piece
        return
    writer = Writer(session_id, state.created_at, agentkeel=__version__, first=first)
    yield writer.manifest()
    async for page in events:
        for event in page:
            yield writer.event(event)
    yield writer.trailer()


async def import_session(
    context: Context, source: Source, *, id: str | None = None, max_bytes: int = MAX_BYTES
) -> Imported:
    """The exported session is in this store, every event as it was; or nothing is.

    Runs that had not ended are ended as interrupted. A process that is killed in the middle of a long import may
    leave a part of the session behind, whose deletion is safe; the next import of it says so.

    Args:
        source: The path of a file, an open binary file, or the pieces of `Session.export`. gzip is understood.
        id: The session's id here, where its own is taken or another is wanted. Runs whose id is taken get a new one.
        max_bytes: The most that is read, unpacked.
    Raises:
        ValidationError: The file is not whole, not an export, or tells what cannot be. Nothing was stored.
        StateError: There is a session of this id already, or the store is open for reading only
            (`invalid_operation`). Nothing was touched. Or somebody wrote into the session meanwhile; it was removed.
        StorageError: The store failed. What was stored of the session was removed, or the message says what is left.
    """
    chosen = None if id is None else SessionId(check_id(id, what="session id"))
    async with seekable(source, folder=context.scratch, max_bytes=max_bytes) as file:
        plan = await anyio.to_thread.run_sync(file.verify)
        target = chosen or plan.manifest.session_id
        with context.queue.shut(target):
            await _check_free(context, plan, target)
            renamed = await _renamed(context, plan, target)
            await _Import(context, file, plan, target, renamed).store()
    return Imported(
        session_id=target,
        events=plan.trailer.events,
        interrupted=tuple(renamed.get(run, run) for run in plan.open_runs),
        renamed=renamed,
    )


class _Import:
    """The second reading of a file that is known to be whole."""

    def __init__(
        self, context: Context, file: Incoming, plan: Plan, target: SessionId, renamed: Mapping[RunId, RunId]
    ) -> None:
        self._context = context
        self._file = file
        self._plan = plan
        self._target = target
        self._renamed = renamed
        self._head = 0

    async def store(self) -> None:
        """All events are in the store and every run has ended, or the session is not there."""
        try:
            pieces = PieceScrub[Draft](self._context.log.redactor, lambda draft: draft)
            with self._file.batches() as batches:
                while batch := await anyio.to_thread.run_sync(batches.next):
                    await self._append(pieces([self._draft(event) for event in batch]))
            await self._append(pieces.flush())
            await self._end_runs()
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self._remove(error)
            if isinstance(error, Error) and _blames_the_file(error):
                raise self._impossible(error) from error
            raise

    async def _append(self, drafts: Sequence[Draft]) -> None:
        if not drafts:
            return
        # Its outcome is known before anything else happens, so that what has to be removed is known too.
        with anyio.CancelScope(shield=True):
            events = await self._context.log.append(self._target, drafts, expected=self._head)
            first, self._head = self._head, events[-1].sequence
            if [event.sequence for event in events] != list(range(first + 1, first + len(drafts) + 1)):
                raise ValidationError("Two of its events have the same id or key.", code="invalid_input")

    async def _end_runs(self) -> None:
        runs = [self._renamed.get(run, run) for run in self._plan.open_runs]
        drafts = [Draft(data=_interrupted(await self._context.log.store.run(run)), run_id=run) for run in runs]
        if not drafts:
            return
        if not (await self._context.log.store.session(self._target)).terminal:
            drafts.append(Draft(data=ev.SessionIdle()))
        await self._append(drafts)

    async def _remove(self, cause: BaseException) -> None:
        """Nothing of the session is left.

        Raises:
            StorageError: The store would not let go of it.
        """
        store = self._context.log.store
        try:
            if self._head == 0 and not isinstance(cause, StorageError):
                return  # The first append was refused: what is there, if anything is, is not ours.
            while running := await store.runs(session_id=self._target, status={RunStatus.RUNNING}):
                ends = [Draft(data=_interrupted(run), run_id=run.id) for run in running]
                await self._context.log.append(self._target, ends)
            await store.delete_session(self._target)
            self._context.log.notifier.notify(self._target)
        except Error as error:
            raise StorageError(
                f"The import of session {self._target} failed ({cause}), and what was stored of it could not be "
                f"removed: {error.message} Delete the session, then import it again.",
                details={"session_id": self._target, "stored": self._head},
            ) from cause

    def _impossible(self, error: Error) -> ValidationError:
        newer = self._plan.manifest.schema_version > ev.SCHEMA_VERSION
        hint = " It was written by a newer agentkeel; use that one." if newer else ""
        return ValidationError(
            f"The file is whole and tells what cannot be, behind event {self._head:,}: {error.message} "
            f"All that was stored of it was removed.{hint}",
            code="invalid_input",
            details={"session_id": self._target, "after": self._head, "cause": error.to_mapping()},
        )

    def _draft(self, event: Event) -> Draft:
        return Draft(
            data=event.data,
            run_id=None if event.run_id is None else self._renamed.get(event.run_id, event.run_id),
            source=event.source,
            provider=event.provider,
            key=event.key,
            id=event.id,
            at=event.at,
            parent=event.parent,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
            raw=event.raw,
        )


def _blames_the_file(error: Error) -> bool:
    """Whether a log says this to events that cannot follow each other."""
    wrong = ValidationError | InvalidTransition | RunTerminal | KeyConflict | NotFound
    return isinstance(error, wrong) or error.code in {"invalid_status", "run_mismatch"}


async def _first(context: Context, session_id: SessionId) -> int:
    """The first sequence that is still in the log."""
    try:
        await context.log.store.read(session_id, after=0, limit=1)
    except CursorExpired as error:
        return int(error.details["floor"])
    return 1


async def _events(context: Context, session_id: SessionId, *, first: int, head: int) -> AsyncGenerator[Sequence[Event]]:
    """The events from `first` to `head`, a page at a time, without secrets that older patterns let into the log."""
    cursor = first - 1
    where = EventFilter(before=head + 1)
    redactor = context.log.redactor
    pieces = PieceScrub[Event](redactor, lambda event: _redacted(redactor, event))
    while page := await context.log.store.read(session_id, after=cursor, limit=_PAGE, where=where):
        yield pieces(page)
        cursor = page[-1].sequence
    yield pieces.flush()


def _redacted(redactor: Redactor, event: Event) -> Event:
    data = redactor.struct(event.data)
    raw = None if event.raw is None else redactor.raw(event.raw)
    if data is event.data and raw is event.raw:
        return event
    return msgspec.structs.replace(event, data=data, raw=raw)


async def _check_free(context: Context, plan: Plan, target: SessionId) -> None:
    manifest: Manifest = plan.manifest
    info = await context.log.store.info()
    if not info.writable:
        raise StateError(
            f"{info.location} is open for reading only. Nothing was stored; open it for writing and import again.",
            details={"store": info.location},
        )
    if manifest.first > 1:
        raise ValidationError(
            f"The first {manifest.first - 1:,} events of this session had been pruned when it was exported, so its "
            "log cannot be built again. Nothing was stored; the file can be read all the same.",
            code="invalid_input",
            details={"first": manifest.first},
        )
    try:
        state = await context.log.store.session(target)
    except SessionNotFound:
        return
    head = await context.log.store.head(target)
    raise StateError(
        f"There is a session {target} already ({state.status}, {head:,} events; the file has "
        f"{plan.trailer.events:,}). It was not touched and nothing was stored; give the import another id, or delete "
        "the session first.",
        code="invalid_operation",
        details={"session_id": target, "head": head, "events": plan.trailer.events},
    )


async def _renamed(context: Context, plan: Plan, target: SessionId) -> dict[RunId, RunId]:
    """The file's runs whose id another session of this store has, and what they are called in this one."""
    renamed: dict[RunId, RunId] = {}
    for run in sorted(plan.runs):
        try:
            await context.log.store.run(run)
        except RunNotFound:
            continue
        renamed[run] = RunId("run_" + blake2b(f"{target}/{run}".encode(), digest_size=16).hexdigest())
    return renamed


def _interrupted(run: RunState) -> ev.RunInterrupted:
    """The end of a run whose agent is not here."""
    return ev.RunInterrupted(
        outcome="not_started" if run.status is RunStatus.QUEUED and run.continuity is None else "unknown",
        reason="imported",
        open_tool_calls=run.open_tool_calls,
        text=run.text,
        usage=run.usage,
        cost_usd=run.cost_usd,
        cost_source=run.cost_source,
        provider_session_id=run.provider_session_id,
    )

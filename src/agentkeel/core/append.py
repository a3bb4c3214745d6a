"""What adding to a log means, decided in one place for every store.

`extend` takes what a store knows of a log and a batch of drafts, and gives the events the batch becomes and the states
it leads to, or raises and has changed nothing. Time is an argument. Whoever calls it holds the log's only pen: between
the question to `Past` and the write nobody else may add to the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple, Protocol, get_args

import msgspec

from agentkeel.core import run as runs
from agentkeel.core import session as sessions
from agentkeel.core.codec import decode_body, encode_body, kind_of, same_content
from agentkeel.core.events import BODIES, SCHEMA_VERSION, Body, Draft, Event, RunQueued, Source, Unknown
from agentkeel.core.ids import EventId, RunId, SessionId, event_id, place_of
from agentkeel.core.naming import check_id
from agentkeel.core.run import RunState
from agentkeel.core.session import SessionState
from agentkeel.errors import Error, KeyConflict, SequenceConflict, StateError, ValidationError

__all__ = ["MAX_BODY_BYTES", "MAX_NAME_LENGTH", "Extension", "Name", "Past", "extend"]

MAX_BODY_BYTES = 64 * 1024 * 1024
"""The largest body a log takes; larger things are artifacts."""
MAX_NAME_LENGTH = 512
"""The longest key, in characters."""


class Name(NamedTuple):
    """What a draft may be known by within its session: a key, or an id of its own."""

    kind: Literal["key", "id"]
    text: str


class Past(Protocol):
    """One session's log as it stands."""

    @property
    def head(self) -> int:
        """Sequence of the last event; 0 if there is none."""
        ...

    @property
    def session(self) -> SessionState | None:
        """None if there is no such session."""
        ...

    def run(self, run_id: RunId) -> RunState | None:
        """The run, of whatever session; None if nobody queued it."""
        ...

    def named(self, name: Name) -> Event | None:
        """The event that came with this key or id."""
        ...

    def at(self, sequence: int) -> Event:
        """The event at a place that is not beyond the head."""
        ...


_SESSION_RULES = sessions.LIFECYCLE | {RunQueued}
_SOURCES = frozenset(get_args(Source))
_EVOLVING = sessions.EVOLVING | runs.EVOLVING


def extend(
    past: Past, session_id: SessionId, drafts: Sequence[Draft], *, now: datetime, expected: int | None = None
) -> Extension:
    """The log after `drafts`, all or none.

    A draft whose key or id is known, in the log or earlier in the batch, yields that event and makes no move. If that
    is so for all of them, `expected` is not looked at: the retry of a batch that is in the log succeeds.

    Raises:
        ValidationError: A draft cannot be stored as it is; `details["index"]` says which.
        SessionNotFound, InvalidTransition, RunTerminal, StateError, KeyConflict, SequenceConflict: As the port says.
    """
    extension = Extension(past, session_id, now, expected)
    if not drafts:
        sessions.check(past.session, Body(), session_id=session_id)
    for index, draft in enumerate(drafts):
        extension.take(index, draft)
    return extension


class Extension:
    """What a batch does to a log: the events of its drafts, those that are new, and the states that moved.

    `bodies` are the stored forms of `added`, one each; `session` is None if the session's state did not move.
    """

    __slots__ = (
        "_expected",
        "_first",
        "_now",
        "_past",
        "_runs",
        "_session",
        "_session_id",
        "added",
        "bodies",
        "events",
        "head",
        "names",
        "runs",
        "session",
    )

    def __init__(self, past: Past, session_id: SessionId, now: datetime, expected: int | None) -> None:
        self.events: list[Event] = []
        self.added: list[Event] = []
        self.bodies: list[bytes] = []
        self.names: dict[Name, Event] = {}
        self.session: SessionState | None = None
        self.runs: dict[RunId, RunState] = {}
        self.head = self._first = past.head
        self._session = past.session
        self._runs: dict[RunId, RunState | None] = {}
        self._past = past
        self._session_id = session_id
        self._now = now
        self._expected = expected

    def take(self, index: int, draft: Draft) -> None:
        """Give `draft` the next place, or the event it repeats."""
        names = _names(draft) if draft.key is not None or draft.id is not None else ()
        if names and (known := self._known(draft, names)) is not None:
            self.events.append(known)
            return
        if self._expected is not None and self._first != self._expected:
            raise self._unexpected()
        _check_envelope(draft, index)
        data, body = _stored(draft.data, index)
        kind = type(data)
        if self._session is None or kind in _SESSION_RULES:
            sessions.check(self._session, data, session_id=self._session_id)
            if self._session is None:
                check_id(self._session_id, what="session_id")
        run_id = draft.run_id
        state = None
        if run_id is not None:
            state = self._checked_run(run_id, data)
        elif kind in runs.LIFECYCLE:
            raise _needs_run(data, index)
        self.head += 1
        at = self._now if draft.at is None else _in_utc(draft.at, index)
        event = _placed(draft, data, self._session_id, self.head, at)
        if kind in _EVOLVING:
            self._evolve(event, state)
        for name in names:
            if name.kind == "key" or event.id != event_id(self._session_id, self.head):
                self.names[name] = event
        self.events.append(event)
        self.added.append(event)
        self.bodies.append(body)

    def _checked_run(self, run_id: RunId, data: Body) -> RunState | None:
        try:
            state = self._runs[run_id]
        except KeyError:
            state = self._runs[run_id] = self._past.run(run_id)
        if state is not None and state.session_id != self._session_id:
            raise StateError(
                f"Run {run_id} belongs to session {state.session_id}, not to {self._session_id}. Nothing was added.",
                code="run_mismatch",
                details={"run_id": run_id, "session_id": self._session_id},
            )
        if state is None or state.status in runs.TERMINAL or type(data) in runs.LIFECYCLE:
            runs.check(state, data, run_id=run_id)
            if state is None:
                check_id(run_id, what="run_id")
        return state

    def _evolve(self, event: Event, state: RunState | None) -> None:
        kind = type(event.data)
        if kind in sessions.EVOLVING:
            self.session = self._session = sessions.evolve(self._session, event)
        if event.run_id is not None and kind in runs.EVOLVING:
            self._runs[event.run_id] = self.runs[event.run_id] = runs.evolve(state, event)

    def _known(self, draft: Draft, names: Sequence[Name]) -> Event | None:
        """The event that `draft` repeats, or None if it is new."""
        known: Event | None = None
        for name in names:
            found = self.names.get(name) or self._past.named(name) or self._by_place(name)
            if found is None:
                continue
            if not same_content(draft, found) or (known is not None and known.sequence != found.sequence):
                raise KeyConflict(
                    f"The {name.kind} {name.text!r} is in the log at {found.sequence} with another content. "
                    "Nothing was added; use a new key for a new thing.",
                    details={name.kind: name.text, "sequence": found.sequence, "session_id": self._session_id},
                )
            known = found
        return known

    def _by_place(self, name: Name) -> Event | None:
        """The event whose id was derived from its place, if `name` is such an id."""
        place = place_of(self._session_id, EventId(name.text)) if name.kind == "id" else None
        if place is None or place == self.head + 1 or place == 0:
            return None
        if place > self.head:
            raise ValidationError(
                f"The id {name.text} names place {place} of this log, which ends at {self.head}. Nothing was added.",
                code="invalid_input",
                details={"id": name.text, "head": self.head},
            )
        return self._past.at(place) if place <= self._first else self.added[place - self._first - 1]

    def _unexpected(self) -> SequenceConflict:
        return SequenceConflict(
            f"The log of {self._session_id} ends at {self._first}, not at {self._expected}. Nothing was added; "
            "read on and decide again.",
            details={"session_id": self._session_id, "head": self._first, "expected": self._expected},
        )


def _names(draft: Draft) -> list[Name]:
    names: list[Name] = []
    if draft.key is not None:
        if not 0 < len(draft.key) <= MAX_NAME_LENGTH or not draft.key.isprintable():
            raise ValidationError(
                f"A key has 1 to {MAX_NAME_LENGTH} printable characters; this one has {len(draft.key)}.",
                code="invalid_format",
                details={"field": "key"},
            )
        names.append(Name("key", draft.key))
    if draft.id is not None:
        names.append(Name("id", check_id(draft.id, what="event id")))
    return names


def _stored(data: Body, index: int) -> tuple[Body, bytes]:
    """The body and its bytes. A body that moves a state is read back, so that states are made of what is stored."""
    try:
        body = encode_body(data)
        if type(data) is Unknown and data.kind in BODIES and data.schema_version <= SCHEMA_VERSION:
            data = decode_body(data.kind, body, data.schema_version)
            body = encode_body(data)
        elif type(data) in _EVOLVING:
            data = decode_body(data.type, body)
    except (Error, TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise ValidationError(
            f"The {kind_of(data)} draft at index {index} cannot be stored: {error}. Nothing was added.",
            code="invalid_input",
            details={"index": index, "type": kind_of(data)},
        ) from error
    if len(body) > MAX_BODY_BYTES:
        raise ValidationError(
            f"The {kind_of(data)} draft at index {index} has {len(body):,} bytes; a log takes {MAX_BODY_BYTES:,}. "
            "Nothing was added; keep large things as artifacts.",
            code="invalid_input",
            details={"index": index, "type": kind_of(data), "bytes": len(body)},
        )
    return data, body


def _needs_run(data: Body, index: int) -> ValidationError:
    return ValidationError(
        f"A {data.type} event needs the run it belongs to. Nothing was added.",
        code="missing_required_field",
        details={"index": index, "field": "run_id"},
    )


def _check_envelope(draft: Draft, index: int) -> None:
    """Say nothing if what stands beside the body can be stored."""
    if draft.source not in _SOURCES or not (draft.raw is None or type(draft.raw) is bytes):
        raise _odd(draft, index)
    plain = draft.parent is None and draft.correlation_id is None and draft.causation_id is None
    if plain and (draft.provider is None or draft.provider.isascii()):
        return
    try:
        for text in (draft.provider, draft.parent, draft.correlation_id, draft.causation_id):
            if text is not None:
                text.encode()
    except UnicodeEncodeError as error:
        raise _odd(draft, index) from error


def _odd(draft: Draft, index: int) -> ValidationError:
    return ValidationError(
        f"The {kind_of(draft.data)} draft at index {index} has a source, a raw message or a text beside its body that "
        "cannot be stored. Nothing was added.",
        code="invalid_input",
        details={"index": index, "type": kind_of(draft.data)},
    )


def _in_utc(at: datetime, index: int) -> datetime:
    if at.tzinfo is None:
        raise ValidationError(
            f"The time of the draft at index {index} has no time zone. Nothing was added.",
            code="invalid_format",
            details={"index": index, "field": "at"},
        )
    return at.astimezone(UTC)


def _placed(draft: Draft, data: Body, session_id: SessionId, sequence: int, at: datetime) -> Event:
    return Event(
        id=draft.id or event_id(session_id, sequence),
        session_id=session_id,
        sequence=sequence,
        at=at,
        data=data,
        run_id=draft.run_id,
        source=draft.source,
        provider=draft.provider,
        key=draft.key,
        parent=draft.parent,
        correlation_id=draft.correlation_id,
        causation_id=draft.causation_id,
        schema_version=data.schema_version if type(data) is Unknown else SCHEMA_VERSION,
        raw=draft.raw,
    )

"""Rows and what they mean: events, sessions and runs, to the database and back.

PostgreSQL's texts take no NUL and no half of a surrogate pair. `plain` spells them so that every text can be stored,
sought and read again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import msgspec

from agentkeel.adapters.stores.asking import revived
from agentkeel.core.append import Extension, Name
from agentkeel.core.codec import kind_of
from agentkeel.core.events import Event
from agentkeel.core.ids import EventId, RunId, SessionId, event_id
from agentkeel.core.run import RunState
from agentkeel.core.session import SessionState
from agentkeel.errors import StorageError, ValidationError

__all__ = [
    "EVENT_COLUMNS",
    "event_rows",
    "events_of",
    "micros",
    "plain",
    "run_of",
    "run_parts",
    "session_of",
    "session_row",
    "state_of",
]

EVENT_COLUMNS = (
    "session",
    "sequence",
    "at",
    "run",
    "version",
    "crc",
    "type",
    "source",
    "provider",
    "body",
    "raw",
    "extra",
)
"""Of an event, as `event_rows` gives them and `queries/group_add.sql` takes them."""
MAX_INTEGER = 2**63 - 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CRC_BITS = 0xFFFFFFFF
_ODD = re.compile("[\0\ufffd\ud800-\udfff]")
_SPELLED = re.compile("\ufffd([0-9a-f]{4})")


class _Extra(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What few events have. `id` is there only if the event came with one of its own."""

    id: EventId | None = None
    key: str | None = None
    parent: EventId | None = None
    correlation_id: str | None = None
    causation_id: str | None = None


class _Fixed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of a run that never changes and may be large."""

    options: dict[str, Any] = {}
    metadata: dict[str, Any] = {}


_encode = msgspec.json.Encoder().encode
_extra = msgspec.json.Decoder(_Extra).decode
_session = msgspec.json.Decoder(SessionState).decode
_run = msgspec.json.Decoder(RunState).decode
_fixed = msgspec.json.Decoder(_Fixed).decode


def plain(text: str) -> str:
    """`text` as PostgreSQL takes it: two texts are equal if and only if their plain forms are."""
    if text.isascii() and "\0" not in text:
        return text
    return _ODD.sub(lambda found: f"\ufffd{ord(found[0]):04x}", text)


def _text_of(stored: str) -> str:
    return stored if stored.isascii() else _SPELLED.sub(lambda found: chr(int(found[1], 16)), stored)


def micros(at: datetime) -> int:
    """Microseconds since 1970 in UTC."""
    return (at - _EPOCH) // _MICROSECOND


def event_rows(session: int, extension: Extension, numbers: dict[RunId, int]) -> list[tuple[Any, ...]]:
    """The rows of the events that `extension` adds, in `EVENT_COLUMNS`.

    Raises:
        ValidationError: A version is too large for the database.
    """
    names = extension.names
    rows: list[tuple[Any, ...]] = []
    last_at, last_micros = None, 0
    for event, body in zip(extension.added, extension.bodies, strict=True):
        if event.at is not last_at:
            last_at, last_micros = event.at, micros(event.at)
        if not -MAX_INTEGER <= event.schema_version <= MAX_INTEGER:
            raise ValidationError(
                f"The schema version {event.schema_version} is too large. Nothing was added.", code="invalid_input"
            )
        sequence, run_id, provider = event.sequence, event.run_id, event.provider
        rows.append(
            (
                session,
                sequence,
                last_micros,
                None if run_id is None else numbers[run_id],
                event.schema_version,
                crc32(body, sequence & _CRC_BITS),
                plain(kind_of(event.data)),
                event.source,
                None if provider is None else plain(provider),
                body,
                event.raw,
                _extra_of(event, own_id=bool(names) and Name("id", event.id) in names),
            )
        )
    return rows


def _extra_of(event: Event, *, own_id: bool) -> bytes | None:
    """What few events have, if this one has any of it."""
    if (
        event.key is None
        and event.parent is None
        and event.correlation_id is None
        and event.causation_id is None
        and not own_id
    ):
        return None
    return _encode(
        _Extra(
            id=event.id if own_id else None,
            key=event.key,
            parent=event.parent,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
        )
    )


def events_of(session_id: SessionId, rows: Iterable[Sequence[Any]]) -> list[Event]:
    """The events of rows of `event_page`; what cannot be read of one is left out, and its body says so."""
    events: list[Event] = []
    last_micros, time = 0, _EPOCH
    for sequence, at, kind, run_id, source, provider, version, crc, body, raw, extra in rows:
        if at != last_micros:  # events of one append often share their time
            last_micros, time = at, _EPOCH + timedelta(microseconds=at)
        intact, more = crc32(body, sequence & _CRC_BITS) == crc, _NOTHING
        if extra is not None:
            try:
                more = _extra(extra)
            except (msgspec.DecodeError, UnicodeDecodeError):
                intact = False
        events.append(
            Event(
                id=more.id or event_id(session_id, sequence),
                session_id=session_id,
                sequence=sequence,
                at=time,
                data=revived(_text_of(kind), body, version, intact=intact),
                run_id=run_id,
                source=source,
                provider=None if provider is None else _text_of(provider),
                key=more.key,
                parent=more.parent,
                correlation_id=more.correlation_id,
                causation_id=more.causation_id,
                schema_version=version,
                raw=raw,
            )
        )
    return events


def session_row(number: int, head: int, state: SessionState) -> tuple[Any, ...]:
    """What `session_add` stores."""
    return (
        number,
        state.id,
        1,
        head,
        micros(state.created_at),
        str(state.status),
        plain(state.agent_id),
        None if state.provider is None else plain(state.provider),
        [plain(tag) for tag in state.tags],
        _encode(state),
    )


def state_of(session: SessionState) -> bytes:
    """The stored form of a session's state."""
    return _encode(session)


def session_of(stored: bytes) -> SessionState:
    """The state that was stored.

    Raises:
        StorageError: It cannot be read (`storage_read_failed`).
    """
    try:
        return _session(stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable("session", error) from error


def run_parts(state: RunState, *, new: bool) -> tuple[bytes, bytes]:
    """The fixed and the changing part of a run; the fixed one is written once, with the addition."""
    fixed = _encode(_Fixed(options=dict(state.options), metadata=dict(state.metadata))) if new else b""
    return fixed, _encode(msgspec.structs.replace(state, options={}, metadata={}))


def run_of(fixed: bytes, state: bytes) -> RunState:
    """The state whose parts these are.

    Raises:
        StorageError: It cannot be read (`storage_read_failed`).
    """
    try:
        kept = _fixed(fixed)
        return msgspec.structs.replace(_run(state), options=kept.options, metadata=kept.metadata)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable("run", error) from error


def _unreadable(what: str, error: Exception) -> StorageError:
    return StorageError(
        f"The stored state of a {what} cannot be read: {error}. Its events are untouched.", code="storage_read_failed"
    )


_NOTHING = _Extra()

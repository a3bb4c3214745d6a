"""Rows and what they mean: events, sessions and runs, to the file and back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import msgspec

from agentkeel.adapters.stores.asking import revived
from agentkeel.core.events import Event
from agentkeel.core.ids import EventId, SessionId, event_id
from agentkeel.core.run import RunState
from agentkeel.core.session import SessionState
from agentkeel.errors import StorageError

__all__ = ["Extra", "checksum", "events_of", "extra_of", "micros", "run_of", "run_row", "session_of", "session_row"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CRC_BITS = 0xFFFFFFFF


class Extra(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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
_extra = msgspec.json.Decoder(Extra).decode
_session = msgspec.json.Decoder(SessionState).decode
_run = msgspec.json.Decoder(RunState).decode
_fixed = msgspec.json.Decoder(_Fixed).decode


def micros(at: datetime) -> int:
    """Microseconds since 1970 in UTC."""
    return (at - _EPOCH) // _MICROSECOND


def checksum(body: bytes, sequence: int) -> int:
    """Of a body at its place: a body that was damaged or moved does not have it."""
    return crc32(body, sequence & _CRC_BITS)


def extra_of(event: Event, *, own_id: bool) -> bytes | None:
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
        Extra(
            id=event.id if own_id else None,
            key=event.key,
            parent=event.parent,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
        )
    )


def events_of(session_id: SessionId, rows: Iterable[tuple[Any, ...]]) -> list[Event]:
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
        event = Event(
            id=more.id or event_id(session_id, sequence),
            session_id=session_id,
            sequence=sequence,
            at=time,
            data=revived(kind, body, version, intact=intact),
            run_id=run_id,
            source=source,
            provider=provider,
            key=more.key,
            parent=more.parent,
            correlation_id=more.correlation_id,
            causation_id=more.causation_id,
            schema_version=version,
            raw=raw,
        )
        events.append(event)
    return events


def session_row(number: int, state: SessionState) -> dict[str, Any]:
    """What `session_add` and `session_set` store."""
    return {
        "number": number,
        "id": state.id,
        "created_at": micros(state.created_at),
        "status": str(state.status),
        "agent_id": state.agent_id,
        "provider": state.provider,
        "tags": _encode(state.tags).decode(),
        "state": _encode(state),
    }


def session_of(stored: bytes) -> SessionState:
    """The state that `session_row` wrote.

    Raises:
        StorageError: It cannot be read (`storage_read_failed`).
    """
    try:
        return _session(stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable("session", error) from error


def run_row(number: int, session: int, state: RunState) -> dict[str, Any]:
    """What `run_add` and `run_set` store. The fixed part is written once, with the addition."""
    return {
        "number": number,
        "id": state.id,
        "session": session,
        "key": state.key,
        "created_at": micros(state.created_at),
        "first_sequence": state.first_sequence,
        "status": str(state.status),
        "fixed": _encode(_Fixed(options=dict(state.options), metadata=dict(state.metadata))),
        "state": _encode(msgspec.structs.replace(state, options={}, metadata={})),
    }


def run_of(fixed: bytes, state: bytes) -> RunState:
    """The state that `run_row` wrote.

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


_NOTHING = Extra()

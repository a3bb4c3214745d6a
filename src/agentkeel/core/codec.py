"""Bytes to bodies and back. Unknown kinds survive; older ones are lifted step by step.

A body is stored as JSON beside its type and the schema version that wrote it. A kind this version does not know, and
a known kind written by a newer schema, decode to `Unknown`, whose bytes are the stored ones and whose type encodes
back to the original: what we do not understand we hand on untouched.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec

from agentkeel.core.events import BODIES, SCHEMA_VERSION, Body, Draft, Event, Source, Unknown
from agentkeel.core.ids import EventId, RunId, SessionId
from agentkeel.errors import StorageError

__all__ = [
    "UPCASTERS",
    "Upcaster",
    "decode_body",
    "encode_body",
    "event_from_json",
    "event_to_json",
    "kind_of",
    "same_content",
]

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTERS: Mapping[tuple[str, int], Upcaster] = {}
"""(type, version) -> the body of the next version. A log of any released schema can be read for ever."""

_NOT_JSON = "$base64"
_encoder = msgspec.json.Encoder(decimal_format="string")
_decoders: dict[str, msgspec.json.Decoder[Any]] = {name: msgspec.json.Decoder(body) for name, body in BODIES.items()}


def kind_of(data: Body) -> str:
    """The type under which a body is stored; for `Unknown`, the kind it came with."""
    return data.kind if type(data) is Unknown else data.type


def encode_body(data: Body) -> bytes:
    """The stored form of a body."""
    return bytes(data.body) if type(data) is Unknown else _encoder.encode(data)


def decode_body(
    kind: str,
    body: bytes,
    schema_version: int = SCHEMA_VERSION,
    *,
    upcasters: Mapping[tuple[str, int], Upcaster] = UPCASTERS,
) -> Body:
    """The body that `encode_body` wrote, in this version's shape.

    Raises:
        StorageError: The bytes are not the body of this kind (`storage_read_failed`). The caller keeps the place.
    """
    decoder = _decoders.get(kind)
    if decoder is None or schema_version > SCHEMA_VERSION:
        return Unknown(kind=kind, body=msgspec.Raw(body), schema_version=schema_version)
    try:
        if schema_version < SCHEMA_VERSION:
            values: dict[str, Any] = msgspec.json.decode(body)
            for version in range(schema_version, SCHEMA_VERSION):
                lift = upcasters.get((kind, version))
                values = values if lift is None else lift(values)
            decoded: Body = msgspec.convert(values, BODIES[kind])
        else:
            decoded = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StorageError(
            f"The stored body of a {kind} event cannot be read: {error}. Its place in the log is kept.",
            code="storage_read_failed",
            details={"type": kind, "schema_version": schema_version, "bytes": len(body)},
        ) from error
    return decoded


def event_to_json(event: Event) -> dict[str, Any]:
    """The event as JSON-able values: what `--json`, exports and HTTP show."""
    out: dict[str, Any] = {
        "id": event.id,
        "session_id": event.session_id,
        "run_id": event.run_id,
        "sequence": event.sequence,
        "type": kind_of(event.data),
        "data": _json_of(encode_body(event.data)),
        "at": event.at.isoformat(),
        "source": event.source,
        "provider": event.provider,
        "parent": event.parent,
        "key": event.key,
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "schema_version": event.schema_version,
    }
    if event.raw is not None:
        out["raw"] = event.raw.decode("utf-8", "backslashreplace")
    return {name: value for name, value in out.items() if value is not None}


def event_from_json(values: Mapping[str, Any]) -> Event:
    """The event that `event_to_json` wrote.

    Raises:
        StorageError: A field is missing or of the wrong shape (`storage_read_failed`).
    """
    try:
        envelope = msgspec.convert(values, _Envelope)
        raw = values.get("raw")
        return Event(
            data=decode_body(values["type"], _bytes_of(values["data"]), envelope.schema_version),
            raw=None if raw is None else raw.encode(),
            **msgspec.structs.asdict(envelope),
        )
    except (KeyError, AttributeError, msgspec.ValidationError) as error:
        raise StorageError(f"This is no event: {error!r}.", code="storage_read_failed") from error


def same_content(draft: Draft, event: Event) -> bool:
    """Whether a draft with a known key says what the stored event says (a retry) or something else (a conflict)."""
    return kind_of(draft.data) == kind_of(event.data) and encode_body(draft.data) == encode_body(event.data)


def _json_of(body: bytes) -> Any:
    """The body as a JSON value; bytes that are no JSON (a corrupt event keeps its own) under one key, in base64."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {_NOT_JSON: b64encode(body).decode()}


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, dict) and value.keys() == {_NOT_JSON}:
        return b64decode(value[_NOT_JSON])
    return _encoder.encode(value)


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    id: EventId
    session_id: SessionId
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    at: datetime
    run_id: RunId | None = None
    source: Source = "engine"
    provider: str | None = None
    key: str | None = None
    parent: EventId | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    schema_version: Annotated[int, msgspec.Meta(ge=1)] = SCHEMA_VERSION

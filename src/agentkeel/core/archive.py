"""A session as lines of JSON: a manifest, one event a line, a trailer that proves them whole.

::

    {"format":"agentkeel-session","version":1,"agentkeel":"0.1.0","session_id":"ses_…", …}
    {"id":"evt_…","session_id":"ses_…","sequence":1,"type":"session_created","data":{…}, …}
    {"end":"agentkeel-session","events":812,"head":812,"sha256":"…","artifacts":[]}

An event's line is what `codec.event_to_json` gives. What JSON text cannot carry as it is stands in base64 beside it
(`body_base64`, `raw_base64`), so that reading back gives the stored bytes. The digest is over the event lines with
their newlines: it finds damage, it is no signature. Nothing in the file depends on when it was written, so the same
log gives the same file.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec

from agentkeel.core.append import MAX_BODY_BYTES
from agentkeel.core.codec import decode_body, encode_body, kind_of
from agentkeel.core.events import SCHEMA_VERSION, TERMINAL_TYPES, Event, RunQueued, Source, Unknown
from agentkeel.core.ids import EventId, RunId, SessionId
from agentkeel.core.naming import check_id
from agentkeel.errors import StorageError, ValidationError

__all__ = ["FORMAT", "FORMAT_VERSION", "MAX_LINE_BYTES", "Manifest", "Reader", "Trailer", "Writer"]

FORMAT = "agentkeel-session"
FORMAT_VERSION = 1
MAX_LINE_BYTES = 2 * MAX_BODY_BYTES + MAX_BODY_BYTES // 2
"""The longest line that is read: the largest body with the agent's own words beside it, and room for escapes."""

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Struct = TypeVar("_Struct")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The first line. `first` is above 1 where the beginning of the log was pruned."""

    format: str = FORMAT
    version: int = FORMAT_VERSION
    agentkeel: str
    session_id: SessionId
    created_at: str
    schema_version: int = SCHEMA_VERSION
    first: Annotated[int, msgspec.Meta(ge=1)] = 1


class Trailer(msgspec.Struct, frozen=True, kw_only=True):
    """The last line. `sha256` is over all event lines, each with its newline."""

    end: str = FORMAT
    events: _Count
    head: _Count
    sha256: str
    artifacts: tuple[Any, ...] = ()


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: EventId
    session_id: SessionId
    run_id: RunId | None = None
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    type: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    body_base64: str | None = None
    at: str
    source: Source
    provider: str | None = None
    parent: EventId | None = None
    key: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    schema_version: Annotated[int, msgspec.Meta(ge=1)]
    raw: str | None = None
    raw_base64: str | None = None


_encoder = msgspec.json.Encoder()
_line_decoder = msgspec.json.Decoder(_Line)


class Writer:
    """Writes one session. Call `manifest`, `event` for each event in order, then `trailer`."""

    def __init__(self, session_id: SessionId, created_at: datetime, *, agentkeel: str, first: int = 1) -> None:
        self._manifest = Manifest(
            agentkeel=agentkeel, session_id=session_id, created_at=created_at.isoformat(), first=first
        )
        self._digest = hashlib.sha256()
        self._events = 0
        self._head = first - 1

    def manifest(self) -> str:
        """The first line."""
        return _encoder.encode(self._manifest).decode() + "\n"

    def event(self, event: Event) -> str:
        """The event's line."""
        line = _encoder.encode(_line_of(event)) + b"\n"
        self._digest.update(line)
        self._events += 1
        self._head = event.sequence
        return line.decode()

    def trailer(self) -> str:
        """The last line."""
        trailer = Trailer(events=self._events, head=self._head, sha256=self._digest.hexdigest())
        return _encoder.encode(trailer).decode() + "\n"


class Reader:
    """Reads one session, line by line, and lets nothing pass that a `Writer` would not have written.

    Feed every line with its newline to `take`, then call `finish`. `open_runs` are the runs that were queued and have
    not ended so far; `runs` are all of them.
    """

    def __init__(self) -> None:
        self.manifest: Manifest | None = None
        self.trailer: Trailer | None = None
        self.events = 0
        self.runs: set[RunId] = set()
        self.open_runs: dict[RunId, None] = {}
        self._digest = hashlib.sha256()
        self._number = 0

    def take(self, line: bytes) -> Event | None:
        """The event of this line; None for the manifest and the trailer.

        Raises:
            ValidationError: The line does not belong here (`invalid_format`); `details["line"]` says which it is.
        """
        self._number += 1
        if len(line) > MAX_LINE_BYTES:
            raise self._wrong(f"it has more than {MAX_LINE_BYTES:,} bytes")
        if not line.endswith(b"\n"):
            raise self._wrong("it has no end, so the file was cut off")
        if self.manifest is None:
            self.manifest = self._read_manifest(line)
            return None
        if self.trailer is not None:
            raise self._wrong("something follows the last line")
        if line.startswith(b'{"end":'):
            self.trailer = self._read_trailer(line)
            return None
        self._digest.update(line)
        event = self._read_event(line, self.manifest)
        self.events += 1
        self._follow(event)
        return event

    def finish(self) -> tuple[Manifest, Trailer]:
        """Everything was read and is whole.

        Raises:
            ValidationError: Lines are missing (`invalid_format`).
        """
        if self.manifest is None:
            raise ValidationError("The file is empty. Nothing was stored.", code="invalid_format")
        if self.trailer is None:
            raise ValidationError(
                f"The file ends after {self.events:,} events without its last line, so it was cut off. Nothing was "
                "stored; export the session again.",
                code="invalid_format",
                details={"events": self.events},
            )
        return self.manifest, self.trailer

    def _read_manifest(self, line: bytes) -> Manifest:
        try:
            named = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            named = None
        if not isinstance(named, dict) or named.get("format") != FORMAT:
            raise self._wrong("it is no manifest, so this is no export of a session")
        if named.get("version") != FORMAT_VERSION:
            raise self._wrong(
                f"the format has version {named.get('version')!r} and this agentkeel reads {FORMAT_VERSION}; "
                "use a newer one"
            )
        manifest = self._decoded(line, Manifest)
        check_id(manifest.session_id, what="session id")
        return manifest

    def _read_trailer(self, line: bytes) -> Trailer:
        trailer = self._decoded(line, Trailer)
        assert self.manifest is not None
        head = self.manifest.first - 1 + self.events
        if (trailer.end, trailer.events, trailer.head) != (FORMAT, self.events, head):
            raise self._wrong(
                f"it tells of {trailer.events:,} events up to {trailer.head:,}; there are {self.events:,} "
                f"up to {head:,}"
            )
        if trailer.sha256 != self._digest.hexdigest():
            raise self._wrong("the events before it are not those that were exported: the SHA-256 differs")
        return trailer

    def _read_event(self, line: bytes, manifest: Manifest) -> Event:
        try:
            read = _line_decoder.decode(line)
            event = _event_of(read)
        except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError, StorageError) as error:
            raise self._wrong(f"it is no event: {error}") from error
        if event.session_id != manifest.session_id:
            raise self._wrong(f"its event belongs to {event.session_id!r}, not to {manifest.session_id!r}")
        expected = manifest.first + self.events
        if event.sequence != expected:
            raise self._wrong(f"it has event {event.sequence:,} where {expected:,} belongs")
        return event

    def _follow(self, event: Event) -> None:
        if event.run_id is None:
            return
        if type(event.data) is RunQueued:
            self.runs.add(event.run_id)
            self.open_runs[event.run_id] = None
        elif event.type in TERMINAL_TYPES:
            self.open_runs.pop(event.run_id, None)

    def _decoded(self, line: bytes, kind: type[_Struct]) -> _Struct:
        try:
            return msgspec.json.decode(line, type=kind)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise self._wrong(str(error)) from error

    def _wrong(self, why: str) -> ValidationError:
        return ValidationError(
            f"Line {self._number:,} cannot be imported: {why}. Nothing was stored.",
            code="invalid_format",
            details={"line": self._number},
        )


def _line_of(event: Event) -> _Line:
    unknown = type(event.data) is Unknown
    body = encode_body(event.data)
    plain = not unknown or _plain(body)
    raw = event.raw
    words = None if raw is None else _text(raw)
    return _Line(
        id=event.id,
        session_id=event.session_id,
        run_id=event.run_id,
        sequence=event.sequence,
        type=kind_of(event.data),
        data=msgspec.Raw(body) if plain else msgspec.UNSET,
        body_base64=None if plain else b64encode(body).decode(),
        at=event.at.isoformat(),
        source=event.source,
        provider=event.provider,
        parent=event.parent,
        key=event.key,
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
        # A known kind is in today's shape by now, whatever version wrote it.
        schema_version=event.schema_version if unknown else SCHEMA_VERSION,
        raw=words,
        raw_base64=b64encode(raw).decode() if raw is not None and words is None else None,
    )


def _event_of(line: _Line) -> Event:
    at = datetime.fromisoformat(line.at)
    if at.tzinfo is None:
        raise ValueError(f"the time {line.at!r} has no time zone")
    if line.body_base64 is not None:
        body = b64decode(line.body_base64, validate=True)
    elif isinstance(line.data, msgspec.Raw):
        body = bytes(line.data)
    else:
        raise ValueError("it has no data")
    raw = None if line.raw is None else line.raw.encode()
    return Event(
        id=line.id,
        session_id=line.session_id,
        run_id=line.run_id,
        sequence=line.sequence,
        data=decode_body(line.type, body, line.schema_version),
        at=at,
        source=line.source,
        provider=line.provider,
        parent=line.parent,
        key=line.key,
        correlation_id=line.correlation_id,
        causation_id=line.causation_id,
        schema_version=line.schema_version,
        raw=b64decode(line.raw_base64, validate=True) if line.raw_base64 is not None else raw,
    )


def _plain(body: bytes) -> bool:
    """Whether the bytes may stand in a line of JSON and are read back as they are."""
    if body != body.strip() or b"\n" in body or b"\r" in body:
        return False
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None

"""The audit log's arithmetic: entries that are numbered from 1, each holding the hash of the one before it. Pure.

Who changes, removes, inserts or reorders entries breaks the chain at that place, and `verify` names it. Two things a
chain alone cannot show: that its last entries were cut off, and that somebody wrote all of it anew. Both are found with
an `Anchor`, the number and hash of an entry, that was kept where the writer of the log cannot reach it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from agentkeel.core.ids import EventId
from agentkeel.errors import StorageError, ValidationError

__all__ = [
    "GENESIS",
    "Anchor",
    "Entry",
    "chain",
    "decode_entry",
    "digest_of",
    "encode_entry",
    "hash_of",
    "verify",
]

GENESIS = "0" * 64
"""What the first entry names as the hash before it."""

_DOMAIN = "agentkeel.audit.1"
"""Begins all that is hashed. Another encoding gets another number, and old entries keep theirs."""
_ANCHOR = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One decision, at its place in the chain.

    Attributes:
        at: When it was decided, in UTC.
        actor: Who decided: a person, a callback, a policy, a mode, the engine, an agent.
        action: What was decided: `permission.answered`, `route.selected` …
        subject: What it is about: a session's id, or a store's location.
        details: More about it, without secrets. JSON.
        event: The event of the subject's log that says so; None for an act that no log tells.
    """

    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any] = {}
    event: EventId | None = None
    previous: str
    hash: str


class Anchor(msgspec.Struct, frozen=True):
    """An entry that is known to be there: its number and its hash. Keep it away from the log."""

    number: int
    hash: str

    @classmethod
    def of(cls, entry: Entry) -> Anchor:
        """The anchor that this entry is."""
        return cls(entry.number, entry.hash)

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """The anchor that `NUMBER:HASH` spells.

        Raises:
            ValidationError: It spells none (`invalid_format`).
        """
        match = _ANCHOR.fullmatch(text.strip())
        if match is None:
            raise ValidationError(
                f"{text!r} is no anchor. It is an entry's number, a colon, and its hash of 64 hex digits.",
                code="invalid_format",
                details={"anchor": text},
            )
        return cls(int(match[1]), match[2])

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


def chain(
    previous: Entry | None,
    *,
    at: datetime,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, Any] | None = None,
    event: EventId | None = None,
) -> Entry:
    """The entry that follows `previous`; the first one where that is None.

    Its values are what reading it back gives: the time in UTC, the details as JSON.

    Raises:
        ValidationError: The time has no zone, or a value cannot be written down (`invalid_input`).
    """
    if at.tzinfo is None:
        raise ValidationError("An audit entry's time needs a zone. Nothing was written.", code="invalid_input")
    bare = Entry(
        number=1 if previous is None else previous.number + 1,
        at=at.astimezone(UTC),
        actor=actor,
        action=action,
        subject=subject,
        details=details or {},
        event=event,
        previous=GENESIS if previous is None else previous.hash,
        hash="",
    )
    try:
        written = msgspec.json.decode(msgspec.json.encode(bare), type=Entry)
        return msgspec.structs.replace(written, hash=hash_of(written))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValidationError(
            f"The audit entry {action!r} cannot be written down: {error}. Nothing was written.",
            code="invalid_input",
            details={"action": action, "reason": str(error)},
        ) from error


def hash_of(entry: Entry) -> str:
    """The hash that belongs to the entry: SHA-256, in hex, of all its other fields."""
    return digest_of(
        [
            _DOMAIN,
            entry.number,
            entry.at.astimezone(UTC).isoformat(),
            entry.actor,
            entry.action,
            entry.subject,
            entry.details,
            entry.event,
            entry.previous,
        ]
    )


def digest_of(value: Any) -> str:
    """SHA-256, in hex, of a JSON value in its one canonical spelling: no spaces, keys sorted at every depth, UTF-8."""
    return sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def verify(entries: Iterable[Entry], *, anchor: Anchor | None = None, previous: Entry | None = None) -> int | None:
    """The number at which the chain breaks first, or None if it is whole.

    At a gap it is the number that is missing; with an anchor behind the end, the first that was cut off.

    Args:
        anchor: An entry that must be there.
        previous: The entry before the first one; None if they begin at the beginning.
    """
    before = previous
    for entry in entries:
        expected = 1 if before is None else before.number + 1
        if not _follows(entry, before, expected) or (
            anchor is not None and anchor.number == expected and anchor.hash != entry.hash
        ):
            return expected
        before = entry
    head = 0 if before is None else before.number
    return head + 1 if anchor is not None and anchor.number > head else None


def encode_entry(entry: Entry) -> bytes:
    """The entry as one line of JSON, without its newline."""
    return msgspec.json.encode(entry)


def decode_entry(line: bytes) -> Entry:
    """The entry that `encode_entry` wrote. Whether it belongs there is for `verify` to say.

    Raises:
        StorageError: The line is no entry (`storage_read_failed`).
    """
    try:
        return _decoder.decode(line)
    except (ValueError, RecursionError) as error:
        raise StorageError(
            f"This line is no audit entry: {error}.", code="storage_read_failed", details={"bytes": len(line)}
        ) from error


def _follows(entry: Entry, before: Entry | None, expected: int) -> bool:
    previous = GENESIS if before is None else before.hash
    return entry.number == expected and entry.previous == previous and entry.hash == hash_of(entry)


_decoder = msgspec.json.Decoder(Entry)

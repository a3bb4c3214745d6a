"""Identifiers and how they are spelled: `ses_`, `run_` and `evt_`, each followed by 32 hex digits.

An event's id is its place: it is derived from the session's id and the event's sequence, so it costs no index and no
storage, and the same place always has the same id. An event that came with an id of its own (an import, a retry)
keeps it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from typing import NewType

__all__ = ["EventId", "RunId", "SessionId", "event_id", "place_of", "run_id", "session_id"]

SessionId = NewType("SessionId", str)
RunId = NewType("RunId", str)
EventId = NewType("EventId", str)

_PLACE = re.compile(r"evt_([0-9a-f]{20})([0-9a-f]{12})\Z")


def session_id(entropy: bytes) -> SessionId:
    """A session's id from 16 bytes of time and chance."""
    return SessionId("ses_" + entropy.hex())


def run_id(entropy: bytes) -> RunId:
    """A run's id from 16 bytes of time and chance."""
    return RunId("run_" + entropy.hex())


@lru_cache(maxsize=4096)
def _fingerprint(session: SessionId) -> str:
    return "evt_" + blake2b(session.encode(), digest_size=10).hexdigest()


def event_id(session: SessionId, sequence: int) -> EventId:
    """The id of the event at this place."""
    return EventId(f"{_fingerprint(session)}{sequence:012x}")


def place_of(session: SessionId, event: EventId) -> int | None:
    """The sequence that `event` names in `session`, or None if the id was not derived from this session."""
    match = _PLACE.match(event)
    if match is None or not event.startswith(_fingerprint(session)):
        return None
    return int(match[2], 16)

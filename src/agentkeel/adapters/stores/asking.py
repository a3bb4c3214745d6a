"""What a question to a store may look like, and what an answer is made of; the same for every built-in store."""

from __future__ import annotations

from base64 import b64encode

import msgspec

from agentkeel.core.codec import decode_body
from agentkeel.core.events import Body, Unknown
from agentkeel.core.ids import RunId, SessionId
from agentkeel.errors import Error, RunNotFound, RunTerminal, SessionNotFound, StateError, StorageError, ValidationError

__all__ = [
    "beyond_head",
    "check_limit",
    "check_page",
    "closed",
    "ended",
    "no_run",
    "no_session",
    "no_such_place",
    "revived",
    "still_running",
]


def check_limit(limit: int) -> None:
    """Say nothing if `limit` is at least 1.

    Raises:
        ValidationError: It is not.
    """
    if limit < 1:
        raise ValidationError(f"limit is {limit}; ask for at least 1.", code="invalid_input", details={"limit": limit})


def check_page(after: int, limit: int) -> None:
    """Say nothing if these may ask for a page of events.

    Raises:
        ValidationError: `after` is negative (`invalid_cursor`), or `limit` is less than 1.
    """
    check_limit(limit)
    if after < 0:
        raise ValidationError(
            f"after is {after}; a cursor is 0 or the sequence of an event.",
            code="invalid_cursor",
            details={"after": after},
        )


def beyond_head(session_id: SessionId, after: int, head: int) -> ValidationError:
    """The error of a cursor from the future."""
    return ValidationError(
        f"after is {after}, but the log of {session_id} ends at {head}. Is it the cursor of another session?",
        code="invalid_cursor",
        details={"after": after, "head": head, "session_id": session_id},
    )


def no_such_place(after: str) -> ValidationError:
    """The error of a listing's cursor that names nothing."""
    return ValidationError(
        f"after is {after!r}, which is not the last id of a page.", code="invalid_cursor", details={"after": after}
    )


def no_session(session_id: SessionId) -> SessionNotFound:
    """The error of asking for a session that is not there."""
    return SessionNotFound(f"There is no session {session_id}.", details={"session_id": session_id})


def no_run(run_id: RunId) -> RunNotFound:
    """The error of asking for a run that is not there."""
    return RunNotFound(f"There is no run {run_id}.", details={"run_id": run_id})


def closed(location: str) -> StateError:
    """The error of using a store after `aclose`."""
    return StateError(f"The store {location} is closed. Open it again.", code="invalid_operation")


def ended(run_id: RunId, status: str) -> RunTerminal:
    """The error of claiming a run that is over."""
    return RunTerminal(f"Run {run_id} has ended ({status}).", details={"run_id": run_id, "status": str(status)})


def still_running(run_id: RunId, session_id: SessionId) -> StateError:
    """The error of deleting a session at work."""
    return StateError(
        f"Run {run_id} of session {session_id} is running. Nothing was deleted; cancel the run first.",
        code="invalid_operation",
        details={"session_id": session_id, "run_id": run_id},
    )


def revived(kind: str, body: bytes, schema_version: int, *, intact: bool = True) -> Body:
    """The body that was stored; one that cannot be read is an `Unknown` of kind `corrupt` that tells what is left."""
    try:
        if not intact:
            raise StorageError("The stored bytes do not have the checksum they were written with.")
        return decode_body(kind, body, schema_version)
    except (Error, RecursionError) as error:
        left = {
            "type": kind,
            "schema_version": schema_version,
            "error": str(error),
            "bytes": b64encode(body).decode(),
        }
        return Unknown(kind="corrupt", body=msgspec.Raw(msgspec.json.encode(left)))

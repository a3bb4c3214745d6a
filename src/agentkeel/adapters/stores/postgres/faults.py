"""What PostgreSQL's errors, and a connection's, mean to a caller and to a retry."""

from __future__ import annotations

from typing import Literal

from agentkeel.adapters.stores.postgres.link import asyncpg
from agentkeel.errors import Error, StorageError, StoreFull, StoreIncompatible, StoreUnavailable, ValidationError, wrap

__all__ = ["DRIVER_ERRORS", "Hope", "concerns_one", "hope_of", "is_busy", "of_opening", "of_reading", "of_writing"]

Hope = Literal["again", "elsewhere", "none"]
"""again: the same connection may do it. elsewhere: the connection is lost, another one may. none: it will not work."""

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""All that a connection raises."""

_AGAIN = {"40001", "40P01", "55P03", "23505"}
"""Serialization failure, deadlock, a lock that was not got in time, and somebody who made the same row first."""
_LOST = {"0A000", "25P03", "25006", "57014", "57P01", "57P02", "57P03", "57P05"}
"""A statement prepared before the tables changed, idle too long, a standby, a statement that took too long, and a
server that ends, crashed, or starts."""


def hope_of(error: BaseException) -> Hope:
    """Whether what met `error` may be tried again, and where."""
    code = getattr(error, "sqlstate", None)
    if code in _AGAIN:
        return "again"
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        return "none"  # the driver cannot send these values
    if code in _LOST or (code or "").startswith("08") or (code == "53300"):
        return "elsewhere"
    if isinstance(error, OSError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return "elsewhere"
    return "none"


def is_busy(error: BaseException) -> bool:
    """Whether a lock was not got in time: one session is held by somebody else."""
    return getattr(error, "sqlstate", None) == "55P03"


def concerns_one(error: BaseException) -> bool:
    """Whether it is the values of one batch that the database, or the driver, does not take."""
    if isinstance(error, asyncpg.InterfaceError):
        return isinstance(error, ValueError)
    return (getattr(error, "sqlstate", None) or "").startswith(("22", "54"))


def of_writing(error: BaseException, location: str) -> Error:
    """The error for callers whose batch met `error`, after all retries."""
    if not isinstance(error, DRIVER_ERRORS):
        return wrap(error) if isinstance(error, Exception) else StorageError(str(error))
    code, details = getattr(error, "sqlstate", None), _details(error, location)
    if code == "53100":
        return StoreFull(
            f"No space is left for {location}. The batch was not stored; everything before it was and can be read. "
            "Free some space and append again.",
            details=details,
        )
    if hope_of(error) == "again":
        return StoreUnavailable(
            f"Other writers kept {location} busy ({_said(error)}). Nothing was stored; retry with the same keys.",
            details=details,
        )
    if hope_of(error) == "elsewhere":
        return StoreUnavailable(
            f"The connection to {location} is lost ({_said(error)}). Whether the batch was stored is unknown; retry "
            "with the same keys.",
            details=details,
        )
    if concerns_one(error):
        return ValidationError(
            f"PostgreSQL does not take the batch ({_said(error)}). Nothing was stored.",
            code="invalid_input",
            details=details,
        )
    return StorageError(
        f"{location} could not be written ({_said(error)}). Nothing was stored; check the role's rights and the "
        "server's log.",
        code="storage_write_failed",
        details=details,
    )


def of_reading(error: BaseException, location: str) -> Error:
    """The error for a reader that met `error`."""
    if hope_of(error) != "none":
        return StoreUnavailable(
            f"{location} could not be read ({_said(error)}). Nothing changed; try again.",
            details=_details(error, location),
        )
    return StorageError(
        f"{location} could not be read ({_said(error)}). Nothing changed; check the role's rights and the server's "
        "log.",
        code="storage_read_failed",
        details=_details(error, location),
    )


def of_opening(error: BaseException, location: str) -> Error:
    """The error for who could not open the store."""
    code, details = getattr(error, "sqlstate", None) or "", _details(error, location)
    if code.startswith("28"):
        return StorageError(
            f"{location} does not let us in ({_said(error)}). Check the user and the password of the URL.",
            code="storage_connection_failed",
            details=details,
        )
    if code == "3D000":
        return StorageError(
            f"The server of {location} has no such database. Create it: createdb NAME.",
            code="storage_connection_failed",
            details=details,
        )
    if code == "42501":
        return StoreIncompatible(
            f"The role may not make tables in {location} ({_said(error)}). Nothing was changed; grant it CREATE, or "
            "open the store once as a role that has it.",
            details=details,
        )
    if hope_of(error) != "none":
        return StoreUnavailable(
            f"{location} cannot be reached ({_said(error)}). Nothing was opened; check that the server runs and the "
            "URL is right.",
            details=details,
        )
    return StorageError(f"{location} could not be opened ({_said(error)}).", details=details)


def _details(error: BaseException, location: str) -> dict[str, str | None]:
    return {"location": location, "sqlstate": getattr(error, "sqlstate", None), "postgresql": _said(error)}


def _said(error: BaseException) -> str:
    return str(error).split("\n", 1)[0] or type(error).__name__

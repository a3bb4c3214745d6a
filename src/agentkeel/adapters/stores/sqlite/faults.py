"""What SQLite's errors mean to a caller, and which SQLite is safe to write with."""

from __future__ import annotations

import apsw

from agentkeel.errors import (
    Error,
    StorageError,
    StoreFull,
    StoreIncompatible,
    StoreUnavailable,
    ValidationError,
)

__all__ = ["VERSION_FLOOR", "check_version", "is_dead", "no_space", "of_reading", "of_writing"]

VERSION_FLOOR = (3, 51, 3)
"""The first SQLite without the WAL-reset bug of 3.7.0 to 3.51.2: two connections that checkpoint and write in the same
instant could corrupt the file."""


def check_version(version: str) -> None:
    """Say nothing if this SQLite is safe to write with.

    Raises:
        StoreIncompatible: It has the WAL-reset bug, or no WAL at all.
    """
    if tuple(int(part) for part in version.split(".")[:3]) < VERSION_FLOOR:
        floor = ".".join(map(str, VERSION_FLOOR))
        raise StoreIncompatible(
            f"SQLite {version} can corrupt a log that is written while it is checkpointed; {floor} is the first safe "
            "version. Nothing was opened; upgrade the apsw package.",
            details={"version": version, "floor": floor},
        )


def is_dead(error: apsw.Error) -> bool:
    """Whether the connection must not be used again: what it believes and what is on disk may differ."""
    if isinstance(error, apsw.FullError):
        return False
    if isinstance(error, apsw.IOError):
        return not no_space(error)
    return isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.CantOpenError | apsw.InternalError)


def of_writing(error: apsw.Error, location: str) -> Error:
    """The error for callers whose batch met `error`."""
    text, details = _said(error), {"location": location, "sqlite": _said(error)}
    if isinstance(error, apsw.FullError) or (isinstance(error, apsw.IOError) and no_space(error)):
        return StoreFull(
            f"No space is left for {location}. The batch was not stored; everything before it was and can be read. "
            "Free some space and append again.",
            details=details,
        )
    if isinstance(error, apsw.IOError):
        return StoreUnavailable(
            f"The disk failed under {location} ({text}). Whether the batch was stored is unknown; retry with the same "
            "keys.",
            details=details,
        )
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreUnavailable(
            f"Another program holds the lock of {location}. Nothing was stored; retry with the same keys.",
            details=details,
        )
    if isinstance(error, apsw.TooBigError):
        return ValidationError(
            "The batch is larger than SQLite takes. Nothing was stored.", code="invalid_input", details=details
        )
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError):
        return StorageError(
            f"{location} cannot be written ({text}). Nothing was stored; check the permissions of the file and folder.",
            code="storage_write_failed",
            details=details,
        )
    return StorageError(
        f"{location} could not be written ({text}). Whether the batch was stored is unknown.",
        code="storage_write_failed",
        details=details,
    )


def of_reading(error: apsw.Error, location: str) -> Error:
    """The error for a reader that met `error`."""
    text, details = _said(error), {"location": location, "sqlite": _said(error)}
    if no_space(error):
        return StoreFull(
            f"No space is left for reading {location} beside its writer. Nothing changed; free some and try again.",
            details=details,
        )
    if isinstance(error, apsw.BusyError | apsw.LockedError | apsw.IOError):
        return StoreUnavailable(f"{location} could not be read ({text}). Nothing changed; try again.", details=details)
    return StorageError(
        f"{location} could not be read ({text}). Nothing changed; copy the file and its -wal before any repair.",
        code="storage_read_failed",
        details=details,
    )


def no_space(error: apsw.Error) -> bool:
    """Whether the shared-memory file could not grow: in practice, a full disk."""
    return getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE


def _said(error: apsw.Error) -> str:
    return str(error) or type(error).__name__

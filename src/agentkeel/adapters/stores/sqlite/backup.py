"""A copy of a store in another file, as the log was at one moment, also while its owner writes."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import apsw
from anyio import from_thread

from agentkeel.errors import StorageError, StoreFull, ValidationError

__all__ = ["copy"]

PAGES_PER_STEP = 1024
"""Pages that are copied between two looks at whether anybody still waits: 4 MB."""
_BESIDE = ("-wal", "-journal")


def copy(db: apsw.Connection, source: Path, target: Path, *, replace: bool) -> int:
    """`target` is the store that `db` reads, whole and checked, its owner's alone and on the disk; its size in bytes.

    Called in a worker thread of anyio's. The log is read in one transaction, so what is appended meanwhile is not in
    the copy, and the log's -wal grows until the copy is made.

    Raises:
        ValidationError: `target` is there and not to be replaced, or cannot be a backup.
        StoreFull: No space is left for it.
        StorageError: It cannot be written, or the copy is not in order.
    """
    target = target.expanduser().absolute()
    kept: Path | None = None
    try:
        target = target.resolve()
        _check(source, target, replace=replace)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # with mode 0600
        os.close(descriptor)
        kept = Path(name)
        _fill(db, kept, target)
        _sync(kept)
        _verify(kept, source, target)
        size = kept.stat().st_size
        _check(source, target, replace=replace)  # copying may have taken a while
        kept.replace(target)
        kept = None
        _sync(target.parent)
    except OSError as error:
        raise StorageError(
            f"{target} cannot be written ({error.strerror}). No backup was made; name a file in another folder, or "
            "check the permissions of this one.",
            code="storage_write_failed",
            details={"path": str(target), "reason": error.strerror},
        ) from error
    finally:
        if kept is not None:
            with suppress(OSError):
                kept.unlink()
    return size


def _check(source: Path, target: Path, *, replace: bool) -> None:
    """Say nothing if `target` may be made, or replaced.

    A file is not replaced where SQLite has left a log of changes beside it: that log would be taken for the copy's.
    """
    if not target.parent.is_dir():
        raise _refused(target, "its folder is not there")
    if target.exists() and target.samefile(source):
        raise _refused(target, "it is the store itself")
    if target.exists() and not target.is_file():
        raise _refused(target, "it is no regular file")
    if target.exists() and not replace:
        raise ValidationError(
            f"{target} is there already. It was not touched; name another file, or have it replaced "
            "(--force, replace=True).",
            code="invalid_input",
            details={"path": str(target)},
        )
    for suffix in _BESIDE:
        beside = target.with_name(target.name + suffix)
        if beside.exists() and beside.stat().st_size:
            raise _refused(target, f"{beside.name} beside it shows that it is in use, or was left by a crash")


def _refused(target: Path, why: str) -> ValidationError:
    return ValidationError(
        f"{target} cannot be the backup: {why}. No backup was made; name another file.",
        code="invalid_input",
        details={"path": str(target), "reason": why},
    )


def _fill(db: apsw.Connection, place: Path, target: Path) -> None:
    with closing(apsw.Connection(str(place), flags=apsw.SQLITE_OPEN_READWRITE)) as copied:
        copied.execute("PRAGMA journal_mode = OFF")  # a copy that fails is thrown away
        copied.execute("PRAGMA synchronous = OFF")  # it is synced once, when it is whole
        db.execute("BEGIN")
        try:
            db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()  # from here on, one moment of the log is seen
            with copied.backup("main", db, "main") as backup:
                while not backup.done:
                    from_thread.check_cancelled()
                    backup.step(PAGES_PER_STEP)
        except apsw.FullError as error:
            raise StoreFull(
                f"No space is left for {target}. No backup was made; free some space, or name another disk.",
                details={"path": str(target)},
            ) from error
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


def _verify(place: Path, source: Path, target: Path) -> None:
    name = f"file:{quote(str(place))}?immutable=1"  # nothing is made beside it
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with closing(apsw.Connection(name, flags=flags)) as copied:
        try:
            found = [row[0] for row in copied.execute("PRAGMA quick_check(3)").fetchall()]
        except apsw.Error as error:
            found = [str(error)]
    if found != ["ok"]:
        raise StorageError(
            f"The copy of {source} is damaged: {'; '.join(map(str, found))}. No backup was made, and {target} is as it "
            "was. The store itself is damaged too, or a disk is: copy the file and its -wal before anything else.",
            code="storage_read_failed",
            details={"location": str(source), "path": str(target), "found": found},
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The audit log as a file of JSON lines: its owner's alone, appended only, on the disk before anybody is told.

One process writes it, by a lock on the file itself, which the kernel frees when the holder dies. Anybody who may read
the file may read and verify it meanwhile. A crash in the middle of a write leaves a torn last line: it was acknowledged
to nobody, so the next owner cuts it off and reports it (`FileAudit.torn`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import anyio
import anyio.to_thread
import msgspec

from agentkeel.adapters.audit.fitting import check_fits
from agentkeel.adapters.audit.reading import Finding, Torn, read_entries, scan
from agentkeel.core.audit import Entry, encode_entry
from agentkeel.errors import StorageError, StoreFull, StoreOwned, StoreUnavailable

__all__ = ["FileAudit"]

_PAGE = 1000
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class FileAudit:
    """`ports.audit.AuditLog` in a file. Opened by `open`, closed by `aclose`.

    Attributes:
        torn: What a crash of the last owner left, which was cut off; None if nothing was.
    """

    def __init__(self, path: Path, descriptor: int, head: Entry | None, size: int, torn: Torn | None) -> None:
        self.path = path
        self.torn = torn
        self._descriptor = descriptor
        self._head = head
        self._size = size
        self._unsure: str | None = None
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> FileAudit:
        """This process writes the file until `aclose` or its death. All of it was verified.

        A new file is its owner's alone (0600), and so is a folder made for it.

        Raises:
            StoreOwned: Another process, or this one, writes it already.
            StorageError: Its chain is broken; it is left as it is. Or it cannot be opened; the message says why.
        """
        return await anyio.to_thread.run_sync(cls._open, path)

    @classmethod
    def _open(cls, path: Path) -> FileAudit:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = not path.exists()
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            _refuse(path, error.strerror or str(error), error)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                _refuse(path, "it is no regular file")
            _lock(path, descriptor)
            finding, head = scan(path)
            _check_whole(path, finding)
            size = os.fstat(descriptor).st_size
            if finding.torn is not None:
                size -= finding.torn.bytes
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
            if new:
                _sync_folder(path.parent)
        except OSError as error:
            os.close(descriptor)
            _refuse(path, error.strerror or str(error), error)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, head, size, finding.torn)

    @property
    def head(self) -> Entry | None:
        """The last entry that is on the disk."""
        return self._head

    @property
    def damage(self) -> Mapping[str, Any] | None:
        """The torn line, as an entry tells it."""
        return None if self.torn is None else {"torn_line": msgspec.to_builtins(self.torn), "path": str(self.path)}

    async def append(self, entries: Sequence[Entry]) -> None:
        """The entries are on the disk behind the head; one write and one sync for all of them."""
        if entries:
            with anyio.CancelScope(shield=True):  # A caller that leaves must not leave the head behind the file.
                await anyio.to_thread.run_sync(self._append, entries)

    async def entries(self) -> AsyncIterator[Entry]:
        """All entries up to the head, in order."""
        count = 0 if self._head is None else self._head.number
        reader = islice(read_entries(self.path), count)
        while page := await anyio.to_thread.run_sync(lambda: list(islice(reader, _PAGE))):
            for entry in page:
                yield entry

    async def aclose(self) -> None:
        """The file is closed and its lock is free."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)

    # -- on a thread ------------------------------------------------------------------------------------------------

    def _append(self, entries: Sequence[Entry]) -> None:
        if self._closed or self._unsure is not None:
            raise StoreUnavailable(
                f"The audit log {self.path} {self._unsure or 'was closed'}. Nothing was added; open it again.",
                details={"path": str(self.path)},
            )
        check_fits(entries, self._head)
        self._check_untouched()
        lines = b"".join(encode_entry(entry) + b"\n" for entry in entries)
        try:
            _write(self._descriptor, lines)
        except OSError as error:
            raise self._undone(error) from error
        try:
            os.fsync(self._descriptor)
        except OSError as error:  # Pages that failed once may be dropped: what is on the disk is unknown.
            self._unsure = f"could not be synced ({error.strerror})"
            raise StoreUnavailable(
                f"The audit log {self.path} {self._unsure}. Whether the last entries are there is unknown; open it "
                "again.",
                details={"path": str(self.path)},
            ) from error
        self._size += len(lines)
        self._head = entries[-1]

    def _check_untouched(self) -> None:
        """The file is still where it was and ends where we ended."""
        ours = os.fstat(self._descriptor)
        try:
            there = os.stat(self.path, follow_symlinks=False)  # noqa: PTH116 - beside fstat
        except FileNotFoundError:
            there = None
        if there is None or (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev):
            what = "was taken away or replaced while it was open"
        elif ours.st_size != self._size:
            what = f"was changed by somebody else: it has {ours.st_size} bytes where {self._size} were written"
        else:
            return
        raise StorageError(
            f"The audit log {self.path} {what}. Nothing was added. Find out who did that, then open it again.",
            code="storage_write_failed",
            details={"path": str(self.path), "bytes": ours.st_size, "expected": self._size},
        )

    def _undone(self, error: OSError) -> StorageError:
        """The file is as it was before a write that failed half-way, or the log takes no more."""
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError as second:
            self._unsure = f"has half a write at its end that could not be undone ({second.strerror})"
        details = {"path": str(self.path), "reason": error.strerror}
        if error.errno in _NO_SPACE:
            return StoreFull(
                f"No space is left for the audit log {self.path}. Nothing was added; free some space.", details=details
            )
        return StorageError(
            f"The audit log {self.path} cannot be written: {error.strerror}. Nothing was added.",
            code="storage_write_failed",
            details=details,
        )


def _lock(path: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StoreOwned(
            f"The audit log {path} is written by another manager. Nothing was opened; end that one, or use another "
            "file.",
            details={"path": str(path)},
        ) from error


def _check_whole(path: Path, finding: Finding) -> None:
    if finding.broken_at is not None:
        raise StorageError(
            f"The audit log {path} was changed: entry {finding.broken_at} {finding.reason}. Nothing was touched. Keep "
            "the file, find out who changed it, and move it away to begin a new one.",
            details={"path": str(path), "broken_at": finding.broken_at, "reason": finding.reason},
        )


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync_folder(folder: Path) -> None:
    """A file that was just made in it is still there after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse(path: Path, why: str, cause: OSError | None = None) -> NoReturn:
    raise StorageError(
        f"{path} cannot be an audit log: {why}. Nothing was written; use another path.",
        details={"path": str(path), "reason": why},
    ) from cause

"""Adding to the end of a file so that a crash or a full disk leaves whole lines before it and whole lines after it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import anyio.to_thread

from agentkeel.errors import failure

__all__ = ["AppendedFile", "sync"]

BUFFER_BYTES = 64 * 1024


class AppendedFile:
    """A file that grows. Made with mode 0600, for what agents say is nobody else's business.

    A line that was cut off (a crash, a full disk) is ended before the next one begins. Disk work is done in a thread,
    for a disk may be on the other side of a network that hangs.

    Args:
        buffered: Text is written in pieces of 64 KiB, and the rest by `flush`. A thread's turn is most of what a write
            costs: 200 events that share one cost a thirtieth.
    """

    def __init__(self, path: str | os.PathLike[str], *, buffered: bool = False) -> None:
        self.path = Path(path)
        self._file: int | None = None
        self._cut_off = False
        self._most_waiting = BUFFER_BYTES if buffered else 0
        self._waiting = bytearray()
        self._lost = False
        """Whether text that was taken is not in the file. Until it is opened anew, nothing is acknowledged."""

    async def open(self) -> None:
        """The file is there and can be added to; what was in it stays.

        Raises:
            StorageError: It cannot be opened (`storage_write_failed`).
        """
        if self._file is None:
            await anyio.to_thread.run_sync(self._open)

    async def write(self, text: str) -> None:
        """The system has the text, and a reader of the file sees it; unless it is buffered.

        Raises:
            StorageError: It has none or a part of it (`storage_write_failed`).
        """
        self._waiting += text.encode("utf-8", "backslashreplace")
        if len(self._waiting) > self._most_waiting:
            await self._write_out()

    async def flush(self) -> None:
        """The disk has all that was written.

        Raises:
            StorageError: It may not (`storage_write_failed`).
        """
        if self._waiting:
            await self._write_out()
        if self._lost:
            raise failure("storage_write_failed", f"Not all that was to be in {self.path} is. Open it anew and go on.")
        if self._file is None:
            return
        try:
            await anyio.to_thread.run_sync(sync, self._file)
        except OSError as error:
            raise self._trouble("save", error) from error

    async def close(self) -> None:
        """The file is closed. What was not flushed is not in it."""
        file, self._file = self._file, None
        self._waiting.clear()
        if file is not None:
            await anyio.to_thread.run_sync(os.close, file)

    async def _write_out(self) -> None:
        content = bytes(self._waiting)
        self._waiting.clear()  # Whoever is told of a failure brings it again.
        try:
            await anyio.to_thread.run_sync(self._write, content)
        except BaseException:
            self._lost = self._most_waiting > 0  # Earlier text went with it, and its writer does not know.
            raise

    def _open(self) -> None:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._cut_off = _ends_within_a_line(self._file)
            self._lost = False
        except OSError as error:
            raise self._trouble("open", error) from error

    def _write(self, content: bytes) -> None:
        if self._file is None:
            raise failure("storage_write_failed", f"{self.path} is closed. Open the sink before you write to it.")
        rest = memoryview(b"\n" + content if self._cut_off else content)
        self._cut_off = True  # Until the whole is there.
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise self._trouble("write to", error) from error
        self._cut_off = False

    def _trouble(self, verb: str, error: OSError) -> Exception:
        return failure(
            "storage_write_failed",
            f"Could not {verb} {self.path}: {error.strerror or error}. The log has every event; mend this and go on.",
            details={"path": str(self.path), "errno": error.errno},
        )


def sync(file: int) -> None:
    """The disk has the file's content, where it is a file on a disk; a pipe or a terminal needs nothing."""
    if stat.S_ISREG(os.fstat(file).st_mode):
        os.fsync(file)


def _ends_within_a_line(file: int) -> bool:
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        return False
    return os.pread(file, 1, found.st_size - 1) != b"\n"

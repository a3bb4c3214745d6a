"""How far each sink has come, kept in memory or in a folder."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import anyio.to_thread
import msgspec

from agentkeel.core.ids import SessionId
from agentkeel.errors import ValidationError, failure

__all__ = ["FileCursors", "MemoryCursors"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")


class MemoryCursors:
    """Cursors that last as long as this object."""

    def __init__(self) -> None:
        self._saved: dict[str, dict[SessionId, int]] = {}

    async def load(self, sink: str) -> Mapping[SessionId, int]:
        """The sink's cursors."""
        return dict(self._saved.get(sink, {}))

    async def save(self, sink: str, cursors: Mapping[SessionId, int]) -> None:
        """The cursors are kept."""
        self._saved[sink] = dict(cursors)


class FileCursors:
    """Cursors in a folder, one JSON file for each sink, replaced whole: `{"ses_…": 412}`.

    A save costs two disk syncs and some 50 bytes for each session of the log.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    async def load(self, sink: str) -> Mapping[SessionId, int]:
        """The sink's cursors; none if it has no file.

        Raises:
            ValidationError: The sink's name cannot be a file's (`invalid_input`).
            StorageError: The file is there and holds no cursors (`storage_read_failed`).
        """
        return await anyio.to_thread.run_sync(self._load, self._path(sink))

    async def save(self, sink: str, cursors: Mapping[SessionId, int]) -> None:
        """The file holds these cursors, on the disk.

        Raises:
            ValidationError: The sink's name cannot be a file's (`invalid_input`).
            StorageError: It holds the old ones (`storage_write_failed`).
        """
        await anyio.to_thread.run_sync(self._save, self._path(sink), msgspec.json.encode(dict(cursors)))

    def _path(self, sink: str) -> Path:
        if _NAME.match(sink) is None:
            raise ValidationError(
                f"{sink!r} cannot name a sink: use up to 64 lower-case letters, digits, _ and -.", code="invalid_input"
            )
        return self._folder / f"{sink}.json"

    def _load(self, path: Path) -> Mapping[SessionId, int]:
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[SessionId, int])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise failure(
                "storage_read_failed",
                f"The cursors in {path} cannot be read: {error}. Nothing was sent. Mend the file, or remove it to send "
                "everything again.",
                details={"path": str(path)},
            ) from error

    def _save(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(path, content)
        except OSError as error:
            raise failure(
                "storage_write_failed",
                f"The cursors in {path} could not be saved: {error.strerror or error}. The old ones are kept; some "
                "events will be sent again.",
                details={"path": str(path), "errno": error.errno},
            ) from error


def _replace(path: Path, content: bytes) -> None:
    """The file holds `content`, or what it held before: never a part, also after a power cut."""
    new = path.with_suffix(f".{os.getpid()}.new")
    try:
        number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

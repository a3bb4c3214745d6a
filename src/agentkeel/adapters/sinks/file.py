"""Text for people: on a terminal as it was rendered, in a file without the codes of a terminal."""

from __future__ import annotations

import io
import os
from typing import TextIO

import anyio.to_thread

from agentkeel.adapters.sinks.appending import AppendedFile, sync
from agentkeel.core.escape import escape_styled, plain
from agentkeel.core.events import Event

__all__ = ["File", "Terminal"]


class _Stream:
    """A text stream that somebody else opened, and closes."""

    def __init__(self, stream: TextIO, *, at_once: bool = False) -> None:
        self._stream = stream
        self._at_once = at_once

    async def write(self, text: str) -> None:
        if text:
            await anyio.to_thread.run_sync(self._write, text)

    async def flush(self) -> None:
        await anyio.to_thread.run_sync(self._flush)

    def _write(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        if self._at_once:
            self._stream.flush()

    def _flush(self) -> None:
        self._stream.flush()
        try:
            number = self._stream.fileno()
        except (AttributeError, io.UnsupportedOperation):
            return  # In memory.
        sync(number)


class Terminal:
    """Writes text to a stream, colours and all, and never closes it.

    Of what a terminal obeys only colours and the clearing of a line pass, whatever renderer the text is from.
    """

    def __init__(self, stream: TextIO) -> None:
        self._out = _Stream(stream, at_once=True)

    async def open(self) -> None:
        """Nothing to open."""

    async def write(self, event: Event | None, text: str) -> None:
        """The text is shown."""
        await self._out.write(escape_styled(text))

    async def flush(self) -> None:
        """All of it is shown."""
        await self._out.flush()

    async def close(self) -> None:
        """The stream is its owner's."""


class File:
    """Adds text to a file, without colours, movements of the cursor and other codes.

    A path is opened, made if need be (mode 0600), and closed; an open stream is left open. `flush` waits for the disk.

    Args:
        buffered: A path is written to in pieces of 64 KiB, and by `flush`. For an outbox, which flushes often.
    """

    def __init__(self, file: str | os.PathLike[str] | TextIO, *, buffered: bool = False) -> None:
        self._owned = AppendedFile(file, buffered=buffered) if isinstance(file, str | os.PathLike) else None
        self._out = self._owned or _Stream(file)  # type: ignore[arg-type]

    async def open(self) -> None:
        """A path is open.

        Raises:
            StorageError: It cannot be opened (`storage_write_failed`).
        """
        if self._owned is not None:
            await self._owned.open()

    async def write(self, event: Event | None, text: str) -> None:
        """The text is at the end of the file.

        Raises:
            StorageError: The path could not be written to (`storage_write_failed`).
        """
        await self._out.write(plain(text))

    async def flush(self) -> None:
        """The disk has it, where there is a disk."""
        await self._out.flush()

    async def close(self) -> None:
        """A path is closed; a stream is its owner's."""
        if self._owned is not None:
            await self._owned.close()

"""Byte chunks become lines: no length limit that loses framing, whatever the chunks cut through.

A short line is plain `bytes`. A line above `spill_bytes` is written to an unnamed temporary file while it arrives and
comes out as a `LongLine`; above `max_bytes` the rest of it is counted, not kept. Either way the next line starts after
the next newline. The splitter owns no pipe: feed it chunks, take lines.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, TypeAlias

__all__ = ["MAX_LINE_BYTES", "SPILL_BYTES", "Line", "LongLine", "Splitter"]

SPILL_BYTES = 1 << 20
MAX_LINE_BYTES = 64 << 20

Lost = Literal["limit", "disk"]


class LongLine:
    """One line too long for memory, in a file without a name: it is gone when this is closed or we die.

    Attributes:
        size: Length of the whole line in bytes, without its line end.
        kept: How many of these bytes, from the start, can be read here.
        lost: Why the rest was not kept: "limit" (longer than allowed), "disk" (could not be written), None (all kept).
    """

    __slots__ = ("_file", "kept", "lost", "size")

    def __init__(self, file: IO[bytes], *, size: int, kept: int, lost: Lost | None) -> None:
        self._file = file
        self.size = size
        self.kept = kept
        self.lost = lost

    def __repr__(self) -> str:
        return f"LongLine(size={self.size}, kept={self.kept}, lost={self.lost!r})"

    @property
    def truncated(self) -> bool:
        """Whether the end of the line is missing."""
        return self.kept < self.size

    def head(self, size: int = 4096) -> bytes:
        """The first `size` bytes."""
        self._file.seek(0)
        return self._file.read(min(size, self.kept))

    def read(self) -> bytes:
        """All that was kept, in memory at once."""
        return self.head(self.kept)

    def chunks(self, size: int = 1 << 18) -> Iterator[bytes]:
        """All that was kept, piece by piece, for a copy to an artifact store."""
        for start in range(0, self.kept, size):
            self._file.seek(start)
            yield self._file.read(min(size, self.kept - start))

    def close(self) -> None:
        """The bytes are gone and their space is free. Closing twice is fine."""
        self._file.close()

    def __enter__(self) -> LongLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


Line: TypeAlias = bytes | LongLine


class Splitter:
    """Lines of a byte stream, without their line ends (LF or CRLF).

    The lines depend on the bytes alone, not on how they were cut into chunks. Nothing here copies a short line twice
    unless it crosses a chunk.

    Args:
        scratch: Folder for the temporary files; None is the system's.
        spill_bytes: A line longer than this goes to a file.
        max_bytes: Of a line longer than this the rest is dropped.
    """

    def __init__(
        self,
        *,
        scratch: Path | None = None,
        spill_bytes: int = SPILL_BYTES,
        max_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        if not 0 < spill_bytes <= max_bytes:
            raise ValueError("0 < spill_bytes <= max_bytes must hold")
        self._scratch = scratch
        self._spill_bytes = spill_bytes
        self._max_bytes = max_bytes
        self._pending = bytearray()
        self._spool: _Spool | None = None
        self.spilled_bytes = 0  # On disk in all long lines that came out so far.

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that `chunk` completes, in order; what follows the last newline is kept for later."""
        if len(chunk) <= self._spill_bytes:
            return self._split(chunk)
        lines: list[Line] = []
        for start in range(0, len(chunk), self._spill_bytes):
            lines += self._split(chunk[start : start + self._spill_bytes])
        return lines

    def finish(self) -> list[Line]:
        """The last line, if the stream ended without a newline. The splitter is as new afterwards."""
        return [self._complete(b"")] if self._pending or self._spool else []

    def close(self) -> None:
        """An unfinished line is dropped, and its file with it."""
        self._pending = bytearray()
        if self._spool is not None:
            self._spool.file.close()
            self._spool = None

    def _split(self, chunk: bytes) -> list[Line]:
        # At most `spill_bytes` long, so only the line that began in an earlier chunk can be too long for memory.
        pieces: list[Line] = chunk.split(b"\n")  # type: ignore[assignment]
        rest = pieces.pop()
        if pieces:
            first: Line | None = None
            if self._pending or self._spool is not None:
                first = self._complete(pieces[0])  # type: ignore[arg-type]
            if b"\r" in chunk:
                pieces = [piece.removesuffix(b"\r") for piece in pieces]  # type: ignore[union-attr]
            if first is not None:
                pieces[0] = first
        if rest:
            self._grow(rest)  # type: ignore[arg-type]
        return pieces

    def _grow(self, piece: bytes) -> None:
        if self._spool is not None:
            self._spool.write(piece)
            return
        self._pending += piece
        if len(self._pending) > self._spill_bytes:
            self._spool = _Spool(self._scratch, self._max_bytes, in_memory=self._spill_bytes)
            self._spool.write(self._pending)
            self._pending = bytearray()

    def _complete(self, piece: bytes) -> Line:
        self._grow(piece)
        if self._spool is not None:
            long, self._spool = self._spool.line(), None
            self.spilled_bytes += long.kept
            return long
        line, self._pending = bytes(self._pending), bytearray()
        return line.removesuffix(b"\r")


class _Spool:
    """A long line on its way to disk."""

    def __init__(self, scratch: Path | None, max_bytes: int, *, in_memory: int) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._kept = 0
        self._last = 0
        self._lost: Lost | None = None
        self._full = False
        self._without_disk = False
        self.file: IO[bytes]
        try:
            # Unbuffered: a full disk is seen at the write that meets it, and never again at close.
            self.file = tempfile.TemporaryFile(prefix="agentkeel-line-", dir=scratch, buffering=0)  # noqa: SIM115
        except OSError:
            # No file at all: what is in memory already is kept, the rest of the line is not.
            self.file = io.BytesIO()
            self._max_bytes = min(max_bytes, in_memory)
            self._without_disk = True

    def write(self, data: bytes | bytearray) -> None:
        self._size += len(data)
        self._last = data[-1] if data else self._last
        if self._full:
            return
        room = self._max_bytes - self._kept
        if len(data) > room:
            self._full, self._lost = True, "disk" if self._without_disk else "limit"
        kept = 0
        try:
            with memoryview(data) as view:
                while kept < min(len(data), room):
                    kept += self.file.write(view[kept:room])
        except OSError:
            self._full, self._lost = True, "disk"
        self._kept += kept

    def line(self) -> LongLine:
        if self._last == ord("\r"):
            self._size -= 1
            self._kept = min(self._kept, self._size)
        if self._kept == self._size:
            self._lost = None
        return LongLine(self.file, size=self._size, kept=self._kept, lost=self._lost)

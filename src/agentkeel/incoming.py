"""A file that comes in from outside: read twice, unpacked, and never trusted with more than it was allowed.

Bounds: the bytes of a line, of the whole, and what gzip may unpack to (a bomb reaches 1,000 to 1; a log 20 to 1).
Why so many limits: an archive is a file that somebody else made (zip bombs, forged counts).
"""

from __future__ import annotations

import gzip
import io
import os
import tempfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

import anyio
import msgspec

from agentkeel.core.archive import MAX_LINE_BYTES, Manifest, Reader, Trailer
from agentkeel.core.events import Event
from agentkeel.core.ids import RunId
from agentkeel.errors import ValidationError

__all__ = ["MAX_BYTES", "MAX_RATIO", "Incoming", "Plan", "Source", "seekable"]

MAX_BYTES = 64 * 1024**3
MAX_RATIO = 200
"""How many bytes one packed byte may become, once more than `FREE_BYTES` were unpacked."""
FREE_BYTES = 16 * 1024 * 1024
BATCH_EVENTS = 500
BATCH_BYTES = 4 * 1024 * 1024

Source: TypeAlias = str | os.PathLike[str] | BinaryIO | Iterable[str] | AsyncIterable[str]
"""A path, an open binary file, or pieces of text. A `str` is a path, never the text itself."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the first reading found. `open_runs` were queued and never ended, in order."""

    manifest: Manifest
    trailer: Trailer
    runs: frozenset[RunId]
    open_runs: tuple[RunId, ...]


class Incoming:
    """A file that can be read again from where it began. Its methods block; call them in a thread."""

    def __init__(self, file: BinaryIO, *, max_bytes: int = MAX_BYTES) -> None:
        self._file = file
        self._start = file.tell()
        self._max_bytes = max_bytes

    def verify(self) -> Plan:
        """The file is whole, from its manifest to its digest.

        Raises:
            ValidationError: It is not (`invalid_format`), or is larger than allowed.
        """
        reader = Reader()
        for line in self._lines():
            reader.take(line)
        manifest, trailer = reader.finish()
        return Plan(manifest=manifest, trailer=trailer, runs=frozenset(reader.runs), open_runs=tuple(reader.open_runs))

    @contextmanager
    def batches(self) -> Generator[Batches]:
        """The events, some at a time, checked once more."""
        lines = self._lines()
        try:
            yield Batches(lines)
        finally:
            lines.close()

    def _lines(self) -> Generator[bytes]:
        self._file.seek(self._start)
        packed = self._file.read(2) == b"\x1f\x8b"
        self._file.seek(self._start)
        if not packed:
            yield from self._bounded(self._file)
            return
        try:
            with gzip.GzipFile(fileobj=self._file, mode="rb") as unpacked:
                yield from self._bounded(unpacked, packed=True)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValidationError(
                f"The file cannot be unpacked: {error}. Nothing was stored; it was cut off or damaged on its way.",
                code="invalid_format",
            ) from error

    def _bounded(self, stream: BinaryIO | gzip.GzipFile, *, packed: bool = False) -> Iterator[bytes]:
        size = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            size += len(line)
            if size > self._max_bytes:
                raise _too_large(f"more than {self._max_bytes:,} bytes")
            if packed and size > max(FREE_BYTES, MAX_RATIO * (self._file.tell() - self._start)):
                raise _too_large(f"more than {MAX_RATIO} times what it has packed")
            yield line


class Batches:
    """Events of a file in lists of a bounded size."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._reader = Reader()

    def next(self) -> list[Event]:
        """The next events, at most `BATCH_EVENTS` of them; an empty list at the end of a file that is still whole.

        Raises:
            ValidationError: The file is not what it was when it was verified.
        """
        batch: list[Event] = []
        size = 0
        for line in self._lines:
            if (event := self._reader.take(line)) is None:
                continue
            batch.append(event)
            size += len(line)
            if len(batch) >= BATCH_EVENTS or size >= BATCH_BYTES:
                return batch
        if not batch:
            self._reader.finish()
        return batch


@asynccontextmanager
async def seekable(source: Source, *, folder: Path, max_bytes: int = MAX_BYTES) -> AsyncGenerator[Incoming]:
    """`source` as a file that can be read twice; what cannot is kept in `folder` meanwhile.

    Raises:
        ValidationError: It cannot be read, or is larger than allowed.
    """
    if isinstance(source, str | os.PathLike):
        with _opened(Path(source)) as file:
            yield Incoming(file, max_bytes=max_bytes)
        return
    if isinstance(source, io.IOBase | tempfile.SpooledTemporaryFile) or hasattr(source, "read"):
        stream: BinaryIO = source  # type: ignore[assignment]
        if stream.seekable():
            yield Incoming(stream, max_bytes=max_bytes)
            return
        pieces: Iterable[str | bytes] | AsyncIterable[str] = iter(lambda: stream.read(1 << 20), b"")
    else:
        pieces = source
    with tempfile.TemporaryFile(dir=folder, prefix="import-") as kept:
        await _keep(pieces, kept, max_bytes)
        kept.seek(0)
        yield Incoming(kept, max_bytes=max_bytes)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ValidationError(
            f"{path} cannot be read: {error.strerror}. Nothing was stored.",
            code="invalid_input",
            details={"path": str(path)},
        ) from error


async def _keep(pieces: Iterable[str | bytes] | AsyncIterable[str], kept: BinaryIO, max_bytes: int) -> None:
    size = 0

    def keep(piece: str | bytes) -> None:
        nonlocal size
        if not isinstance(piece, str | bytes):
            raise ValidationError(
                f"A piece of the import is of type {type(piece).__name__}, not text. Nothing was stored.",
                code="invalid_input",
            )
        # A lone surrogate becomes a question mark, and is found by the digest.
        data = piece.encode("utf-8", "replace") if isinstance(piece, str) else piece
        size += len(data)
        if size > max_bytes:
            raise _too_large(f"more than {max_bytes:,} bytes")
        kept.write(data)

    def keep_all(pieces: Iterable[str | bytes]) -> None:
        for piece in pieces:
            keep(piece)

    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            keep(piece)
    else:
        await anyio.to_thread.run_sync(keep_all, pieces)


def _too_large(what: str) -> ValidationError:
    return ValidationError(
        f"The file unpacks to {what}, which is more than an import takes. Nothing was stored.",
        code="invalid_input",
    )

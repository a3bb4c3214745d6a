"""`agentkeel session export | import`: a session out of a log, and into one."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tempfile
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

import anyio

import agentkeel
from agentkeel.cli.escape import escape
from agentkeel.cli.exits import DONE
from agentkeel.cli.lookup import session_named
from agentkeel.cli.screen import OutputClosed, writing
from agentkeel.cli.stage import screen_of
from agentkeel.errors import ValidationError
from agentkeel.transfer import ExportFormat

__all__ = ["bring_in", "carry_out"]

_FORMATS: dict[str, ExportFormat] = {".html": "html", ".htm": "html", ".md": "markdown", ".markdown": "markdown"}
_CHUNK = 1 << 20


def carry_out(id: str, *, format: ExportFormat | None, output: Path | None, store: str | None) -> int:
    """The session is on stdout or in the file, whole; else the file is what it was."""
    chosen = format or _format_of(output)

    async def write() -> None:
        async with agentkeel.open(store, read_only=True) as manager:
            session = await session_named(manager, id)
            pieces = session.export(chosen)
            if output is None:
                await _show(pieces)
                return
            with _replacing(output) as file:
                await _write(pieces, file)
            sys.stderr.write(f"{escape(session.id)} is in {escape(str(output))}\n")

    anyio.run(write)
    return DONE


def bring_in(file: Path, *, id: str | None, store: str | None, json: bool) -> int:
    """The session of the file is in the log; its id is on stdout."""

    async def read() -> None:
        out = screen_of(sys.stdout)
        try:
            async with agentkeel.open(store) as manager:
                source = sys.stdin.buffer if str(file) == "-" else file
                session = await manager.import_session(source, id=id)
                events = (await session.events())[-1].sequence if json else 0
            out.json({"session_id": session.id, "events": events}) if json else out.line(session.id)
        finally:
            out.close()

    anyio.run(read)
    return DONE


def _format_of(output: Path | None) -> ExportFormat:
    suffixes = [] if output is None else [suffix.lower() for suffix in output.suffixes if suffix.lower() != ".gz"]
    return _FORMATS.get(suffixes[-1] if suffixes else "", "jsonl")


async def _show(pieces: AsyncIterable[str]) -> None:
    """A terminal gets what it can show safely, anything else the exact bytes."""
    stream = sys.stdout
    if stream is None:
        raise OutputClosed("there is no standard output")
    if stream.isatty():
        async for piece in pieces:
            with writing(stream):
                stream.write(escape(piece, lines=True))
        return
    try:
        await _write(pieces, stream.buffer)
        stream.buffer.flush()
    except OSError as error:
        with writing(stream):
            raise OutputClosed(str(error)) from error


async def _write(pieces: AsyncIterable[str], file: BinaryIO) -> None:
    gathered = io.BytesIO()
    async for piece in pieces:
        gathered.write(piece.encode())
        if gathered.tell() >= _CHUNK:
            file.write(gathered.getvalue())
            gathered = io.BytesIO()
    file.write(gathered.getvalue())


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file for its owner alone that takes the place of `path` when it is whole; packed if its name says so.

    Raises:
        ValidationError: It cannot be written. What was at `path` is as it was.
    """
    kept: str | None = None
    try:
        descriptor, kept = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                    yield cast("BinaryIO", packed)
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        Path(kept).replace(path)
        kept = None
    except OSError as error:
        raise ValidationError(
            f"{path} cannot be written: {error.strerror}. What was there is as it was.", code="invalid_input"
        ) from error
    finally:
        if kept is not None:
            with suppress(OSError):
                Path(kept).unlink()

"""Reading an audit file, by its owner or by anybody else: what is in it, and where its chain breaks."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec

from agentkeel.core.audit import Anchor, Entry, decode_entry, verify
from agentkeel.errors import NotFound, StorageError

__all__ = ["Finding", "Torn", "beside", "examine", "read_entries", "scan"]

_MAX_LINE = 16 * 1024 * 1024


class Torn(msgspec.Struct, frozen=True, kw_only=True):
    """A last line without its end, which a crash left."""

    bytes: int
    sha256: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What reading a whole file showed.

    Attributes:
        entries: How many entries are whole and in their places, from the first one on.
        head: The last of them.
        broken_at: The number at which the chain breaks; None if it is whole.
        reason: Why it is broken there.
        torn: What a crash left behind the last entry. It breaks nothing: nobody was told that it was stored.
    """

    entries: int
    head: Anchor | None = None
    broken_at: int | None = None
    reason: str | None = None
    torn: Torn | None = None


def beside(store: Path) -> Path:
    """Where the audit log of a SQLite store lies."""
    return store.with_name(store.name + ".audit.jsonl")


def read_entries(path: Path) -> Iterator[Entry]:
    """The file's entries, in order, as they stand there: `verify` says whether they belong there. A torn line is left.

    Raises:
        NotFound: There is no file.
        StorageError: A line is no entry, or the file cannot be read (`storage_read_failed`).
    """
    for line in _lines(path):
        if not isinstance(line, Torn):
            yield decode_entry(line)


def examine(path: Path, anchor: Anchor | None = None) -> Finding:
    """What is in the file, and whether its chain is whole. Memory does not grow with the file.

    Raises:
        NotFound: There is no file.
        StorageError: It cannot be read (`storage_read_failed`).
    """
    return scan(path, anchor)[0]


def scan(path: Path, anchor: Anchor | None = None) -> tuple[Finding, Entry | None]:
    """What `examine` finds, and the head as a whole entry."""
    head: Entry | None = None
    torn: Torn | None = None
    number = 0
    for line in _lines(path):
        if isinstance(line, Torn):
            torn = line
            break
        number += 1
        try:
            entry = decode_entry(line)
        except StorageError:
            return _broken(number, head, "cannot be read"), head
        if verify([entry], previous=head) is not None:
            return _broken(number, head, "does not follow from the one before it, or was changed"), head
        if anchor is not None and anchor.number == number and anchor.hash != entry.hash:
            return _broken(number, head, "is not the one that the anchor names"), head
        head = entry
    if anchor is not None and anchor.number > number:
        return _broken(number + 1, head, f"is missing: the anchor names entry {anchor.number}"), head
    return Finding(entries=number, head=None if head is None else Anchor.of(head), torn=torn), head


def _broken(number: int, head: Entry | None, reason: str) -> Finding:
    kept = None if head is None else Anchor.of(head)
    return Finding(entries=number - 1, head=kept, broken_at=number, reason=reason)


def _lines(path: Path) -> Iterator[bytes | Torn]:
    """The file's lines without their newlines; a last one that has none comes as `Torn`."""
    try:
        with path.open("rb") as file:
            while line := file.readline(_MAX_LINE):
                if line.endswith(b"\n"):
                    yield line[:-1]
                elif len(line) < _MAX_LINE:
                    yield Torn(bytes=len(line), sha256=sha256(line).hexdigest())
                else:
                    raise StorageError(f"{path} has a line that is too long to be an audit entry; nothing was changed.",
                                       code="storage_read_failed", details={"path": str(path)})  # fmt: skip
    except FileNotFoundError as error:
        raise NotFound(f"There is no audit log at {path}.", details={"path": str(path)}) from error
    except OSError as error:
        raise StorageError(
            f"The audit log {path} cannot be read: {error.strerror}.",
            code="storage_read_failed",
            details={"path": str(path)},
        ) from error

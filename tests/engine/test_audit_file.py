"""The audit log as a file: one writer, nothing half-written, no change unnoticed. Both audit logs keep one contract."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import anyio
import pytest

from agentkeel.adapters.audit import FileAudit, Finding, MemoryAudit, Torn, beside, examine, read_entries
from agentkeel.core.audit import Anchor, Entry, chain, encode_entry
from agentkeel.errors import NotFound, SequenceConflict, StorageError, StoreFull, StoreOwned, StoreUnavailable
from agentkeel.ports.audit import AuditLog

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def some(count: int, before: Entry | None = None, actor: str = "ann") -> list[Entry]:
    entries: list[Entry] = []
    for _ in range(count):
        before = chain(before, at=NOON, actor=actor, action="session.deleted", subject="ses_1", details={"a": "é"})
        entries.append(before)
    return entries


async def of(log: AuditLog) -> list[Entry]:
    return [entry async for entry in log.entries()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "audit.jsonl"


@pytest.fixture
async def file(path: Path) -> AsyncIterator[FileAudit]:
    log = await FileAudit.open(path)
    yield log
    await log.aclose()


# -- what every audit log promises ------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "file"])
async def log(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[AuditLog]:
    made: AuditLog = MemoryAudit() if request.param == "memory" else await FileAudit.open(path)
    yield made
    await made.aclose()


async def test_entries_are_read_as_they_were_appended(log: AuditLog) -> None:
    assert (log.head, await of(log)) == (None, [])
    first = some(2)
    await log.append(first)
    await log.append([])
    more = some(1, first[-1])
    await log.append(more)
    assert await of(log) == first + more
    assert log.head == more[-1]


@pytest.mark.parametrize("wrong", [lambda two: two[1:], lambda two: [two[1], two[0]], lambda two: [two[0], two[0]]])
async def test_entries_that_do_not_follow_are_refused_whole(
    log: AuditLog, wrong: Callable[[list[Entry]], list[Entry]]
) -> None:
    with pytest.raises(SequenceConflict):
        await log.append(wrong(some(2)))
    assert await of(log) == []
    await log.append(some(2))
    with pytest.raises(SequenceConflict):
        await log.append(some(1))
    assert len(await of(log)) == 2


# -- the file ---------------------------------------------------------------------------------------------------------


async def test_the_file_is_its_owners_alone_and_so_is_a_folder_made_for_it(file: FileAudit, path: Path) -> None:
    await file.append(some(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_another_opening_goes_on_with_the_chain(file: FileAudit, path: Path) -> None:
    entries = some(3)
    await file.append(entries[:2])
    await file.aclose()
    again = await FileAudit.open(path)
    try:
        assert (again.head, again.torn) == (entries[1], None)
        await again.append(entries[2:])
    finally:
        await again.aclose()
    assert list(read_entries(path)) == entries
    assert examine(path, Anchor.of(entries[1])) == Finding(entries=3, head=Anchor.of(entries[2]))


async def test_pages_of_entries_are_read_without_a_gap(file: FileAudit) -> None:
    entries = some(2500)
    await file.append(entries)
    assert await of(file) == entries


async def test_a_second_writer_is_refused_and_a_reader_is_not(file: FileAudit, path: Path) -> None:
    entries = some(1)
    await file.append(entries)
    with pytest.raises(StoreOwned, match="another manager"):
        await FileAudit.open(path)
    program = (
        "import sys, anyio; from pathlib import Path; from agentkeel.adapters.audit import FileAudit, examine\n"
        "from agentkeel.errors import StoreOwned\n"
        "path = Path(sys.argv[1]); assert examine(path).entries == 1\n"
        "try: anyio.run(FileAudit.open, path)\n"
        "except StoreOwned: print('refused')\n"
    )
    done = await anyio.run_process([sys.executable, "-c", program, str(path)])
    assert done.stdout == b"refused\n"
    await file.append(some(1, entries[-1]))
    await file.aclose()
    await (await FileAudit.open(path)).aclose()


async def test_the_lock_of_a_killed_writer_is_free_and_its_entries_are_there(path: Path) -> None:
    program = (
        "import os, signal, sys, anyio; from pathlib import Path\n"
        "from agentkeel.adapters.audit import FileAudit; from agentkeel.core.audit import decode_entry\n"
        "async def main():\n"
        "    log = await FileAudit.open(Path(sys.argv[1]))\n"
        "    await log.append([decode_entry(line) for line in sys.stdin.buffer.read().splitlines()])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "anyio.run(main)\n"
    )
    entries = some(2)
    lines = b"\n".join(encode_entry(entry) for entry in entries)
    done = subprocess.run([sys.executable, "-c", program, str(path)], input=lines, check=False, timeout=60)
    assert done.returncode == -9
    log = await FileAudit.open(path)
    try:
        assert log.head == entries[-1]
    finally:
        await log.aclose()


@pytest.mark.parametrize("kept", [1, 40, -1])
async def test_a_torn_last_line_is_reported_cut_off_and_the_chain_goes_on(path: Path, kept: int) -> None:
    entries = some(3)
    half = encode_entry(entries[2])[:kept]
    path.parent.mkdir()
    path.write_bytes(encode_entry(entries[0]) + b"\n" + encode_entry(entries[1]) + b"\n" + half)
    torn = Torn(bytes=len(half), sha256=sha256(half).hexdigest())
    assert examine(path) == Finding(entries=2, head=Anchor.of(entries[1]), torn=torn)
    assert list(read_entries(path)) == entries[:2]
    log = await FileAudit.open(path)
    try:
        assert (log.torn, log.head) == (torn, entries[1])
        await log.append(entries[2:])
    finally:
        await log.aclose()
    assert examine(path) == Finding(entries=3, head=Anchor.of(entries[2]))


@pytest.mark.parametrize(
    ("change", "broken_at", "reason"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"ann", b"bob"), lines[2]], 2, "changed"),
        (lambda lines: [lines[0], lines[2]], 2, "follow"),
        (lambda lines: [lines[1], lines[0], lines[2]], 1, "follow"),
        (lambda lines: [lines[0], lines[0], lines[1], lines[2]], 2, "follow"),
        (lambda lines: [lines[0], lines[1], lines[2][:30]], 3, "read"),
        (lambda lines: [lines[0], b"", lines[1], lines[2]], 2, "read"),
    ],
)
async def test_a_file_that_was_changed_says_where_and_is_not_written_any_more(
    path: Path, change: Callable[[list[bytes]], list[bytes]], broken_at: int, reason: str
) -> None:
    path.parent.mkdir()
    changed = b"".join(line + b"\n" for line in change([encode_entry(entry) for entry in some(3)]))
    path.write_bytes(changed)
    finding = examine(path)
    assert (finding.broken_at, finding.entries) == (broken_at, broken_at - 1)
    assert reason in (finding.reason or "")
    with pytest.raises(StorageError, match="was changed"):
        await FileAudit.open(path)
    assert path.read_bytes() == changed


async def test_a_tail_that_was_cut_off_is_found_by_its_anchor(path: Path) -> None:
    entries = some(3)
    path.parent.mkdir()
    path.write_bytes(b"".join(encode_entry(entry) + b"\n" for entry in entries[:2]))
    assert examine(path).broken_at is None
    cut = examine(path, Anchor.of(entries[2]))
    assert (cut.broken_at, cut.reason) == (3, "is missing: the anchor names entry 3")
    forged = some(3, actor="mallory")
    path.write_bytes(b"".join(encode_entry(entry) + b"\n" for entry in forged))
    assert examine(path).broken_at is None
    assert examine(path, Anchor.of(entries[2])).broken_at == 3


@pytest.mark.parametrize("how", ["appended", "cut", "replaced", "removed"])
async def test_a_file_that_is_changed_under_its_writer_takes_nothing_more(
    file: FileAudit, path: Path, how: str
) -> None:
    entries = some(2)
    await file.append(entries[:1])
    match how:
        case "appended":
            path.write_bytes(path.read_bytes() + b"x\n")
        case "cut":
            path.write_bytes(b"")
        case "replaced":
            path.rename(path.with_suffix(".old"))
            path.write_bytes(b"")
        case _:
            path.unlink()
    with pytest.raises(StorageError, match=r"taken away|somebody else"):
        await file.append(entries[1:])
    assert file.head == entries[0]


async def test_a_write_that_fails_half_way_leaves_the_file_as_it_was(
    file: FileAudit, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = some(2)
    await file.append(entries[:1])
    before, real = path.read_bytes(), os.write
    room = [10]

    def full(descriptor: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[: room.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StoreFull):
            await file.append(entries[1:])
    assert path.read_bytes() == before
    await file.append(entries[1:])
    assert list(read_entries(path)) == entries


async def test_after_a_failed_sync_nothing_is_believed_until_it_is_opened_again(
    file: FileAudit, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(StoreUnavailable, match="unknown"):
            await file.append(some(1))
    with pytest.raises(StoreUnavailable, match="open it again"):
        await file.append(some(1))
    await file.aclose()
    again = await FileAudit.open(path)
    assert again.head == some(1)[0]
    await again.aclose()


async def test_a_closed_log_takes_nothing(file: FileAudit) -> None:
    await file.aclose()
    await file.aclose()
    with pytest.raises(StoreUnavailable, match="closed"):
        await file.append(some(1))


async def test_a_folder_a_link_or_a_pipe_is_no_audit_log(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be an audit log"):
        await FileAudit.open(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "else.jsonl")
    with pytest.raises(StorageError, match="cannot be an audit log"):
        await FileAudit.open(tmp_path / "link")
    assert not (tmp_path / "else.jsonl").exists()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="no regular file"):
        await FileAudit.open(tmp_path / "pipe")


def test_no_file_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no audit log"):
        examine(tmp_path / "none")


def test_the_log_of_a_store_lies_beside_it(tmp_path: Path) -> None:
    assert beside(tmp_path / "log.db") == tmp_path / "log.db.audit.jsonl"

"""What a failing disk may do to a store: nothing that was acknowledged is lost, and nobody is told a lie."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from agentkeel.adapters.stores.sqlite import SqliteStore
from agentkeel.core import events as ev
from agentkeel.core.codec import kind_of
from agentkeel.core.events import Draft, Event
from agentkeel.core.ids import RunId, SessionId
from agentkeel.errors import Fenced, StorageError, StoreFull, StoreUnavailable

pytestmark = pytest.mark.anyio

S = SessionId("ses_1")
_numbers = count()


class FaultyDisk(apsw.VFS):
    """The system's disk, whose every operation can be counted, and made to fail from the Nth on, once or for good."""

    def __init__(self) -> None:
        self.name = f"faulty-{next(_numbers)}"
        self.calls: list[tuple[str, str]] = []
        self._kinds: frozenset[str] = frozenset()
        self._after = 0
        self._error: type[apsw.Error] = apsw.IOError
        self._once = True
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return _File(self, name, flags)

    def fail(self, *kinds: str, error: type[apsw.Error], after: int = 0, once: bool = True) -> None:
        """The operation of these kinds that comes after so many others fails."""
        self._kinds, self._after, self._error, self._once = frozenset(kinds), after, error, once

    def heal(self) -> None:
        """Nothing fails any more."""
        self._kinds = frozenset()

    @property
    def failed(self) -> bool:
        """Whether the fault has struck."""
        return self._after < 0

    def called(self, kind: str, file: str) -> None:
        self.calls.append((kind, file))
        if kind not in self._kinds:
            return
        self._after -= 1
        if self._after == -1 or (self._after < 0 and not self._once):
            raise self._error(f"{kind} fails, as it was told to")


class _File(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        path = name if isinstance(name, str) or name is None else name.filename()
        self._disk = disk
        self._kind = "wal" if path and path.endswith("-wal") else "db"
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.called("write", self._kind)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.called("sync", self._kind)
        super().xSync(flags)

    def xTruncate(self, size: int) -> None:
        self._disk.called("truncate", self._kind)
        super().xTruncate(size)


@contextmanager
def faulty_disk() -> Iterator[FaultyDisk]:
    """A disk that can fail, known to SQLite by its name while the block lasts."""
    disk = FaultyDisk()
    yield disk
    disk.unregister()


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    with faulty_disk() as disk:
        yield disk


def said(text: str, **envelope: Any) -> Draft:
    return Draft(data=ev.MessageReceived(content=text), **envelope)


async def started(store: SqliteStore) -> None:
    await store.append(S, [Draft(data=ev.SessionCreated(agent_id="a")), Draft(data=ev.SessionStarted())])


def texts(events: Any) -> list[str]:
    return [event.data.content for event in events if isinstance(event.data, ev.MessageReceived)]


def integrity(path: Path) -> str:
    db = apsw.Connection(str(path))
    try:
        return str(db.execute("PRAGMA integrity_check").fetchall()[0][0])
    finally:
        db.close()


async def append_through_faults(path: Path, disk: FaultyDisk, rounds: int) -> tuple[list[Event], int]:
    """Appends with keys, each repeated until it is acknowledged; what was acknowledged, and how often it failed."""
    acked: list[Event] = []
    failures = 0
    async with await SqliteStore.open(path, vfs=disk.name) as store:
        await started(store)
        for n in range(rounds):
            drafts = [said(f"{n}.{part} " + "x" * 900, key=f"{n}.{part}") for part in range(6)]
            while True:
                try:
                    acked += (await store.append(S, drafts)).events
                    break
                except (StoreUnavailable, StoreFull):
                    failures += 1
                    assert failures < 20
    return acked, failures


@pytest.mark.parametrize("kind", ["write", "sync"])
@pytest.mark.parametrize("error", [apsw.IOError, apsw.FullError])
async def test_a_fault_at_any_operation_loses_nothing_that_was_acknowledged(
    tmp_path: Path, disk: FaultyDisk, kind: str, error: type[apsw.Error]
) -> None:
    after, seen = 0, 0
    while True:
        path = tmp_path / f"{after}.db"
        disk.fail(kind, error=error, after=after)
        try:
            acked, failures = await append_through_faults(path, disk, 8)
        except StorageError:
            acked, failures = [], 1  # the fault struck while the store was opened or closed
        struck = disk.failed
        disk.heal()
        seen += failures
        if path.stat().st_size:
            assert integrity(path) == "ok"
        if acked:
            async with await SqliteStore.open(path) as store:
                log = await store.read(S)
                assert [event.sequence for event in log] == list(range(1, 51))
                assert list(log[2:]) == acked, "each batch once, in order, whatever was retried"
        if not struck:
            break
        after += 1 + after // 6
    assert after > 3
    assert seen > 0


async def test_a_full_disk_refuses_the_batch_and_keeps_the_log(tmp_path: Path, disk: FaultyDisk) -> None:
    async with await SqliteStore.open(tmp_path / "log.db", vfs=disk.name) as store:
        await started(store)
        await store.append(S, [said("before")])
        disk.fail("write", error=apsw.FullError, once=False)
        for _ in range(3):
            with pytest.raises(StoreFull) as caught:
                await store.append(S, [said("during", key="k")])
            assert caught.value.code == "store_full"
            assert texts(await store.read(S)) == ["before"]
        disk.heal()
        await store.append(S, [said("during", key="k")])
        assert texts(await store.read(S)) == ["before", "during"]


async def test_a_store_on_a_full_file_system_is_read_and_says_why_it_cannot_be_owned(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs a privilege")
    try:
        async with await SqliteStore.open(small / "log.db") as store:
            await started(store)
            await store.append(S, [said("kept")])
        ballast = small / "ballast"
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(bytes(1_000_000))
        async with await SqliteStore.open(small / "log.db", read_only=True) as store:
            assert texts(await store.read(S)) == ["kept"]
        with pytest.raises(StoreFull):
            await SqliteStore.open(small / "other.db")
        ballast.unlink()
        for name in ("log.db", "other.db"):  # What failed holds no lock.
            async with await SqliteStore.open(small / name):
                pass
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


async def test_a_full_file_system_refuses_the_batch_and_keeps_the_log(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs a privilege")
    try:
        store = await SqliteStore.open(small / "log.db")
        await started(store)
        kept = 0
        full: StoreFull | None = None
        while full is None:
            try:
                await store.append(S, [said("x" * 5000)])
                kept += 1
            except StoreFull as error:
                full = error
        assert kept > 10
        assert len(texts(await store.read(S))) == kept
        with pytest.raises(StoreFull):
            await store.append(S, [said("y" * 5000)])
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        await store.append(S, [said("space again")])
        assert texts(await store.read(S))[-1] == "space again"
        assert await store.head(S) == kept + 3
        await store.aclose()
        assert integrity(small / "log.db") == "ok"
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


@pytest.mark.parametrize("read_before", [True, False])
async def test_after_a_failed_sync_the_whole_log_is_written_again_before_anything_is_promised(
    tmp_path: Path, disk: FaultyDisk, read_before: bool
) -> None:
    async with await SqliteStore.open(tmp_path / "log.db", vfs=disk.name) as store:
        await started(store)
        if read_before:
            await store.read(S)
        disk.fail("sync", error=apsw.IOError)
        disk.calls.clear()
        with pytest.raises(StoreUnavailable) as caught:
            await store.append(S, [said("lost or not", key="k")])
        assert caught.value.retry == "same"
        await store.append(S, [said("lost or not", key="k")])
        synced = [file for kind, file in disk.calls if kind == "sync"]
        assert synced[0] == "wal", "the one that failed"
        assert "db" in synced[1:], "the database file was synced, not only the log whose sync failed"
        assert texts(await store.read(S)) == ["lost or not"]


async def test_every_full_append_is_synced_and_a_quick_one_is_not(tmp_path: Path, disk: FaultyDisk) -> None:
    async with await SqliteStore.open(tmp_path / "log.db", vfs=disk.name) as store:
        await started(store)
        for _ in range(3):
            disk.calls.clear()
            assert (await store.append(S, [said("quick")], durability="process")).durability == "process"
            assert ("sync", "wal") not in disk.calls
            disk.calls.clear()
            assert (await store.append(S, [said("full")])).durability == "full"
            assert ("sync", "wal") in disk.calls


async def test_callers_that_wait_together_share_a_sync(tmp_path: Path, disk: FaultyDisk) -> None:
    async with await SqliteStore.open(tmp_path / "log.db", vfs=disk.name) as store:
        await started(store)
        disk.calls.clear()
        async with anyio.create_task_group() as group:
            for n in range(400):
                group.start_soon(store.append, S, [said(str(n))])
        assert await store.head(S) == 402
        assert disk.calls.count(("sync", "wal")) < 40


async def test_a_run_whose_end_could_not_be_stored_is_still_claimed(tmp_path: Path, disk: FaultyDisk) -> None:
    async with await SqliteStore.open(tmp_path / "log.db", vfs=disk.name) as store:
        await started(store)
        run = RunId("run_1")
        await store.append(S, [Draft(data=ev.RunQueued(), run_id=run)])
        fence = await store.claim(run, owner="me", ttl=60)
        disk.fail("write", error=apsw.FullError)
        with pytest.raises(StoreFull):
            await store.append(S, [Draft(data=ev.RunCancelled(), run_id=run)], fence=fence)
        with pytest.raises(Fenced):
            await store.claim(run, owner="other", ttl=60)
        await store.append(S, [Draft(data=ev.RunCancelled(), run_id=run)], fence=fence)


async def test_the_retry_of_a_quick_append_at_full_durability_is_synced(tmp_path: Path, disk: FaultyDisk) -> None:
    async with await SqliteStore.open(tmp_path / "log.db", vfs=disk.name) as store:
        await started(store)
        await store.append(S, [said("x", key="k")], durability="process")
        disk.calls.clear()
        again = await store.append(S, [said("x", key="k")], durability="full")
        assert again.durability == "full"
        assert ("sync", "wal") in disk.calls, "nothing new to store, and still a promise to keep"
        disk.calls.clear()
        await store.append(S, [said("x", key="k")], durability="full")
        assert ("sync", "wal") not in disk.calls, "it is durable already"


async def test_a_log_file_cut_anywhere_is_an_earlier_log(tmp_path: Path) -> None:
    """Cut at each frame's start and in its middle, as a power cut may leave it."""
    path, wal = tmp_path / "log.db", tmp_path / "log.db-wal"
    store = await SqliteStore.open(path)
    await started(store)
    for n in range(12):
        await store.append(S, [said(f"{n}.{part}" + "x" * 700) for part in range(3)])
    whole = await store.read(S)
    shutil.copy(path, tmp_path / "base.db")
    shutil.copy(wal, tmp_path / "base.wal")
    await store.aclose()
    size, heads = (tmp_path / "base.wal").stat().st_size, []
    frame = 4096 + 24
    for cut in [*range(32, size, frame), *range(32 + frame // 2, size, frame), 0, 16, size - 1]:
        trial = tmp_path / f"cut-{cut}.db"
        shutil.copy(tmp_path / "base.db", trial)
        trial.with_name(trial.name + "-wal").write_bytes((tmp_path / "base.wal").read_bytes()[:cut])
        async with await SqliteStore.open(trial) as again:
            sessions = await again.sessions()
            log = await again.read(S) if sessions else []
            assert list(log) == list(whole[: len(log)])
            assert len(log) in {0, *range(2, 39, 3)}, "no batch in halves"
            heads.append(len(log))
            if sessions:
                (event,) = (await again.append(S, [said("goes on")])).events
                assert event.sequence == len(log) + 1
        assert integrity(trial) == "ok"
    assert len(set(heads)) > 8


@pytest.mark.parametrize(
    "damage",
    [
        "body = CAST(substr(body, 1, 12) AS BLOB)",
        "body = CAST(replace(CAST(body AS TEXT), 'second', 'sekond') AS BLOB)",
        "body = x'ff00'",
        "crc = crc + 1",
        "extra = x'7b'",
        "type = 'session_created'",
    ],
)
async def test_a_damaged_event_keeps_its_place_and_its_neighbours(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "log.db"
    async with await SqliteStore.open(path) as store:
        await started(store)
        await store.append(S, [said("first"), said("second"), said("third")])
    db = apsw.Connection(str(path))
    db.execute(f"UPDATE events SET {damage} WHERE sequence = 4")
    db.close()
    async with await SqliteStore.open(path) as store:
        events = await store.read(S)
        assert [event.sequence for event in events] == [1, 2, 3, 4, 5]
        assert texts(events) == ["first", "third"]
        damaged = events[3].data
        assert isinstance(damaged, ev.Unknown)
        assert kind_of(damaged) == "corrupt"
        assert b'"error"' in bytes(damaged.body)
        assert (await store.append(S, [said("fourth")])).events[0].sequence == 6


async def test_a_damaged_file_is_found_at_the_opening_after_a_crash(tmp_path: Path) -> None:
    path, copy = tmp_path / "log.db", tmp_path / "copy.db"
    store = await SqliteStore.open(path)
    await started(store)
    await store.append(S, [said("x" * 500) for _ in range(200)])
    await store.aclose()
    shutil.copy(path, copy)
    db = apsw.Connection(str(copy))
    root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'events_by_place'").fetchall()[0][0]
    db.execute("UPDATE owner SET clean = 0")
    db.close()
    with copy.open("r+b") as file:
        file.seek((int(str(root)) - 1) * 4096 + 8)
        file.write(b"\xff" * 64)
    with pytest.raises(StorageError) as caught:
        await SqliteStore.open(copy)
    assert caught.value.code == "storage_read_failed"
    assert "damaged" in caught.value.message


async def test_another_program_that_holds_the_lock_makes_appends_fail_and_not_vanish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentkeel.adapters.stores.sqlite.ledger.BUSY_MS", 50)
    path = tmp_path / "log.db"
    async with await SqliteStore.open(path) as store:
        await started(store)
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable) as caught:
            await store.append(S, [said("x", key="k")])
        assert "Another program" in caught.value.message
        assert await store.head(S) == 2
        other.execute("ROLLBACK")
        other.close()
        await store.append(S, [said("x", key="k")])
        assert texts(await store.read(S)) == ["x"]


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_taken_away_under_the_store_is_noticed(tmp_path: Path, replaced: bool) -> None:
    path = tmp_path / "log.db"
    store = await SqliteStore.open(path)
    await started(store)
    path.rename(tmp_path / "taken.db")
    if replaced:
        path.touch()
    for _ in range(2):
        with pytest.raises(StorageError) as caught:
            await store.append(S, [said("into nowhere")])
        assert "removed or replaced" in caught.value.message
    path.unlink(missing_ok=True)
    (tmp_path / "taken.db").rename(path)
    await store.append(S, [said("back again")])
    assert texts(await store.read(S)) == ["back again"]
    await store.aclose()

"""Which files can be a store, who may read them, and what is said of those that cannot."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Any

import apsw
import pytest

from agentkeel.adapters.stores.sqlite import SqliteStore
from agentkeel.adapters.stores.sqlite import schema as schemas
from agentkeel.adapters.stores.sqlite.faults import check_version
from agentkeel.adapters.stores.sqlite.files import filesystem_of, is_network
from agentkeel.adapters.stores.sqlite.sql import Migration, migrations
from agentkeel.core import events as ev
from agentkeel.core.events import Draft
from agentkeel.core.ids import SessionId
from agentkeel.errors import NotFound, StateError, StorageError, StoreIncompatible

pytestmark = pytest.mark.anyio

S = SessionId("ses_1")


async def started(store: SqliteStore) -> None:
    await store.append(S, [Draft(data=ev.SessionCreated(agent_id="a")), Draft(data=ev.SessionStarted())])


async def made(path: Path) -> Path:
    async with await SqliteStore.open(path) as store:
        await started(store)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_new_store_and_its_folder_are_its_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "agentkeel" / "log.db"
    umask = os.umask(0)
    try:
        async with await SqliteStore.open(path) as store:
            await started(store)
            await store.read(S)
            files = sorted(path.parent.iterdir())
            assert {file.name for file in files} == {"log.db", "log.db-wal", "log.db-shm", "log.db.lock"}
            assert {mode(file) for file in files} == {0o600}
    finally:
        os.umask(umask)
    assert mode(path.parent) == 0o700


async def test_a_closed_store_is_one_file_and_an_empty_lock(tmp_path: Path) -> None:
    path = await made(tmp_path / "log.db")
    assert {file.name for file in tmp_path.iterdir()} == {"log.db", "log.db.lock"}
    assert path.read_bytes()[:15] == b"SQLite format 3"


@pytest.mark.parametrize("content", [b"Dear diary,\n", b"x", b"SQLite format 2\x00" + b"\x00" * 100])
@pytest.mark.parametrize("read_only", [False, True])
async def test_a_file_that_is_no_database_is_refused_and_not_touched(
    tmp_path: Path, content: bytes, read_only: bool
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StoreIncompatible) as caught:
        await SqliteStore.open(path, read_only=read_only)
    assert "not even a SQLite database" in caught.value.message
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("read_only", [False, True])
async def test_the_database_of_another_program_is_refused_and_not_touched(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE sessions (id TEXT)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreIncompatible) as caught:
        await SqliteStore.open(path, read_only=read_only)
    assert "another program" in caught.value.message
    assert path.read_bytes() == before


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.touch()
    await made(path)
    async with await SqliteStore.open(path, read_only=True) as store:
        assert [state.id for state in await store.sessions()] == [S]


async def test_a_folder_is_no_store(tmp_path: Path) -> None:
    for read_only in (False, True):
        with pytest.raises(StorageError) as caught:
            await SqliteStore.open(tmp_path, read_only=read_only)
        assert "it is a folder" in caught.value.message


async def test_a_file_in_the_way_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught:
        await SqliteStore.open(tmp_path / "file" / "log.db")
    assert "cannot be a store" in caught.value.message


async def test_there_is_nothing_to_read_where_no_store_is(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await SqliteStore.open(tmp_path / "sub" / "log.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


class AsNobody:
    """This process without its privileges, if it has any."""

    def __enter__(self) -> None:
        self._root = os.geteuid() == 0
        if self._root:
            os.seteuid(65534)

    def __exit__(self, *_: object) -> None:
        if self._root:
            os.seteuid(0)


@pytest.fixture
def sealed_folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder that lets itself be read and not written, by anybody."""
    folder = Path(os.path.realpath("/tmp")) / f"agentkeel-sealed-{os.getpid()}"
    folder.mkdir(mode=0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


async def test_a_read_only_folder_can_be_read_and_says_why_it_cannot_be_owned(sealed_folder: Path) -> None:
    path = await made(sealed_folder / "log.db")
    for file in sealed_folder.iterdir():
        file.chmod(0o444)
    sealed_folder.chmod(0o555)
    with AsNobody():
        with pytest.raises(StorageError) as caught:
            await SqliteStore.open(path)
        assert "Permission denied" in caught.value.message
        with pytest.raises(StorageError):
            await SqliteStore.open(sealed_folder / "new.db")
        async with await SqliteStore.open(path, read_only=True) as store:
            assert [event.sequence for event in await store.read(S)] == [1, 2]
            assert not (await store.info()).writable


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    path = await made(tmp_path / "log.db")
    async with await SqliteStore.open(path, read_only=True) as store:
        attempts = [
            store.append(S, [Draft(data=ev.SessionIdle())]),
            store.delete_session(S),
            store.renew("me", ttl=1),
            store.orphans("me"),
        ]
        for attempt in attempts:
            with pytest.raises(StateError) as caught:
                await attempt
            assert "reading only" in caught.value.message


async def test_a_store_of_a_newer_version_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = await made(tmp_path / "log.db")
    db = apsw.Connection(str(path))
    db.execute("PRAGMA user_version = 99")
    db.close()
    for read_only in (False, True):
        with pytest.raises(StoreIncompatible) as caught:
            await SqliteStore.open(path, read_only=read_only)
        assert caught.value.code == "store_incompatible"
        assert "upgrade agentkeel" in caught.value.message


async def test_an_older_store_is_lifted_when_it_is_owned_and_refused_to_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await made(tmp_path / "log.db")
    later = Migration(2, "later", "CREATE TABLE later (x) STRICT", "c")
    later = later._replace(text="CREATE TABLE later (x INTEGER) STRICT")
    monkeypatch.setattr(schemas, "migrations", lambda: (*migrations(), later))
    with pytest.raises(StoreIncompatible) as caught:
        await SqliteStore.open(path, read_only=True)
    assert caught.value.code == "migration_required"
    async with await SqliteStore.open(path) as store:
        assert (await store.info()).schema == 2
        assert [event.sequence for event in await store.read(S)] == [1, 2]
    async with await SqliteStore.open(path, read_only=True) as store:
        assert await store.head(S) == 2


async def test_a_migration_that_fails_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await made(tmp_path / "log.db")
    broken = Migration(2, "broken", "CREATE TABLE later (x INTEGER) STRICT; DROP TABLE nothing", "c")
    with monkeypatch.context() as patch:
        patch.setattr(schemas, "migrations", lambda: (*migrations(), broken))
        with pytest.raises(StorageError):
            await SqliteStore.open(path)
    async with await SqliteStore.open(path) as store:
        assert (await store.info()).schema == 1
        assert await store.head(S) == 2


async def test_a_store_made_by_unreleased_code_is_refused(tmp_path: Path) -> None:
    path = await made(tmp_path / "log.db")
    db = apsw.Connection(str(path))
    db.execute("UPDATE migrations SET checksum = 'edited'")
    db.close()
    with pytest.raises(StoreIncompatible) as caught:
        await SqliteStore.open(path)
    assert "unreleased" in caught.value.message


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ("3.6.23", False),
        ("3.7.0", False),
        ("3.40.1", False),
        ("3.51.2", False),
        ("3.51.3", True),
        ("3.53.0", True),
        ("3.54.1", True),
        ("4.0.0", True),
    ],
)
async def test_a_sqlite_with_the_wal_reset_bug_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, safe: bool
) -> None:
    if safe:
        check_version(version)
        return
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: version)
    with pytest.raises(StoreIncompatible) as caught:
        await SqliteStore.open(tmp_path / "log.db")
    assert caught.value.details == {"version": version, "floor": "3.51.3"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
async def test_a_network_file_system_is_refused_unless_insisted_on(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log.db"
    with pytest.raises(StoreIncompatible) as caught:
        await SqliteStore.open(path, filesystem=lambda _: kind)
    assert kind in caught.value.message
    assert list(tmp_path.iterdir()) == []
    async with await SqliteStore.open(path, filesystem=lambda _: kind, allow_network=True) as store:
        await started(store)
        (warning,) = (await store.info()).warnings
        assert kind in warning
    async with await SqliteStore.open(path, filesystem=lambda _: kind, read_only=True) as store:
        assert await store.head(S) == 2


async def test_a_local_file_system_is_told_by_its_name(tmp_path: Path) -> None:
    kind = filesystem_of(tmp_path)
    assert kind
    assert not is_network(kind)
    assert filesystem_of(Path("/proc/self")) == "proc"
    async with await SqliteStore.open(tmp_path / "log.db") as store:
        assert (await store.info()).warnings == ()


async def test_a_path_may_have_any_characters(tmp_path: Path) -> None:
    path = tmp_path / "what?mode=memory #1 ü %41.db"
    await made(path)
    assert path.exists()
    async with await SqliteStore.open(path, read_only=True) as store:
        assert await store.head(S) == 2

"""A backup is a store like any other, as the log was at one moment; or nothing at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest
from anyio import from_thread

from agentkeel.adapters.stores.sqlite import SqliteStore, backup
from agentkeel.adapters.stores.sqlite import schema as schemas
from agentkeel.adapters.stores.sqlite.sql import Migration, migrations, pragma
from agentkeel.core import events as ev
from agentkeel.core.events import Draft
from agentkeel.core.ids import SessionId
from agentkeel.errors import StorageError, StoreFull, StoreIncompatible, ValidationError

pytestmark = pytest.mark.anyio

S = SessionId("ses_1")


def said(text: str) -> Draft:
    return Draft(data=ev.MessageReceived(content=text))


async def filled(path: Path, events: int = 500) -> Path:
    async with await SqliteStore.open(path) as store:
        await store.append(S, [Draft(data=ev.SessionCreated(agent_id="a")), Draft(data=ev.SessionStarted())])
        await store.append(S, [said("x" * 1000) for _ in range(events - 2)])
    return path


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


async def test_what_is_appended_while_the_copy_is_made_is_not_in_it_and_does_not_hold_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = await filled(tmp_path / "log.db"), tmp_path / "copy.db"
    async with await SqliteStore.open(path) as store:
        appended = 0

        class Between:
            """Before each page is copied, an event is appended."""

            @staticmethod
            def check_cancelled() -> None:
                nonlocal appended
                appended += 1
                assert appended < 5000, "the copy begins again with every append"
                from_thread.run(store.append, S, [said("more")])

        monkeypatch.setattr(backup, "PAGES_PER_STEP", 1)
        monkeypatch.setattr(backup, "from_thread", Between)
        assert await store.backup(target) == target.stat().st_size
        assert await store.head(S) == 500 + appended
        assert appended > 100
    async with await SqliteStore.open(target) as copied:
        assert [event.sequence for event in await copied.read(S, limit=5000)] == list(range(1, 501))
        assert (await copied.append(S, [said("on")])).events[0].sequence == 501


async def test_a_backup_is_one_file_and_its_owners_alone(tmp_path: Path) -> None:
    path, folder = await filled(tmp_path / "log.db"), tmp_path / "copies"
    folder.mkdir()
    umask = os.umask(0)
    try:
        async with await SqliteStore.open(path, read_only=True) as store:
            await store.backup(folder / "copy 50%?#.db")
    finally:
        os.umask(umask)
    assert names(folder) == {"copy 50%?#.db"}
    assert stat.S_IMODE((folder / "copy 50%?#.db").stat().st_mode) == 0o600


async def test_a_file_is_replaced_only_when_that_is_asked_for(tmp_path: Path) -> None:
    path, target = await filled(tmp_path / "log.db"), tmp_path / "copy.db"
    target.write_text("mine")
    async with await SqliteStore.open(path, read_only=True) as store:
        with pytest.raises(ValidationError, match="there already"):
            await store.backup(target)
        assert target.read_text() == "mine"
        await store.backup(target, replace=True)
    async with await SqliteStore.open(target, read_only=True) as copied:
        assert await copied.head(S) == 500


async def test_neither_the_store_itself_nor_one_in_use_is_replaced(tmp_path: Path) -> None:
    path = await filled(tmp_path / "log.db")
    (tmp_path / "alias.db").hardlink_to(path)
    async with await SqliteStore.open(tmp_path / "other.db") as other:
        async with await SqliteStore.open(path) as store:
            for target in (path, tmp_path / "alias.db", tmp_path):
                with pytest.raises(ValidationError, match="cannot be the backup"):
                    await store.backup(target, replace=True)
            with pytest.raises(ValidationError, match="in use"):
                await store.backup(tmp_path / "other.db", replace=True)
        assert (await other.info()).writable
    async with await SqliteStore.open(path) as store:
        assert await store.head(S) == 500


async def test_a_damaged_store_gives_no_backup_and_leaves_the_one_before(tmp_path: Path) -> None:
    path, target = await filled(tmp_path / "log.db"), tmp_path / "copy.db"
    async with await SqliteStore.open(path, read_only=True) as store:
        await store.backup(target)
    good = target.read_bytes()
    db = apsw.Connection(str(path))
    page: Any = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sessions_by_age'").fetchall()[0][0]
    size: int = pragma(db, "page_size")
    db.close()
    with path.open("rb+") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    async with await SqliteStore.open(path, read_only=True) as store:
        with pytest.raises(StorageError, match="No backup was made") as caught:
            await store.backup(target, replace=True)
    assert caught.value.code == "storage_read_failed"
    assert target.read_bytes() == good
    assert not [name for name in names(tmp_path) if name.startswith(".")]


async def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(apsw.Connection):
        """A database that may not grow: to SQLite, a full disk."""

        def __init__(self, *words: object, **options: object) -> None:
            super().__init__(*words, **options)  # type: ignore[arg-type]
            self.execute("PRAGMA max_page_count = 10")

    path, target = await filled(tmp_path / "log.db"), tmp_path / "copy.db"
    async with await SqliteStore.open(path, read_only=True) as store:
        assert await store.head(S) == 500
        monkeypatch.setattr(apsw, "Connection", Small)
        with pytest.raises(StoreFull, match="No backup was made"):
            await store.backup(target)
        assert names(tmp_path) >= {"log.db"}
        assert not [name for name in names(tmp_path) if "copy.db" in name]
        assert await store.head(S) == 500


async def test_a_caller_that_is_cancelled_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, target = await filled(tmp_path / "log.db"), tmp_path / "copy.db"
    monkeypatch.setattr(backup, "PAGES_PER_STEP", 1)
    async with await SqliteStore.open(path, read_only=True) as store:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.backup(target)
        assert scope.cancelled_caught
        assert not [name for name in names(tmp_path) if "copy.db" in name]
        assert await store.backup(target) > 0


async def test_an_older_store_can_be_backed_up_before_it_is_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = await filled(tmp_path / "log.db"), tmp_path / "copy.db"
    later = Migration(2, "later", "CREATE TABLE later (x INTEGER) STRICT", "c")
    with monkeypatch.context() as patch:
        patch.setattr(schemas, "migrations", lambda: (*migrations(), later))
        with pytest.raises(StoreIncompatible):
            await SqliteStore.open(path, read_only=True)
        async with await SqliteStore.open(path, read_only=True, older=True) as store:
            await store.backup(target)
    async with await SqliteStore.open(target, read_only=True) as copied:
        assert await copied.head(S) == 500

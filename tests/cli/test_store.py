"""`agentkeel store`: what the log is, bringing it up to date, and copies of it."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import apsw
import pytest

from agentkeel.adapters.stores.sqlite import SqliteStore
from agentkeel.adapters.stores.sqlite import schema as schemas
from agentkeel.adapters.stores.sqlite.lock import OwnerLock
from agentkeel.adapters.stores.sqlite.sql import Migration, migrations
from agentkeel.cli.store import migrate, tell_status
from agentkeel.core.ids import SessionId
from agentkeel.errors import StoreOwned
from agentkeel.testing.postgres import PostgresServer

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

S = SessionId("ses_1")
WRITER = """
import asyncio, sys
from agentkeel.adapters.stores.sqlite import SqliteStore
from agentkeel.core import events as ev
from agentkeel.core.events import Draft

async def main():
    store = await SqliteStore.open(sys.argv[1])
    await store.append("ses_1", [Draft(data=ev.SessionCreated(agent_id="a")), Draft(data=ev.SessionStarted())])
    for number in range(20000):
        await store.append("ses_1", [Draft(data=ev.MessageReceived(content="x" * 2000)) for _ in range(10)])
        if number % 50 == 49:
            print(await store.head("ses_1"), flush=True)

asyncio.run(main())
"""
LATER = Migration(2, "later", "CREATE TABLE later (x INTEGER) STRICT", "c")


def made(path: Path) -> Path:
    async def make() -> None:
        async with await SqliteStore.open(path):
            pass

    anyio.run(make)
    return path


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which writes `log.db` and says how far it is."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "log.db")], stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def reached(writer: subprocess.Popen[str]) -> int:
    assert writer.stdout is not None
    return int(writer.stdout.readline())


def test_a_log_that_is_being_written_can_be_looked_at_and_backed_up(
    cli: Cli, tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    store, copy = f"sqlite:{tmp_path / 'log.db'}", tmp_path / "copy.db"
    least = reached(writer)
    (status,) = cli.lines("store", "status", "--store", store)
    assert (status["kind"], status["location"], status["schema"]) == ("sqlite", str(tmp_path / "log.db"), 1)
    assert f"process {writer.pid} " in status["owner"]
    assert status["writable"]
    assert status["bytes"] + status["wal_bytes"] > least * 100
    done = cli.run("store", "migrate", "--store", store)
    assert (done.returncode, "Nothing was to do" in done.stdout) == (0, True)
    done = cli.run("store", "backup", str(copy), "--store", store)
    assert done.returncode == 0, done.stderr
    assert f"{copy.stat().st_size:,} bytes, checked" in done.stdout
    assert writer.poll() is None
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600

    async def sequences() -> list[int]:
        async with await SqliteStore.open(copy) as copied:
            return [event.sequence for event in await copied.read(S, limit=1_000_000)]

    found = anyio.run(sequences)
    assert len(found) >= least
    assert found == list(range(1, len(found) + 1))
    assert apsw.Connection(str(copy)).execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_file_that_is_there_is_replaced_only_by_force(cli: Cli, tmp_path: Path) -> None:
    store, copy = f"sqlite:{made(tmp_path / 'log.db')}", tmp_path / "copy.db"
    copy.write_text("mine")
    done = cli.run("store", "backup", str(copy), "--store", store)
    assert (done.returncode, done.stdout, copy.read_text()) == (2, "", "mine")
    assert "--force" in done.stderr
    assert cli.run("store", "backup", str(copy), "--store", store, "--force").returncode == 0
    assert cli.lines("store", "status", "--store", f"sqlite:{copy}")[0]["schema"] == 1


def test_a_folder_that_takes_no_file_is_told(cli: Cli, tmp_path: Path) -> None:
    store = f"sqlite:{made(tmp_path / 'log.db')}"
    done = cli.run("store", "backup", "/proc/copy.db", "--store", store)  # even root may not write there
    assert (done.returncode, "[storage_write_failed]" in done.stderr) == (1, True)
    done = cli.run("store", "backup", "nowhere/copy.db", "--store", store)
    assert (done.returncode, "its folder is not there" in done.stderr) == (2, True)
    assert list(cli.work.iterdir()) == []


@pytest.mark.parametrize("words", [["status"], ["migrate"], ["backup", "copy.db"]])
def test_where_no_store_is_none_is_made(cli: Cli, words: list[str]) -> None:
    for place in (["--store", "sqlite:none.db"], []):
        done = cli.run("store", *words, *place)
        assert (done.returncode, done.stdout) == (2, "")
        assert "There is no store at" in done.stderr
    assert list(cli.work.iterdir()) == []
    assert not cli.default_log.exists()


@pytest.mark.parametrize("words", [["status"], ["migrate"], ["backup", "copy.db"]])
def test_a_store_of_a_newer_version_is_refused(cli: Cli, tmp_path: Path, words: list[str]) -> None:
    path = made(tmp_path / "log.db")
    db = apsw.Connection(str(path))
    db.execute("PRAGMA user_version = 99")
    db.close()
    done = cli.run("store", *words, "--store", f"sqlite:{path}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "upgrade agentkeel" in done.stderr


def test_an_older_store_says_so_and_is_migrated_by_who_can_own_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(tmp_path / "log.db")
    store = f"sqlite:{path}"
    monkeypatch.setattr(schemas, "migrations", lambda: (*migrations(), LATER))
    assert tell_status(store=store, json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["migration_required"]) == (1, True)
    assert tell_status(store=store, json=False) == 1
    assert "agentkeel store migrate" in capsys.readouterr().out
    lock = OwnerLock.acquire(path, started="now")
    with pytest.raises(StoreOwned):
        migrate(store=store)
    lock.release()
    assert migrate(store=store) == 0
    assert "from schema 1 to 2" in capsys.readouterr().out
    assert migrate(store=store) == 0
    assert "Nothing was to do" in capsys.readouterr().out
    assert tell_status(store=store, json=False) == 0


def test_an_empty_file_becomes_a_store(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "log.db").touch()
    done = cli.run("store", "migrate", "--store", f"sqlite:{tmp_path / 'log.db'}")
    assert (done.returncode, "was empty" in done.stdout) == (0, True)


def test_what_is_no_file_is_backed_up_elsewhere(cli: Cli) -> None:
    done = cli.run("store", "backup", "copy.db", "--store", "postgresql://ann:secret@host/db?schema=mine")
    assert (done.returncode, "pg_dump --format=custom --schema=mine" in done.stderr) == (2, True)
    assert "secret" not in done.stderr
    assert cli.run("store", "backup", "copy.db", "--store", "memory:").returncode == 2
    assert cli.run("store", "backup", "copy.db", "--store", "paper:").returncode == 2
    assert cli.lines("store", "status", "--store", "memory:")[0]["kind"] == "memory"


def test_a_store_in_postgresql_is_made_by_migrate_and_told_by_status(cli: Cli, postgres_server: PostgresServer) -> None:
    url = postgres_server.url()
    assert cli.run("store", "status", "--store", url).returncode == 1
    done = cli.run("store", "migrate", "--store", url)
    assert (done.returncode, "is a store of schema 1 now" in done.stdout) == (0, True), done.stderr
    (status,) = cli.lines("store", "status", "--store", url)
    assert (status["kind"], status["schema"], status["bytes"]) == ("postgresql", 1, None)

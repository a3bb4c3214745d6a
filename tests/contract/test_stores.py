"""The built-in stores keep the promises of the port."""

from __future__ import annotations

from pathlib import Path

from agentkeel.adapters.stores.memory import MemoryStore
from agentkeel.adapters.stores.sqlite import SqliteStore
from agentkeel.testing.store_suite import StoreSuite


class TestMemoryStore(StoreSuite):
    durable = False

    async def make_store(self, tmp_path: Path) -> MemoryStore:
        return MemoryStore()


class TestSqliteStore(StoreSuite):
    async def make_store(self, tmp_path: Path) -> SqliteStore:
        return await SqliteStore.open(tmp_path / "log.db")

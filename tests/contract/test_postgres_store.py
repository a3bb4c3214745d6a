"""PostgreSQL keeps the promises of the port: on a connection of its own, and as a transaction pooler would have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentkeel.adapters.stores.postgres import PostgresStore
from agentkeel.testing import store_suite
from agentkeel.testing.postgres import PostgresServer


class TestPostgresStore(store_suite.StoreSuite):
    @pytest.fixture(autouse=True)
    def server(self, postgres_server: PostgresServer) -> None:
        self.url = postgres_server.url()

    async def make_store(self, tmp_path: Path) -> PostgresStore:
        return await PostgresStore.open(self.url)


class TestPostgresStoreBehindAPooler(store_suite.OwningCases):
    @pytest.fixture(autouse=True)
    def server(self, postgres_server: PostgresServer) -> None:
        self.url = postgres_server.url(statement_cache_size=0)

    async def make_store(self, tmp_path: Path) -> PostgresStore:
        return await PostgresStore.open(self.url)

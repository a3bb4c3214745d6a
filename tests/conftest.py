"""Fixtures every test may use."""

from collections.abc import Iterator

import pytest

from agentkeel.testing.postgres import PostgresServer


@pytest.fixture
def anyio_backend() -> str:
    """The engine runs on anyio's asyncio backend."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this test run's own."""
    with PostgresServer() as server:
        yield server

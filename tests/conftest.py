"""Fixtures every test may use."""

import signal
from collections.abc import Iterator

import pytest

from agentkeel.testing.postgres import PostgresServer

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background has them ignore interrupts, and every child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    """The engine runs on anyio's asyncio backend."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this test run's own."""
    with PostgresServer() as server:
        yield server

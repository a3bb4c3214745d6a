"""Fixtures every test may use."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The engine runs on anyio's asyncio backend."""
    return "asyncio"

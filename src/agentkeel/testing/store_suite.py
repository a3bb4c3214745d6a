"""The contract of `EventStore`, as tests. A backend proves itself with one factory method.

::

    class TestMyStore(StoreSuite):
        async def make_store(self, tmp_path: Path) -> EventStore:
            return await MyStore.open(tmp_path / "log")

`make_store` opens the store that belongs to `tmp_path`: called again after `aclose`, it opens the same one. A store
that forgets says `durable = False`, and the suite holds it to that. Needs pytest and anyio's plugin.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(f"agentkeel.testing.store_cases.{name}" for name in ("common", "appending", "states", "reading", "owning"))
)

from agentkeel.testing.store_cases.appending import AppendingCases  # noqa: E402 - after the rewriting is arranged
from agentkeel.testing.store_cases.owning import OwningCases  # noqa: E402
from agentkeel.testing.store_cases.reading import ReadingCases  # noqa: E402
from agentkeel.testing.store_cases.states import StateCases  # noqa: E402

__all__ = ["StoreSuite"]


class StoreSuite(AppendingCases, StateCases, ReadingCases, OwningCases):
    """Subclass it, give `make_store`, and collect. See the module."""

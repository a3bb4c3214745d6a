"""An audit log that lasts as long as its process, for tests and for stores that do not last either."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agentkeel.adapters.audit.fitting import check_fits
from agentkeel.core.audit import Entry

__all__ = ["MemoryAudit"]


class MemoryAudit:
    """`ports.audit.AuditLog` in a list."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self.damage: Mapping[str, Any] | None = None

    @property
    def head(self) -> Entry | None:
        """The last entry."""
        return self._entries[-1] if self._entries else None

    async def append(self, entries: Sequence[Entry]) -> None:
        """The entries are behind the head."""
        check_fits(entries, self.head)
        self._entries.extend(entries)

    async def entries(self) -> AsyncIterator[Entry]:
        """All entries, in order."""
        for entry in tuple(self._entries):
            yield entry

    async def aclose(self) -> None:
        """Nothing is to be done."""

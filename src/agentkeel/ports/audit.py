"""Where audit entries are kept: appended, read from the beginning, and never changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from agentkeel.core.audit import Entry

__all__ = ["AuditLog"]


class AuditLog(Protocol):
    """An append-only log of entries, written by one owner.

    It keeps entries and checks that each fits where it is put; what is an entry is not its business.
    """

    @property
    def head(self) -> Entry | None:
        """The last entry that was acknowledged; None for an empty log."""
        ...

    @property
    def damage(self) -> Mapping[str, Any] | None:
        """What the last owner's death left unfinished, and opening the log took away; None if nothing."""
        ...

    async def append(self, entries: Sequence[Entry]) -> None:
        """The entries are behind the head and survive a power cut; all of them, or none.

        Raises:
            SequenceConflict: They do not follow the head. Nothing was added; chain them anew.
            StoreFull: No space. Nothing was added.
            StorageError: The log was changed by somebody else, or cannot be written. Nothing was added.
            StoreUnavailable: The outcome is unknown. Open the log again: its head says what is there.
        """
        ...

    def entries(self) -> AsyncIterator[Entry]:
        """All entries that were acknowledged when reading began, in order.

        Raises:
            StorageError: One of them cannot be read (`storage_read_failed`).
        """
        ...

    async def aclose(self) -> None:
        """Another owner may write the log. Idempotent."""
        ...

"""Whether entries may be put behind a head: the check that every audit log makes before it writes."""

from __future__ import annotations

from collections.abc import Sequence

from agentkeel.core.audit import Entry, verify
from agentkeel.errors import SequenceConflict

__all__ = ["check_fits"]


def check_fits(entries: Sequence[Entry], head: Entry | None) -> None:
    """Say nothing if the entries follow the head and each other.

    Raises:
        SequenceConflict: One of them does not.
    """
    bad = verify(entries, previous=head)
    if bad is not None:
        at = 0 if head is None else head.number
        raise SequenceConflict(
            f"Audit entry {bad} does not follow the log, which ends at {at}. Nothing was added; chain it to the head.",
            details={"head": at, "entry": bad},
        )

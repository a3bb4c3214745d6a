"""Where runs and sessions are in their lives."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["RunStatus", "SessionStatus"]


class RunStatus(StrEnum):
    """Where a run is in its life. All but the first two are final."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


class SessionStatus(StrEnum):
    """Where a session is in its life. The last three are final."""

    PENDING = "pending"
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

"""A run in this process: what it was asked to do, and how it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import anyio
import msgspec

from agentkeel.core.content import Prompt
from agentkeel.core.ids import RunId, SessionId
from agentkeel.engine.permissions import Approver
from agentkeel.errors import Error
from agentkeel.ports.provider import PermissionMode, Provider

__all__ = ["Continuity", "Job", "RunOptions", "Stop"]

Continuity = Literal["off", "auto", "native", "replay"]


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run is started with. Times are seconds; None means no limit.

    Attributes:
        permission_mode: None leaves it to the provider, and what the agent then asks to the approver.
        timeout: From the claim of a slot to the end, whatever the agent says or does not say.
        idle_timeout: Without a word from the agent, while no permission is pending.
        permission_timeout: For the approver; then the answer is no.
        grace: From the interrupt to the kill.
    """

    model: str | None = None
    workspace: Path
    scratch: Path
    system_prompt: str | None = None
    permission_mode: PermissionMode | None = None
    continuity: Continuity = "auto"
    timeout: float | None = 3600.0
    idle_timeout: float | None = 600.0
    startup_timeout: float = 60.0
    permission_timeout: float = 300.0
    grace: float = 5.0
    correlation_id: str | None = None


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run is to end before its agent says so. The first reason stands."""

    kind: Literal["cancelled", "timeout"]
    reason: str | None = None
    deadline: str = ""
    seconds: float = 0.0


class Job:
    """One run of this process, from its place in the queue to its end."""

    def __init__(
        self,
        *,
        run_id: RunId,
        session_id: SessionId,
        provider: Provider,
        prompt: Prompt,
        options: RunOptions,
        approver: Approver | None = None,
    ) -> None:
        self.run_id = run_id
        self.session_id = session_id
        self.provider = provider
        self.prompt = prompt
        self.options = options
        self.approver = approver
        self.stop: Stop | None = None
        self.stopping = anyio.Event()
        self.ending = False
        """Its terminal event is written, or about to be."""
        self.done = anyio.Event()
        self.error: Error | None = None
        """Why the run's end could not be written; None when the log has it."""

    def request_stop(self, stop: Stop) -> bool:
        """The run was told to end, if it has not ended. The first reason stands; a later one changes nothing."""
        if self.done.is_set():
            return False
        if self.stop is None:
            self.stop = stop
            self.stopping.set()
        return True

"""An agent, as the engine sees it.

An adapter turns what the agent says into drafts of events. Only the engine says started, completed, failed or
cancelled: an adapter says `Began` and `Ended`, and the engine writes the lifecycle from that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from agentkeel.core.capabilities import Capabilities
from agentkeel.core.content import Prompt
from agentkeel.core.events import Draft
from agentkeel.core.ids import SessionId
from agentkeel.core.usage import Usage
from agentkeel.errors import Error

__all__ = [
    "Began",
    "Connection",
    "Decision",
    "Ended",
    "OpenSpec",
    "PermissionMode",
    "Probe",
    "Provider",
    "Said",
]

PermissionMode = Literal["default", "accept_edits", "plan", "full_auto", "dangerously_skip_permissions"]


class OpenSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection is opened for. It stays the same for the life of the connection.

    Attributes:
        workspace: The agent's working directory; it exists.
        scratch: A private folder of the session for sockets, spilled lines and temporary files; it exists.
        permission_mode: None leaves it to what the provider was made with.
        resume: The agent's own id of the conversation to take up, or None for a new one.
    """

    session_id: SessionId
    workspace: Path
    scratch: Path
    model: str | None = None
    permission_mode: PermissionMode | None = None
    system_prompt: str | None = None
    resume: str | None = None
    startup_timeout: float = 60.0


class Began(msgspec.Struct, frozen=True, kw_only=True):
    """The agent has taken up the prompt; first of what a turn says."""

    model: str | None = None
    provider_session_id: str | None = None
    tools: tuple[str, ...] = ()
    agent_version: str | None = None
    details: Mapping[str, Any] = {}


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The agent said that its turn is over; last of what a turn says, and nothing follows it.

    `status` is `completed` only where the agent said so explicitly. `usage` is the whole turn's, for a check of the
    deltas already drafted; None where the agent does not say. `cost_usd` is the vendor's own figure for this turn.
    """

    status: Literal["completed", "failed", "interrupted"]
    stop_reason: str | None = None
    text: str | None = None
    output: Any = None
    usage: Usage | None = None
    cost_usd: str | None = None
    turns: int | None = None
    error: Error | None = None
    provider_session_id: str | None = None


Said = Draft | Began | Ended


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to a permission request. `message` is told to the model; `interrupt` ends the turn as well."""

    allow: bool
    message: str | None = None
    interrupt: bool = False
    updated_input: Mapping[str, Any] | None = None


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an agent program without running it. `problem` says what would be refused, and the way out."""

    name: str
    installed: bool
    executable: str | None = None
    version: str | None = None
    supported: bool | None = None
    logged_in: bool | None = None
    problem: str | None = None


class Connection(Protocol):
    """One live agent: one conversation, one turn at a time."""

    @property
    def provider_session_id(self) -> str | None:
        """The agent's own id of the conversation, once it is known."""
        ...

    @property
    def process(self) -> Mapping[str, Any]:
        """Names the agent's process (pid, start_time, token), so that it can be ended after our own death. Empty where
        there is none, or none yet; then `Began.details["process"]` may have it."""
        ...

    @property
    def alive(self) -> bool:
        """Whether another prompt may be sent. False after the process ended or broke its protocol."""
        ...

    def prompt(self, prompt: Prompt) -> AsyncIterator[Sequence[Said]]:
        """One turn: a `Began`, drafts in order, one `Ended`. Each step is all that was said since the last one.

        A turn that stops without an `Ended` was cut off. Closing the iterator early does not stop the agent:
        call `interrupt`, or leave the connection.
        Raises:
            ProviderError: The agent died, broke its protocol, or cannot take the prompt; what it said before was
                yielded.
        """
        ...

    async def answer(self, request_id: str, decision: Decision) -> None:
        """The agent has its answer to a `permission_requested`. An answer to a request it withdrew does nothing."""
        ...

    async def interrupt(self) -> None:
        """The agent was told to stop its turn; the turn then ends by itself with an `Ended`. Idle: does nothing."""
        ...


class Provider(Protocol):
    """A kind of agent, configured. Cheap to make; nothing runs before `open`."""

    @property
    def name(self) -> str:
        """What routing, logs and people call it."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; see `ProviderSuite`."""
        ...

    @property
    def secrets(self) -> Collection[str]:
        """Values it hands to its agent that must never be in a log, such as keys."""
        ...

    def open(self, spec: OpenSpec) -> AbstractAsyncContextManager[Connection]:
        """A live agent for a session. On leaving, the agent and all it started are gone.

        Raises:
            ProviderUnavailable: The program is missing or cannot be started.
            ProviderAuthenticationFailed: It is not logged in.
            ProviderTimeout: It did not come up in `spec.startup_timeout` seconds.
            ValidationError: An option is not one it knows.
        """
        ...

    async def probe(self) -> Probe:
        """Whether it could be opened, without a turn, a model request or a change to the disk."""
        ...

"""The vocabulary of the product: what can happen in a session, as typed bodies in one envelope.

A `Draft` happened and has no place in the log yet; an `Event` is a draft at its place. The type of an event is the
type of its body. Names are the reference system's and ours; they are past tense and never renamed, for logs outlive
programs. A body of a kind this version does not know is kept as `Unknown`, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from agentkeel.core.ids import EventId, RunId, SessionId
from agentkeel.core.usage import Usage
from agentkeel.errors import ProviderFailure

__all__ = [
    "BODIES",
    "SCHEMA_VERSION",
    "TERMINAL_TYPES",
    "ArtifactStored",
    "AttemptFailed",
    "Body",
    "ContinuityPrepared",
    "Draft",
    "ErrorOccurred",
    "ErrorRecovered",
    "Event",
    "MessageReceived",
    "MessageSent",
    "MessageStreamed",
    "PermissionRequested",
    "PermissionResolved",
    "PolicyViolated",
    "ReasoningStreamed",
    "RouteSelected",
    "RunCancelled",
    "RunCompleted",
    "RunFailed",
    "RunInterrupted",
    "RunQueued",
    "RunStarted",
    "RunTimeout",
    "SessionCancelled",
    "SessionCompleted",
    "SessionCreated",
    "SessionFailed",
    "SessionForked",
    "SessionIdle",
    "SessionPaused",
    "SessionResumed",
    "SessionReverted",
    "SessionShared",
    "SessionStarted",
    "SessionSummarized",
    "SessionUnreverted",
    "SessionUnshared",
    "Source",
    "ThreadArchived",
    "ThreadForked",
    "ThreadResumed",
    "ThreadRolledBack",
    "ThreadStarted",
    "ThreadUnarchived",
    "TokenUsageUpdated",
    "ToolApprovalDenied",
    "ToolApprovalGranted",
    "ToolApprovalRequested",
    "ToolCallCompleted",
    "ToolCallFailed",
    "ToolCallStarted",
    "ToolKind",
    "TurnCompleted",
    "Unknown",
    "WorkspaceDiffComputed",
    "WorkspaceRestored",
    "WorkspaceSnapshotTaken",
]

SCHEMA_VERSION = 1
"""Version of the bodies this code writes. Raised when a field changes its meaning; a new optional field needs none."""

Json: TypeAlias = Any
Source = Literal["agent", "engine", "user"]
ToolKind = Literal["read", "write", "edit", "delete", "move", "search", "bash", "fetch", "task", "mcp", "other"]


class Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an event says. Fields are additive: a reader of an older version sees its defaults."""

    type: ClassVar[str] = "unknown"


# -- sessions ---------------------------------------------------------------------------------------------------


class SessionCreated(Body, frozen=True, kw_only=True):
    """A session exists. Its options are the defaults of its runs."""

    type: ClassVar[str] = "session_created"
    agent_id: str
    provider: str | None = None
    workspace: str | None = None
    system_prompt: str | None = None
    parent_session_id: SessionId | None = None
    continuity: str | None = None
    max_concurrent_runs: int = 1
    max_queued_runs: int = 100
    options: Mapping[str, Json] = {}
    metadata: Mapping[str, Json] = {}
    context: Mapping[str, Json] = {}
    tags: tuple[str, ...] = ()


class SessionStarted(Body, frozen=True, kw_only=True):
    """The session takes runs."""

    type: ClassVar[str] = "session_started"


class SessionPaused(Body, frozen=True, kw_only=True):
    """The session starts no more runs until it is resumed."""

    type: ClassVar[str] = "session_paused"


class SessionResumed(Body, frozen=True, kw_only=True):
    """The session takes runs again."""

    type: ClassVar[str] = "session_resumed"


class SessionCompleted(Body, frozen=True, kw_only=True):
    """The session ended well; it takes no more runs."""

    type: ClassVar[str] = "session_completed"


class SessionFailed(Body, frozen=True, kw_only=True):
    """The session ended badly; it takes no more runs."""

    type: ClassVar[str] = "session_failed"
    error_code: str
    error_message: str
    provider_error: ProviderFailure | None = None
    details: Mapping[str, Json] = {}


class SessionCancelled(Body, frozen=True, kw_only=True):
    """The session was called off; it takes no more runs."""

    type: ClassVar[str] = "session_cancelled"
    reason: str | None = None


class SessionIdle(Body, frozen=True, kw_only=True):
    """No run of the session is running or waiting. Written each time that becomes true."""

    type: ClassVar[str] = "session_idle"


class SessionForked(Body, frozen=True, kw_only=True):
    """Another session began from a place in this one."""

    type: ClassVar[str] = "session_forked"
    child_session_id: SessionId
    at: EventId | None = None


class SessionReverted(Body, frozen=True, kw_only=True):
    """The head of the conversation moved back. Nothing was deleted."""

    type: ClassVar[str] = "session_reverted"
    to: EventId | None = None
    selector: Mapping[str, Json] = {}


class SessionUnreverted(Body, frozen=True, kw_only=True):
    """The head is back where it was before the revert."""

    type: ClassVar[str] = "session_unreverted"
    to: EventId | None = None


class SessionShared(Body, frozen=True, kw_only=True):
    """A read-only document of the session is behind a link."""

    type: ClassVar[str] = "session_shared"
    share_id: str
    expires_at: datetime | None = None


class SessionUnshared(Body, frozen=True, kw_only=True):
    """The link leads nowhere from now on."""

    type: ClassVar[str] = "session_unshared"
    share_id: str


class SessionSummarized(Body, frozen=True, kw_only=True):
    """A summary was made; `made_by` is a provider's name, or `extract`."""

    type: ClassVar[str] = "session_summarized"
    content: str
    made_by: str


class ThreadStarted(Body, frozen=True, kw_only=True):
    """A line of conversation with a name of its own began."""

    type: ClassVar[str] = "thread_started"
    thread_id: str
    name: str | None = None
    parent_thread_id: str | None = None


class ThreadResumed(Body, frozen=True, kw_only=True):
    """The thread is the active one."""

    type: ClassVar[str] = "thread_resumed"
    thread_id: str


class ThreadForked(Body, frozen=True, kw_only=True):
    """A thread began from a place in another."""

    type: ClassVar[str] = "thread_forked"
    thread_id: str
    parent_thread_id: str
    at: EventId | None = None


class ThreadArchived(Body, frozen=True, kw_only=True):
    """The thread is out of sight."""

    type: ClassVar[str] = "thread_archived"
    thread_id: str


class ThreadUnarchived(Body, frozen=True, kw_only=True):
    """The thread is in sight again."""

    type: ClassVar[str] = "thread_unarchived"
    thread_id: str


class ThreadRolledBack(Body, frozen=True, kw_only=True):
    """The thread's head moved back."""

    type: ClassVar[str] = "thread_rolled_back"
    thread_id: str
    to: EventId | None = None


# -- runs -------------------------------------------------------------------------------------------------------


class RunQueued(Body, frozen=True, kw_only=True):
    """A run exists and waits for a slot. `options` is all that is needed to start it."""

    type: ClassVar[str] = "run_queued"
    provider: str | None = None
    model: str | None = None
    workspace: str | None = None
    timeout: float | None = None
    key: str | None = None
    options: Mapping[str, Json] = {}
    metadata: Mapping[str, Json] = {}


class RouteSelected(Body, frozen=True, kw_only=True):
    """A provider was chosen for the run, and why; `skipped` says why not the others."""

    type: ClassVar[str] = "route_selected"
    provider: str
    attempt: int = 1
    order: tuple[str, ...] = ()
    skipped: Mapping[str, str] = {}
    reasons: tuple[str, ...] = ()


class RunStarted(Body, frozen=True, kw_only=True):
    """An agent works on the run. `provider_session_id` is the agent's own name for the conversation."""

    type: ClassVar[str] = "run_started"
    provider: str
    model: str | None = None
    provider_session_id: str | None = None
    tools: tuple[str, ...] = ()
    agent_version: str | None = None
    attempt: int = 1
    warm: bool = False
    details: Mapping[str, Json] = {}


class RunCompleted(Body, frozen=True, kw_only=True):
    """The agent said that it is done. The terminal event of a run that went well."""

    type: ClassVar[str] = "run_completed"
    stop_reason: str
    text: str | None = None
    output: Json = None
    usage: Usage = Usage()
    cost_usd: str | None = None
    cost_source: str | None = None
    turns: int | None = None
    duration_ms: int | None = None
    provider_session_id: str | None = None


class RunFailed(Body, frozen=True, kw_only=True):
    """The run ended with an error. What it used and said until then is kept."""

    type: ClassVar[str] = "run_failed"
    error_code: str
    error_message: str
    provider_error: ProviderFailure | None = None
    retry_after: float | None = None
    details: Mapping[str, Json] = {}
    text: str | None = None
    output: Json = None
    usage: Usage = Usage()
    cost_usd: str | None = None
    cost_source: str | None = None
    duration_ms: int | None = None
    provider_session_id: str | None = None


class RunCancelled(Body, frozen=True, kw_only=True):
    """Somebody called the run off."""

    type: ClassVar[str] = "run_cancelled"
    reason: str | None = None
    text: str | None = None
    usage: Usage = Usage()
    cost_usd: str | None = None
    cost_source: str | None = None
    duration_ms: int | None = None
    provider_session_id: str | None = None


class RunTimeout(Body, frozen=True, kw_only=True):
    """The run's deadline passed and the agent was stopped. `deadline` is startup, idle or total."""

    type: ClassVar[str] = "run_timeout"
    deadline: str
    seconds: float
    text: str | None = None
    usage: Usage = Usage()
    cost_usd: str | None = None
    cost_source: str | None = None
    duration_ms: int | None = None
    provider_session_id: str | None = None


class RunInterrupted(Body, frozen=True, kw_only=True):
    """The run's owner died. `outcome` is `not_started`, or `unknown`: its last step may or may not have happened."""

    type: ClassVar[str] = "run_interrupted"
    outcome: Literal["unknown", "not_started"]
    reason: str = "owner_lost"
    open_tool_calls: tuple[str, ...] = ()
    text: str | None = None
    usage: Usage = Usage()
    cost_usd: str | None = None
    cost_source: str | None = None
    provider_session_id: str | None = None


class AttemptFailed(Body, frozen=True, kw_only=True):
    """One attempt of the run failed and another may follow."""

    type: ClassVar[str] = "attempt_failed"
    provider: str
    attempt: int
    error_code: str
    error_message: str
    usage: Usage = Usage()
    cost_usd: str | None = None


# -- what is said -----------------------------------------------------------------------------------------------


class MessageSent(Body, frozen=True, kw_only=True):
    """Words that went to the agent."""

    type: ClassVar[str] = "message_sent"
    role: Literal["system", "user", "assistant", "tool"] = "user"
    content: str


class MessageStreamed(Body, frozen=True, kw_only=True):
    """A piece of the agent's words as they come. The whole follows as `message_received`."""

    type: ClassVar[str] = "message_streamed"
    delta: str
    message_id: str | None = None

    @property
    def content(self) -> str:
        """The piece, under the name the reference system gives it."""
        return self.delta


class MessageReceived(Body, frozen=True, kw_only=True):
    """A whole message of the agent."""

    type: ClassVar[str] = "message_received"
    role: Literal["assistant", "tool", "system", "user"] = "assistant"
    content: str
    message_id: str | None = None
    parent_tool_call_id: str | None = None
    partial: bool = False


class ReasoningStreamed(Body, frozen=True, kw_only=True):
    """A piece of the agent's reasoning, where the agent shows it."""

    type: ClassVar[str] = "reasoning_streamed"
    delta: str
    message_id: str | None = None


class ToolCallStarted(Body, frozen=True, kw_only=True):
    """The agent uses a tool. From here on the run may have had side effects, unless `kind` is read or search."""

    type: ClassVar[str] = "tool_call_started"
    tool_call_id: str
    tool_name: str
    kind: ToolKind = "other"
    tool_input: Json = None
    parent_tool_call_id: str | None = None


class ToolCallCompleted(Body, frozen=True, kw_only=True):
    """The tool ended well."""

    type: ClassVar[str] = "tool_call_completed"
    tool_call_id: str
    tool_name: str
    kind: ToolKind = "other"
    tool_input: Json = None
    tool_output: Json = None
    exit_code: int | None = None
    duration_ms: int | None = None
    output_bytes: int | None = None
    truncated: bool = False


class ToolCallFailed(Body, frozen=True, kw_only=True):
    """The tool ended badly, was refused, or was cut off; `reason` is failed, denied or interrupted."""

    type: ClassVar[str] = "tool_call_failed"
    tool_call_id: str
    tool_name: str
    kind: ToolKind = "other"
    tool_input: Json = None
    tool_output: Json = None
    exit_code: int | None = None
    reason: Literal["failed", "denied", "interrupted"] = "failed"
    duration_ms: int | None = None
    output_bytes: int | None = None
    truncated: bool = False


class TokenUsageUpdated(Body, frozen=True, kw_only=True):
    """Tokens used since the last event of this type: always a delta, whatever the agent reports."""

    type: ClassVar[str] = "token_usage_updated"
    usage: Usage
    model: str | None = None
    cost_usd: str | None = None
    price_source: str | None = None
    price_version: str | None = None


class TurnCompleted(Body, frozen=True, kw_only=True):
    """The agent ended a turn. `turns` counts from the start of the run."""

    type: ClassVar[str] = "turn_completed"
    turns: int
    stop_reason: str | None = None


class ErrorOccurred(Body, frozen=True, kw_only=True):
    """Something went wrong and the run goes on, or its end follows as an event of its own."""

    type: ClassVar[str] = "error_occurred"
    error_code: str
    error_message: str
    provider_error: ProviderFailure | None = None
    retry_after: float | None = None
    will_retry: bool = False
    details: Mapping[str, Json] = {}


class ErrorRecovered(Body, frozen=True, kw_only=True):
    """What went wrong before is mended."""

    type: ClassVar[str] = "error_recovered"
    error_code: str | None = None
    details: Mapping[str, Json] = {}


# -- permission and policy --------------------------------------------------------------------------------------


class PermissionRequested(Body, frozen=True, kw_only=True):
    """The agent asks before it uses a tool, and waits."""

    type: ClassVar[str] = "permission_requested"
    request_id: str
    tool_name: str
    kind: ToolKind = "other"
    tool_call_id: str | None = None
    tool_input: Json = None
    reason: str | None = None


class PermissionResolved(Body, frozen=True, kw_only=True):
    """The agent has its answer. `by` says whose: a mode, a callback, a policy, a deadline, the agent."""

    type: ClassVar[str] = "permission_resolved"
    request_id: str
    decision: Literal["allow", "deny", "withdrawn"]
    by: str
    message: str | None = None


class PolicyViolated(Body, frozen=True, kw_only=True):
    """A rule of a policy was broken; stored in one append with the event that broke it."""

    type: ClassVar[str] = "policy_violation"
    policy: str
    kind: Literal["tool_denied", "budget_exceeded"]
    action: Literal["cancel", "request_approval", "warn"]
    details: Mapping[str, Json] = {}


class ToolApprovalRequested(Body, frozen=True, kw_only=True):
    """A tool call is held until somebody decides."""

    type: ClassVar[str] = "tool_approval_requested"
    approval_id: str | None = None
    tool_name: str
    tool_call_id: str | None = None
    tool_input: Json = None
    policy_name: str
    violation_kind: str | None = None


class ToolApprovalGranted(Body, frozen=True, kw_only=True):
    """The held call may run."""

    type: ClassVar[str] = "tool_approval_granted"
    tool_name: str
    approval_id: str | None = None
    by: str | None = None


class ToolApprovalDenied(Body, frozen=True, kw_only=True):
    """The held call does not run."""

    type: ClassVar[str] = "tool_approval_denied"
    tool_name: str
    approval_id: str | None = None
    by: str | None = None
    message: str | None = None


# -- workspace, artifacts, continuity ---------------------------------------------------------------------------


class WorkspaceSnapshotTaken(Body, frozen=True, kw_only=True):
    """The workspace's content is kept under `ref`; `label` is before, after or after_failure."""

    type: ClassVar[str] = "workspace_snapshot_taken"
    label: str
    backend: str
    ref: str


class WorkspaceDiffComputed(Body, frozen=True, kw_only=True):
    """What the run changed in the workspace."""

    type: ClassVar[str] = "workspace_diff_computed"
    files_changed: int
    insertions: int
    deletions: int
    has_patch: bool = False
    changed_paths: tuple[str, ...] = ()
    patch: str | None = None
    patch_ref: str | None = None
    patch_bytes: int | None = None


class WorkspaceRestored(Body, frozen=True, kw_only=True):
    """The workspace's content is what it was at `ref`."""

    type: ClassVar[str] = "workspace_restored"
    ref: str
    paths: tuple[str, ...] = ()
    reason: str | None = None


class ArtifactStored(Body, frozen=True, kw_only=True):
    """A large thing is kept beside the log."""

    type: ClassVar[str] = "artifact_stored"
    ref: str
    name: str | None = None
    content_type: str | None = None
    byte_size: int | None = None


class ContinuityPrepared(Body, frozen=True, kw_only=True):
    """The run has its agent, and the prompt comes next.

    `mode` says how the conversation goes on: `new` (it does not), `warm` (same process), `native` (the agent took up
    its own), `replay` (a transcript was carried). `process` names the agent's process for whoever must end it after us.
    """

    type: ClassVar[str] = "continuity_prepared"
    mode: Literal["new", "warm", "native", "replay"]
    carried: int = 0
    cut: int = 0
    lost: tuple[str, ...] = ()
    provider_session_id: str | None = None
    process: Mapping[str, Json] = {}


class Unknown(Body, frozen=True, kw_only=True):
    """A kind this version does not know, or an agent's message nobody maps; `body` is kept as it came."""

    type: ClassVar[str] = "unknown"
    kind: str
    body: msgspec.Raw = msgspec.Raw(b"{}")
    schema_version: int = SCHEMA_VERSION


def _bodies(cls: type[Body]) -> list[type[Body]]:
    return [body for child in cls.__subclasses__() for body in (child, *_bodies(child))]


BODIES: Mapping[str, type[Body]] = {body.type: body for body in _bodies(Body) if body is not Unknown}
"""Type name -> body, for every kind this version knows."""

TERMINAL_TYPES = frozenset(
    {
        RunCompleted.type,
        RunFailed.type,
        RunCancelled.type,
        RunTimeout.type,
        RunInterrupted.type,
    }
)


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened and has no place in a log yet.

    Attributes:
        run_id: The run it belongs to; None for the session's own events.
        source: Who said it: the agent, the engine or a user.
        key: Idempotency within the session: a second draft with the key yields the first one's event.
        id: An id of its own, for imports and retries; as idempotent as a key.
        at: When it happened, if the one who says it knows; else the store's time.
        parent: The event before it in conversation order; None follows the head.
        raw: The agent's own words, redacted, where they are kept.
    """

    data: Body
    run_id: RunId | None = None
    source: Source = "engine"
    provider: str | None = None
    key: str | None = None
    id: EventId | None = None
    at: datetime | None = None
    parent: EventId | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    raw: bytes | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A draft at its place in one session's log. `(session_id, sequence)` names it for ever."""

    id: EventId
    session_id: SessionId
    sequence: int
    at: datetime
    data: Body
    run_id: RunId | None = None
    source: Source = "engine"
    provider: str | None = None
    key: str | None = None
    parent: EventId | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    schema_version: int = SCHEMA_VERSION
    raw: bytes | None = None

    @property
    def type(self) -> str:
        """The kind of the body: `message_streamed`, `run_completed` …; `unknown` for what we do not know."""
        return self.data.type

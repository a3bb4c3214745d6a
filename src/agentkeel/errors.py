"""Every error agentkeel raises, and what a caller should do about it.

A class exists where a caller would act differently; the rest is told apart by its stable `code`::

    Error
    ├── ValidationError            the request is wrong; nothing was stored
    │   └── CapabilityNotSupported this provider cannot do that
    ├── StateError                 the session or run is not in a state that allows this
    │   ├── InvalidTransition      the move is not in the transition table
    │   ├── RunTerminal            the run has ended; nothing may follow its last event
    │   ├── SequenceConflict       the log's head is not where the caller thought
    │   ├── KeyConflict            the key names another event
    │   ├── Fenced                 another owner has taken the run; stop, do not retry
    │   └── CursorExpired          events before the floor are gone
    ├── NotFound
    │   ├── SessionNotFound
    │   └── RunNotFound
    ├── AtCapacity                 too many runs are waiting
    ├── ProviderError              the agent failed
    │   ├── ProviderUnavailable
    │   ├── ProviderRateLimited    (retry_after)
    │   ├── ProviderTimeout
    │   ├── ProviderAuthenticationFailed
    │   └── ProviderQuotaExceeded
    ├── StorageError               the log could not be read or written
    │   ├── StoreUnavailable       the outcome is unknown; retry with the same keys
    │   ├── StoreOwned             another process writes this store
    │   ├── StoreFull              no space left; what was acknowledged is safe
    │   └── StoreIncompatible      the store was made by a newer version, or SQLite is too old
    ├── RunTimeout                 the run's own deadline passed
    ├── RunCancelled               somebody cancelled the run
    ├── RunInterrupted             the run's owner died; its outcome is unknown
    ├── PolicyViolation            a policy stopped the run
    └── InternalError              a bug of ours

Codes, categories and the retry classes of the reference system are kept (`CODES`); ours are added to them.
Source: the error taxonomy of the first reference system (docs/conformance.md, S:X-01 to X-03).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import msgspec

if TYPE_CHECKING:
    from agentkeel.core.result import RunResult

__all__ = [
    "CODES",
    "AtCapacity",
    "CapabilityNotSupported",
    "Category",
    "CodeInfo",
    "CursorExpired",
    "Error",
    "Fenced",
    "InternalError",
    "InvalidTransition",
    "KeyConflict",
    "NotFound",
    "PolicyViolation",
    "ProviderAuthenticationFailed",
    "ProviderError",
    "ProviderFailure",
    "ProviderQuotaExceeded",
    "ProviderRateLimited",
    "ProviderTimeout",
    "ProviderUnavailable",
    "Retry",
    "RunCancelled",
    "RunInterrupted",
    "RunNotFound",
    "RunTerminal",
    "RunTimeout",
    "SequenceConflict",
    "SessionNotFound",
    "StateError",
    "StorageError",
    "StoreFull",
    "StoreIncompatible",
    "StoreOwned",
    "StoreUnavailable",
    "ValidationError",
    "failure",
    "from_mapping",
    "wrap",
]

Category = Literal[
    "validation",
    "state",
    "resource",
    "provider",
    "storage",
    "runtime",
    "concurrency",
    "tool",
]
Retry = Literal["never", "same", "later", "elsewhere"]

STDERR_MAX_LINES = 200
STDERR_MAX_BYTES = 16_384


class CodeInfo(NamedTuple):
    """What a code stands for: its category, and how a caller may retry."""

    category: Category
    retry: Retry


def _codes(category: Category, codes: Mapping[str, Retry]) -> dict[str, CodeInfo]:
    return {code: CodeInfo(category, retry) for code, retry in codes.items()}


CODES: Mapping[str, CodeInfo] = {
    **_codes(
        "validation",
        {
            "validation_error": "never",
            "invalid_input": "never",
            "missing_required_field": "never",
            "invalid_format": "never",
        },
    ),
    **_codes(
        "state",
        {
            "invalid_status": "never",
            "invalid_transition": "never",
            "invalid_event_type": "never",
            "invalid_capability_type": "never",
            "missing_required_capability": "never",
            "stream_closed": "never",
            "context_mismatch": "never",
            "invalid_cursor": "never",
            "cursor_expired": "never",
            "session_mismatch": "never",
            "run_mismatch": "never",
            "run_terminal": "never",
            "sequence_conflict": "same",
            "key_conflict": "never",
            "fenced": "never",
        },
    ),
    **_codes(
        "resource",
        {
            "not_found": "never",
            "session_not_found": "never",
            "run_not_found": "never",
            "capability_not_found": "never",
            "already_exists": "never",
            "duplicate_capability": "never",
        },
    ),
    **_codes(
        "provider",
        {
            "provider_error": "never",
            "provider_unavailable": "elsewhere",
            "provider_rate_limited": "later",
            "provider_timeout": "same",
            "provider_authentication_failed": "never",
            "provider_quota_exceeded": "never",
            "provider_model_not_found": "never",
            "provider_context_exceeded": "never",
            "provider_invalid_request": "never",
            "provider_refused": "never",
            "output_truncated": "never",
            "budget_exceeded": "never",
            "turn_limit_exceeded": "never",
            "agent_start_failed": "never",
            "agent_crashed": "same",
            "agent_protocol_error": "never",
            "turn_cut_off": "same",
            "command_failed": "never",
        },
    ),
    **_codes(
        "storage",
        {
            "storage_error": "never",
            "storage_connection_failed": "same",
            "dependency_not_available": "never",
            "migration_required": "never",
            "storage_write_failed": "never",
            "storage_read_failed": "never",
            "store_owned": "later",
            "store_full": "later",
            "store_incompatible": "never",
        },
    ),
    **_codes(
        "runtime",
        {
            "timeout": "same",
            "cancelled": "never",
            "interrupted": "never",
            "policy_violation": "never",
            "internal_error": "never",
            "unknown_error": "never",
        },
    ),
    **_codes(
        "concurrency",
        {
            "max_sessions_exceeded": "later",
            "max_runs_exceeded": "later",
            "capability_not_supported": "never",
            "invalid_operation": "never",
        },
    ),
    **_codes(
        "tool",
        {
            "tool_error": "never",
            "tool_not_found": "never",
            "tool_execution_failed": "never",
            "tool_permission_denied": "never",
        },
    ),
}

# Codes the reference calls retryable. `max_runs_exceeded` and `store_full` are worth waiting for, yet not in this set.
RETRYABLE = frozenset(
    {
        "provider_unavailable",
        "provider_rate_limited",
        "provider_timeout",
        "storage_connection_failed",
        "timeout",
        "agent_crashed",
        "turn_cut_off",
    }
)


class ProviderFailure(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent program itself said when it failed: exactly six keys.

    `stderr` is cut to 200 lines, then to 16,384 bytes at a character's boundary; `truncated` says so.
    """

    provider: str
    kind: str
    message: str
    exit_code: int | None = None
    stderr: str | None = None
    truncated: bool | None = None

    @classmethod
    def of(
        cls,
        provider: str,
        kind: str,
        message: str = "",
        *,
        exit_code: int | None = None,
        stderr: str | None = None,
    ) -> ProviderFailure:
        """A failure whose stderr is bounded and whose message is never empty."""
        kept, truncated = bounded(stderr)
        first_line = (kept or "").strip().partition("\n")[0]
        return cls(
            provider=provider,
            kind=kind,
            message=message or first_line or f"{provider} failed ({kind})",
            exit_code=exit_code,
            stderr=kept,
            truncated=truncated or None,
        )


def bounded(text: str | None) -> tuple[str | None, bool]:
    """`text` cut to what an error may carry, and whether anything was cut."""
    if text is None:
        return None, False
    lines = text.splitlines(keepends=True)
    kept = "".join(lines[:STDERR_MAX_LINES])
    encoded = kept.encode("utf-8", "replace")
    if len(encoded) > STDERR_MAX_BYTES:
        kept = encoded[:STDERR_MAX_BYTES].decode("utf-8", "ignore")
    return kept, len(kept) < len(text)


class Error(Exception):
    """Any error of agentkeel.

    Attributes:
        message: For a person: what happened, what was kept, what to do next.
        code: Stable, lower-case; `CODES` gives its category and retry class.
        details: Fields for programs. JSON-able.
        provider_error: The agent's own words, when an agent failed.
        retry_after: Seconds to wait, when somebody named a time.
        result: The run's result so far, on errors that `run()` and `result()` raise.
    """

    default_code: ClassVar[str] = "unknown_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        provider_error: ProviderFailure | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        if self.code not in CODES:
            raise ValueError(f"{self.code!r} is no error code of agentkeel")
        self.details: dict[str, Any] = dict(details or {})
        self.provider_error = provider_error
        self.retry_after = retry_after
        self.result: RunResult | None = None

    def __str__(self) -> str:
        return f"[{self.code}] {self.message}"

    @property
    def category(self) -> Category:
        """The family of the code."""
        return CODES[self.code].category

    @property
    def retry(self) -> Retry:
        """How the same request may be tried again: never, same, later (see `retry_after`), elsewhere."""
        return CODES[self.code].retry

    @property
    def retryable(self) -> bool:
        """Whether the reference system would retry this code."""
        return self.code in RETRYABLE

    def to_mapping(self) -> dict[str, Any]:
        """The error as JSON-able values; `from_mapping` reads it back."""
        out: dict[str, Any] = {"code": self.code, "message": self.message, "details": self.details}
        if self.provider_error is not None:
            out["provider_error"] = msgspec.to_builtins(self.provider_error)
        if self.retry_after is not None:
            out["retry_after"] = self.retry_after
        return out


class ValidationError(Error):
    """The request is wrong. Nothing was stored; mend it and call again."""

    default_code = "validation_error"


class CapabilityNotSupported(ValidationError):
    """This provider or store cannot do what was asked; `details["capability"]` names it."""

    default_code = "capability_not_supported"


class StateError(Error):
    """The session or run is not in a state that allows this."""

    default_code = "invalid_operation"


class InvalidTransition(StateError):
    """The move is not in the transition table; `details` has `status` and `event`."""

    default_code = "invalid_transition"


class RunTerminal(StateError):
    """The run has ended. Its first terminal event stands; nothing was added after it."""

    default_code = "run_terminal"


class SequenceConflict(StateError):
    """The head of the log is not `expected`. Read again and decide again."""

    default_code = "sequence_conflict"


class KeyConflict(StateError):
    """The key is already in the log with another content. Nothing was added."""

    default_code = "key_conflict"


class Fenced(StateError):
    """Another owner holds the run or the store. Stop what you are doing; do not retry."""

    default_code = "fenced"


class CursorExpired(StateError):
    """Events at the cursor are gone; `details["floor"]` is the first sequence still kept."""

    default_code = "cursor_expired"


class NotFound(Error):
    """What was named does not exist, or has been deleted."""

    default_code = "not_found"


class SessionNotFound(NotFound):
    """No session has this id."""

    default_code = "session_not_found"


class RunNotFound(NotFound):
    """No run has this id."""

    default_code = "run_not_found"


class AtCapacity(Error):
    """Too many runs are waiting. Nothing was stored; wait for a run to end, or raise the limit."""

    default_code = "max_runs_exceeded"


class ProviderError(Error):
    """The agent failed. The log has all that it did until then."""

    default_code = "provider_error"


class ProviderUnavailable(ProviderError):
    """The agent is missing, cannot start, or its model service is down."""

    default_code = "provider_unavailable"


class ProviderRateLimited(ProviderError):
    """The model service asks to slow down; `retry_after` has the seconds if it named them."""

    default_code = "provider_rate_limited"


class ProviderTimeout(ProviderError):
    """The agent or its model service did not answer in time."""

    default_code = "provider_timeout"


class ProviderAuthenticationFailed(ProviderError):
    """The agent is not logged in, or its key is refused."""

    default_code = "provider_authentication_failed"


class ProviderQuotaExceeded(ProviderError):
    """The account's quota or credit is used up."""

    default_code = "provider_quota_exceeded"


class StorageError(Error):
    """The log could not be read or written. What was acknowledged before is safe."""

    default_code = "storage_error"


class StoreUnavailable(StorageError):
    """The store went away in the middle; the outcome is unknown. Retry with the same keys."""

    default_code = "storage_connection_failed"


class StoreOwned(StorageError):
    """Another process writes this store; `details` has its pid. Read it, or use another store."""

    default_code = "store_owned"


class StoreFull(StorageError):
    """No space is left. The batch was not stored; all earlier events are, and can be read."""

    default_code = "store_full"


class StoreIncompatible(StorageError):
    """The store was written by a newer version, or the SQLite library is too old to be safe."""

    default_code = "store_incompatible"


class RunTimeout(Error):
    """The run's own deadline passed; the agent was stopped and its partial work is in the log."""

    default_code = "timeout"


class RunCancelled(Error):
    """The run was cancelled; its partial work is in the log."""

    default_code = "cancelled"


class RunInterrupted(Error):
    """The run's owner died. What is known is in the log; whether its last step happened is not."""

    default_code = "interrupted"


class PolicyViolation(Error):
    """A policy stopped the run; `details["violations"]` has the rules that decided."""

    default_code = "policy_violation"

    @property
    def violations(self) -> list[Any]:
        """The violations that stopped the run."""
        return list(self.details.get("violations", ()))


class InternalError(Error):
    """A bug of agentkeel. The log is intact; please report it."""

    default_code = "internal_error"


_BY_CODE: Mapping[str, type[Error]] = {
    "capability_not_supported": CapabilityNotSupported,
    "invalid_transition": InvalidTransition,
    "run_terminal": RunTerminal,
    "sequence_conflict": SequenceConflict,
    "key_conflict": KeyConflict,
    "fenced": Fenced,
    "cursor_expired": CursorExpired,
    "session_not_found": SessionNotFound,
    "run_not_found": RunNotFound,
    "max_runs_exceeded": AtCapacity,
    "provider_unavailable": ProviderUnavailable,
    "provider_rate_limited": ProviderRateLimited,
    "provider_timeout": ProviderTimeout,
    "provider_authentication_failed": ProviderAuthenticationFailed,
    "provider_quota_exceeded": ProviderQuotaExceeded,
    "storage_connection_failed": StoreUnavailable,
    "store_owned": StoreOwned,
    "store_full": StoreFull,
    "store_incompatible": StoreIncompatible,
    "timeout": RunTimeout,
    "cancelled": RunCancelled,
    "interrupted": RunInterrupted,
    "policy_violation": PolicyViolation,
    "internal_error": InternalError,
}
_BY_CATEGORY: Mapping[Category, type[Error]] = {
    "validation": ValidationError,
    "state": StateError,
    "resource": NotFound,
    "provider": ProviderError,
    "storage": StorageError,
    "runtime": Error,
    "concurrency": StateError,
    "tool": ProviderError,
}


def failure(
    code: str,
    message: str,
    *,
    details: Mapping[str, Any] | None = None,
    provider_error: ProviderFailure | None = None,
    retry_after: float | None = None,
) -> Error:
    """The error of the class that `code` asks for."""
    cls = _BY_CODE.get(code) or _BY_CATEGORY[CODES[code].category]
    return cls(message, code=code, details=details, provider_error=provider_error, retry_after=retry_after)


def from_mapping(data: Mapping[str, Any]) -> Error:
    """The error that `to_mapping` wrote. An unknown code or a missing message gives a `ValidationError`."""
    code, message = data.get("code"), data.get("message")
    if not isinstance(code, str) or code not in CODES or not isinstance(message, str):
        return ValidationError(
            "This is no recorded error: it needs a known code and a message.", details={"got": dict(data)}
        )
    words = data.get("provider_error")
    return failure(
        code,
        message,
        details=data.get("details") or {},
        provider_error=msgspec.convert(words, ProviderFailure) if words else None,
        retry_after=data.get("retry_after"),
    )


def wrap(exception: BaseException, message: str | None = None, *, code: str = "internal_error") -> Error:
    """`exception` as one of ours; an `Error` is returned as it is, another one is named in `details`."""
    if isinstance(exception, Error):
        return exception
    original = str(exception) or type(exception).__name__
    details = {"original_exception": type(exception).__name__}
    if message is not None:
        details["original_message"] = original
    error = failure(code, message or original, details=details)
    error.__cause__ = exception
    return error

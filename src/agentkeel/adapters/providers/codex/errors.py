"""What Codex's failures are in our codes: tables, and the reading of them.

A failure names its class in `codexErrorInfo` and often the HTTP status with it; where that says only `other`, the
message tells. Source: failures provoked one by one against Codex 0.169.0 (golden captures) and its published schema.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from agentkeel.adapters.providers._wire.jsonrpc import CallFailed
from agentkeel.errors import Error, ProviderFailure, failure

__all__ = [
    "MESSAGES",
    "NAMES",
    "OVERLOADED",
    "REFUSALS",
    "STATUSES",
    "Failure",
    "crash",
    "error_of",
    "failure_of",
    "refusal",
]

NAMES: Final[Mapping[str, str]] = {
    "contextWindowExceeded": "provider_context_exceeded",
    "sessionBudgetExceeded": "provider_quota_exceeded",
    "usageLimitExceeded": "provider_quota_exceeded",
    "rateLimitExceeded": "provider_rate_limited",
    "flexUnavailable": "provider_unavailable",
    "serverOverloaded": "provider_unavailable",
    "policyCapacityUnavailable": "provider_unavailable",
    "internalServerError": "provider_unavailable",
    "modelNotFound": "provider_model_not_found",
    "cyberPolicy": "provider_refused",
    "misalignmentPolicyViolation": "provider_refused",
    "inferenceHookDenied": "provider_refused",
    "tooManyDenials": "tool_permission_denied",
    "unauthorized": "provider_authentication_failed",
    "badRequest": "provider_invalid_request",
    "sandboxError": "tool_execution_failed",
    "activeTurnNotSteerable": "invalid_operation",
}
"""`codexErrorInfo` by name, where the name alone decides."""

STATUSES: Final[Mapping[int, str]] = {
    400: "provider_invalid_request",
    401: "provider_authentication_failed",
    402: "provider_quota_exceeded",
    403: "provider_authentication_failed",
    404: "provider_model_not_found",
    408: "provider_timeout",
    413: "provider_context_exceeded",
    429: "provider_rate_limited",
    504: "provider_timeout",
}
"""HTTP status, where one is known and the name says only how the connection failed; any other 5xx, and none: the model
service is unavailable."""

MESSAGES: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern), code)
    for pattern, code in (
        (r"^Missing environment variable", "provider_authentication_failed"),
        (r"idle timeout waiting for (SSE|websocket)", "provider_timeout"),
        (r"Incomplete response returned, reason: max_output_tokens", "output_truncated"),
        (r"Incomplete response returned, reason: content_filter", "provider_refused"),
        (r"^Quota exceeded|hit your usage limit", "provider_quota_exceeded"),
        (r"^rate limit exceeded|last status: 429", "provider_rate_limited"),
        (r"ran out of room in the model's context", "provider_context_exceeded"),
        (r"unexpected status 40[13]\b", "provider_authentication_failed"),
        (r"does not exist or you do not have access", "provider_model_not_found"),
        (r"high demand|at capacity|unexpected status 5\d\d|^Connection failed|^stream disconnected|^error sending",
         "provider_unavailable"),
        (r"^\s*\{\s*\"(error|detail)\"", "provider_invalid_request"),
    )
)  # fmt: skip
"""Message -> code, first match wins, for what Codex calls `other` or does not name."""

REFUSALS: Final[tuple[tuple[re.Pattern[str], str, str, str], ...]] = tuple(
    (re.compile(pattern), code, kind, advice)
    for pattern, code, kind, advice in (
        (r"no rollout found for thread id|thread not found|invalid session id|is archived", "provider_error",
         "session_not_found", "Codex cannot take up this conversation; start a new one, or replay its transcript."),
        (r"already has an active writer", "provider_error",
         "session_busy", "Another process works on this conversation; end it first."),
        (r"Input exceeds the maximum length", "provider_invalid_request",
         "prompt_too_long", "Put the text into a file of the workspace and name the file."),
        (r"[Nn]ot logged in|authentication required|Missing environment variable", "provider_authentication_failed",
         "not_logged_in", "Log in to Codex, or give it a key in env."),
    )
)  # fmt: skip
"""Message of a refused request -> (code, kind, what to do). All of these are -32600 to Codex."""

OVERLOADED: Final = -32001
"""JSON-RPC code of "Server overloaded; retry later."."""

_RETRY_AFTER = re.compile(r"try again in (?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|seconds|minutes|m)\b")
_UNITS: Final[Mapping[str, float]] = {"ms": 0.001, "s": 1.0, "seconds": 1.0, "minutes": 60.0, "m": 60.0}
_STATUS = re.compile(r"(?:unexpected|last) status:? (?P<status>[45]\d\d)\b")


class Failure(NamedTuple):
    """A failure Codex reported, in our words. `name` is its own class of it, `status` the HTTP status."""

    code: str
    message: str
    name: str
    status: int | None = None
    retry_after: float | None = None


def failure_of(error: Any) -> Failure:
    """What a `TurnError` of Codex says, whatever shape it has."""
    error = error if isinstance(error, Mapping) else {}
    details = error.get("additionalDetails")
    message = str(error.get("message") or "Codex reported a failure without a message.")
    if isinstance(details, str) and details:  # "Reconnecting... 1/5": the cause is in the details.
        message = f"{message} ({details})"
    name, status = _info(error.get("codexErrorInfo"))
    cause = details if isinstance(details, str) and details else str(error.get("message") or "")
    if status is None and (said := _STATUS.search(cause)):
        status = int(said["status"])
    return Failure(_code(name, status, cause), message, name, status, _retry_after(cause))


def error_of(reported: Failure) -> Error:
    """The error a turn ends with."""
    details: dict[str, Any] = {"kind": reported.name}
    if reported.status is not None:
        details["http_status"] = reported.status
    return failure(
        reported.code,
        f"Codex could not finish its turn: {reported.message.rstrip(' .')}. What it did until then is kept.",
        details=details,
        provider_error=ProviderFailure.of("codex", reported.name, reported.message),
        retry_after=reported.retry_after,
    )


def refusal(refused: CallFailed, *, resume: str | None = None) -> Error:
    """The error for a request that the app-server answered with an error."""
    message = refused.error.message[:2000]  # Unknown methods come with a 5 KB list of those there are.
    if refused.error.code == OVERLOADED:
        code, kind, advice = "provider_unavailable", "agent_overloaded", "Try again later."
    else:
        code, kind, advice = next(
            (row[1:] for row in REFUSALS if row[0].search(message)),
            ("provider_error", "rpc_error", "Check the options given to it, and its version."),
        )
    details: dict[str, Any] = {"kind": kind, "method": refused.method, "rpc_code": refused.error.code}
    if resume is not None:
        details["provider_session_id"] = resume
    return failure(
        code,
        f"Codex refused {refused.method}: {message} {advice}",
        details=details,
        provider_error=ProviderFailure.of("codex", kind, message),
    )


def crash(*, exit_code: int | None, how: str, stderr: str, during: str) -> Error:
    """The error for a process that ended while it was needed. `how` says how it ended, in words."""
    details: dict[str, Any] = {"kind": "transport_exit", "exit_code": exit_code}
    if exit_code is not None and exit_code < 0:
        details["signal"] = -exit_code
    return failure(
        "agent_crashed",
        f"Codex ended {during}: {how}. What it said before is kept; whether its last step happened is not known.",
        details=details,
        provider_error=ProviderFailure.of(
            "codex", "transport_exit", f"codex app-server ended {during}: {how}", exit_code=exit_code, stderr=stderr
        ),
    )


def _info(info: Any) -> tuple[str, int | None]:
    """Name and HTTP status of a `codexErrorInfo`."""
    match info:
        case str():
            return info, None
        case {**members} if members:
            name, inner = next(iter(members.items()))
            status = inner.get("httpStatusCode") if isinstance(inner, Mapping) else None
            return str(name), status if isinstance(status, int) else None
    return "other", None


def _code(name: str, status: int | None, message: str) -> str:
    if name in NAMES:
        return NAMES[name]
    if status is not None:
        return STATUSES.get(status, "provider_unavailable" if status >= 500 else "provider_invalid_request")
    for pattern, code in MESSAGES:
        if pattern.search(message):
            return code
    return "provider_error" if name == "other" else "provider_unavailable"


def _retry_after(message: str) -> float | None:
    found = _RETRY_AFTER.search(message)
    return float(found["number"]) * _UNITS[found["unit"]] if found else None

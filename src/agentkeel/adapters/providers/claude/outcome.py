"""How a turn ended, from its `result` line and what went before it."""

from __future__ import annotations

from typing import Any, Literal

from agentkeel.adapters.providers.claude.errors import Symptoms, failed
from agentkeel.adapters.providers.claude.fields import Message, flag, number, objects, record, seconds, string
from agentkeel.ports.provider import Ended

__all__ = ["ABORTED", "ended", "status_of", "symptoms_of"]

ABORTED = frozenset({"aborted_streaming", "aborted_tools"})
"""Ends of a turn that somebody asked for."""

_CUT_SHORT = frozenset({"refusal", "max_tokens"})

Status = Literal["completed", "failed", "interrupted"]


def status_of(result: Message) -> Status:
    """`completed` only where the program says so and the answer is whole.

    `subtype` alone means nothing: a refused key is a "success" too, with `is_error`.
    """
    if string(result.get("terminal_reason")) in ABORTED:
        return "interrupted"
    sound = result.get("subtype") == "success" and result.get("is_error") is False
    return "completed" if sound and string(result.get("stop_reason")) not in _CUT_SHORT else "failed"


def symptoms_of(
    result: Message, error: Message | None = None, retry: Message | None = None, limits: Message | None = None
) -> Symptoms:
    """All a failure told: in the result, the turn's last error line, its last retry, and the plan's limits."""
    error, retry, limits = error or {}, retry or {}, limits or {}
    status = number(result.get("api_error_status"))
    return Symptoms(
        subtype=string(result.get("subtype")),
        terminal_reason=string(result.get("terminal_reason")),
        stop_reason=string(result.get("stop_reason")),
        assistant_error=string(error.get("error")),
        status=status if status is not None else number(error.get("api_error_status")),
        retry_error=string(retry.get("error")),
        retry_after=seconds(retry.get("retry_delay_ms")),
        quota_rejected=limits.get("status") == "rejected" and not flag(limits.get("isUsingOverage")),
        resets_at=number(limits.get("resetsAt")),
        text=_words(result, error),
    )


def ended(provider: str, result: Message | None, seen: Symptoms, said: str | None, **common: Any) -> Ended:
    """The end of a turn.

    Args:
        result: None if the program dropped the prompt, or ended its turn, without one.
        said: The last whole text of the main loop.
        common: The fields of `Ended` that do not depend on how it went.
    """
    if result is None:
        return Ended(status="interrupted", stop_reason="cancelled", text=said, **common)
    terminal, stop_reason = string(result.get("terminal_reason")), string(result.get("stop_reason"))
    match status_of(result):
        case "completed":
            return Ended(
                status="completed",
                stop_reason=stop_reason or "end_turn",
                text=string(result.get("result")) or said,
                output=result.get("structured_output"),
                **common,
            )
        case "interrupted":
            return Ended(status="interrupted", stop_reason=terminal, text=said, **common)
        case "failed":
            plain = terminal if terminal not in {None, "completed"} else stop_reason
            error = failed(provider, seen)
            return Ended(status="failed", stop_reason=plain, text=said, error=error, **common)


def _words(result: Message, error: Message) -> str:
    if said := string(result.get("result")):
        return said
    errors = result.get("errors")
    if isinstance(errors, list) and errors:
        return " ".join(str(word) for word in errors)
    blocks = objects(record(error.get("message")).get("content"))
    return " ".join(word for block in blocks if (word := string(block.get("text"))))

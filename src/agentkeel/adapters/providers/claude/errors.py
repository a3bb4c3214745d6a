"""Claude Code's failures in our codes: one table, decided from the top.

The first rule that fits decides. Its order is: how the turn ended (`terminal_reason`, `subtype`), the last error an
assistant line carried, the HTTP status, the error of the last retry. Only the rules with a `text` look at words, where
the program gives nothing else. A result whose `subtype` is `success` may well be a failure: `is_error` says so.

Source: one capture per failure, Claude Code 2.1.329.
"""

from __future__ import annotations

import re

import msgspec

from agentkeel.errors import Error, ProviderFailure, failure

__all__ = ["RULES", "Rule", "Symptoms", "code_for", "crashed", "failed", "not_started"]


class Symptoms(msgspec.Struct, frozen=True, kw_only=True):
    """All that a failed turn told about its failure.

    `quota_rejected` and `resets_at` (seconds since 1970) come from the plan's limits, which only subscribers are told.
    """

    subtype: str | None = None
    terminal_reason: str | None = None
    stop_reason: str | None = None
    assistant_error: str | None = None
    status: int | None = None
    retry_error: str | None = None
    retry_after: float | None = None
    quota_rejected: bool = False
    resets_at: int | None = None
    text: str = ""


class Rule(msgspec.Struct, frozen=True):
    """`code` where each field that is set fits: the value is among those named, or `text` is found in the message."""

    code: str
    subtype: frozenset[str] = frozenset()
    terminal_reason: frozenset[str] = frozenset()
    stop_reason: frozenset[str] = frozenset()
    assistant_error: frozenset[str] = frozenset()
    status: frozenset[int] = frozenset()
    retry_error: frozenset[str] = frozenset()
    text: str = ""

    def fits(self, seen: Symptoms) -> bool:
        """Whether nothing that the rule names differs."""
        for name in ("subtype", "terminal_reason", "stop_reason", "assistant_error", "status", "retry_error"):
            wanted = getattr(self, name)
            if wanted and getattr(seen, name) not in wanted:
                return False
        return not self.text or re.search(self.text, seen.text) is not None


def _any(*values: str) -> frozenset[str]:
    return frozenset(values)


RULES: tuple[Rule, ...] = (
    # How the turn ended.
    Rule("session_not_found", subtype=_any("error_during_execution"), text=r"No conversation found with session ID"),
    Rule("turn_limit_exceeded", subtype=_any("error_max_turns")),
    Rule("turn_limit_exceeded", terminal_reason=_any("max_turns")),
    Rule("budget_exceeded", subtype=_any("error_max_budget_usd")),
    Rule("budget_exceeded", terminal_reason=_any("budget_exhausted")),
    Rule("provider_error", subtype=_any("error_max_structured_output_retries")),
    Rule("provider_context_exceeded", terminal_reason=_any("prompt_too_long", "image_error")),
    Rule("provider_refused", stop_reason=_any("refusal")),
    # What the last assistant line said. `server_error` covers timeouts and refused connections too.
    Rule(
        "provider_authentication_failed",
        assistant_error=_any(
            "authentication_failed", "oauth_org_not_allowed", "account_on_hold", "verification_required"
        ),
    ),
    Rule("provider_quota_exceeded", assistant_error=_any("billing_error")),
    Rule("provider_rate_limited", assistant_error=_any("rate_limit")),
    Rule("provider_model_not_found", assistant_error=_any("model_not_found")),
    Rule("output_truncated", assistant_error=_any("max_output_tokens")),
    Rule("provider_context_exceeded", assistant_error=_any("invalid_request"), status=frozenset({413})),
    Rule("provider_invalid_request", assistant_error=_any("invalid_request")),
    Rule("provider_timeout", assistant_error=_any("server_error", "overloaded"), status=frozenset({408, 504})),
    Rule("provider_timeout", assistant_error=_any("server_error"), text=r"^Request timed out"),
    Rule("provider_unavailable", assistant_error=_any("server_error", "overloaded")),
    # The HTTP status, where the line said "unknown" or nothing.
    Rule("provider_authentication_failed", status=frozenset({401, 403})),
    Rule("provider_quota_exceeded", status=frozenset({402})),
    Rule("provider_model_not_found", status=frozenset({404})),
    Rule("provider_context_exceeded", status=frozenset({413})),
    Rule("provider_rate_limited", status=frozenset({429})),
    Rule("provider_timeout", status=frozenset({408, 504})),
    Rule("provider_invalid_request", status=frozenset({400, 422})),
    Rule("provider_unavailable", status=frozenset({500, 502, 503, 529})),
    # The stop reason of an answer that ended without an error, yet not by itself.
    Rule("output_truncated", stop_reason=_any("max_tokens")),
    # The program went on after its last retry, and ended without an answer.
    Rule("turn_cut_off", subtype=_any("error_during_execution"), terminal_reason=_any("completed")),
    # What it tried to get over last.
    Rule("provider_authentication_failed", retry_error=_any("authentication_failed")),
    Rule("provider_rate_limited", retry_error=_any("rate_limit")),
    Rule("provider_unavailable", retry_error=_any("overloaded", "server_error", "unknown")),
)
"""Anything else is `provider_error`."""

_ADVICE = {
    "session_not_found": "Start a new conversation, or replay the transcript.",
    "turn_limit_exceeded": "Its tools may have run. Raise the limit or continue with another prompt.",
    "budget_exceeded": "This process takes no more prompts. Raise the budget and continue in a new one.",
    "provider_context_exceeded": "Shorten the prompt or start a new conversation.",
    "provider_refused": "The model service declined to answer. Rephrase the prompt.",
    "provider_authentication_failed": "Set ANTHROPIC_API_KEY, or log in by running `claude` once.",
    "provider_quota_exceeded": "Check the account's credit and plan.",
    "provider_rate_limited": "Wait and run again.",
    "provider_model_not_found": "Name another model.",
    "output_truncated": "The answer met the model's output limit. Ask for less at once.",
    "provider_invalid_request": "The model service did not accept the request.",
    "provider_timeout": "Run again, or raise API_TIMEOUT_MS.",
    "provider_unavailable": "Run again later, or on another provider.",
    "turn_cut_off": "Run again; tools may have run already.",
}


def code_for(seen: Symptoms) -> str:
    """The code of the first rule that fits."""
    if seen.quota_rejected and seen.status == 429:
        return "provider_quota_exceeded"
    return next((rule.code for rule in RULES if rule.fits(seen)), "provider_error")


def failed(provider: str, seen: Symptoms) -> Error:
    """The error of a turn that the program itself called a failure."""
    code = code_for(seen)
    words = _sentence(seen.text[:500])
    advice = _ADVICE.get(code, "All it said is kept in the log.")
    kinds = (seen.assistant_error, seen.terminal_reason, seen.subtype)
    named = next((kind for kind in kinds if kind not in {None, "unknown", "success", "completed"}), None)
    return failure(
        code,
        f"{provider} ended its turn with an error: {words} What it did before is in the log. {advice}",
        details={
            name: value
            for name in ("subtype", "terminal_reason", "stop_reason", "assistant_error", "status", "resets_at")
            if (value := getattr(seen, name)) is not None
        },
        provider_error=ProviderFailure.of("claude", named or "unknown", seen.text.strip()[:2000]),
        retry_after=seen.retry_after if code == "provider_rate_limited" else None,
    )


def crashed(provider: str, how: str, *, exit_code: int | None, stderr: str) -> Error:
    """The error of a turn that the program did not live to end."""
    return failure(
        "agent_crashed",
        f"{provider} ended in the middle of a turn: {how}. What it said until then is in the log; its last step may or "
        "may not have happened. Look at the workspace, then run again to resume the conversation.",
        details={"exit_code": exit_code},
        provider_error=ProviderFailure.of("claude", "transport_exit", exit_code=exit_code, stderr=stderr or None),
    )


def not_started(provider: str, how: str, *, exit_code: int | None, stderr: str, seen: Symptoms | None) -> Error:
    """The error of a program that ended before it was ready: a wrong option, or a conversation it does not know."""
    code = code_for(seen) if seen is not None else "agent_start_failed"
    if code == "provider_error":
        code = "agent_start_failed"
    words = (seen.text if seen is not None else "") or stderr.strip().partition("\n")[0]
    advice = _ADVICE.get(code, "Nothing was sent to it; check its options and its version.")
    told = f"{how}, saying: {words[:500].strip()}" if words.strip() else how
    return failure(
        code,
        f"{provider} could not start: {_sentence(told)} {advice}",
        details={"exit_code": exit_code},
        provider_error=ProviderFailure.of(
            "claude", "process_error", words[:2000], exit_code=exit_code, stderr=stderr or None
        ),
    )


def _sentence(words: str) -> str:
    plain = words.strip() or "it gave no reason"
    return plain if plain.endswith((".", "!", "?")) else f"{plain}."

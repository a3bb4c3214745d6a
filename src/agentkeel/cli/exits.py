"""How a command ends: its exit code, and the block that says what happened, what was kept and what to do next."""

from __future__ import annotations

from collections.abc import Mapping

from agentkeel.cli.escape import escape
from agentkeel.errors import Error, ProviderFailure

__all__ = ["DONE", "FAILED", "INTERRUPTED", "REFUSED", "TEMPORARY", "TIMED_OUT", "USAGE", "exit_code", "told"]

DONE = 0
FAILED = 1
USAGE = 2
TEMPORARY = 75
"""sysexits' EX_TEMPFAIL: the same command may work later."""
REFUSED = 77
"""sysexits' EX_NOPERM."""
TIMED_OUT = 124
"""What coreutils' `timeout` gives."""
INTERRUPTED = 130
"""What a shell gives for SIGINT."""

_BY_CODE: Mapping[str, int] = {
    "policy_violation": REFUSED,
    "tool_permission_denied": REFUSED,
    "timeout": TIMED_OUT,
    "provider_timeout": TIMED_OUT,
    "cancelled": INTERRUPTED,
    "interrupted": INTERRUPTED,
    "invalid_status": USAGE,
    "invalid_event_type": USAGE,
    "invalid_cursor": USAGE,
    "provider_unavailable": TEMPORARY,
    "storage_connection_failed": TEMPORARY,
}
_GO_ON = "go on: {go_on}"
_STEPS: Mapping[str, str] = {
    "provider_authentication_failed": "log in with the program of {agent}, then: agentkeel doctor",
    "provider_unavailable": "agentkeel doctor",
    "agent_start_failed": "agentkeel doctor",
    "provider_rate_limited": "{wait}, then go on: {go_on}",
    "max_runs_exceeded": "{wait}, then go on: {go_on}",
    "store_owned": "wait for that process, or give another --store; `agentkeel session` reads this one meanwhile",
    "timeout": "go on with more time: {go_on} --timeout …",
    "cancelled": _GO_ON,
    "interrupted": _GO_ON,
    "agent_crashed": _GO_ON,
    "turn_cut_off": _GO_ON,
    "provider_timeout": _GO_ON,
    "tool_permission_denied": "allow it when asked, or see --permission-mode in: agentkeel run --help",
    "migration_required": "agentkeel store backup FILE, then: agentkeel store migrate",
    "session_not_found": "agentkeel session list",
    "internal_error": "this is a bug of agentkeel: please report it, with the events of the run",
}
_STDERR_LINES = 6


def exit_code(error: Error) -> int:
    """The exit code that tells a script what to do about `error`."""
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    if error.category in {"validation", "resource"}:
        return USAGE
    return TEMPORARY if error.retry == "later" else FAILED


def told(
    error: Error,
    *,
    store: str | None = None,
    session_id: str | None = None,
    run_id: str | None = None,
    provider: str | None = None,
) -> str:
    """The block for stderr. All in it is escaped."""
    rows = [f"agentkeel: {escape(error.message, lines=True)} [{error.code}]"]
    said = [] if error.provider_error is None else _said(error.provider_error, error)
    rows += [f"  {'said' if number == 0 else '    '}  {escape(line)}" for number, line in enumerate(said)]
    if store == "memory:":
        rows.append("  kept  nothing: the log was in memory")
        return "\n".join(rows) + "\n"
    if run_id is not None:
        rows.append(f"  kept  session {session_id}, run {run_id}, in {escape(store or 'the log')}")
    rows += [f"  next  {escape(step)}" for step in _next(error, session_id, run_id, provider)]
    return "\n".join(rows) + "\n"


def _said(words: ProviderFailure, error: Error) -> list[str]:
    """The agent's own words, where they add something: what it wrote last, else its message."""
    if words.stderr and words.stderr.strip():
        return words.stderr.rstrip().splitlines()[-_STDERR_LINES:]
    default = ProviderFailure.of(words.provider, words.kind).message
    return [] if words.message == default or words.message in error.message else [words.message[:500]]


def _next(error: Error, session_id: str | None, run_id: str | None, provider: str | None) -> list[str]:
    agent = provider or (error.provider_error.provider if error.provider_error else None) or "the agent"
    step = _STEPS.get(error.code)
    if step is not None:
        go_on = f"agentkeel run --session {session_id} PROMPT" if session_id else "the same command"
        wait = f"wait {error.retry_after:g} s" if error.retry_after else "wait a while"
        return [step.format(agent=agent, go_on=go_on, wait=wait)]
    return [f"agentkeel session events {session_id} --run {run_id}"] if run_id is not None else []

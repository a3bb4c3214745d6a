"""What a command says as a turn: the events it is told in, and how its end reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from agentkeel.adapters.providers.shell.output import exit_of
from agentkeel.core import events as ev
from agentkeel.core.events import Draft
from agentkeel.errors import Error, ProviderFailure, ProviderUnavailable, failure
from agentkeel.ports.provider import Began, Decision, Ended, Said

__all__ = ["Command", "Options", "Outcome", "Wording"]

TOOL = "bash"
_TIMED_OUT = 124
"""The exit code that coreutils' `timeout` gives."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, and how it is shown. `whole` says that `text` is a shell string."""

    argv: tuple[str, ...]
    text: str
    whole: bool = False

    @property
    def tool_input(self) -> dict[str, Any]:
        """The command as an event has it."""
        return {"command": self.text} if self.whole else {"command": self.text, "argv": list(self.argv)}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How commands run; see `Shell`."""

    provider: str
    timeout: float | None
    max_output_bytes: int
    success_exit_codes: frozenset[int]
    ask: bool
    grace: float
    workspace: Path = Path()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended. `returncode` is a child's: minus the number for a death by signal."""

    returncode: int
    stdout: str
    stdout_bytes: int
    stderr: str
    stderr_tail: str
    truncated: bool
    duration_ms: int
    interrupted: bool
    timed_out: bool


class Wording:
    """The events of one command; `call_id` names its tool call, its message and its question."""

    def __init__(self, command: Command, options: Options, call_id: str) -> None:
        self._command = command
        self._options = options
        self._call_id = call_id

    def began(self) -> Began:
        """The command was taken up."""
        return Began(tools=(TOOL,), details={"cwd": str(self._options.workspace), "command": self._command.text})

    def call(self) -> Draft:
        """It is about to run."""
        return _draft(
            ev.ToolCallStarted(
                tool_call_id=self._call_id, tool_name=TOOL, kind="bash", tool_input=self._command.tool_input
            )
        )

    def question(self) -> Draft:
        """May it run?"""
        return _draft(
            ev.PermissionRequested(
                request_id=self._call_id,
                tool_name=TOOL,
                kind="bash",
                tool_call_id=self._call_id,
                tool_input=self._command.tool_input,
            )
        )

    def delta(self, text: str) -> Draft:
        """A piece of its output."""
        return _draft(ev.MessageStreamed(delta=text, message_id=self._call_id))

    def _failed(self, reason: Literal["failed", "denied", "interrupted"], output: Any) -> Draft:
        return _draft(
            ev.ToolCallFailed(
                tool_call_id=self._call_id,
                tool_name=TOOL,
                kind="bash",
                tool_input=self._command.tool_input,
                tool_output=output,
                reason=reason,
            )
        )

    def withdrawn(self, *, unanswered: bool) -> list[Said]:
        """It was interrupted before it ran, and with it a question that had no answer."""
        resolved = ev.PermissionResolved(request_id=self._call_id, decision="withdrawn", by="agent")
        asked = [_draft(resolved)] if unanswered else []
        return [*asked, self._failed("interrupted", None), Ended(status="interrupted")]

    def denied(self, decision: Decision) -> list[Said]:
        """It may not run, and did not."""
        denied = self._failed("denied", decision.message)
        if decision.interrupt:
            return [denied, Ended(status="interrupted")]
        error = failure(
            "tool_permission_denied",
            f"The command was not allowed: {decision.message or 'it was denied'}. Nothing was run.",
            details={"command": self._command.text},
        )
        return [denied, Ended(status="failed", error=error)]

    def not_started(self, unavailable: ProviderUnavailable) -> list[Said]:
        """There is no such program, or it is none."""
        missing = unavailable.details.get("kind") == "cli_not_found"
        error = failure(
            "tool_not_found" if missing else "tool_execution_failed",
            unavailable.message,
            details={**unavailable.details, "command": self._command.text},
        )
        error.__cause__ = unavailable
        return [self._failed("failed", unavailable.message), Ended(status="failed", error=error)]

    def over(self, outcome: Outcome) -> list[Said]:
        """It has run: its output, and whether that is a success."""
        output = self._output(outcome)
        code: int = output["exit_code"]
        stopped = outcome.interrupted or outcome.timed_out
        well = code in self._options.success_exit_codes and not stopped
        return [
            _draft(self._result(outcome, output, well=well)),
            *self._message(outcome),
            Ended(
                status="interrupted" if outcome.interrupted else "completed" if well else "failed",
                stop_reason=f"exit_code_{code}",
                text=outcome.stdout,
                output=output,
                error=None if well or outcome.interrupted else self._error(outcome, output),
            ),
        ]

    def _output(self, outcome: Outcome) -> dict[str, Any]:
        ended = {"exit_code": _TIMED_OUT} if outcome.timed_out else exit_of(outcome.returncode)
        return {
            **ended,
            "stdout": outcome.stdout,
            "stderr": outcome.stderr,
            "duration_ms": outcome.duration_ms,
            "truncated": outcome.truncated,
            "timed_out": outcome.timed_out,
            "command": self._command.text,
            "cwd": str(self._options.workspace),
        }

    def _result(
        self, outcome: Outcome, output: Mapping[str, Any], *, well: bool
    ) -> ev.ToolCallCompleted | ev.ToolCallFailed:
        shared: dict[str, Any] = {
            "tool_call_id": self._call_id,
            "tool_name": TOOL,
            "kind": "bash",
            "tool_input": self._command.tool_input,
            "tool_output": output,
            "exit_code": output["exit_code"],
            "duration_ms": outcome.duration_ms,
            "output_bytes": outcome.stdout_bytes,
            "truncated": outcome.truncated,
        }
        if well:
            return ev.ToolCallCompleted(**shared)
        return ev.ToolCallFailed(**shared, reason="interrupted" if outcome.interrupted else "failed")

    def _message(self, outcome: Outcome) -> list[Draft]:
        if not outcome.stdout:
            return []
        return [
            _draft(
                ev.MessageReceived(
                    role="tool",
                    content=outcome.stdout,
                    message_id=self._call_id,
                    parent_tool_call_id=self._call_id,
                    partial=outcome.interrupted or outcome.timed_out or outcome.truncated,
                )
            )
        ]

    def _error(self, outcome: Outcome, output: Mapping[str, Any]) -> Error:
        if outcome.timed_out:
            how = f"did not end within {self._options.timeout:g} s and was stopped"
        elif "signal" in output:
            how = f"was killed by {output['signal']}"
        else:
            how = f"exited with code {output['exit_code']}"
        told = {key: output[key] for key in ("exit_code", "signal", "timed_out") if key in output}
        return failure(
            "command_failed",
            f"The command {self._command.text[:80]!r} {how}. What it wrote is kept; what it did to files stays.",
            details=told,
            provider_error=ProviderFailure.of(
                self._options.provider,
                "timeout" if outcome.timed_out else "process_error",
                exit_code=output["exit_code"],
                stderr=outcome.stderr_tail,
            ),
        )


def _draft(body: ev.Body) -> Draft:
    return Draft(data=body, source="agent")

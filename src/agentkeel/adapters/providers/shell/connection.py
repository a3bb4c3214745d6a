"""One command after another, each a turn: started, streamed, ended, and nothing left of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio
import anyio.lowlevel
import msgspec

from agentkeel.adapters.providers._wire.process import Process
from agentkeel.adapters.providers._wire.spawn import new_token
from agentkeel.adapters.providers.shell.output import Chunks, Transcript, exit_of
from agentkeel.core import events as ev
from agentkeel.core.content import Prompt
from agentkeel.core.events import Draft
from agentkeel.errors import Error, ProviderError, ProviderFailure, ProviderUnavailable, StateError, failure
from agentkeel.ports.provider import Began, Decision, Ended, Said

__all__ = ["Command", "Options", "ShellConnection"]

TOOL = "bash"
T = TypeVar("T")
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


class ShellConnection:
    """Runs one command at a time. There is no process between two prompts, so it stays alive."""

    provider_session_id: str | None = None

    def __init__(self, read: Callable[[Prompt], Command], options: Options, env: Mapping[str, str]) -> None:
        self.alive = True
        self._read = read
        self._options = options
        self._env = env
        self._running: Running | None = None
        self._token = new_token()

    @property
    def process(self) -> Mapping[str, Any]:
        """The mark that its commands will carry: whoever must end them after our death finds them by it."""
        return {"pid": 0, "start_time": 0, "token": self._token}

    async def prompt(self, prompt: Prompt) -> AsyncGenerator[Sequence[Said], None]:
        """One command.

        Raises:
            ValidationError: The prompt is no command that can be run.
            ProviderError: The command may not run (`tool_permission_denied`), or the connection was left meanwhile.
        """
        if not self.alive:
            raise ProviderError("This shell was closed; open another.", code="agent_crashed")
        if self._running is not None:
            raise StateError("A command is still running: one at a time.")
        command = self._read(prompt)
        running = self._running = Running(command, self._options, self._env, token=self._token)
        try:
            async with aclosing(running.play()) as batches:
                async for said in batches:
                    yield said
        finally:
            self._running = None

    async def answer(self, request_id: str, decision: Decision) -> None:
        """The command that waits for this answer runs, or does not."""
        if self._running is not None:
            self._running.answer(request_id, decision)
        await anyio.lowlevel.checkpoint()

    async def interrupt(self) -> None:
        """The command and all it started are gone: TERM, a grace, KILL. Its turn ends as interrupted."""
        if self._running is not None:
            await self._running.interrupt()
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Nothing runs any more."""
        self.alive = False
        if self._running is not None:
            self._running.closed = True
            await self._running.interrupt()


class Running:
    """One command from its announcement to its end."""

    def __init__(self, command: Command, options: Options, env: Mapping[str, str], *, token: str) -> None:
        self.closed = False
        self._token = token
        self._command = command
        self._options = options
        self._env = env
        self._call_id = f"cmd_{secrets.token_hex(8)}"
        self._process: Process | None = None
        self._starting = anyio.Lock()
        self._interrupted = False
        self._timed_out = False
        self._decision: Decision | None = None
        self._decided = anyio.Event()
        self._stdout = Transcript(options.max_output_bytes)
        self._started = time.monotonic()
        self._deadline = float("inf")

    async def play(self) -> AsyncGenerator[Sequence[Said], None]:
        """The turn."""
        yield [self._began(), _draft(self._call())]
        # The announcement is in the log before the command can act: whoever reads us has asked for the next batch.
        if self._options.ask:
            yield [_draft(self._question())]
            await self._decided.wait()
        await anyio.lowlevel.checkpoint()
        self._check_open()
        if self._interrupted or (self._decision is not None and not self._decision.allow):
            yield self._refused()
            return
        async with AsyncExitStack() as stack:
            try:
                async with self._starting:
                    process = self._process = await stack.enter_async_context(self._start())
            except ProviderUnavailable as error:
                yield self._not_started(error)
                return
            if self._interrupted:
                await process.stop()
            while lines := await self._in_time(process, process.next_lines):
                if text := self._stdout.add(lines):
                    yield [self._delta(text)]
            if text := self._stdout.finish():
                yield [self._delta(text)]
            await self._in_time(process, process.wait)
            await process.stop()
            self._check_open()
            yield self._over(process)

    def answer(self, request_id: str, decision: Decision) -> None:
        """The first answer to our one question counts."""
        if request_id == self._call_id and self._decision is None:
            self._decision = decision
            self._decided.set()

    async def interrupt(self) -> None:
        """The command has ended, or never begins."""
        async with self._starting:
            process = self._process
        self._interrupted = self._interrupted or process is None or process.returncode is None
        self._decided.set()
        if process is not None:
            await process.stop()

    def _start(self) -> AbstractAsyncContextManager[Process]:
        options = self._options
        self._started = time.monotonic()
        if options.timeout is not None:
            self._deadline = anyio.current_time() + options.timeout
        return Process.start(
            self._command.argv,
            cwd=options.workspace,
            env=self._env,
            stdin="null",
            token=self._token,
            grace=options.grace,
            stderr_bytes=options.max_output_bytes,
            splitter=Chunks(),
        )

    async def _in_time(self, process: Process, wait: Callable[[], Awaitable[T]]) -> T:
        """What `wait` returns. When the command's time is up, it is stopped first."""
        with anyio.CancelScope(deadline=self._deadline):
            return await wait()
        self._timed_out, self._deadline = True, float("inf")
        await process.stop()
        return await wait()

    def _check_open(self) -> None:
        if self.closed:
            raise ProviderError(
                "The shell was closed while its command ran; the command is gone.", code="agent_crashed"
            )

    # -- what is said --------------------------------------------------------------------------------------------

    def _began(self) -> Began:
        return Began(tools=(TOOL,), details={"cwd": str(self._options.workspace), "command": self._command.text})

    def _call(self) -> ev.ToolCallStarted:
        return ev.ToolCallStarted(
            tool_call_id=self._call_id, tool_name=TOOL, kind="bash", tool_input=self._command.tool_input
        )

    def _question(self) -> ev.PermissionRequested:
        return ev.PermissionRequested(
            request_id=self._call_id,
            tool_name=TOOL,
            kind="bash",
            tool_call_id=self._call_id,
            tool_input=self._command.tool_input,
        )

    def _delta(self, text: str) -> Draft:
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

    def _refused(self) -> list[Said]:
        """The command never ran."""
        decision = self._decision
        if decision is None or decision.allow:
            withdrawn = ev.PermissionResolved(request_id=self._call_id, decision="withdrawn", by="agent")
            asked = [_draft(withdrawn)] if self._options.ask and decision is None else []
            return [*asked, self._failed("interrupted", None), Ended(status="interrupted")]
        denied = self._failed("denied", decision.message)
        if decision.interrupt:
            return [denied, Ended(status="interrupted")]
        error = failure(
            "tool_permission_denied",
            f"The command was not allowed: {decision.message or 'it was denied'}. Nothing was run.",
            details={"command": self._command.text},
        )
        return [denied, Ended(status="failed", error=error)]

    def _not_started(self, unavailable: ProviderUnavailable) -> list[Said]:
        missing = unavailable.details.get("kind") == "cli_not_found"
        error = failure(
            "tool_not_found" if missing else "tool_execution_failed",
            unavailable.message,
            details={**unavailable.details, "command": self._command.text},
        )
        error.__cause__ = unavailable
        return [self._failed("failed", unavailable.message), Ended(status="failed", error=error)]

    def _over(self, process: Process) -> list[Said]:
        """The command has run: its output, and whether that is a success."""
        output = self._output(process)
        code: int = output["exit_code"]
        well = code in self._options.success_exit_codes and not (self._interrupted or self._timed_out)
        return [
            _draft(self._result(output, well=well)),
            *self._message(),
            Ended(
                status="interrupted" if self._interrupted else "completed" if well else "failed",
                stop_reason=f"exit_code_{code}",
                text=self._stdout.text,
                output=output,
                error=None if well or self._interrupted else self._error(output, process),
            ),
        ]

    def _output(self, process: Process) -> dict[str, Any]:
        ended = {"exit_code": _TIMED_OUT} if self._timed_out else exit_of(process.returncode or 0)
        return {
            **ended,
            "stdout": self._stdout.text,
            "stderr": process.stderr.decode("utf-8", "replace"),
            "duration_ms": round((time.monotonic() - self._started) * 1000),
            "truncated": self._stdout.truncated or process.stderr_total > len(process.stderr),
            "timed_out": self._timed_out,
            "command": self._command.text,
            "cwd": str(self._options.workspace),
        }

    def _result(self, output: Mapping[str, Any], *, well: bool) -> ev.ToolCallCompleted | ev.ToolCallFailed:
        shared: dict[str, Any] = {
            "tool_call_id": self._call_id,
            "tool_name": TOOL,
            "kind": "bash",
            "tool_input": self._command.tool_input,
            "tool_output": output,
            "exit_code": output["exit_code"],
            "duration_ms": output["duration_ms"],
            "output_bytes": self._stdout.total,
            "truncated": output["truncated"],
        }
        if well:
            return ev.ToolCallCompleted(**shared)
        return ev.ToolCallFailed(**shared, reason="interrupted" if self._interrupted else "failed")

    def _message(self) -> list[Draft]:
        if not self._stdout.text:
            return []
        return [
            _draft(
                ev.MessageReceived(
                    role="tool",
                    content=self._stdout.text,
                    message_id=self._call_id,
                    parent_tool_call_id=self._call_id,
                    partial=self._interrupted or self._timed_out or self._stdout.truncated,
                )
            )
        ]

    def _error(self, output: Mapping[str, Any], process: Process) -> Error:
        if self._timed_out:
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
                "timeout" if self._timed_out else "process_error",
                exit_code=output["exit_code"],
                stderr=process.stderr_tail,
            ),
        )


def _draft(body: ev.Body) -> Draft:
    return Draft(data=body, source="agent")

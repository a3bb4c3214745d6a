"""One command after another, each a turn: started, streamed, ended, and nothing left of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

from agentkeel.adapters.providers._wire.process import Process
from agentkeel.adapters.providers._wire.spawn import new_token
from agentkeel.adapters.providers.shell.output import Chunks, Transcript
from agentkeel.adapters.providers.shell.said import Command, Options, Outcome, Wording
from agentkeel.core.content import Prompt
from agentkeel.errors import ProviderError, ProviderUnavailable, StateError
from agentkeel.ports.provider import Decision, Said

__all__ = ["ShellConnection"]

T = TypeVar("T")


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
        self._wording = Wording(command, options, self._call_id)
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
        yield [self._wording.began(), self._wording.call()]
        # The announcement is in the log before the command can act: whoever reads us has asked for the next batch.
        if self._options.ask:
            yield [self._wording.question()]
            await self._decided.wait()
        await anyio.lowlevel.checkpoint()
        self._check_open()
        decision = self._decision
        if decision is not None and not decision.allow:
            yield self._wording.denied(decision)
            return
        if self._interrupted:
            yield self._wording.withdrawn(unanswered=self._options.ask and decision is None)
            return
        async with AsyncExitStack() as stack:
            try:
                async with self._starting:
                    process = self._process = await stack.enter_async_context(self._start())
            except ProviderUnavailable as error:
                yield self._wording.not_started(error)
                return
            if self._interrupted:
                await process.stop()
            while lines := await self._in_time(process, process.next_lines):
                if text := self._stdout.add(lines):
                    yield [self._wording.delta(text)]
            if text := self._stdout.finish():
                yield [self._wording.delta(text)]
            await self._in_time(process, process.wait)
            await process.stop()
            self._check_open()
            yield self._wording.over(self._outcome(process))

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

    def _outcome(self, process: Process) -> Outcome:
        return Outcome(
            returncode=process.returncode or 0,
            stdout=self._stdout.text,
            stdout_bytes=self._stdout.total,
            stderr=process.stderr.decode("utf-8", "replace"),
            stderr_tail=process.stderr_tail,
            truncated=self._stdout.truncated or process.stderr_total > len(process.stderr),
            duration_ms=round((time.monotonic() - self._started) * 1000),
            interrupted=self._interrupted,
            timed_out=self._timed_out,
        )

    def _check_open(self) -> None:
        if self.closed:
            raise ProviderError(
                "The shell was closed while its command ran; the command is gone.", code="agent_crashed"
            )

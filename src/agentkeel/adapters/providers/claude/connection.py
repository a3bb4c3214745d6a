"""One live Claude Code process: the only place where its pipes are touched.

Stdin stays open, so the process stays warm and serves prompt after prompt. The `initialize` request is both the
handshake and the warm-up.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio
from msgspec import to_builtins

from agentkeel.adapters.providers._wire.jsonl import BadLines, Junk, decode
from agentkeel.adapters.providers._wire.lines import Line, LongLine
from agentkeel.adapters.providers._wire.process import Process, StdinClosed
from agentkeel.adapters.providers.claude.errors import crashed, not_started
from agentkeel.adapters.providers.claude.fields import Message, record
from agentkeel.adapters.providers.claude.mapping import Mapper
from agentkeel.adapters.providers.claude.outcome import symptoms_of
from agentkeel.adapters.providers.claude.probing import OLDEST, spelled, version_in
from agentkeel.adapters.providers.claude.protocol import answer_line, control_line, user_line
from agentkeel.core.content import Prompt
from agentkeel.errors import Error, ProviderError, ProviderTimeout, ProviderUnavailable
from agentkeel.ports.provider import Decision, Ended, OpenSpec, Said

__all__ = ["ClaudeConnection"]

_SETTLE_SECONDS = 5.0
_LEAVE_SECONDS = 2.0


class ClaudeConnection:
    """One live Claude Code. Made by `Claude.open`."""

    def __init__(self, process: Process, *, name: str, resume: str | None = None) -> None:
        self._process = process
        self._name = name
        self._resume = resume
        self._mapper = Mapper(provider=name)
        self._waiting: deque[Line] = deque()
        self._prompting = False
        self._broken = False
        self._ready = False

    @property
    def provider_session_id(self) -> str | None:
        """The program's own id of the conversation; known from the first turn on, or from `resume`."""
        return self._mapper.session_id or self._resume

    @property
    def process(self) -> Mapping[str, Any]:
        """Names the program's process for whoever must end it after our death."""
        return to_builtins(self._process.identity)  # type: ignore[no-any-return]

    @property
    def alive(self) -> bool:
        """Whether another prompt may be sent."""
        usable = self._mapper.alive and not self._broken and self._process.returncode is None
        # A turn whose reader went away still runs: its lines would be taken for the next turn's.
        return usable and (self._prompting or not self._mapper.busy)

    async def start(self, spec: OpenSpec) -> None:
        """The program has answered `initialize`. Called once, by `open`.

        Raises:
            ProviderTimeout: No answer in `spec.startup_timeout` seconds.
            ProviderUnavailable: It is a version that is too old.
            ProviderError: The program ended instead.
        """
        request_id = f"init-{uuid.uuid4()}"
        fields = {"appendSystemPrompt": spec.system_prompt} if spec.system_prompt else {}
        # If it is gone already, its output says why.
        with suppress(StdinClosed):
            await self._process.write(control_line(request_id, "initialize", **fields))
        try:
            with anyio.fail_after(spec.startup_timeout):
                await self._handshake(request_id)
        except TimeoutError as error:
            raise ProviderTimeout(
                f"{self._name} was not ready within {spec.startup_timeout:g} seconds and was stopped. Nothing was sent "
                "to it; try again, or raise the time it may take to start.",
                details={"startup_timeout": spec.startup_timeout, "stderr": self._process.stderr_tail[-2000:]},
            ) from error
        self._ready = True

    async def prompt(self, prompt: Prompt) -> AsyncGenerator[Sequence[Said]]:
        """One turn; see `Connection.prompt`."""
        if not self.alive or self._prompting:
            raise self._not_usable()
        self._mapper.begin(prompt_id := str(uuid.uuid4()))
        self._prompting = True
        try:
            # If it is gone already, its output says why.
            with suppress(StdinClosed):
                await self._process.write(user_line(prompt.text, prompt_id))
            while self._mapper.busy:
                lines = await self._lines()
                said = self._mapper.settle() if lines is None else self._read(lines)
                lost = lines == [] or self._mapper.protocol_error is not None
                if lost:
                    said += self._mapper.lose()
                await self._tell(*self._mapper.replies())
                if said:
                    yield said
                if lost and not (said and isinstance(said[-1], Ended)):
                    raise await self._lost()
        finally:
            self._prompting = False

    async def answer(self, request_id: str, decision: Decision) -> None:
        """The program has its answer; a question it withdrew, or one answered before, is left alone."""
        permission = self._mapper.permission(request_id, decision)
        if permission is not None:
            await self._tell(answer_line(permission, decision))

    async def interrupt(self) -> None:
        """The program was told to stop its turn."""
        if self._mapper.busy:
            await self._tell(control_line(f"stop-{uuid.uuid4()}", "interrupt", cancel_queued=True))

    async def leave(self) -> None:
        """The program was asked to go, and given a moment to write its conversation down. Called by `open`."""
        if self._ready:
            with anyio.move_on_after(_LEAVE_SECONDS, shield=True):
                await self.interrupt()
                self._process.close_stdin()
                while lines := await self._process.next_lines():
                    _close(lines)
        _close(self._waiting)

    async def _handshake(self, request_id: str) -> None:
        result: Message | None = None
        bad_lines = BadLines()
        while lines := await self._process.next_lines():
            for line in lines:
                message = decode(line)
                bad_lines.observe(message)
                if isinstance(message, Junk):
                    self._waiting.append(line)  # Kept in the first turn's log.
                    continue
                if message.get("type") == "result":
                    result = message
                response = record(message.get("response"))
                if message.get("type") == "control_response" and response.get("request_id") == request_id:
                    if response.get("subtype") == "success":
                        self._check_version(record(response.get("response")).get("claude_code_version"))
                        return
                    raise self._start_failed(f"it refused to start: {response.get('error')}", result)
        await self._process.wait()
        raise self._start_failed(self._process.exit_description, result)

    def _check_version(self, said: object) -> None:
        """A version whose wire we do not know gets no prompt. One that says none is taken for ours."""
        version = version_in(said) if isinstance(said, str) else None
        if version is not None and version < OLDEST:
            raise ProviderUnavailable(
                f"{self._name} is Claude Code {said}, and {spelled(OLDEST)} is the oldest that works. Nothing was sent "
                "to it; update it, or name another executable.",
                details={"kind": "unsupported_version", "version": said, "oldest": spelled(OLDEST)},
            )

    async def _lines(self) -> list[Line] | None:
        """The next lines; none when there will be no more; None when the turn only lacks its last word, too long."""
        if self._waiting:
            lines, self._waiting = list(self._waiting), deque()
            return lines
        if not self._mapper.settling:
            return await self._process.next_lines()
        with anyio.move_on_after(_SETTLE_SECONDS):
            return await self._process.next_lines()
        return None

    def _read(self, lines: Iterable[Line]) -> list[Said]:
        """What the lines say. Those after the end of the turn wait for the next one."""
        said: list[Said] = []
        for line in lines:
            if not self._mapper.busy or self._mapper.protocol_error is not None:
                self._waiting.append(line)
                continue
            said += self._mapper.feed(line)
            if isinstance(line, LongLine):
                line.close()
        return said

    async def _tell(self, *lines: bytes) -> None:
        # A program that is gone needs no answer; the turn that waits for it says that it is gone.
        with suppress(StdinClosed):
            for line in lines:
                await self._process.write(line)

    async def _lost(self) -> Error:
        """Why the program says no more, as an error. It gets no further prompt."""
        self._broken = True
        if self._mapper.protocol_error is not None:
            return self._mapper.protocol_error
        with anyio.move_on_after(_LEAVE_SECONDS):
            await self._process.wait()
        process = self._process
        how = "it closed its output" if process.returncode is None else process.exit_description
        return crashed(self._name, how, exit_code=process.returncode, stderr=process.stderr_tail)

    def _start_failed(self, how: str, result: Message | None) -> Error:
        return not_started(
            self._name,
            how,
            exit_code=self._process.returncode,
            stderr=self._process.stderr_tail,
            seen=symptoms_of(result) if result is not None else None,
        )

    def _not_usable(self) -> ProviderError:
        if self._mapper.busy:
            return ProviderError(
                f"{self._name} is in the middle of a turn and takes one prompt at a time. The turn goes on; wait for "
                "its end, or interrupt it.",
                code="invalid_operation",
            )
        return ProviderError(
            f"This process of {self._name} takes no more prompts: it ended, broke its protocol or used up its budget. "
            "Open a new connection with `resume`.",
            code="agent_crashed",
        )


def _close(lines: Iterable[Line]) -> None:
    for line in lines:
        if isinstance(line, LongLine):
            line.close()

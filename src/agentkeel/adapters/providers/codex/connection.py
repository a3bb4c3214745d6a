"""A live app-server: one process, one conversation, one turn at a time.

Whoever runs a turn reads the pipe; `interrupt` and `answer` only write, so they may be called meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
from msgspec import to_builtins

from agentkeel.adapters.providers._wire.jsonrpc import CallFailed, Response
from agentkeel.adapters.providers._wire.lines import LongLine
from agentkeel.adapters.providers._wire.process import Process, StdinClosed
from agentkeel.adapters.providers.codex.errors import OVERLOADED, crash, refusal
from agentkeel.adapters.providers.codex.protocol import Protocol
from agentkeel.adapters.providers.codex.rollout import Rollout, silent_calls
from agentkeel.core.content import Prompt
from agentkeel.core.events import Body
from agentkeel.errors import Error, ProviderError, ProviderTimeout, StateError
from agentkeel.ports.provider import Decision, Said

__all__ = ["Connected"]

_ANSWER_SECONDS: Final = 30.0
_CLEAN_SECONDS: Final = 2.0
_LEFTOVER_SECONDS: Final = 10.0
_EXIT_SECONDS: Final = 1.0
_PATIENCE: Final = (0.2, 0.4, 0.8, 1.6)
"""Waits between tries of a request that the server was too busy for."""

_T = TypeVar("_T")


class Connected:
    """A connection of a `Codex`. See `agentkeel.ports.provider.Connection` for its promises.

    A denial's `message` does not reach the model: Codex takes none. A decision with another input is refused.
    """

    def __init__(self, process: Process, protocol: Protocol) -> None:
        self._process = process
        self._protocol = protocol
        self._broken: Error | None = None
        self._starting = False
        self._interrupted = False
        self._rollout: Rollout | None = None

    @property
    def provider_session_id(self) -> str | None:
        """Codex's thread id. It can be resumed once the thread had its first turn."""
        return self._protocol.conversation.thread_id

    @property
    def process(self) -> Mapping[str, Any]:
        """Names the server's process for whoever must end it after our death."""
        return to_builtins(self._process.identity)  # type: ignore[no-any-return]

    @property
    def alive(self) -> bool:
        """Whether another prompt may be sent."""
        return self._broken is None and self._process.returncode is None

    @property
    def busy(self) -> bool:
        """Whether a turn runs."""
        return self._starting or self._protocol.conversation.turn_id is not None

    @property
    def user_agent(self) -> str:
        """What the server calls itself."""
        return self._protocol.user_agent

    @property
    def has_own_service(self) -> bool:
        """Whether the built-in provider is pointed at another service, which may want no login."""
        return self._protocol.base_url is not None

    # -- the port ------------------------------------------------------------------------------------------------

    async def prompt(self, prompt: Prompt) -> AsyncGenerator[Sequence[Said], None]:
        """One turn. Closing the iterator early leaves the turn running; the next prompt waits for its end first."""
        if self._broken is not None:
            raise self._broken
        conversation = self._protocol.conversation
        try:
            await self._finish_leftover()
            await self._start_turn(prompt.text)
            if self._interrupted:
                await self._write(self._protocol.interrupt())
            while not conversation.over:
                if said := self._protocol.take_said():
                    yield said
                await self._read("in the middle of its turn")
            await self._clean()
        except Error as error:
            self._break(error)
            silent = await self._silent_calls()
            if said := [*self._protocol.take_said(), *conversation.cut_off(silent)]:
                yield said
            raise
        silent = await self._silent_calls()
        yield [*self._protocol.take_said(), *conversation.end(silent)]

    async def answer(self, request_id: str, decision: Decision) -> None:
        """Codex has its answer. To a request that waits no more, it does nothing.

        Raises:
            CapabilityNotSupported: The decision has another input than was asked for. The request still waits.
        """
        asked = self._protocol.conversation.waiting(request_id)
        data = self._protocol.answer(request_id, decision)
        if asked is None or data is None:
            return
        await self._write(data)
        # A refusal that ends the turn is a word of its own ("cancel"), but not for every kind of request.
        if decision.interrupt and (decision.allow or asked.method == "item/permissions/requestApproval"):
            await self.interrupt()

    async def interrupt(self) -> None:
        """Codex was told to stop its turn. The commands it leaves running are ended with the turn."""
        self._interrupted = True
        if self._protocol.conversation.turn_id is not None and self.alive:
            await self._write(self._protocol.interrupt())

    # -- its beginning and its end -------------------------------------------------------------------------------

    async def open(self) -> None:
        """The server is up and the conversation is there.

        Raises:
            ProviderError: It refused, or ended.
        """
        await self._call(self._protocol.initialize, "as it started")
        await self._write(self._protocol.initialized())
        await self._call(self._protocol.configuration, "as it started")

    async def account(self) -> Any:
        """What `account/read` says."""
        return await self._call(self._protocol.account, "as it started")

    async def start_thread(self) -> None:
        """The conversation is there."""
        await self._call(self._protocol.thread, "as it started", resume=self._protocol.plan.resume)
        if path := self._protocol.conversation.rollout:
            self._rollout = Rollout(Path(path))
            await self._rollout.skip()

    async def close(self) -> None:
        """The server was asked to end, and had a second to do so. Never raises."""
        with contextlib.suppress(ProviderError):  # Gone already, which is what we want.
            if self.busy:
                await self.interrupt()
        self._broken = self._broken or StateError("The connection to Codex was left.", code="stream_closed")
        self._process.close_stdin()
        with anyio.move_on_after(_EXIT_SECONDS):
            await self._process.wait()

    # -- inside --------------------------------------------------------------------------------------------------

    async def _start_turn(self, text: str) -> None:
        """The turn runs. Whether it does is not known where this is cancelled, so no other may follow then."""
        self._starting, self._interrupted = True, False
        outcome: Error | None = StateError("A turn was called off as it began.", code="stream_closed")
        try:
            await self._call(lambda: self._protocol.turn(text), "as its turn began")
            outcome = None
        except Error as error:
            outcome = error
            raise
        finally:
            self._starting = False
            if outcome is not None:
                self._break(outcome)

    async def _finish_leftover(self) -> None:
        """A turn nobody reads any more has come to its end."""
        if self._protocol.conversation.turn_id is None:
            return
        await self.interrupt()
        await self._within(_LEFTOVER_SECONDS, "end its last turn", self._until(self._turn_is_over, "between turns"))
        await self._clean()
        await self._silent_calls()
        self._protocol.conversation.end()
        self._protocol.take_said()

    async def _silent_calls(self) -> Sequence[Body]:
        """Calls of this turn that Codex did not tell of."""
        if self._rollout is None or self._protocol.conversation.turn_id is None:
            return ()
        lines = await self._rollout.lines()
        return silent_calls(lines, told=self._protocol.conversation.told, cwd=self._protocol.plan.workspace)

    def _turn_is_over(self) -> bool:
        return self._protocol.conversation.over

    async def _clean(self) -> None:
        """Sub-agents and commands the turn left running have ended, and said so, or two seconds have passed.

        Codex lets both go on after a turn, interrupted or not; they would change files after the run is over.
        """
        conversation = self._protocol.conversation
        with anyio.move_on_after(_CLEAN_SECONDS):
            for thread_id, turn_id in conversation.sub_agents.items():
                await self._write(self._protocol.interrupt(thread_id, turn_id))
            await self._until(lambda: not conversation.sub_agents, "as its turn ended")
            for thread_id in conversation.left_running:
                request_id, data = self._protocol.clean(thread_id)
                await self._write(data)
                await self._response(request_id, "as its turn ended")
            await self._until(lambda: not conversation.left_running, "as its turn ended")

    async def _call(self, ask: Callable[[], tuple[int, bytes]], during: str, *, resume: str | None = None) -> Any:
        """The result of a request, tried again while the server is too busy."""
        for wait in (*_PATIENCE, None):
            request_id, data = ask()
            await self._write(data)
            waiting = self._response(request_id, during)
            response = await self._within(_ANSWER_SECONDS, "answer a request", waiting)
            if response.error is None:
                return response.result
            if response.error.code != OVERLOADED or wait is None:
                raise refusal(CallFailed(response.method or "", response.error), resume=resume)
            await anyio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def _response(self, request_id: int, during: str) -> Response:
        while request_id not in self._protocol.answers:
            await self._read(during)
        return self._protocol.answers.pop(request_id)

    async def _within(self, seconds: float, what: str, work: Awaitable[_T]) -> _T:
        try:
            with anyio.fail_after(seconds):
                return await work
        except TimeoutError as error:
            raise ProviderTimeout(
                f"Codex did not {what} within {seconds:g} s. What it said before is kept; it is ended.",
                details={"kind": "timeout", "timeout_seconds": seconds},
            ) from error

    async def _until(self, done: Callable[[], bool], during: str) -> None:
        while not done():
            await self._read(during)

    async def _read(self, during: str) -> None:
        """All lines that wait are in the protocol, and what it answers at once is written."""
        lines = await self._process.next_lines()
        if not lines:
            raise await self._ended(during)
        try:
            for line in lines:
                self._protocol.feed(line)
        finally:
            for line in lines:
                if isinstance(line, LongLine):
                    line.close()
        if outgoing := self._protocol.take_outgoing():
            await self._write(outgoing)

    async def _write(self, data: bytes) -> None:
        try:
            await self._process.write(data)
        except StdinClosed:
            # Its last words and its exit status tell more than the broken pipe does.
            raise await self._ended("while it was spoken to") from None

    async def _ended(self, during: str) -> Error:
        process = self._process
        with anyio.move_on_after(_EXIT_SECONDS):
            await process.wait()
        how = process.exit_description
        error = crash(exit_code=process.returncode, how=how, stderr=process.stderr_tail, during=during)
        self._break(error)
        return error

    def _break(self, error: Error) -> None:
        """No other prompt may follow an error of the connection; one the server told us leaves it usable."""
        if not (isinstance(error, ProviderError) and error.details.get("rpc_code") is not None):
            self._broken = self._broken or error

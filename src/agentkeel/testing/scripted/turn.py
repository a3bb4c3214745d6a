"""How a scripted turn is played: each step becomes what an agent would say, and an interrupt is heard between them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, assert_never

import anyio
import anyio.lowlevel
import msgspec

from agentkeel.core import events as ev
from agentkeel.core.capabilities import Capabilities
from agentkeel.core.events import Draft
from agentkeel.core.usage import Usage
from agentkeel.errors import Error, ProviderError, failure
from agentkeel.ports.provider import Began, Decision, Ended, Said
from agentkeel.testing.scripted.steps import (
    Crash,
    CutOff,
    Deaf,
    Emit,
    Fail,
    Hang,
    Say,
    Spend,
    Step,
    Steps,
    Stop,
    Think,
    Use,
    Wait,
    kind_of,
    pieces,
    steps_of,
)

__all__ = ["Agent", "Playing", "error_of"]


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """What a turn needs to know of the agent it plays. `number("call")` gives `call-1`, `call-2` and so on."""

    provider_session_id: str
    model: str | None
    tools: tuple[str, ...]
    workspace: Path
    capabilities: Capabilities
    sleep: Callable[[float], Awaitable[None]]
    number: Callable[[str], str]


class Playing:
    """One turn being played: what was said so far, and what the agent heard meanwhile."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.leaves_alive = True
        self.abandoned = False
        self._over = False
        self._deaf = False
        self._interrupted = False
        self._killed = False
        self._stirred = anyio.Event()
        self._answers: dict[str, Decision] = {}
        self._text: str | None = None
        self._usage: Usage | None = None
        self._cost: Decimal | None = None

    async def play(self, steps: Steps) -> AsyncGenerator[Sequence[Said], None]:
        """A `Began`, what the steps say, and an `Ended` unless a step cuts the turn off."""
        yield [self._began()]
        for step in steps_of(steps):
            await self._look_up()
            if self._interrupted:
                break
            async with aclosing(self._act(step)) as batches:
                async for said in batches:
                    yield said
            if self._over:
                return
        await self._look_up()
        yield [self._ended("interrupted") if self._interrupted else self._complete(Stop())]

    def answer(self, request_id: str, decision: Decision) -> None:
        """The first answer to a request counts."""
        self._answers.setdefault(request_id, decision)
        self._stirred.set()

    def interrupt(self) -> bool:
        """The agent hears it, unless it is deaf. Whether the turn is over by that, since nobody reads it any more."""
        if self._deaf:
            return False
        self._interrupted = True
        self.leaves_alive = self.leaves_alive and self.agent.capabilities.interrupt
        self._stirred.set()
        return self.abandoned

    def kill(self) -> None:
        """The agent is gone in the middle of the turn."""
        self._killed = True
        self._stirred.set()

    async def _act(self, step: Step) -> AsyncGenerator[Sequence[Said], None]:
        match step:
            case Say():
                async with aclosing(self._say(step)) as batches:
                    async for said in batches:
                        yield said
            case Think(text=text, chunks=chunks):
                for piece in pieces(text, chunks):
                    yield [draft(ev.ReasoningStreamed(delta=piece))]
            case Use():
                async with aclosing(self._use(step)) as batches:
                    async for said in batches:
                        yield said
            case Wait(seconds=seconds):
                await self._wait(seconds)
            case Hang():
                await self._park(lambda: False)
            case Deaf():
                self._deaf = True
            case CutOff():
                self.leaves_alive = False
                self._over = True
            case _:
                yield self._at_once(step)

    def _at_once(self, step: Spend | Emit | Fail | Stop | Crash) -> Sequence[Said]:
        match step:
            case Spend():
                return [self._spend(step)]
            case Emit(said=drafts):
                return drafts
            case Fail():
                return [self._ended("failed", error=error_of(step))]
            case Stop():
                return [self._complete(step)]
            case Crash():
                self.leaves_alive = False
                raise error_of(step)
            case _ as never:
                assert_never(never)

    async def _say(self, step: Say) -> AsyncGenerator[Sequence[Said], None]:
        message_id = self.agent.number("msg")
        self._text = step.text
        if self.agent.capabilities.text_deltas:
            self._text = ""
            for piece in pieces(step.text, step.chunks):
                self._text += piece
                yield [draft(ev.MessageStreamed(delta=piece, message_id=message_id))]
                if self._interrupted:
                    break
        partial = self._text != step.text
        yield [draft(ev.MessageReceived(content=self._text, message_id=message_id, partial=partial))]

    async def _use(self, step: Use) -> AsyncGenerator[Sequence[Said], None]:
        call = ev.ToolCallStarted(
            tool_call_id=step.id or self.agent.number("call"),
            tool_name=step.tool,
            kind=kind_of(step),
            tool_input=step.input,
        )
        yield [draft(call)]
        if step.ask:
            request_id = self.agent.number("ask")
            yield [draft(_request(call, request_id))]
            await self._park(lambda: request_id in self._answers)
            decision = self._answers.get(request_id)
            if self._killed:
                return
            if decision is None:
                withdrawn = ev.PermissionResolved(request_id=request_id, decision="withdrawn", by="agent")
                yield [draft(withdrawn), draft(_failed(call, reason="interrupted"))]
                return
            if not decision.allow:
                yield [draft(_failed(call, reason="denied", output=decision.message))]
                self._interrupted = self._interrupted or decision.interrupt
                return
            if decision.updated_input is not None:
                call = msgspec.structs.replace(call, tool_input=dict(decision.updated_input))
        if step.effect is not None:
            done = step.effect(self.agent.workspace)
            if inspect.isawaitable(done):
                await done
        if step.exit_code:
            yield [draft(_failed(call, output=step.output, exit_code=step.exit_code))]
        else:
            yield [draft(_completed(call, output=step.output, exit_code=step.exit_code))]

    def _spend(self, step: Spend) -> Draft:
        usage = Usage(**{name: getattr(step, name) for name in Usage.__struct_fields__})
        self._usage = (self._usage or Usage()) + usage
        if step.cost_usd is not None:
            self._cost = (self._cost or Decimal()) + Decimal(step.cost_usd)
        return draft(ev.TokenUsageUpdated(usage=usage, model=step.model or self.agent.model, cost_usd=step.cost_usd))

    async def _wait(self, seconds: float) -> None:
        passed = False

        async def pass_time() -> None:
            nonlocal passed
            await self.agent.sleep(seconds)
            passed = True
            self._stirred.set()

        async with anyio.create_task_group() as group:
            group.start_soon(pass_time)
            await self._park(lambda: passed)
            group.cancel_scope.cancel()

    async def _park(self, ready: Callable[[], bool]) -> None:
        """Return when `ready`, or when the turn is interrupted or its agent killed."""
        while not (ready() or self._interrupted or self._killed):
            self._stirred = anyio.Event()
            await self._stirred.wait()

    async def _look_up(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self._killed:
            raise ProviderError("The scripted agent was closed in the middle of its turn.", code="agent_crashed")

    def _began(self) -> Began:
        return Began(
            model=self.agent.model,
            provider_session_id=self.agent.provider_session_id,
            tools=self.agent.tools,
            agent_version="scripted",
        )

    def _complete(self, stop: Stop) -> Ended:
        return self._ended("completed", stop_reason=stop.stop_reason, text=stop.text, output=stop.output)

    def _ended(
        self,
        status: Literal["completed", "failed", "interrupted"],
        *,
        stop_reason: str | None = None,
        text: str | None = None,
        output: Any = None,
        error: Error | None = None,
    ) -> Ended:
        self._over = True
        return Ended(
            status=status,
            stop_reason=stop_reason,
            text=self._text if text is None else text,
            output=output,
            usage=self._usage,
            cost_usd=None if self._cost is None else str(self._cost),
            turns=1,
            error=error,
            provider_session_id=self.agent.provider_session_id,
        )


def draft(body: ev.Body) -> Draft:
    """Something that the agent says."""
    return Draft(data=body, source="agent")


def error_of(step: Fail | Crash) -> Error:
    """The error that the step stands for."""
    return failure(
        step.code,
        step.message,
        details={"kind": "transport_exit"} if isinstance(step, Crash) else {},
        retry_after=step.retry_after if isinstance(step, Fail) else None,
    )


def _request(call: ev.ToolCallStarted, request_id: str) -> ev.PermissionRequested:
    return ev.PermissionRequested(
        request_id=request_id,
        tool_name=call.tool_name,
        kind=call.kind,
        tool_call_id=call.tool_call_id,
        tool_input=call.tool_input,
    )


def _completed(call: ev.ToolCallStarted, *, output: Any, exit_code: int | None) -> ev.ToolCallCompleted:
    return ev.ToolCallCompleted(
        tool_call_id=call.tool_call_id,
        tool_name=call.tool_name,
        kind=call.kind,
        tool_input=call.tool_input,
        tool_output=output,
        exit_code=exit_code,
    )


def _failed(
    call: ev.ToolCallStarted,
    *,
    reason: Literal["failed", "denied", "interrupted"] = "failed",
    output: Any = None,
    exit_code: int | None = None,
) -> ev.ToolCallFailed:
    return ev.ToolCallFailed(
        tool_call_id=call.tool_call_id,
        tool_name=call.tool_name,
        kind=call.kind,
        tool_input=call.tool_input,
        tool_output=output,
        exit_code=exit_code,
        reason=reason,
    )

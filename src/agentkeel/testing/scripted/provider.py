"""The scripted provider and its connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel

from agentkeel.core.capabilities import Capabilities, Capability
from agentkeel.core.content import Prompt
from agentkeel.errors import ProviderError, ProviderTimeout, StateError
from agentkeel.ports.clock import Clock
from agentkeel.ports.provider import Connection, Decision, OpenSpec, Probe, Said
from agentkeel.testing.scripted.steps import Crash, Fail, Hang, Steps, Wait, steps_of
from agentkeel.testing.scripted.turn import Agent, Playing, error_of

__all__ = ["CAPABILITIES", "ScriptedConnection", "ScriptedProvider", "Turn"]

Turn: TypeAlias = Steps | Callable[[Prompt, "ScriptedConnection"], Steps]
Opening: TypeAlias = Steps | Callable[[OpenSpec], Steps]

TOOLS = ("read", "write", "edit", "delete", "move", "search", "bash", "fetch", "task", "mcp", "other")

CAPABILITIES = Capabilities(
    can=(
        *(Capability("tool", tool) for tool in TOOLS),
        Capability("file_access"),
        Capability("network_access"),
        Capability("code_execution"),
        Capability("prompt"),
        Capability("sampling"),
    ),
    text_deltas=True,
    reasoning_deltas=True,
    resume=True,
    warm=True,
    interrupt=True,
    permissions="gate",
    usage="delta",
    cost=True,
)
"""What a scripted agent can do unless it is made with other capabilities: everything."""


class ScriptedProvider:
    """A provider that plays its turns one after another, whichever connection is prompted.

    Args:
        turns: One for each prompt. When they are used up, `always` is played, or the prompt fails.
        always: A turn for every prompt behind the last of `turns`.
        opening: What happens before a connection is there: `Wait`, `Hang` or `Fail` steps, or a function of the spec
            that gives them. `Hang`, and waits longer than `startup_timeout`, end as `ProviderTimeout`.
        capabilities: What it declares and keeps: without `warm` a connection takes one prompt, without `resume`
            each has a new conversation, without `interrupt` an interrupt ends the connection too.
        clock: The time of `Wait` and `Hang`; None for the event loop's.

    Attributes:
        prompts: Every prompt, in order.
        opened: The spec of every connection that was asked for, in order.
        closed: The provider's session id of every connection that is gone, in order.
        answers: Every permission answer that arrived, with its request's id; late ones too.
        interrupts: How many interrupts arrived.
    """

    def __init__(
        self,
        *turns: Turn,
        name: str = "scripted",
        always: Turn | None = None,
        opening: Opening = (),
        capabilities: Capabilities = CAPABILITIES,
        clock: Clock | None = None,
        model: str | None = "scripted-model",
        tools: Sequence[str] = TOOLS,
    ) -> None:
        self.name = name
        self.capabilities = capabilities
        self.secrets: frozenset[str] = frozenset()
        self.tools = tuple(tools)
        self.model = model
        self.prompts: list[Prompt] = []
        self.opened: list[OpenSpec] = []
        self.closed: list[str] = []
        self.answers: list[tuple[str, Decision]] = []
        self.interrupts = 0
        self._turns = list(turns)
        self._played = 0
        self._numbers: Counter[str] = Counter()
        self._always = always
        self._opening = opening
        self.sleep = anyio.sleep if clock is None else clock.sleep

    @property
    def turns_left(self) -> int:
        """How many scripted turns were not played yet."""
        return len(self._turns) - self._played

    def open(self, spec: OpenSpec) -> AbstractAsyncContextManager[Connection]:
        """A scripted agent for a session."""
        return self._open(spec)

    async def probe(self) -> Probe:
        """It is always there."""
        return Probe(name=self.name, installed=True, version="scripted", supported=True, logged_in=True)

    @asynccontextmanager
    async def _open(self, spec: OpenSpec) -> AsyncIterator[Connection]:
        self.opened.append(spec)
        resumed = spec.resume if self.capabilities.resume else None
        connection = ScriptedConnection(self, spec, resumed or f"{self.name}-{len(self.opened)}")
        await self._come_up(spec)
        try:
            yield connection
        finally:
            connection.die()
            self.closed.append(connection.provider_session_id)

    async def _come_up(self, spec: OpenSpec) -> None:
        opening = self._opening(spec) if callable(self._opening) else self._opening
        left = spec.startup_timeout
        for step in steps_of(opening):
            match step:
                case Wait(seconds=seconds) if seconds < left:
                    left -= seconds
                    await self.sleep(seconds)
                case Wait() | Hang():
                    await self.sleep(left)
                    raise ProviderTimeout(
                        f"{self.name} did not come up in {spec.startup_timeout:g} s. It was stopped; "
                        "try again, or allow it more time.",
                        details={"deadline": "startup", "seconds": spec.startup_timeout},
                    )
                case Fail() | Crash():
                    raise error_of(step)
                case _:
                    raise TypeError(f"{step!r} cannot stand in `opening`: only Wait, Hang, Fail and Crash can.")

    def number(self, what: str) -> str:
        """`what-1`, then `what-2` and so on, over all connections."""
        self._numbers[what] += 1
        return f"{what}-{self._numbers[what]}"

    def next_turn(self, prompt: Prompt) -> Turn:
        """The turn to play for `prompt`, which counts as played.

        Raises:
            ProviderError: The script is at its end.
        """
        self.prompts.append(prompt)
        if self._played < len(self._turns):
            self._played += 1
            return self._turns[self._played - 1]
        if self._always is not None:
            return self._always
        raise ProviderError(
            f"The script of {self.name!r} has {len(self._turns)} turns and this is prompt {len(self.prompts)} "
            f"({prompt.text[:60]!r}). Nothing was played; add a turn, or give `always`.",
            code="provider_invalid_request",
            details={"turns": len(self._turns), "prompts": len(self.prompts)},
        )


class ScriptedConnection:
    """A live scripted agent. Functions that stand for turns are given it."""

    def __init__(self, provider: ScriptedProvider, spec: OpenSpec, provider_session_id: str) -> None:
        self.provider = provider
        self.spec = spec
        self.provider_session_id = provider_session_id
        self.alive = True
        self.process: Mapping[str, Any] = {}
        self.prompts: list[Prompt] = []
        self._now: Playing | None = None
        self._agent = Agent(
            provider_session_id=provider_session_id,
            model=spec.model or provider.model,
            tools=provider.tools,
            workspace=spec.workspace,
            capabilities=provider.capabilities,
            sleep=provider.sleep,
            number=provider.number,
        )

    async def prompt(self, prompt: Prompt) -> AsyncGenerator[Sequence[Said], None]:
        """One scripted turn."""
        if not self.alive:
            raise ProviderError("The scripted agent is gone; open another.", code="agent_crashed")
        if self._now is not None:
            raise StateError("The scripted agent is still at its turn: one turn at a time.")
        turn = self.provider.next_turn(prompt)
        self.prompts.append(prompt)
        playing = self._now = Playing(self._agent)
        try:
            async with aclosing(playing.play(turn(prompt, self) if callable(turn) else turn)) as batches:
                async for said in batches:
                    yield said
        except Exception:
            self._now = None
            raise
        except BaseException:  # The reader went away, and the agent is still at its turn.
            playing.abandoned = True
            raise
        finally:
            self.alive = self.alive and playing.leaves_alive
        self._now = None
        self.alive = self.alive and self.provider.capabilities.warm

    async def answer(self, request_id: str, decision: Decision) -> None:
        """The agent has its answer; one to a request that nobody waits for is recorded and does nothing."""
        self.provider.answers.append((request_id, decision))
        if self._now is not None:
            self._now.answer(request_id, decision)
        await anyio.lowlevel.checkpoint()

    async def interrupt(self) -> None:
        """The agent hears it at its next step, unless it is deaf."""
        self.provider.interrupts += 1
        if self._now is not None and self._now.interrupt():
            self._now = None
        await anyio.lowlevel.checkpoint()

    def die(self) -> None:
        """The agent is gone; a turn that is being played raises."""
        self.alive = False
        if self._now is not None:
            self._now.kill()

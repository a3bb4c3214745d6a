"""Every provider keeps the promises of `ports.provider`."""

import shlex
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from agentkeel.adapters.providers.shell import Shell
from agentkeel.core.content import Prompt
from agentkeel.testing import scripted
from agentkeel.testing.provider_suite import FILE, SAID, WRITTEN, Act, ProviderSuite, Stage


class TestScripted(ProviderSuite):
    @asynccontextmanager
    async def stage(self, tmp_path: Path, *turns: Act) -> AsyncIterator[Stage]:
        def write(ask: bool) -> scripted.Use:
            return scripted.Use("write", ask=ask, effect=lambda at: (at / FILE).write_text(WRITTEN))

        steps: dict[Act, list[scripted.Step]] = {
            "say": [
                scripted.Think("Hm."),
                scripted.Say(SAID, chunks=5),
                scripted.Spend(input_tokens=3, output_tokens=4),
                scripted.Spend(output_tokens=1),
            ],
            "write": [scripted.Say("I write."), write(ask=False), scripted.Say("Written.")],
            "ask": [write(ask=True), scripted.Say("Done.")],
            "fail": [scripted.Say("Hm"), scripted.Fail("provider_rate_limited", "Too fast.")],
            "hang": [scripted.Say("Let me see"), scripted.Hang()],
        }
        yield Stage(
            provider=scripted.ScriptedProvider(*(steps[turn] for turn in turns)),
            prompts=tuple(Prompt(text=turn) for turn in turns),
        )


class TestScriptedThatCrashes(TestScripted):
    """The same with an agent that dies instead of failing."""

    @asynccontextmanager
    async def stage(self, tmp_path: Path, *turns: Act) -> AsyncIterator[Stage]:
        async with super().stage(tmp_path, *turns) as stage:
            if "fail" not in turns:
                yield stage
                return
            yield Stage(
                provider=scripted.ScriptedProvider([scripted.Say("Hm"), scripted.Crash()], SAID), prompts=stage.prompts
            )


COMMANDS: dict[Act, str] = {
    "say": f"printf %s {shlex.quote(SAID)}",
    "write": f"printf %s {shlex.quote(WRITTEN)} > {shlex.quote(FILE)}",
    "ask": f"printf %s {shlex.quote(WRITTEN)} > {shlex.quote(FILE)}",
    "fail": "echo trouble >&2; exit 3",
    "hang": "touch hanging; sleep 600 & sleep 600",
}


def until_there(path: Path) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        while not path.exists():
            await anyio.sleep(0.01)

    return wait


class TestShellString(ProviderSuite):
    @asynccontextmanager
    async def stage(self, tmp_path: Path, *turns: Act) -> AsyncIterator[Stage]:
        yield Stage(
            provider=Shell(shell=True, ask="ask" in turns),
            prompts=tuple(Prompt(text=COMMANDS[turn]) for turn in turns),
            hanging=until_there(tmp_path / "workspace" / "hanging"),
        )


class TestShellArguments(ProviderSuite):
    @asynccontextmanager
    async def stage(self, tmp_path: Path, *turns: Act) -> AsyncIterator[Stage]:
        vectors = [("sh", "-c", COMMANDS[turn]) for turn in turns]
        yield Stage(
            provider=Shell(ask="ask" in turns),
            prompts=tuple(Prompt(text=shlex.join(vector), argv=vector) for vector in vectors),
            hanging=until_there(tmp_path / "workspace" / "hanging"),
        )


class TestShellBesideAnotherChild(TestShellString):
    """The same while the test run has a server of its own, which is no agent: it is neither counted nor killed."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls) -> Iterator[None]:
        with subprocess.Popen(["/bin/sh", "-c", "while :; do sleep 0.05; done"]) as server:
            yield
            assert server.poll() is None, "the suite killed a process that no provider started"
            server.kill()

"""The providers of real agent programs keep the promises of `ports.provider`; only their model is a script."""

import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from agentkeel.adapters.providers.claude import Claude
from agentkeel.adapters.providers.codex import Codex
from agentkeel.core.content import Prompt
from agentkeel.ports.provider import Provider
from agentkeel.testing import agents
from agentkeel.testing.model_server import ByPrompt, Fail, Hang, ModelServer, Reply, Say, Shell, Think
from agentkeel.testing.provider_suite import FILE, SAID, WRITTEN, Act, ProviderSuite, Stage

MAKE_FILE = Shell(f"printf %s {shlex.quote(WRITTEN)} > {shlex.quote(FILE)}")

SCRIPT = {
    "Please say": Reply(Think("They want words."), Say(SAID, chunks=5)),
    "Please write": [MAKE_FILE, "Written."],
    "Please ask": [MAKE_FILE, "Done."],
    "Please fail": Reply(Fail(401), times=20),
    "Please hang": Reply(Say("Let me see."), Hang()),
}


class AgentSuite(ProviderSuite):
    """A real program against a scripted model; `provider` configures it."""

    pytestmark = pytest.mark.agents

    def provider(self, server: ModelServer, home: Path) -> Provider:
        raise NotImplementedError

    @asynccontextmanager
    async def stage(self, tmp_path: Path, *turns: Act) -> AsyncIterator[Stage]:
        async with ModelServer(ByPrompt(SCRIPT)) as server:

            async def hanging() -> None:
                while not any("Please hang" in request.prompt for request in server.turns):
                    await anyio.sleep(0.02)

            yield Stage(
                provider=self.provider(server, tmp_path / "home"),
                prompts=tuple(Prompt(text=f"Please {turn}.") for turn in turns),
                hanging=hanging,
            )


class TestClaude(AgentSuite):
    def provider(self, server: ModelServer, home: Path) -> Provider:
        return Claude(executable=agents.install("claude"), env=server.claude_env(home), pass_env=(), max_retries=0)

    def missing(self, tmp_path: Path) -> Provider:
        return Claude(executable=tmp_path / "no-claude", pass_env=())


class TestCodex(AgentSuite):
    def provider(self, server: ModelServer, home: Path) -> Provider:
        return Codex(executable=agents.install("codex"), env=server.codex_env(home))

    def missing(self, tmp_path: Path) -> Provider:
        return Codex(executable=tmp_path / "no-codex")

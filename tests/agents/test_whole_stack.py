"""The thread everything hangs on, with real agents: a prompt goes down, its events come back into a durable log.

Both programs are real, their files and processes are real, the store is SQLite; the model is scripted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psutil
import pytest

import agentkeel
from agentkeel import Claude, Codex, Decision
from agentkeel.core.events import TERMINAL_TYPES, PermissionRequested
from agentkeel.ports.provider import Provider
from agentkeel.testing import ModelServer, agents
from agentkeel.testing.model_server import Cut, Fail, Reply, Say, Script, Shell, Think, Usage, Write

pytestmark = [pytest.mark.anyio, pytest.mark.agents, pytest.mark.timeout(120)]

AGENTS = ["claude", "codex"]


def provider_of(agent: str, server: ModelServer, folder: Path) -> Provider:
    home = folder / f"home-{agent}"
    if agent == "claude":
        return Claude(executable=agents.install("claude"), env=server.claude_env(home), max_retries=0, pass_env=())
    return Codex(executable=agents.install("codex"), env=server.codex_env(home))


@asynccontextmanager
async def stack(
    agent: str, folder: Path, script: Script, **options: object
) -> AsyncIterator[tuple[agentkeel.Manager, agentkeel.Session, Path]]:
    workspace = folder / "project"
    workspace.mkdir(exist_ok=True)
    async with (
        ModelServer(script) as server,
        agentkeel.open(f"sqlite:{folder}/log.db", providers=[provider_of(agent, server, folder)]) as manager,
    ):
        yield manager, await manager.start_session(workspace=workspace, **options), workspace


async def approve(request: PermissionRequested) -> Decision:
    return Decision(allow=True)


def at_home_in(folder: Path) -> list[str]:
    """Processes that work in `folder`."""
    found = psutil.process_iter(["cwd", "name"])
    return [p.info["name"] for p in found if (p.info["cwd"] or "").startswith(str(folder))]


async def nobody_works_in(folder: Path) -> None:
    with anyio.fail_after(15):
        while at_home_in(folder):
            await anyio.sleep(0.05)


@pytest.mark.parametrize("agent", AGENTS)
async def test_a_prompt_becomes_a_run_in_the_log(agent: str, tmp_path: Path) -> None:
    script = [
        Reply(
            Think("A file is wanted."),
            Say("I write it."),
            Write("out.txt", "hello\n"),
            Usage(input_tokens=100, output_tokens=20),
        ),
        Reply(Shell("cat out.txt"), Usage(input_tokens=120, output_tokens=10, cache_read_tokens=80)),
        Reply(Say("Done."), Usage(input_tokens=140, output_tokens=5, cache_read_tokens=100, reasoning_tokens=2)),
        "Again.",
    ]
    async with stack(agent, tmp_path, script, on_permission=approve) as (_, session, workspace):
        result = await session.run("Write out.txt")
        assert (workspace / "out.txt").read_text() == "hello\n"
        assert result.text == "Done."
        assert [(c.kind, c.status) for c in result.tool_calls] in (
            [("write", "completed"), ("bash", "completed")],
            [("edit", "completed"), ("bash", "completed")],
        )
        assert "hello" in repr(result.tool_calls[1].output)
        used = result.usage
        assert (used.input_tokens, used.output_tokens, used.cache_read_tokens) == (360, 35, 180)
        events = await session.events()
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        types = [event.type for event in events]
        assert {"reasoning_streamed", "message_streamed", "permission_requested", "permission_resolved"} <= set(types)
        assert types[-2:] == ["run_completed", "session_idle"]
        said = [e.data.content for e in events if e.type == "message_received"]
        streamed = "".join(e.data.delta for e in events if e.type == "message_streamed")
        assert streamed == "".join(said) == "I write it.Done."
        begun = next(e.data for e in events if e.type == "run_started")
        assert begun.provider_session_id
        assert begun.agent_version in {"2.1.329", "0.169.0"}
        again = await session.run("And once more")
        assert again.continuity == "warm"


@pytest.mark.parametrize("agent", AGENTS)
async def test_a_call_that_nobody_allows_does_not_happen(agent: str, tmp_path: Path) -> None:
    script = [Reply(Shell("touch forbidden")), Reply(Say("It was refused."))]
    async with stack(agent, tmp_path, script) as (_, session, workspace):
        result = await session.run("Touch it")
        assert result.text == "It was refused."
        assert [call.status for call in result.tool_calls] == ["denied"]
        assert not (workspace / "forbidden").exists()


FAILURES = [
    (Fail(401), agentkeel.ProviderAuthenticationFailed, "provider_authentication_failed"),
    (Fail(429, retry_after=120), agentkeel.ProviderRateLimited, "provider_rate_limited"),
    (Fail(503), agentkeel.ProviderUnavailable, "provider_unavailable"),
    (Fail(529, type="overloaded_error"), agentkeel.ProviderUnavailable, "provider_unavailable"),
    (Fail(404, code="model_not_found", message="no such model"), agentkeel.ProviderError, "provider_model_not_found"),
]


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize(("step", "cls", "code"), FAILURES, ids=[code for *_, code in FAILURES])
async def test_a_failing_model_service_fails_the_run_with_its_code(
    agent: str, step: Fail, cls: type[agentkeel.Error], code: str, tmp_path: Path
) -> None:
    def script(request: object) -> Reply:
        return Reply(step, times=1)

    async with stack(agent, tmp_path, script) as (manager, session, _):
        with pytest.raises(cls) as caught:
            await session.run("hi", timeout=60)
        assert caught.value.code == code
        assert caught.value.provider_error is not None
        [run] = await manager.runs()
        assert (run.status, run.error_code) == ("failed", code)


@pytest.mark.parametrize("agent", AGENTS)
async def test_a_stream_that_is_cut_for_good_is_not_a_success(agent: str, tmp_path: Path) -> None:
    def script(request: object) -> Reply:
        return Reply(Say("It begins well"), Cut())

    async with stack(agent, tmp_path, script) as (_, session, _):
        with pytest.raises(agentkeel.Error) as caught:
            await session.run("hi", timeout=60)
        assert caught.value.category == "provider"
        assert caught.value.result is not None
        assert caught.value.result.status == "failed"


@pytest.mark.parametrize("agent", AGENTS)
async def test_a_cancelled_run_leaves_no_command_behind_and_the_session_goes_on(agent: str, tmp_path: Path) -> None:
    slow = 'python3 -c \'import time; open("begun", "w").close(); time.sleep(60)\''
    script = [Reply(Say("Wait for it."), Shell(slow)), "Here I am."]
    async with stack(agent, tmp_path, script, on_permission=approve) as (_, session, workspace):
        run = await session.submit("Run it")
        with anyio.fail_after(60):
            while not (workspace / "begun").exists():
                await anyio.sleep(0.05)
        await run.cancel("enough")
        with pytest.raises(agentkeel.RunCancelled) as caught:
            await run.result()
        assert caught.value.result is not None
        assert caught.value.result.usage.total_tokens > 0
        with anyio.fail_after(15):
            while "python3" in at_home_in(workspace):
                await anyio.sleep(0.05)
        assert (await session.run("Still there?")).text == "Here I am."
        ends = [e for e in await session.events() if e.type in TERMINAL_TYPES]
        assert [e.type for e in ends] == ["run_cancelled", "run_completed"]


CHILD = """
import sys, anyio, agentkeel
sys.path.insert(0, sys.argv[1])
from test_whole_stack import approve, provider_of
from pathlib import Path

async def main(agent, folder, url):
    from agentkeel.testing.model_server import ModelServer
    server = ModelServer([])
    type(server).url = property(lambda self: url)
    provider = provider_of(agent, server, Path(folder))
    async with agentkeel.open(f"sqlite:{folder}/log.db", providers=[provider]) as manager:
        session = await manager.start_session(id="s", workspace=f"{folder}/project", on_permission=approve)
        await session.run("Run it")

anyio.run(main, *sys.argv[2:5])
"""


@pytest.mark.parametrize("agent", AGENTS)
async def test_a_manager_killed_in_mid_tool_leaves_an_interrupted_run_no_process_and_a_conversation_to_resume(
    agent: str, tmp_path: Path
) -> None:
    workspace = tmp_path / "project"
    workspace.mkdir()
    slow = 'python3 -c \'import time; open("begun", "w").close(); time.sleep(300)\''
    async with ModelServer([Reply(Say("Wait."), Shell(slow)), "I am back."]) as server:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(Path(__file__).parent), agent, str(tmp_path), server.url]
        )
        try:
            with anyio.fail_after(60):
                while not (workspace / "begun").exists():
                    assert child.poll() is None
                    await anyio.sleep(0.05)
        finally:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        provider = provider_of(agent, server, tmp_path)
        async with agentkeel.open(f"sqlite:{tmp_path}/log.db", providers=[provider]) as manager:
            session = await manager.session("s")
            [run] = await session.runs()
            assert (run.status, run.error_details["outcome"]) == ("interrupted", "unknown")
            assert len(run.error_details["open_tool_calls"]) == 1
            await nobody_works_in(workspace)
            again = await session.run("Are you back?")
            assert (again.continuity, again.text) == ("native", "I am back.")
            assert b"Run it" in server.turns[-1].body, "the agent still knows what it was asked before"

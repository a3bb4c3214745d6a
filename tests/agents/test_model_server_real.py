"""The real Claude Code and the real Codex, offline, against the scripted model server."""

import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import anyio
import pytest
from anyio.abc import Process

from agentkeel.testing import agents
from agentkeel.testing.model_server import (
    ByPrompt,
    Cut,
    Edit,
    Fail,
    Hang,
    ModelServer,
    Reply,
    Say,
    Shell,
    Think,
    Usage,
    Write,
)

pytestmark = [pytest.mark.anyio, pytest.mark.agents]

SECONDS = 60
WRITING = Write("greeting.txt", "Hello\nworld\n")
WORK = [
    Reply(Think("A file is wanted."), Say("I will write it."), WRITING, Usage(100, 20, 30)),
    Reply(Edit("greeting.txt", "world\n", "agentkeel\n"), Usage(200, 10)),
    Reply(Shell("cat greeting.txt"), Usage(300, 10)),
    Reply(Say("The file says hello."), Usage(400, 10)),
]


@pytest.fixture(scope="session")
def claude() -> Path:
    return agents.install("claude")


@pytest.fixture(scope="session")
def codex() -> Path:
    return agents.install("codex")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The agent's working folder."""
    path = tmp_path / "work"
    path.mkdir()
    return path


@asynccontextmanager
async def running(command: Sequence[str | Path], folder: Path, environment: dict[str, str]) -> AsyncIterator[Process]:
    """A process in a group of its own, which is gone afterwards."""
    process = await anyio.open_process(
        [str(part) for part in command], cwd=folder, env=environment, stderr=DEVNULL, start_new_session=True
    )
    try:
        with anyio.fail_after(SECONDS):
            yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.aclose()
        await anyio.wait_all_tasks_blocked()  # asyncio lets go of the process a few turns after its exit


async def lines(process: Process) -> AsyncIterator[dict[str, Any]]:
    assert process.stdout is not None
    buffer = b""
    async for part in process.stdout:
        *whole, buffer = (buffer + part).split(b"\n")
        for line in whole:
            yield json.loads(line)


async def until_exit(process: Process) -> list[dict[str, Any]]:
    told = [line async for line in lines(process)]
    await process.wait()
    return told


async def ask_claude(claude: Path, server: ModelServer, folder: Path, prompt: str, **env: str) -> list[dict[str, Any]]:
    command = [claude, "-p", "--output-format", "stream-json", "--input-format", "stream-json", "--verbose",
               "--permission-mode", "acceptEdits", "--allowedTools", "Bash"]  # fmt: skip
    said = {"type": "user", "message": {"role": "user", "content": prompt}, "client_composed": True}
    environment = server.claude_env(folder.parent / "claude-home") | env
    async with running(command, folder, environment) as process:
        assert process.stdin is not None
        await process.stdin.send(json.dumps(said).encode() + b"\n")
        await process.stdin.aclose()
        return await until_exit(process)


async def ask_codex(codex: Path, server: ModelServer, folder: Path, prompt: str) -> list[dict[str, Any]]:
    command = [codex, "exec", "--json", "--skip-git-repo-check", "-s", "workspace-write", "-"]
    async with running(command, folder, server.codex_env(folder.parent / "codex-home")) as process:
        assert process.stdin is not None
        await process.stdin.send(prompt.encode())
        await process.stdin.aclose()
        return await until_exit(process)


def assert_all_went_by_the_script(server: ModelServer) -> None:
    server.check()
    assert server.refused == ()


async def test_claude_writes_edits_runs_and_reports(claude: Path, folder: Path) -> None:
    async with ModelServer(ByPrompt({"greeting": WORK})) as server:
        told = await ask_claude(claude, server, folder, "Write a greeting")
        assert_all_went_by_the_script(server)
    assert (folder / "greeting.txt").read_text() == "Hello\nagentkeel\n"
    result = told[-1]
    assert (result["subtype"], result["is_error"], result["result"]) == ("success", False, "The file says hello.")
    assert (result["usage"]["input_tokens"], result["usage"]["output_tokens"]) == (1000, 50)
    assert result["usage"]["cache_read_input_tokens"] == 30
    # Write gives one result, Edit two (it reads first), the command one.
    assert [turn.tool_results for turn in server.turns] == [0, 1, 3, 4]
    assert server.turns[-1].tool_outputs[-1] == "Hello\nagentkeel"
    assert server.turns[0].conversation == result["session_id"]
    assert server.turns[0].cwd == str(folder)


async def test_codex_exec_writes_edits_runs_and_reports(codex: Path, folder: Path) -> None:
    async with ModelServer(ByPrompt({"greeting": WORK})) as server:
        told = await ask_codex(codex, server, folder, "Write a greeting")
        assert_all_went_by_the_script(server)
    assert (folder / "greeting.txt").read_text() == "Hello\nagentkeel\n"
    items = [line["item"] for line in told if line["type"] == "item.completed"]
    kinds = [item["type"] for item in items if item["type"] != "error"]
    assert kinds == ["reasoning", "agent_message", "file_change", "file_change", "command_execution", "agent_message"]
    assert items[-1]["text"] == "The file says hello."
    assert told[-1]["type"] == "turn.completed"
    assert told[-1]["usage"]["input_tokens"] == 1030
    assert told[-1]["usage"]["cached_input_tokens"] == 30
    assert [turn.tool_results for turn in server.turns] == [0, 1, 2, 3]
    assert server.turns[0].conversation == told[0]["thread_id"]


class AppServer:
    """Just enough of a client of `codex app-server`: requests, and notifications until one of a kind."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._lines = lines(process)
        self._number = 0
        self.notes: list[dict[str, Any]] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        await self.send({"id": self._number, "method": method, "params": params})
        async for line in self._lines:
            if line.get("id") == self._number:
                return line["result"]
            self.notes.append(line)
        raise EOFError(method)

    async def until(self, method: str) -> dict[str, Any]:
        async for line in self._lines:
            self.notes.append(line)
            if line.get("method") == method:
                return line["params"]
        raise EOFError(method)

    async def send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send(json.dumps(message).encode() + b"\n")


@asynccontextmanager
async def app_server(codex: Path, server: ModelServer, folder: Path) -> AsyncIterator[tuple[AppServer, str]]:
    """An initialized app-server with one thread that may write in `folder`, and the thread's id."""
    async with running([codex, "app-server"], folder, server.codex_env(folder.parent / "codex-home")) as process:
        client = AppServer(process)
        info = {"name": "agentkeel-tests", "title": "agentkeel", "version": "0"}
        await client.call("initialize", clientInfo=info)
        await client.send({"method": "initialized"})
        started = await client.call("thread/start", cwd=str(folder), approvalPolicy="never", sandbox="workspace-write")
        yield client, started["thread"]["id"]


def says(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text, "text_elements": []}]


async def test_codex_app_server_takes_two_turns_of_one_thread(codex: Path, folder: Path) -> None:
    script = ByPrompt({"greeting": WORK, "bye": "Goodbye."})
    async with ModelServer(script) as server:
        async with app_server(codex, server, folder) as (client, thread):
            for prompt in ("Write a greeting", "Now say bye"):
                await client.call("turn/start", threadId=thread, input=says(prompt))
                ended = await client.until("turn/completed")
                assert ended["turn"]["status"] == "completed"
        assert_all_went_by_the_script(server)
    assert (folder / "greeting.txt").read_text() == "Hello\nagentkeel\n"
    deltas = [n["params"]["delta"] for n in client.notes if n.get("method") == "item/agentMessage/delta"]
    assert "".join(deltas) == "I will write it.The file says hello.Goodbye."
    assert [(turn.prompts, turn.tool_results) for turn in server.turns] == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]


async def test_codex_app_server_interrupts_a_reply_that_hangs(codex: Path, folder: Path) -> None:
    async with ModelServer(Reply(Say("Let me"), Hang("text"))) as server:
        async with app_server(codex, server, folder) as (client, thread):
            started = await client.call("turn/start", threadId=thread, input=says("Go"))
            await client.until("item/agentMessage/delta")
            await client.call("turn/interrupt", threadId=thread, turnId=started["turn"]["id"])
            interrupted = [note["params"] for note in client.notes if note.get("method") == "turn/completed"]
            ended = interrupted[0] if interrupted else await client.until("turn/completed")
            assert ended["turn"]["status"] == "interrupted"
        assert [each.outcome for each in server.exchanges] == ["abandoned"]


@pytest.mark.parametrize(
    ("status", "error"), [(401, "authentication_failed"), (429, "rate_limit"), (529, "server_error")]
)
async def test_claude_reports_the_failure_of_its_provider(claude: Path, folder: Path, status: int, error: str) -> None:
    async with ModelServer(Fail(status, headers={"x-should-retry": "false"})) as server:
        told = await ask_claude(claude, server, folder, "Hi")
        assert_all_went_by_the_script(server)
    assert (told[-1]["is_error"], told[-1]["api_error_status"]) == (True, status)
    assert [line["error"] for line in told if line["type"] == "assistant"] == [error]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "unexpected status 401 Unauthorized: Incorrect API key provided"),
        (429, "exceeded retry limit, last status: 429 Too Many Requests"),
        (529, "unexpected status 529"),
    ],
)
async def test_codex_reports_the_failure_of_its_provider(codex: Path, folder: Path, status: int, message: str) -> None:
    async with ModelServer(Fail(status)) as server:
        told = await ask_codex(codex, server, folder, "Hi")
        assert_all_went_by_the_script(server)
    assert told[-1]["type"] == "turn.failed"
    assert told[-1]["error"]["message"].startswith(message)
    assert len(server.turns) == 1


async def test_codex_app_server_names_the_class_of_a_failure_and_takes_the_next_turn(codex: Path, folder: Path) -> None:
    async with ModelServer([Fail(401), "Hello again."]) as server:
        async with app_server(codex, server, folder) as (client, thread):
            await client.call("turn/start", threadId=thread, input=says("Hi"))
            ended = await client.until("turn/completed")
            assert ended["turn"]["status"] == "failed"
            assert ended["turn"]["error"]["codexErrorInfo"] == {"httpConnectionFailed": {"httpStatusCode": 401}}
            await client.call("turn/start", threadId=thread, input=says("Again"))
            ended = await client.until("turn/completed")
            assert ended["turn"]["status"] == "completed"
        assert_all_went_by_the_script(server)


async def test_claude_recovers_from_an_overloaded_provider_within_its_retries(claude: Path, folder: Path) -> None:
    async with ModelServer([Reply(Fail(529), times=2), "Here I am."]) as server:
        told = await ask_claude(claude, server, folder, "Hi", CLAUDE_CODE_MAX_RETRIES="2")
        assert_all_went_by_the_script(server)
    assert (told[-1]["is_error"], told[-1]["result"]) == (False, "Here I am.")
    assert [line["error_status"] for line in told if line.get("subtype") == "api_retry"] == [529, 529]


async def test_claude_goes_on_after_a_stream_that_ended_early(claude: Path, folder: Path) -> None:
    script = ByPrompt({"Hi": [Reply(Say("First half,"), Cut(clean=True)), "second half."]})
    async with ModelServer(script) as server:
        told = await ask_claude(claude, server, folder, "Hi")
        assert_all_went_by_the_script(server)
    texts = [line["message"]["content"][0]["text"] for line in told if line["type"] == "assistant"]
    assert texts == ["First half,", "second half."]
    assert [turn.prompt for turn in server.turns] == ["Hi", "Hi"]


async def test_codex_fails_a_turn_whose_stream_ended_early(codex: Path, folder: Path) -> None:
    async with ModelServer(Reply(Say("First half,"), Cut(clean=True))) as server:
        told = await ask_codex(codex, server, folder, "Hi")
    closed = "stream disconnected before completion: stream closed before response.completed"
    assert told[-1] == {"type": "turn.failed", "error": {"message": closed}}

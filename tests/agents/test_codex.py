"""The real Codex, its real tools and files, and a scripted model on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from agentkeel.adapters.providers.codex import Codex
from agentkeel.core.content import prompt_of
from agentkeel.core.events import (
    Body,
    Draft,
    ErrorOccurred,
    MessageReceived,
    MessageStreamed,
    PermissionRequested,
    PermissionResolved,
    ReasoningStreamed,
    TokenUsageUpdated,
    ToolCallCompleted,
    ToolCallFailed,
    ToolCallStarted,
)
from agentkeel.core.ids import SessionId
from agentkeel.core.usage import Usage
from agentkeel.errors import (
    CapabilityNotSupported,
    Error,
    ProviderAuthenticationFailed,
    ProviderError,
    ProviderUnavailable,
    ValidationError,
)
from agentkeel.ports.provider import Began, Connection, Decision, Ended, OpenSpec, Said
from agentkeel.testing import agents
from agentkeel.testing.model_server import (
    CallTool,
    Cut,
    Delay,
    Fail,
    FromPrompt,
    ModelRequest,
    ModelServer,
    Reply,
    ReplyLike,
    Say,
    Shell,
    Think,
    Write,
    prompt_with,
)
from agentkeel.testing.model_server import Usage as Spend

pytestmark = [pytest.mark.anyio, pytest.mark.agents]

React = Callable[[Any, Connection], Awaitable[None]]


class Place:
    """A workspace, a home and a scratch folder of one test, with a model server; makes providers for them."""

    def __init__(self, folder: Path, server: ModelServer) -> None:
        self.workspace, self.scratch, self.home = folder / "project", folder / "scratch", folder / "home"
        for each in (self.workspace, self.scratch, self.home):
            each.mkdir()
        self.server = server
        self.env = server.codex_env(self.home)

    def codex(self, **options: Any) -> Codex:
        options = {"executable": agents.install("codex"), "env": self.env} | options
        return Codex(**options)

    def spec(self, **fields: Any) -> OpenSpec:
        fields = {"session_id": SessionId("ses_1"), "workspace": self.workspace, "scratch": self.scratch} | fields
        return OpenSpec(**fields)

    @asynccontextmanager
    async def connected(self, *, mode: str = "full_auto", **fields: Any) -> AsyncIterator[Connection]:
        async with self.codex(permission_mode=mode).open(self.spec(**fields)) as connection:
            yield connection


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with ModelServer(FromPrompt()) as server:
        yield Place(tmp_path, server)


async def say(
    connection: Connection, *replies: ReplyLike, react: React | None = None, prompt: str = "go"
) -> list[Said]:
    """One turn, for which the model has `replies`; `react` sees each event as it comes."""
    said: list[Said] = []
    async for batch in connection.prompt(prompt_of(prompt_with(prompt, list(replies)))):
        assert batch, "a step with nothing in it"
        for each in batch:
            said.append(each)
            if react is not None and isinstance(each, Draft):
                await react(each.data, connection)
    assert isinstance(said[0], Began)
    assert isinstance(said[-1], Ended)
    assert sum(isinstance(each, Ended) for each in said) == 1
    return said


def of(said: Sequence[Said], kind: type[Body]) -> list[Any]:
    return [each.data for each in said if isinstance(each, Draft) and isinstance(each.data, kind)]


def end(said: Sequence[Said]) -> Ended:
    assert isinstance(said[-1], Ended)
    return said[-1]


def deciding(**decision: Any) -> React:
    async def react(body: Any, connection: Connection) -> None:
        if isinstance(body, PermissionRequested):
            await connection.answer(body.request_id, Decision(**decision))

    return react


async def stop_when_a_tool_runs(body: Any, connection: Connection) -> None:
    if isinstance(body, ToolCallStarted):
        await anyio.sleep(0.3)
        await connection.interrupt()


def running(word: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if any(word in part for part in p.info["cmdline"] or [])]


async def test_text_comes_in_pieces_and_whole_with_what_was_thought_and_spent(place: Place) -> None:
    async with place.connected(system_prompt="Answer in verse.") as connection:
        said = await say(
            connection,
            Reply(
                Think("let me see"),
                Say("Hello there, friend."),
                Spend(
                    input_tokens=100, output_tokens=30, cache_read_tokens=20, cache_write_tokens=7, reasoning_tokens=4
                ),
            ),
        )
        began = said[0]
        assert isinstance(began, Began)
        assert (began.model, began.agent_version) == ("scripted-1", "0.169.0")
        assert began.provider_session_id == connection.provider_session_id
    assert "".join(piece.delta for piece in of(said, MessageStreamed)) == "Hello there, friend."
    assert len(of(said, MessageStreamed)) > 1
    assert [message.content for message in of(said, MessageReceived)] == ["Hello there, friend."]
    assert "".join(piece.delta for piece in of(said, ReasoningStreamed)) == "let me see"
    spent = Usage(input_tokens=100, output_tokens=30, cache_read_tokens=20, cache_write_tokens=7, reasoning_tokens=4)
    assert [update.usage for update in of(said, TokenUsageUpdated)] == [spent]
    assert (end(said).status, end(said).text, end(said).usage) == ("completed", "Hello there, friend.", spent)
    assert b"Answer in verse." in place.server.turns[0].body


async def test_a_command_and_a_patch_are_asked_for_and_change_files_once_allowed(place: Place) -> None:
    async with place.connected(mode="default") as connection:
        said = await say(
            connection,
            Shell("echo hi > a.txt; cat a.txt"),
            Write("b.txt", "bee\n"),
            "Done.",
            react=deciding(allow=True),
        )
    command, patch = of(said, ToolCallCompleted)
    assert (command.tool_name, command.kind, command.tool_output, command.exit_code) == ("shell", "bash", "hi\n", 0)
    assert command.tool_input == {"command": "echo hi > a.txt; cat a.txt", "cwd": str(place.workspace)}
    assert (patch.tool_name, patch.kind) == ("apply_patch", "edit")
    assert patch.tool_input["changes"] == [{"path": str(place.workspace / "b.txt"), "kind": "add", "diff": "bee\n"}]
    assert [request.tool_input for request in of(said, PermissionRequested)] == [command.tool_input, patch.tool_input]
    assert (place.workspace / "a.txt").read_text() == "hi\n"
    assert (place.workspace / "b.txt").read_text() == "bee\n"


async def test_a_declined_command_does_not_run_and_the_turn_goes_on(place: Place) -> None:
    async with place.connected(mode="default") as connection:
        said = await say(connection, Shell("touch made"), "As you wish.", react=deciding(allow=False))
    assert [call.reason for call in of(said, ToolCallFailed)] == ["denied"]
    assert (end(said).status, end(said).text) == ("completed", "As you wish.")
    assert not (place.workspace / "made").exists()


async def test_a_refusal_that_interrupts_ends_the_turn(place: Place) -> None:
    async with place.connected(mode="default") as connection:
        said = await say(connection, Shell("touch made"), "?", react=deciding(allow=False, interrupt=True))
        assert end(said).status == "interrupted"
        assert [call.reason for call in of(said, ToolCallFailed)] == ["denied"]
        assert end(await say(connection, "Still here.")).text == "Still here."
    assert not (place.workspace / "made").exists()


@pytest.fixture
def outside() -> Iterator[Path]:
    """A path no sandbox lets Codex write to. It leaves /tmp and TMPDIR writable, and a home may be in there."""
    path = Path("/var/tmp") / f"agentkeel-outside-{os.getpid()}"
    yield path
    path.unlink(missing_ok=True)


async def test_full_auto_asks_for_nothing_and_the_sandbox_binds(place: Place, outside: Path) -> None:
    async with place.connected(mode="full_auto") as connection:
        said = await say(connection, Shell("touch made"), Shell(f"touch {outside}"), "Done.")
    assert of(said, PermissionRequested) == []
    assert [call.exit_code for call in of(said, ToolCallFailed)] == [1]
    assert (place.workspace / "made").exists()
    assert not outside.exists()


async def test_asking_for_escalations_lets_the_sandbox_bind_what_is_not_asked_for(place: Place, outside: Path) -> None:
    leave = CallTool("exec_command", {"cmd": f"touch {outside}", "sandbox_permissions": "require_escalated"})
    codex = place.codex(asks="escalations")
    assert codex.capabilities.permissions == "observe"
    async with codex.open(place.spec()) as connection:
        said = await say(
            connection, Shell("touch made"), Shell(f"touch {outside}"), leave, "Done.", react=deciding(allow=False)
        )
    assert [request.tool_input["command"] for request in of(said, PermissionRequested)] == [f"touch {outside}"]
    assert sorted(call.reason for call in of(said, ToolCallFailed)) == ["denied", "failed"]
    assert (place.workspace / "made").exists()
    assert not outside.exists()


async def test_another_input_than_was_asked_for_is_refused_and_the_request_still_waits(place: Place) -> None:
    async def react(body: Any, connection: Connection) -> None:
        if isinstance(body, PermissionRequested):
            with pytest.raises(CapabilityNotSupported):
                await connection.answer(body.request_id, Decision(allow=True, updated_input={"command": "ls"}))
            await connection.answer(body.request_id, Decision(allow=True))
            await connection.answer(body.request_id, Decision(allow=False))  # Too late: does nothing.

    async with place.connected(mode="default") as connection:
        said = await say(connection, Shell("touch made"), "Done.", react=react)
    assert end(said).status == "completed"
    assert (place.workspace / "made").exists()


async def test_accept_edits_accepts_patches_in_the_workspace_and_asks_for_the_rest(place: Place) -> None:
    elsewhere = place.home / "elsewhere.txt"
    async with place.connected(mode="accept_edits") as connection:
        said = await say(
            connection,
            Write("b.txt", "bee\n"),
            Write(str(elsewhere), "no\n"),
            Shell("touch made"),
            "Done.",
            react=deciding(allow=False),
        )
    assert [(each.decision, each.by) for each in of(said, PermissionResolved)] == [("allow", "accept_edits")]
    assert [request.tool_name for request in of(said, PermissionRequested)] == ["apply_patch", "shell"]
    assert (place.workspace / "b.txt").exists()
    assert not elsewhere.exists()


async def test_plan_asks_for_nothing_and_writes_nothing(place: Place) -> None:
    async with place.connected(mode="plan") as connection:
        said = await say(connection, Shell("touch made"), "Done.")
    assert of(said, PermissionRequested) == []
    assert [call.exit_code for call in of(said, ToolCallFailed)] == [1]
    assert not (place.workspace / "made").exists()


async def test_a_command_codex_is_silent_about_is_in_the_log_all_the_same(place: Place) -> None:
    # Stopped by the sandbox at once, it gets no item of Codex, though its first half was done.
    async with place.connected() as connection:
        for _ in range(2):
            said = await say(connection, Shell("touch made; touch /etc/made"), "Done.")
            (call,) = of(said, ToolCallStarted)
            (failed,) = of(said, ToolCallFailed)
            assert call.tool_input == {"command": "touch made; touch /etc/made", "cwd": str(place.workspace)}
            assert (failed.tool_call_id, failed.exit_code, failed.reason) == (call.tool_call_id, 1, "failed")
            assert "Read-only file system" in failed.tool_output
        resume = connection.provider_session_id
    async with place.connected(resume=resume) as connection:
        said = await say(connection, Shell("touch made; touch /etc/made"), "Done.")
        assert len(of(said, ToolCallStarted)) == len(of(said, ToolCallFailed)) == 1


async def test_a_repository_is_not_trusted_and_what_it_brings_does_not_run(place: Place) -> None:
    subprocess.run(["git", "init", "-q", place.workspace], check=True)
    (place.workspace / ".codex").mkdir()
    (place.workspace / ".codex/config.toml").write_text(
        f'[mcp_servers.trap]\ncommand = "/bin/sh"\nargs = ["-c", "touch {place.home}/sprung"]\n'
    )
    async with place.connected() as connection:
        await say(connection, Shell("touch made"), "Done.")
    assert (place.workspace / "made").exists()
    assert "projects" not in tomllib.loads((place.home / ".codex/config.toml").read_text())
    assert not (place.home / "sprung").exists()


async def test_an_interrupt_ends_the_turn_and_the_command_and_the_process_stays_usable(place: Place) -> None:
    async with place.connected(mode="dangerously_skip_permissions") as connection:
        said = await say(connection, Shell("echo begun; sleep 31271"), "?", react=stop_when_a_tool_runs)
        assert end(said).status == "interrupted"
        (call,) = of(said, ToolCallFailed)
        assert (call.reason, call.tool_output) == ("interrupted", "begun\n")
        assert running("sleep 31271") == []
        assert connection.alive
        assert end(await say(connection, "Still here.")).text == "Still here."


async def test_a_command_left_running_ends_with_its_turn(place: Place) -> None:
    # Codex goes on without a command that is slow; here it waits a quarter of a second only, by default 10.
    slow = CallTool("exec_command", {"cmd": "echo begun; sleep 31272", "yield_time_ms": 250})
    async with place.connected(mode="dangerously_skip_permissions") as connection:
        said = await say(connection, slow, "I leave it running.")
        assert (end(said).status, end(said).text) == ("completed", "I leave it running.")
        (call,) = of(said, ToolCallFailed)
        assert (call.reason, call.tool_output) == ("interrupted", "begun\n")
        assert running("sleep 31272") == []
        assert end(await say(connection, "Still here.")).text == "Still here."


async def test_a_refused_command_is_in_the_log_as_denied(place: Place) -> None:
    # Codex has a rule of its own against it, and sends no item for it either.
    async with place.connected() as connection:
        said = await say(connection, Shell("rm -rf /tmp/agentkeel-no-such-folder"), "Done.")
    assert [call.reason for call in of(said, ToolCallFailed)] == ["denied"]


async def test_a_sub_agent_works_for_its_caller_and_ends_with_the_turn(tmp_path: Path) -> None:
    def script(request: ModelRequest) -> ReplyLike:
        if request.prompt.startswith("Child"):
            return Reply(Say("Working."), Shell("sleep 31276"))
        if request.tool_results == 0:
            return CallTool("multi_agent_v1__spawn_agent", {"message": "Child, work."})
        if request.tool_results == 1:
            return Reply(Delay(1), Shell("true"))
        return "I do not wait for it."

    async with ModelServer(script) as server:
        place = Place(tmp_path, server)
        async with place.connected(mode="dangerously_skip_permissions") as connection:
            said: list[Said] = []
            async for batch in connection.prompt(prompt_of("Parent, delegate.")):
                said += batch
            assert running("sleep 31276") == []
    spawn, *_ = of(said, ToolCallStarted)
    assert (end(said).status, end(said).text, spawn.kind) == ("completed", "I do not wait for it.", "task")
    (command,) = [call for call in of(said, ToolCallStarted) if call.tool_input.get("command") == "sleep 31276"]
    assert command.parent_tool_call_id == spawn.tool_call_id
    (ended,) = [call for call in of(said, ToolCallFailed) if call.tool_call_id == command.tool_call_id]
    assert ended.reason == "interrupted"
    (message,) = [each for each in of(said, MessageReceived) if each.parent_tool_call_id]
    assert (message.content, message.parent_tool_call_id) == ("Working.", spawn.tool_call_id)


async def test_leaving_in_the_middle_of_a_turn_leaves_no_process(place: Place) -> None:
    async with place.connected(mode="dangerously_skip_permissions") as connection:
        async for batch in connection.prompt(
            prompt_of(prompt_with("go", [Shell("setsid nohup sleep 31273 & sleep 31273"), "?"]))
        ):
            if any(isinstance(each, Draft) and isinstance(each.data, ToolCallStarted) for each in batch):
                await anyio.sleep(0.3)
                break
        assert running("sleep 31273") != []
    assert running("sleep 31273") == []
    assert running(str(place.home)) == []


async def test_a_turn_nobody_read_to_its_end_does_not_swallow_the_next_prompt(place: Place) -> None:
    async with place.connected() as connection:
        turn = connection.prompt(prompt_of(prompt_with("go", [Shell("sleep 31274"), "first"])))
        async for batch in turn:
            if any(isinstance(each, Draft) and isinstance(each.data, ToolCallStarted) for each in batch):
                break
        await turn.aclose()  # type: ignore[attr-defined]
        said = await say(connection, "second")
        assert (end(said).text, len(of(said, MessageReceived))) == ("second", 1)
    assert running("sleep 31274") == []


FAILURES: dict[str, tuple[ReplyLike, str]] = {
    "401": (Fail(401), "provider_authentication_failed"),
    "429": (Fail(429), "provider_rate_limited"),
    "quota": (Fail(429, code="insufficient_quota"), "provider_quota_exceeded"),
    "503": (Fail(503), "provider_unavailable"),
    "cut": (Reply(Say("Half an ans"), Cut("text")), "provider_unavailable"),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_a_failure_of_the_model_service_has_its_code_and_the_connection_goes_on(place: Place, case: str) -> None:
    reply, code = FAILURES[case]
    async with place.connected() as connection:
        ended = end(await say(connection, reply))
        assert ended.status == "failed"
        assert ended.error is not None
        assert ended.error.code == code
        assert ended.error.provider_error is not None
        assert ended.error.provider_error.provider == "codex"
        assert end(await say(connection, "Back again.")).text == "Back again."


async def test_a_failure_that_is_tried_again_is_told_and_so_is_the_recovery(place: Place) -> None:
    place.env = place.server.codex_env(place.home, retries=1)
    async with place.connected() as connection:
        said = await say(connection, Reply(Say("Half an ans"), Cut("text")), "The whole answer.")
    assert [(trouble.error_code, trouble.will_retry) for trouble in of(said, ErrorOccurred)] == [
        ("provider_unavailable", True)
    ]
    assert [(each.content[:4], each.partial) for each in of(said, MessageReceived)] == [
        ("Half", True),
        ("The ", False),
    ]
    assert (end(said).status, end(said).text) == ("completed", "The whole answer.")


async def test_a_refused_connection_ends_the_turn_soon(tmp_path: Path) -> None:
    async with ModelServer("?") as server:
        place = Place(tmp_path, server)
    with anyio.fail_after(20):
        async with place.connected() as connection:
            ended = end(await say(connection, "?"))
    assert ended.error is not None
    assert ended.error.code == "provider_unavailable"


async def test_one_process_serves_prompt_after_prompt_and_each_token_counts_once(place: Place) -> None:
    async with place.connected() as connection:
        first = await say(connection, Reply(Shell("echo $PPID"), Spend(10, 1)), Reply(Say("one"), Spend(20, 2)))
        second = await say(connection, Reply(Say("two"), Spend(40, 4)), prompt="again")
    assert end(first).usage == Usage(input_tokens=30, output_tokens=3)
    assert end(second).usage == Usage(input_tokens=40, output_tokens=4)
    assert place.server.turns[-1].prompts == 2


async def test_a_conversation_is_taken_up_in_a_new_process_without_counting_its_past(place: Place) -> None:
    async with place.connected() as connection:
        await say(connection, Reply(Say("one"), Spend(100, 10)))
        resume = connection.provider_session_id
    async with place.connected(resume=resume) as connection:
        assert connection.provider_session_id == resume
        said = await say(connection, Reply(Shell("touch made"), Spend(7, 2)), Reply(Say("two"), Spend(8, 3)))
    assert end(said).usage == Usage(input_tokens=15, output_tokens=5)
    assert place.server.turns[-1].prompts == 2
    assert (place.workspace / "made").exists(), "the sandbox of the first process holds in the second"


async def test_an_unknown_conversation_cannot_be_taken_up(place: Place) -> None:
    with pytest.raises(ProviderError) as caught:
        async with place.connected(resume="00000000-0000-7000-8000-000000000000"):
            pass
    assert caught.value.details["kind"] == "session_not_found"


async def test_a_conversation_another_process_works_on_cannot_be_taken_up(place: Place) -> None:
    async with place.connected() as connection:
        await say(connection, "one")
        with pytest.raises(ProviderError) as caught:
            async with place.connected(resume=connection.provider_session_id):
                pass
    assert caught.value.details["kind"] == "session_busy"


async def test_a_killed_process_is_a_crash_with_all_that_was_said_before(place: Place) -> None:
    said: list[Said] = []

    async def read_until_it_dies(connection: Connection) -> None:
        async for batch in connection.prompt(
            prompt_of(prompt_with("go", [Reply(Say("Listen:"), Shell("sleep 31275")), "?"]))
        ):
            said.extend(batch)
            if of(batch, ToolCallStarted):
                await anyio.sleep(0.2)
                os.kill(next(pid for pid in running("app-server") if is_ours(pid, place)), signal.SIGKILL)

    async with place.connected() as connection:
        with pytest.raises(ProviderError) as caught:
            await read_until_it_dies(connection)
        assert not connection.alive
        with pytest.raises(Error):
            await say(connection, "more")
    error = caught.value
    assert (error.code, error.details["exit_code"], error.details["signal"]) == ("agent_crashed", -9, 9)
    assert error.provider_error is not None
    assert (error.provider_error.kind, error.provider_error.exit_code) == ("transport_exit", -9)
    assert [message.content for message in of(said, MessageReceived)] == ["Listen:"]
    assert [call.reason for call in of(said, ToolCallFailed)] == ["interrupted"]
    assert not any(isinstance(each, Ended) for each in said)
    assert running("sleep 31275") == []


def is_ours(pid: int, place: Place) -> bool:
    try:
        return psutil.Process(pid).environ().get("HOME") == str(place.home)
    except psutil.Error:
        return False


async def test_without_a_login_it_does_not_open(place: Place) -> None:
    env = {**place.env, "CODEX_HOME": str(place.scratch)}
    with pytest.raises(ProviderAuthenticationFailed):
        async with place.codex(env=env).open(place.spec()):
            pass


async def test_a_bad_configuration_is_a_start_failure_that_says_what_is_wrong(place: Place) -> None:
    (place.home / ".codex/config.toml").write_text("model = [")
    with pytest.raises(ProviderUnavailable) as caught:
        async with place.connected():
            pass
    assert caught.value.code == "agent_start_failed"
    assert "config.toml" in caught.value.message
    assert caught.value.provider_error is not None


async def test_a_missing_program_cannot_be_opened_and_the_probe_says_so(place: Place) -> None:
    codex = place.codex(executable=place.home / "no-such-codex")
    with pytest.raises(ProviderUnavailable) as caught:
        async with codex.open(place.spec()):
            pass
    assert caught.value.provider_error is not None
    assert caught.value.provider_error.kind == "cli_not_found"
    probe = await codex.probe()
    assert (probe.installed, probe.version) == (False, None)
    assert probe.problem


async def test_the_probe_tells_version_and_login_and_writes_nothing(place: Place) -> None:
    before = sorted(place.home.rglob("*"))
    probe = await place.codex().probe()
    assert (probe.installed, probe.version, probe.supported, probe.logged_in) == (True, "0.169.0", True, True)
    assert probe.problem is None
    stranger = await place.codex(env={"HOME": str(place.scratch), "CODEX_HOME": str(place.scratch)}).probe()
    assert stranger.logged_in is False
    assert "codex login" in (stranger.problem or "")
    assert sorted(place.home.rglob("*")) == before
    assert list(place.scratch.iterdir()) == []


async def test_a_prompt_is_only_ever_text(place: Place) -> None:
    async with place.connected() as connection:
        for words in ("--help", "-c evil=1", "@file /etc/hostname", "x" * 1_000_000):
            await say(connection, "ok", prompt=words)
            assert words in place.server.turns[-1].prompt
            assert all(words not in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))


async def test_a_prompt_too_long_for_codex_is_refused_and_the_next_one_is_served(place: Place) -> None:
    async with place.connected() as connection:
        with pytest.raises(ProviderError) as caught:
            await say(connection, "?", prompt="x" * 1_100_000)
        assert (caught.value.code, caught.value.details["kind"]) == ("provider_invalid_request", "prompt_too_long")
        assert connection.alive
        assert end(await say(connection, "Still here.")).text == "Still here."


async def test_keys_do_not_reach_the_commands_of_the_model(place: Place) -> None:
    async with place.connected() as connection:
        said = await say(connection, Shell("env"), "Done.")
    (command,) = of(said, ToolCallCompleted)
    assert "HOME=" in command.tool_output
    assert "SCRIPTED_MODEL_KEY" not in command.tool_output


WRONG: list[dict[str, Any]] = [
    {"permission_mode": "yolo"},
    {"args": ["--dangerously-bypass-approvals-and-sandbox"]},
    {"args": "--strict-config"},
    {"config": {"a b": 1}},
    {"config": {"model": None}},
    {"config": {"model_providers.x.experimental_bearer_token": "secret"}},
    {"config": {"model_providers": {"x": {"http_headers": {"a": "secret"}}}}},
    {"model": "--help"},
    {"name": ""},
    {"home": "relative"},
    {"asks": "nothing"},
    {"env": {"A=B": "c"}},
]


@pytest.mark.parametrize("options", WRONG, ids=str)
async def test_a_wrong_option_is_refused_before_anything_starts(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Codex(**options)
    assert caught.value.details["option"] == next(iter(options))


async def test_a_provider_can_be_configured_without_any_file(place: Place, tmp_path: Path) -> None:
    config = {
        "model_provider": "own",
        "model_providers.own": {"name": "Own", "base_url": f"{place.server.url}/v1", "env_key": "OWN_KEY"},
    }
    home = tmp_path / "own" / "codex-home"
    env = {"HOME": str(tmp_path), "TMPDIR": str(place.scratch), "OWN_KEY": "dummy"}
    codex = place.codex(config=config, home=home, env=env, model="scripted-1")
    async with codex.open(place.spec()) as connection:
        assert end(await say(connection, "Hello.")).text == "Hello."
    assert (home.stat().st_mode & 0o777) == 0o700
    assert place.server.turns[-1].headers["authorization"] == "Bearer dummy"

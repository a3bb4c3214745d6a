"""`Claude` with the real program, offline, against a scripted model on loopback."""

import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from agentkeel.adapters.providers.claude import Claude
from agentkeel.adapters.providers.claude.connection import ClaudeConnection
from agentkeel.core import events as ev
from agentkeel.core.content import Prompt
from agentkeel.core.ids import SessionId
from agentkeel.core.usage import Usage as Tokens
from agentkeel.errors import Error, ProviderError, ProviderTimeout, ProviderUnavailable
from agentkeel.ports.provider import Began, Decision, Ended, OpenSpec, Said
from agentkeel.testing import agents
from agentkeel.testing.model_server import (
    ByPrompt,
    CallTool,
    Cut,
    Fail,
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
Body = TypeVar("Body", bound=ev.Body)


@pytest.fixture(scope="session")
def program() -> Path:
    return agents.install("claude")


class House:
    """Where one test's agent lives."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program = program
        self.home, self.work, self.scratch = folder / "home", folder / "work", folder / "scratch"
        for path in (self.home, self.work, self.scratch):
            path.mkdir()

    def claude(self, server: ModelServer, *, retries: int = 0, **options: Any) -> Claude:
        env = server.claude_env(self.home, retries=retries) | options.pop("env", {})
        return Claude(executable=self.program, env=env, pass_env=(), **options)

    @asynccontextmanager
    async def open(self, provider: Claude, **spec: Any) -> AsyncIterator[ClaudeConnection]:
        wanted = OpenSpec(session_id=SessionId("ses_1"), workspace=self.work, scratch=self.scratch, **spec)
        with anyio.fail_after(SECONDS):
            async with provider.open(wanted) as connection:
                yield connection


@pytest.fixture
def house(program: Path, tmp_path: Path) -> House:
    return House(program, tmp_path)


class Turn:
    """All one turn said, and the error that cut it off."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.error: Error | None = None

    def of(self, kind: type[Body]) -> list[Body]:
        return [one.data for one in self.said if isinstance(one, ev.Draft) and isinstance(one.data, kind)]

    @property
    def ended(self) -> Ended:
        assert isinstance(self.said[-1], Ended)
        assert sum(isinstance(one, Ended) for one in self.said) == 1
        return self.said[-1]

    @property
    def code(self) -> str | None:
        return self.ended.error.code if self.ended.error else None

    @property
    def tokens(self) -> Tokens:
        return sum((body.usage for body in self.of(ev.TokenUsageUpdated)), Tokens())


async def turn(
    connection: ClaudeConnection,
    prompt: str,
    *,
    decide: Callable[[ev.PermissionRequested], Decision] = lambda _: Decision(allow=True),
    until: type[ev.Body] | None = None,
    then: Callable[[], Awaitable[None]] | None = None,
) -> Turn:
    """One turn to its end; `then` is done once, when the first `until` was said."""
    turn = Turn()
    try:
        async for batch in connection.prompt(Prompt(text=prompt)):
            turn.said += batch
            for one in batch:
                if isinstance(one, ev.Draft) and isinstance(one.data, ev.PermissionRequested):
                    await connection.answer(one.data.request_id, decide(one.data))
            if until is not None and then is not None and turn.of(until):
                act, then = then, None
                await act()
    except ProviderError as error:
        turn.error = error
    return turn


def processes_with(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and mark.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def deltas(turn: Turn) -> str:
    return "".join(body.delta for body in turn.of(ev.MessageStreamed))


# ---- turns


async def test_text_and_thought_stream_and_every_token_is_counted_once(house: House) -> None:
    reply = Reply(Think("A greeting."), Say("Hello there."), Usage(100, 20, 30, 40))
    async with ModelServer([reply]) as server, house.open(house.claude(server)) as connection:
        one = await turn(connection, "hi")
    began = one.said[0]
    assert isinstance(began, Began)
    assert began.agent_version == "2.1.329"
    assert began.provider_session_id == one.ended.provider_session_id == connection.provider_session_id
    assert "Write" in began.tools
    assert "".join(body.delta for body in one.of(ev.ReasoningStreamed)) == "A greeting."
    assert deltas(one) == "Hello there."
    assert [body.content for body in one.of(ev.MessageReceived)] == ["Hello there."]
    assert (one.ended.status, one.ended.stop_reason, one.ended.text) == ("completed", "end_turn", "Hello there.")
    wanted = Tokens(input_tokens=100, output_tokens=20, cache_read_tokens=30, cache_write_tokens=40)
    assert one.tokens == one.ended.usage == wanted
    assert one.ended.cost_usd is not None
    assert one.ended.turns == 1


async def test_a_tool_writes_a_file_and_a_command_tells_its_exit_code(house: House) -> None:
    script = [Write("a.txt", "x\n"), Shell("cat a.txt; exit 3"), "Done."]
    provider_options = {"permission_mode": "full_auto", "env": {"IS_SANDBOX": "1"}}
    async with ModelServer(script) as server, house.open(house.claude(server, **provider_options)) as connection:
        one = await turn(connection, "write")
    assert (house.work / "a.txt").read_text() == "x\n"
    assert [(body.tool_name, body.kind) for body in one.of(ev.ToolCallStarted)] == [
        ("Write", "write"),
        ("Bash", "bash"),
    ]
    assert one.of(ev.PermissionRequested) == []
    (written,) = one.of(ev.ToolCallCompleted)
    (failed,) = one.of(ev.ToolCallFailed)
    assert written.tool_output["filePath"] == str(house.work / "a.txt")
    assert (failed.exit_code, failed.reason) == (3, "failed")
    assert one.ended.status == "completed"
    assert one.ended.turns == 3


async def test_two_prompts_are_served_by_one_process_and_each_has_its_own_cost(house: House) -> None:
    async with ModelServer(["one", "two"]) as server, house.open(house.claude(server)) as connection:
        first, second = await turn(connection, "1"), await turn(connection, "2")
        assert connection.alive
    assert (first.ended.text, second.ended.text) == ("one", "two")
    assert first.ended.cost_usd == second.ended.cost_usd
    assert [request.conversation for request in server.turns] == [connection.provider_session_id] * 2


@pytest.mark.parametrize("text", ["/cost", "/clear now", "@secret.txt", "--help", "-c evil", "!ls", "a\n/exit\n"])
async def test_a_prompt_arrives_as_it_was_written(house: House, text: str) -> None:
    (house.work / "secret.txt").write_text("inlined")
    async with ModelServer(["ok"]) as server, house.open(house.claude(server)) as connection:
        one = await turn(connection, text)
    assert one.ended.text == "ok"
    assert [request.prompt.strip() for request in server.turns] == [text.strip()]
    assert "inlined" not in str(server.turns[0])


async def test_a_megabyte_of_prompt_goes_through(house: House) -> None:
    async with ModelServer(["ok"]) as server, house.open(house.claude(server)) as connection:
        one = await turn(connection, "word " * 200_000)
    assert one.ended.text == "ok"
    assert len(server.turns[0].prompt) >= 999_999


async def test_an_answer_of_megabytes_comes_whole(house: House) -> None:
    answer = "word " * 600_000
    async with ModelServer([Say(answer, chunks=40)]) as server, house.open(house.claude(server)) as connection:
        one = await turn(connection, "hi")
    assert one.ended.text == answer == deltas(one)
    assert [body.content for body in one.of(ev.MessageReceived)] == [answer]


async def test_a_system_prompt_reaches_the_model_without_being_an_argument(house: House) -> None:
    words = "--settings={} You are the keeper of KEEL-42."
    async with ModelServer(["ok"]) as server, house.open(house.claude(server), system_prompt=words) as connection:
        command = Path(f"/proc/{connection.process['pid']}/cmdline").read_bytes()
        await turn(connection, "hi")
    assert b"KEEL-42" not in command
    assert words in str(server.turns[0].body)


async def test_settings_hooks_and_servers_of_the_workspace_do_not_run(house: House) -> None:
    mark = house.home / "ran"
    (house.work / ".claude").mkdir()
    hook = {"hooks": [{"type": "command", "command": f"touch {mark}"}]}
    (house.work / ".claude/settings.json").write_text(json.dumps({"hooks": {"UserPromptSubmit": [hook]}}))
    server_of_theirs = {"command": "/bin/touch", "args": [str(mark)]}
    (house.work / ".mcp.json").write_text(json.dumps({"mcpServers": {"x": server_of_theirs}}))
    async with ModelServer(["ok"]) as server, house.open(house.claude(server)) as connection:
        await turn(connection, "hi")
    assert not mark.exists()


async def test_a_background_command_that_wakes_the_model_does_not_end_the_next_turn(house: House) -> None:
    background = CallTool("Bash", {"command": "sleep 1; echo late", "run_in_background": True, "description": "d"})
    script = ByPrompt(
        {"first": [background, "started"], "second": ["answer to second"]}, default=Reply(Say("noted"), times=9)
    )
    options = {"permission_mode": "full_auto", "env": {"IS_SANDBOX": "1"}}
    async with ModelServer(script) as server, house.open(house.claude(server, **options)) as connection:
        first = await turn(connection, "first")
        await anyio.sleep(2)
        second = await turn(connection, "second")
    assert first.ended.text == "started"
    assert second.ended.text == "answer to second"
    assert second.tokens == second.ended.usage


async def test_a_sub_agent_is_part_of_the_turn_and_of_its_tokens(house: House) -> None:
    call = CallTool("Agent", {"description": "d", "prompt": "SUBTASK", "subagent_type": "general-purpose"})
    script = ByPrompt(
        {"first": [call, "parent waits"], "SUBTASK": [Shell("echo from-sub"), "sub answer"]},
        default=Reply(Say("parent done")),
    )
    options = {"permission_mode": "full_auto", "env": {"IS_SANDBOX": "1"}}
    async with ModelServer(script) as server, house.open(house.claude(server, **options)) as connection:
        one = await turn(connection, "first")
    agent, shell = one.of(ev.ToolCallStarted)
    assert (agent.kind, shell.kind, shell.parent_tool_call_id) == ("task", "bash", agent.tool_call_id)
    (answer,) = [body for body in one.of(ev.MessageReceived) if body.parent_tool_call_id == agent.tool_call_id]
    assert answer.content == "sub answer"
    assert one.tokens == one.ended.usage
    assert one.tokens.output_tokens == 5 * len(server.turns)
    assert one.ended.status == "completed"


# ---- permissions


async def test_a_denied_write_leaves_no_file_and_the_turn_goes_on(house: House) -> None:
    script = [Write("a.txt", "x\n"), "I was not allowed."]
    async with ModelServer(script) as server, house.open(house.claude(server)) as connection:
        one = await turn(connection, "write", decide=lambda _: Decision(allow=False, message="not here"))
    assert not (house.work / "a.txt").exists()
    (asked,) = one.of(ev.PermissionRequested)
    (failed,) = one.of(ev.ToolCallFailed)
    assert (asked.tool_name, asked.kind, asked.tool_call_id) == ("Write", "write", failed.tool_call_id)
    assert (failed.reason, failed.tool_output) == ("denied", "not here")
    assert "not here" in str(server.turns[-1].tool_outputs)
    assert one.ended.status == "completed"


async def test_an_allowed_call_may_be_rewritten(house: House) -> None:
    def rewrite(asked: ev.PermissionRequested) -> Decision:
        return Decision(allow=True, updated_input={**asked.tool_input, "content": "rewritten"})

    async with ModelServer([Write("a.txt", "x\n"), "Done."]) as server, house.open(house.claude(server)) as connection:
        await turn(connection, "write", decide=rewrite)
    assert (house.work / "a.txt").read_text() == "rewritten"
    assert not (house.work / ".claude").exists()


async def test_a_denial_may_end_the_turn(house: House) -> None:
    async with ModelServer([Write("a.txt", "x\n"), "next"]) as server, house.open(house.claude(server)) as connection:
        one = await turn(connection, "write", decide=lambda _: Decision(allow=False, interrupt=True))
        two = await turn(connection, "go on")
    assert (one.ended.status, one.ended.stop_reason) == ("interrupted", "aborted_tools")
    assert [failed.reason for failed in one.of(ev.ToolCallFailed)] == ["denied"]
    assert two.ended.text == "next"


async def test_an_interrupt_withdraws_the_question_and_a_late_answer_does_nothing(house: House) -> None:
    async with ModelServer([Write("a.txt", "x\n"), "next"]) as server, house.open(house.claude(server)) as connection:
        one = Turn()
        async for batch in connection.prompt(Prompt(text="write")):
            one.said += batch
            if one.of(ev.PermissionRequested) and not one.of(ev.PermissionResolved):
                await connection.interrupt()
        request_id = one.of(ev.PermissionRequested)[0].request_id
        await connection.answer(request_id, Decision(allow=True))
        two = await turn(connection, "go on")
    assert [(body.request_id, body.decision) for body in one.of(ev.PermissionResolved)] == [(request_id, "withdrawn")]
    assert one.ended.status == "interrupted"
    assert not (house.work / "a.txt").exists()
    assert two.ended.text == "next"


# ---- stopping


async def test_an_interrupt_while_text_streams_keeps_the_text_and_the_process(house: House) -> None:
    script = [Say("one two three four five six", chunks=9, delay=0.3), "next"]
    async with ModelServer(script) as server, house.open(house.claude(server)) as connection:
        one = await turn(connection, "count", until=ev.MessageStreamed, then=connection.interrupt)
        two = await turn(connection, "go on")
        assert connection.alive
    assert (one.ended.status, one.ended.stop_reason) == ("interrupted", "aborted_streaming")
    (kept,) = one.of(ev.MessageReceived)
    assert kept.partial
    assert kept.content == deltas(one) == one.ended.text
    assert two.ended.text == "next"


async def test_an_interrupt_before_the_model_was_asked_ends_the_turn(house: House) -> None:
    async with ModelServer(["next"]) as server, house.open(house.claude(server)) as connection:

        async def stop_at_once() -> None:
            await anyio.sleep(0)
            await connection.interrupt()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop_at_once)
            one = await turn(connection, "hi")
        two = await turn(connection, "go on")
    assert one.ended.status == "interrupted"
    assert isinstance(one.said[0], Began)
    assert two.ended.text == "next"


async def test_leaving_while_a_command_runs_leaves_no_process_behind(house: House) -> None:
    mark = f"agentkeel-mark-{os.getpid()}-{id(house)}"
    script = [Shell(f"python3 -c 'import time; time.sleep(50)' {mark}"), "never"]
    options = {"permission_mode": "full_auto", "env": {"IS_SANDBOX": "1"}}
    async with ModelServer(script) as server:
        async with house.open(house.claude(server, **options)) as connection:
            said = connection.prompt(Prompt(text="run"))
            async for batch in said:
                if any(isinstance(one, ev.Draft) and isinstance(one.data, ev.ToolCallStarted) for one in batch):
                    break
            await said.aclose()
            while not processes_with(mark):
                await anyio.sleep(0.05)
            assert not connection.alive
        assert processes_with(mark) == []
        assert not Path(f"/proc/{connection.process['pid']}").exists()


async def test_an_interrupt_while_a_command_runs_ends_it(house: House) -> None:
    mark = f"agentkeel-mark-{os.getpid()}-{id(house)}"
    script = [Shell(f"python3 -c 'import time; time.sleep(50)' {mark}"), "next"]
    options = {"permission_mode": "full_auto", "env": {"IS_SANDBOX": "1"}}
    async with ModelServer(script) as server:
        async with house.open(house.claude(server, **options)) as connection:
            async with anyio.create_task_group() as tasks:

                async def stop_it() -> None:
                    while not processes_with(mark):
                        await anyio.sleep(0.05)
                    await connection.interrupt()

                tasks.start_soon(stop_it)
                one = await turn(connection, "run")
            two = await turn(connection, "go on")
        assert processes_with(mark) == []
    assert (one.ended.status, one.ended.stop_reason) == ("interrupted", "aborted_tools")
    assert [failed.reason for failed in one.of(ev.ToolCallFailed)] == ["interrupted"]
    assert two.ended.text == "next"


async def test_a_killed_agent_is_a_crash_and_what_it_said_is_kept(house: House) -> None:
    script = [Say("one two three four", chunks=9, delay=0.3)]
    async with ModelServer(script) as server, house.open(house.claude(server)) as connection:

        async def kill() -> None:
            os.kill(connection.process["pid"], signal.SIGKILL)

        one = await turn(connection, "count", until=ev.MessageStreamed, then=kill)
        assert not connection.alive
        again = await turn(connection, "more")
    assert one.error is not None
    assert one.error.code == "agent_crashed"
    assert one.error.details["exit_code"] == -9
    assert "SIGKILL" in one.error.message
    (kept,) = one.of(ev.MessageReceived)
    assert kept.partial
    assert kept.content == deltas(one) != ""
    assert one.tokens.input_tokens == 10
    assert not any(isinstance(said, Ended) for said in one.said)
    assert again.error is not None
    assert again.said == []


# ---- failures of the model service


@pytest.mark.parametrize(
    ("reply", "code", "retry_after"),
    [
        (Fail(401), "provider_authentication_failed", False),
        (Fail(403), "provider_authentication_failed", False),
        (Fail(402), "provider_quota_exceeded", False),
        (Fail(404), "provider_model_not_found", False),
        (Fail(429, retry_after=1), "provider_rate_limited", True),
        (Fail(500), "provider_unavailable", False),
        (Fail(503), "provider_unavailable", False),
        (Fail(529), "provider_unavailable", False),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Fail) else "",
)
async def test_a_failing_model_service_is_told_by_its_code(
    house: House, reply: Fail, code: str, retry_after: bool
) -> None:
    script = [Reply(reply, times=2 if reply.status not in {402, 403} else 1), "fine again"]
    async with ModelServer(script) as server, house.open(house.claude(server, retries=1)) as connection:
        one = await turn(connection, "hi")
        two = await turn(connection, "again")
    assert (one.ended.status, one.code) == ("failed", code)
    assert one.ended.error is not None
    assert (one.ended.error.retry_after is not None) == retry_after
    assert one.ended.error.provider_error is not None
    assert two.ended.text == "fine again"


async def test_a_failure_that_is_retried_is_told_and_so_is_its_mending(house: House) -> None:
    async with ModelServer([Fail(529), "fine"]) as server, house.open(house.claude(server, retries=1)) as connection:
        one = await turn(connection, "hi")
    (trouble,) = one.of(ev.ErrorOccurred)
    (mended,) = one.of(ev.ErrorRecovered)
    assert (trouble.error_code, trouble.will_retry, mended.error_code) == (
        "provider_unavailable",
        True,
        "provider_unavailable",
    )
    assert one.ended.status == "completed"


async def test_a_stream_that_is_cut_for_good_is_a_failure(house: House) -> None:
    script = [Reply(Say("partial answer"), Cut("text"), times=9)]
    options = {"env": {"CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1"}}
    async with ModelServer(script) as server, house.open(house.claude(server, **options)) as connection:
        one = await turn(connection, "hi")
    assert one.ended.status == "failed"
    assert one.code in {"provider_unavailable", "turn_cut_off"}
    assert "partial answer".startswith(deltas(one))


async def test_a_stream_that_is_cut_and_sent_again_is_a_success_with_the_whole_text(house: House) -> None:
    script = [Reply(Say("partial answer"), Cut("text")), "the whole answer"]
    async with ModelServer(script) as server, house.open(house.claude(server, retries=1)) as connection:
        one = await turn(connection, "hi")
    assert (one.ended.status, one.ended.text) == ("completed", "the whole answer")
    assert [body.content for body in one.of(ev.MessageReceived)] == ["the whole answer"]
    assert len(one.of(ev.ErrorRecovered)) == 1
    assert one.tokens == one.ended.usage


async def test_a_stream_that_is_cut_after_a_whole_tool_call_runs_the_tool_once(house: House) -> None:
    script = [Reply(Shell("echo ran >> ran.txt"), Say("and more", delay=0.4), Cut("text")), "done"]
    options = {"permission_mode": "full_auto", "env": {"IS_SANDBOX": "1"}}
    async with ModelServer(script) as server, house.open(house.claude(server, retries=1, **options)) as connection:
        one = await turn(connection, "run")
    assert (house.work / "ran.txt").read_text() == "ran\n"
    assert len(one.of(ev.ToolCallStarted)) == len(one.of(ev.ToolCallCompleted)) == 1
    assert len(one.of(ev.ErrorOccurred)) == len(one.of(ev.ErrorRecovered)) == 1
    assert (one.ended.status, one.ended.text) == ("completed", "done")


async def test_a_refused_connection_is_told(house: House) -> None:
    async with ModelServer([]) as server:
        provider = house.claude(server)
    async with house.open(provider) as connection:
        one = await turn(connection, "hi")
    assert (one.ended.status, one.code) == ("failed", "provider_unavailable")


async def test_no_login_is_told(house: House) -> None:
    async with ModelServer([]) as server:
        env = {**server.claude_env(house.home), "ANTHROPIC_API_KEY": ""}
        provider = Claude(executable=house.program, env=env, pass_env=())
        assert (await provider.probe()).logged_in is False
        async with house.open(provider) as connection:
            one = await turn(connection, "hi")
    assert (one.ended.status, one.code) == ("failed", "provider_authentication_failed")


# ---- opening


async def test_a_conversation_is_resumed_in_a_new_process(house: House) -> None:
    async with ModelServer(["noted", "X-42"]) as server:
        async with house.open(house.claude(server)) as connection:
            first = await turn(connection, "the code is X-42")
        conversation = connection.provider_session_id
        async with house.open(house.claude(server), resume=conversation) as resumed:
            second = await turn(resumed, "what is it?")
    assert connection.process["pid"] != resumed.process["pid"]
    assert second.ended.provider_session_id == conversation
    assert "the code is X-42" in str(server.turns[-1].body)
    assert second.ended.cost_usd == first.ended.cost_usd


async def test_a_conversation_that_is_unknown_is_refused_when_opening(house: House) -> None:
    async with ModelServer([]) as server:
        with pytest.raises(Error) as caught:
            async with house.open(house.claude(server), resume="00000000-0000-4000-8000-000000000000"):
                pass
    assert caught.value.code == "session_not_found"
    assert server.requests == ()


async def test_an_argument_the_program_does_not_know_is_told_with_its_words(house: House) -> None:
    async with ModelServer([]) as server:
        with pytest.raises(ProviderError) as caught:
            async with house.open(house.claude(server, args=("--no-such-flag",))):
                pass
    assert caught.value.code == "agent_start_failed"
    assert "--no-such-flag" in caught.value.message
    assert caught.value.provider_error is not None
    assert caught.value.provider_error.exit_code == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")
async def test_root_without_a_sandbox_is_told_that_it_may_not_skip_permissions(house: House) -> None:
    async with ModelServer([]) as server:
        with pytest.raises(ProviderError) as caught:
            async with house.open(house.claude(server), permission_mode="dangerously_skip_permissions"):
                pass
    assert caught.value.code == "agent_start_failed"
    assert "root" in caught.value.message


async def test_a_program_that_never_answers_is_given_up_and_gone(house: House, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 50\n")
    silent.chmod(0o755)
    with pytest.raises(ProviderTimeout):
        async with house.open(Claude(executable=silent), startup_timeout=0.2):
            pass


async def test_a_missing_program_is_told_by_open_and_probe(house: House) -> None:
    provider = Claude(executable="/nowhere/claude")
    found = await provider.probe()
    assert (found.installed, found.executable) == (False, None)
    assert "Install" in (found.problem or "")
    with pytest.raises(ProviderUnavailable):
        async with house.open(provider):
            pass


async def test_a_probe_tells_version_and_login_and_writes_nothing(house: House) -> None:
    async with ModelServer([]) as server:
        provider = house.claude(server)
        before = sorted(house.home.rglob("*"))
        found = await provider.probe()
    assert (found.installed, found.version, found.supported, found.logged_in) == (True, "2.1.329", True, True)
    assert found.problem is None
    assert sorted(house.home.rglob("*")) == before

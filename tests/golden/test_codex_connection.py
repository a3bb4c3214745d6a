"""A connection to an app-server that misbehaves: nothing hangs, and each misbehaviour has its name."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from agentkeel.adapters.providers.codex import Codex
from agentkeel.adapters.providers.codex.options import Options, toml
from agentkeel.adapters.providers.codex.rollout import silent_calls
from agentkeel.core.content import prompt_of
from agentkeel.core.events import (
    Draft,
    MessageReceived,
    PermissionRequested,
    PermissionResolved,
    ToolCallCompleted,
    ToolCallFailed,
    ToolCallStarted,
    Unknown,
)
from agentkeel.core.ids import SessionId
from agentkeel.errors import ProviderError, ProviderTimeout, ProviderUnavailable, ValidationError
from agentkeel.ports.provider import Connection, Decision, Ended, OpenSpec, Said

pytestmark = pytest.mark.anyio

FAKE = Path(__file__).with_name("fake_app_server.py")


@asynccontextmanager
async def connected(folder: Path, behaviour: str, *, startup_timeout: float = 20.0) -> AsyncIterator[Connection]:
    program = folder / "codex"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I {FAKE} {behaviour} "$@"\n')
    program.chmod(0o755)
    spec = OpenSpec(session_id=SessionId("ses_1"), workspace=folder, scratch=folder, startup_timeout=startup_timeout)
    async with Codex(executable=program, home=folder / "home", grace=0.2).open(spec) as connection:
        yield connection


async def turn(connection: Connection, said: list[Said] | None = None) -> list[Said]:
    said = [] if said is None else said
    async for batch in connection.prompt(prompt_of("go")):
        said += batch
    return said


def bodies(said: list[Said]) -> list[object]:
    return [each.data for each in said if isinstance(each, Draft)]


async def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    async with connected(tmp_path, "busy_twice") as connection:
        assert isinstance((await turn(connection))[-1], Ended)


async def test_a_server_that_stays_busy_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        async with connected(tmp_path, "busy"):
            pass
    assert caught.value.details["kind"] == "agent_overloaded"


async def test_a_server_that_does_not_come_up_is_a_timeout(tmp_path: Path) -> None:
    with pytest.raises(ProviderTimeout):
        async with connected(tmp_path, "silent", startup_timeout=0.5):
            pass


async def test_a_server_that_exits_at_once_says_why(tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        async with connected(tmp_path, "exits"):
            pass
    error = caught.value
    assert (error.code, error.details["exit_code"]) == ("agent_start_failed", 3)
    assert "no such thing as a sandbox" in error.message
    assert error.provider_error is not None
    assert error.provider_error.stderr == "error: no such thing as a sandbox\n"


async def test_an_old_version_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        async with connected(tmp_path, "old"):
            pass
    assert caught.value.details["kind"] == "unsupported_version"
    assert "0.99.0" in caught.value.message


async def test_a_crash_keeps_what_was_said_and_tells_the_exit_code_and_the_last_words(tmp_path: Path) -> None:
    said: list[Said] = []
    async with connected(tmp_path, "dies") as connection:
        with pytest.raises(ProviderError) as caught:
            await turn(connection, said)
        assert not connection.alive
    assert (caught.value.code, caught.value.details["exit_code"]) == ("agent_crashed", 101)
    assert caught.value.provider_error is not None
    assert caught.value.provider_error.stderr == "thread 'main' panicked\n"
    (message,) = [body for body in bodies(said) if isinstance(body, MessageReceived)]
    assert (message.content, message.partial) == ("Half", True)


async def test_a_little_junk_is_kept_and_the_turn_goes_on(tmp_path: Path) -> None:
    async with connected(tmp_path, "babbles") as connection:
        said = await turn(connection)
    junk = [msgspec.json.decode(body.body)["text"] for body in bodies(said) if isinstance(body, Unknown)]
    assert junk == ["\\xff\\xfe banner", "[1, 2]"]
    assert isinstance(said[-1], Ended)


async def test_nothing_but_junk_is_another_protocol(tmp_path: Path) -> None:
    said: list[Said] = []
    async with connected(tmp_path, "floods") as connection:
        with pytest.raises(ProviderError) as caught:
            await turn(connection, said)
        assert not connection.alive
    assert caught.value.code == "agent_protocol_error"
    assert len([body for body in bodies(said) if isinstance(body, Unknown)]) == 20


async def test_a_request_codex_takes_back_is_withdrawn_and_an_answer_does_nothing(tmp_path: Path) -> None:
    async with connected(tmp_path, "withdraws") as connection:
        said = await turn(connection)
        await connection.answer("7", Decision(allow=True))
    asked, resolved = [body for body in bodies(said) if isinstance(body, PermissionRequested | PermissionResolved)]
    assert isinstance(asked, PermissionRequested)
    assert asked.tool_input == {"command": "ls", "cwd": "/"}
    assert isinstance(resolved, PermissionResolved)
    assert (resolved.request_id, resolved.decision) == ("7", "withdrawn")


def test_settings_reach_the_command_line_as_toml_and_stay_bounded() -> None:
    options = Options.of(
        name="codex",
        executable=None,
        model=None,
        permission_mode="default",
        env={},
        args=["--strict-config"],
        config={"model_providers.own.base_url": "http://127.0.0.1:1/v1", "analytics.enabled": True},
        home=None,
        asks="everything",
        grace=1,
    )
    line = options.command_line()
    assert line[:2] == ("codex", "app-server")
    assert line[-1] == "--strict-config"
    assert "analytics.enabled=true" in line, "the caller's word is the last one"
    assert "features.unbounded_connection_retries=false" in line
    assert "model_providers.own.request_max_retries=2" in line
    assert 'model_providers.own.base_url="http://127.0.0.1:1/v1"' in line


def test_every_value_is_toml_that_reads_back() -> None:
    import tomllib

    for value in (True, -3, 1.5, 'a "quoted"\n\x7f\\ text', [1, [2]], {"a b": {"c": ["d"]}}):
        assert tomllib.loads(f"x = {toml(value)}") == {"x": value}
    for value in (None, float("nan"), object()):
        with pytest.raises(ValidationError):
            toml(value)


def record(**payload: object) -> bytes:
    return msgspec.json.encode({"timestamp": "t", "type": "response_item", "payload": payload})


def test_calls_without_an_item_are_read_from_the_rollout_and_others_are_not_doubled() -> None:
    call = {"type": "function_call", "name": "exec_command"}
    lines = [
        record(**call, call_id="told", arguments='{"cmd":"ls"}'),
        record(**call, call_id="stopped", arguments='{"cmd":"touch /x","workdir":"sub"}'),
        record(type="function_call_output", call_id="stopped", output="Process exited with code 1\nOutput:\nread-only"),
        record(**call, call_id="fine", arguments='{"cmd":"true"}'),
        record(type="function_call_output", call_id="fine", output="Process exited with code 0\nOutput:\n"),
        record(**call, call_id="refused", arguments='{"cmd":"rm -f x"}'),
        record(type="function_call_output", call_id="refused", output="exec_command failed: Rejected(...)"),
        record(**call, call_id="cut", arguments='{"cmd":"sleep 9"}'),
        record(type="custom_tool_call", name="apply_patch", call_id="patch", input="*** Begin Patch"),
        record(type="custom_tool_call_output", call_id="patch", output="Exit code: 0\nOutput:\nDone"),
        record(type="function_call", name="get_goal", call_id="harmless", arguments="{}"),
        record(**call, call_id="garbled", arguments="{"),
        b'{"type":"response_item","payl',
    ]
    said = silent_calls(lines, told={"told"}, cwd=Path("/w"))
    started = [body for body in said if isinstance(body, ToolCallStarted)]
    assert [body.tool_call_id for body in started] == ["stopped", "fine", "refused", "cut", "patch"]
    assert started[0].tool_input == {"command": "touch /x", "cwd": "/w/sub"}
    failed = {body.tool_call_id: body.reason for body in said if isinstance(body, ToolCallFailed)}
    assert failed == {"stopped": "failed", "refused": "denied", "cut": "interrupted"}
    assert [body.tool_call_id for body in said if isinstance(body, ToolCallCompleted)] == ["fine", "patch"]

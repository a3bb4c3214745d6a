"""What a `Claude` may be configured with, what becomes of it, and odd programs in its place. Needs no real agent."""

import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkeel.adapters.providers.claude import Claude, connection
from agentkeel.adapters.providers.claude.options import MODES, Options
from agentkeel.adapters.providers.claude.probing import version_in
from agentkeel.core import events as ev
from agentkeel.core.content import Prompt
from agentkeel.core.ids import SessionId
from agentkeel.errors import ProviderError, ProviderUnavailable, ValidationError
from agentkeel.ports.provider import Began, Ended, OpenSpec, Said

pytestmark = pytest.mark.anyio


def spec(folder: Path, **changes: Any) -> OpenSpec:
    return OpenSpec(session_id=SessionId("ses_1"), workspace=folder, scratch=folder, **changes)


def options(**changes: Any) -> Options:
    return Options.checked(**{"env": {}, "args": (), "executable": None, "home": None, **changes})


@pytest.mark.parametrize(
    "wrong",
    [
        {"permission_mode": "yolo"},
        {"permission_mode": "bypassPermissions"},
        {"permission_mode": None},
        {"model": "--settings={}"},
        {"model": "a model"},
        {"model": ""},
        {"model": 5},
        {"name": "no spaces"},
        {"env": {"A=B": "x"}},
        {"env": {"A": "\0"}},
        {"env": {"A": 1}},
        {"env": ["A"]},
        {"args": "--verbose"},
        {"args": ("a\0b",)},
        {"args": (1,)},
        {"args": ("--resume=x",)},
        {"args": ("--permission-mode", "plan")},
        {"max_retries": -1},
        {"max_retries": 1000},
        {"max_retries": "many"},
        {"setting_sources": ("everything",)},
    ],
    ids=str,
)
def test_an_option_we_do_not_know_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Claude(**wrong)
    assert caught.value.message


def test_each_permission_mode_has_its_own_argument(tmp_path: Path) -> None:
    for mode, word in MODES.items():
        command = options(permission_mode=mode).command(spec(tmp_path))
        assert command[command.index("--permission-mode") + 1] == word
    assert "plan" in options().command(spec(tmp_path, permission_mode="plan"))
    assert "acceptEdits" in options(permission_mode="plan").command(spec(tmp_path, permission_mode="accept_edits"))


def test_a_session_may_ask_for_another_model_and_for_a_conversation(tmp_path: Path) -> None:
    command = options(model="opus").command(spec(tmp_path, model="claude-sonnet-5[1m]", resume="abc-1"))
    assert command[command.index("--model") + 1] == "claude-sonnet-5[1m]"
    assert "--resume=abc-1" in command
    assert command[command.index("--setting-sources") + 1] == ""
    with_sources = options(setting_sources=("user", "project")).command(spec(tmp_path))
    assert with_sources[with_sources.index("--setting-sources") + 1] == "user,project"


@pytest.mark.parametrize("wrong", [{"resume": "--x"}, {"resume": "a b"}, {"resume": ""}, {"model": "-p"}], ids=str)
def test_a_session_cannot_smuggle_an_argument_in(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        options().command(spec(tmp_path, **wrong))


def test_the_program_sees_little_of_our_environment(tmp_path: Path) -> None:
    ours = {
        "PATH": "/bin",
        "HOME": "/home/us",
        "ANTHROPIC_API_KEY": "key",
        "ANTHROPIC_BASE_URL": "http://elsewhere",
        "GITHUB_TOKEN": "secret",
        "LD_PRELOAD": "evil.so",
        "CLAUDE_CODE_MAX_RETRIES": "99",
    }
    seen = options(env={"EXTRA": "1"}, max_retries=2).environment(ours, tmp_path)
    assert (seen["PATH"], seen["HOME"], seen["ANTHROPIC_API_KEY"], seen["EXTRA"]) == ("/bin", "/home/us", "key", "1")
    assert (seen["TMPDIR"], seen["CLAUDE_CODE_MAX_RETRIES"]) == (str(tmp_path), "2")
    assert seen["CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS"] == "1"
    assert not {"GITHUB_TOKEN", "LD_PRELOAD", "ANTHROPIC_BASE_URL"} & set(seen)
    assert "ANTHROPIC_API_KEY" not in options(pass_env=()).environment(ours)
    assert options(home="/other", env={"HOME": "/mine"}).environment(ours)["HOME"] == "/mine"
    assert options(home="/other").environment(ours)["HOME"] == "/other"


def test_a_version_is_found_in_what_the_program_says() -> None:
    assert version_in("2.1.329 (Claude Code)") == (2, 1, 329)
    assert version_in("command not found") is None


# ---- programs that are not quite Claude Code

HANDSHAKE = """
import json, sys, time
def say(**line): print(json.dumps(line), flush=True)
first = json.loads(sys.stdin.readline())
print("a banner before anything else", flush=True)
say(type="control_response", response={"subtype": "success", "request_id": first["request_id"], "response": {}})
prompt = json.loads(sys.stdin.readline())
"""
RESULT = """
say(type="system", subtype="init", session_id="s", tools=[], model="m")
say(type="result", subtype="success", is_error=False, result="ok", user_message_uuid=prompt["uuid"])
"""


def program(folder: Path, text: str) -> Path:
    path = folder / "claude"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


async def said_by(folder: Path, text: str) -> tuple[list[Said], ProviderError | None]:
    said: list[Said] = []
    with anyio.fail_after(30):
        async with Claude(executable=program(folder, text)).open(spec(folder)) as agent:
            try:
                async for batch in agent.prompt(Prompt(text="hi")):
                    said += batch
            except ProviderError as error:
                assert not agent.alive
                return said, error
    return said, None


def kinds(said: list[Said]) -> list[str]:
    return [
        one.data.kind if isinstance(one.data, ev.Unknown) else one.data.type
        for one in said
        if isinstance(one, ev.Draft)
    ]


async def test_a_turn_ends_though_the_program_never_says_that_it_is_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_SETTLE_SECONDS", 0.1)
    said, error = await said_by(tmp_path, HANDSHAKE + RESULT + "time.sleep(60)")
    assert error is None
    assert isinstance(said[0], Began)
    assert isinstance(said[-1], Ended)
    assert (said[-1].status, said[-1].text) == ("completed", "ok")
    assert kinds(said) == ["claude.junk"]


async def test_a_result_counts_though_the_program_ends_right_after_it(tmp_path: Path) -> None:
    said, error = await said_by(tmp_path, HANDSHAKE + RESULT)
    assert error is None
    assert isinstance(said[-1], Ended)
    assert said[-1].status == "completed"


async def test_an_end_without_a_result_is_a_crash_with_code_and_last_words(tmp_path: Path) -> None:
    said, error = await said_by(tmp_path, HANDSHAKE + "sys.exit('out of luck')")
    assert error is not None
    assert error.code == "agent_crashed"
    assert error.provider_error is not None
    assert (error.provider_error.exit_code, error.provider_error.stderr) == (1, "out of luck\n")
    assert not any(isinstance(one, Ended) for one in said)


async def test_a_program_that_talks_another_protocol_is_stopped_and_its_words_are_kept(tmp_path: Path) -> None:
    said, error = await said_by(tmp_path, HANDSHAKE + "while True: print('tick', flush=True)")
    assert error is not None
    assert error.code == "agent_protocol_error"
    assert set(kinds(said)) == {"claude.junk"}


async def test_a_request_we_do_not_serve_is_answered_so_that_nobody_waits(tmp_path: Path) -> None:
    asking = """
say(type="control_request", request_id="q1", request={"subtype": "elicitation", "message": "?"})
answer = json.loads(sys.stdin.readline())["response"]
say(type="echo", subtype=answer["subtype"], request_id=answer["request_id"])
"""
    said, error = await said_by(tmp_path, HANDSHAKE + asking + RESULT)
    assert error is None
    assert kinds(said) == ["claude.junk", "claude.control_request.elicitation", "claude.echo"]
    echo = next(
        one.data for one in said if isinstance(one, ev.Draft) and getattr(one.data, "kind", "") == "claude.echo"
    )
    assert b'"error"' in bytes(echo.body)


async def test_a_program_that_dies_before_it_is_ready_is_told_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(ProviderError) as caught:
        await said_by(tmp_path, "import sys; sys.exit('error: unknown option')")
    assert caught.value.code == "agent_start_failed"
    assert "unknown option" in caught.value.message


async def test_a_program_that_dies_without_a_word_is_told_without_one(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=r"could not start: it exited with code 3\. ") as caught:
        await said_by(tmp_path, "import sys; sys.exit(3)")
    assert caught.value.code == "agent_start_failed"


async def test_a_version_that_is_too_old_gets_no_prompt(tmp_path: Path) -> None:
    old = HANDSHAKE.replace('"response": {}}', '"response": {"claude_code_version": "1.0.3"}}')
    with pytest.raises(ProviderUnavailable, match=r"1\.0\.3") as caught:
        await said_by(tmp_path, old)
    assert caught.value.details["kind"] == "unsupported_version"


async def test_a_second_prompt_in_the_middle_of_a_turn_is_refused_and_the_turn_goes_on(tmp_path: Path) -> None:
    slow = HANDSHAKE + 'say(type="system", subtype="init", session_id="s")\ntime.sleep(0.3)\n' + RESULT
    with anyio.fail_after(30):
        async with Claude(executable=program(tmp_path, slow)).open(spec(tmp_path)) as agent:
            turn = agent.prompt(Prompt(text="one"))
            said = list(await anext(turn))
            with pytest.raises(ProviderError) as caught:
                await anext(agent.prompt(Prompt(text="two")))
            async for batch in turn:
                said += batch
    assert caught.value.code == "invalid_operation"
    assert isinstance(said[-1], Ended)
    assert said[-1].status == "completed"


async def test_a_probe_tells_an_old_version_and_a_program_that_is_something_else(tmp_path: Path) -> None:
    old = await Claude(executable=program(tmp_path, "print('2.0.1 (Claude Code)')")).probe()
    assert (old.version, old.supported) == ("2.0.1", False)
    assert "update" in (old.problem or "")
    other = await Claude(executable=program(tmp_path, "print('hello')")).probe()
    assert (other.installed, other.version, other.supported) == (True, None, None)
    broken = await Claude(executable=program(tmp_path, "raise SystemExit(3)")).probe()
    assert "exited with code 3" in (broken.problem or "")

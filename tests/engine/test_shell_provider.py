"""Commands as turns: what ran, what it wrote, how it ended, and that nothing of it is left."""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkeel.adapters.providers._wire import descendants
from agentkeel.adapters.providers.shell import Shell
from agentkeel.adapters.providers.shell.output import Transcript, exit_of
from agentkeel.core import events as ev
from agentkeel.core.content import Prompt, prompt_of
from agentkeel.core.events import Draft
from agentkeel.core.ids import SessionId
from agentkeel.errors import Error, ProviderError, StateError, ValidationError
from agentkeel.ports.provider import Began, Connection, Decision, Ended, OpenSpec, Said

pytestmark = pytest.mark.anyio


@pytest.fixture
def spec(tmp_path: Path) -> OpenSpec:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return OpenSpec(session_id=SessionId("ses_1"), workspace=workspace, scratch=tmp_path)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    """Each test ends with the children it began with."""
    before = {m.pid for m in descendants._everyone() if m.parent == os.getpid()}
    yield
    after = {m.pid for m in descendants._everyone() if m.parent == os.getpid()}
    assert after <= before


async def said_in(batches: AsyncIterator[Sequence[Said]]) -> list[Said]:
    return [said async for batch in batches for said in batch]


async def run(shell: Shell, spec: OpenSpec, command: str | Sequence[str]) -> list[Said]:
    async with shell.open(spec) as connection:
        said = await said_in(connection.prompt(prompt_of(command)))
        assert connection.alive
    return said


def end_of(said: Sequence[Said]) -> Ended:
    assert isinstance(said[-1], Ended)
    assert sum(isinstance(one, Ended) for one in said) == 1
    return said[-1]


def bodies(said: Sequence[Said]) -> list[ev.Body]:
    return [one.data for one in said if isinstance(one, Draft)]


def types(said: Sequence[Said]) -> list[str]:
    return [body.type for body in bodies(said)]


def error_of(said: Sequence[Said]) -> Error:
    error = end_of(said).error
    assert error is not None
    return error


async def test_a_good_command_is_a_tool_call_with_output(spec: OpenSpec) -> None:
    said = await run(Shell(), spec, ["sh", "-c", "printf 'one\\ntwo'; echo oops >&2"])
    assert isinstance(said[0], Began)
    assert said[0].details["cwd"] == str(spec.workspace)
    assert types(said) == ["tool_call_started", "message_streamed", "tool_call_completed", "message_received"]
    started, _, completed, message = bodies(said)
    assert isinstance(started, ev.ToolCallStarted)
    assert (started.tool_name, started.kind) == ("bash", "bash")
    assert started.tool_input["argv"] == ["sh", "-c", "printf 'one\\ntwo'; echo oops >&2"]
    assert isinstance(completed, ev.ToolCallCompleted)
    assert (completed.tool_call_id, completed.exit_code) == (started.tool_call_id, 0)
    assert isinstance(message, ev.MessageReceived)
    assert (message.role, message.content) == ("tool", "one\ntwo")
    end = end_of(said)
    assert (end.status, end.stop_reason, end.text) == ("completed", "exit_code_0", "one\ntwo")
    assert end.output["duration_ms"] >= 0
    assert {key: value for key, value in end.output.items() if key not in {"duration_ms", "command", "cwd"}} == {
        "exit_code": 0,
        "stdout": "one\ntwo",
        "stderr": "oops\n",
        "truncated": False,
        "timed_out": False,
    }


async def test_a_failed_command_is_a_failed_turn_that_keeps_its_output(spec: OpenSpec) -> None:
    said = await run(Shell(shell=True), spec, "echo part; echo why >&2; exit 3")
    assert types(said) == ["tool_call_started", "message_streamed", "tool_call_failed", "message_received"]
    error = error_of(said)
    assert (end_of(said).status, error.code, error.details) == (
        "failed",
        "command_failed",
        {"exit_code": 3, "timed_out": False},
    )
    assert error.provider_error is not None
    assert (error.provider_error.exit_code, error.provider_error.stderr) == (3, "why\n")
    assert end_of(said).output["stdout"] == "part\n"


async def test_success_is_what_the_caller_calls_success(spec: OpenSpec) -> None:
    shell = Shell(shell=True, success_exit_codes=(1, 2))
    assert end_of(await run(shell, spec, "exit 2")).status == "completed"
    assert error_of(await run(shell, spec, "exit 0")).details["exit_code"] == 0


async def test_a_death_by_signal_is_named(spec: OpenSpec) -> None:
    said = await run(Shell(shell=True), spec, "kill -KILL $$")
    assert error_of(said).details == {"exit_code": 137, "signal": "SIGKILL", "timed_out": False}
    assert "was killed by SIGKILL" in error_of(said).message
    assert exit_of(-64) == {"exit_code": 192, "signal": "SIGRTMAX"}
    assert exit_of(-120) == {"exit_code": 248, "signal": "signal 120"}


async def test_a_missing_program_and_one_that_cannot_run_are_told_apart(spec: OpenSpec) -> None:
    said = await run(Shell(), spec, "no-such-program --help")
    assert types(said) == ["tool_call_started", "tool_call_failed"]
    assert error_of(said).code == "tool_not_found"
    (spec.workspace / "data").write_text("not a program")
    assert error_of(await run(Shell(), spec, "./data")).code == "tool_execution_failed"
    said = await run(Shell(shell=True), spec, "no-such-program")
    assert error_of(said).details["exit_code"] == 127


async def test_a_missing_workspace_is_refused_before_anything_runs(spec: OpenSpec) -> None:
    spec.workspace.rmdir()
    with pytest.raises(ValidationError, match="is no folder"):
        await run(Shell(), spec, "ls")


async def test_three_forms_of_input(spec: OpenSpec) -> None:
    vector = ["echo", "a b", "$HOME", ";", "rm"]
    for shell in (Shell(), Shell(shell=True)):
        assert end_of(await run(shell, spec, vector)).text == "a b $HOME ; rm\n"
    assert end_of(await run(Shell(), spec, "echo 'a b' \"c\" '$HOME'")).text == "a b c $HOME\n"
    assert end_of(await run(Shell(shell=True), spec, "X=1; echo $X | tr 1 2")).text == "2\n"
    assert error_of(await run(Shell(shell=True), spec, "-x")).details["exit_code"] == 127


@pytest.mark.parametrize("text", ["echo 'open", "echo a; echo b", "echo $HOME", "ls *.py"])
async def test_a_text_that_needs_a_shell_is_no_command_without_one(spec: OpenSpec, text: str) -> None:
    async with Shell().open(spec) as connection:
        with pytest.raises(ValidationError, match="Nothing was run"):
            await said_in(connection.prompt(Prompt(text=text)))
        assert end_of(await said_in(connection.prompt(Prompt(text="echo on")))).text == "on\n"


async def test_a_command_too_long_for_the_system_is_refused_with_the_way_out(spec: OpenSpec) -> None:
    with pytest.raises(ValidationError, match="put the text into a file"):
        await run(Shell(shell=True), spec, "echo " + "x" * 200_000)


async def test_output_comes_while_the_command_runs(spec: OpenSpec) -> None:
    os.mkfifo(spec.workspace / "go")
    seen: list[str] = []
    async with Shell(shell=True).open(spec) as connection:
        async for batch in connection.prompt(Prompt(text="printf begun; cat go; echo ended")):
            for body in bodies(batch):
                if isinstance(body, ev.MessageStreamed):
                    seen.append(body.delta)
                    if "".join(seen) == "begun":  # Only now may it go on.
                        await anyio.to_thread.run_sync((spec.workspace / "go").write_text, "")
    assert "".join(seen) == "begunended\n"


async def test_output_beyond_the_cap_is_read_and_left_out(spec: OpenSpec) -> None:
    code = "import sys; sys.stdout.write('x' * 3_000_000); sys.stderr.write('y' * 3_000_000 + 'end')"
    said = await run(Shell(max_output_bytes=1000), spec, [sys.executable, "-I", "-c", code])
    output = end_of(said).output
    assert (end_of(said).status, output["exit_code"], output["truncated"]) == ("completed", 0, True)
    assert output["stdout"] == "x" * 1000 == "".join(b.delta for b in bodies(said) if isinstance(b, ev.MessageStreamed))
    assert output["stderr"] == "y" * 997 + "end"
    results = [b for b in bodies(said) if isinstance(b, ev.ToolCallCompleted)]
    assert (results[0].output_bytes, results[0].truncated) == (3_000_000, True)


def test_text_is_cut_between_characters_and_junk_is_kept_readable() -> None:
    cut = Transcript(4)
    assert cut.add(["ab€".encode()]) + cut.finish() == "ab"
    assert cut.truncated
    whole = Transcript(100)
    euro = "€".encode()
    assert [whole.add([euro[:1]]), whole.add([euro[1:], b"\xff"]), whole.add([euro[:2]]), whole.finish()] == [
        "",
        "€\ufffd",
        "",
        "\ufffd",
    ]
    assert (whole.text, whole.truncated) == ("€\ufffd\ufffd", False)


async def test_a_command_out_of_time_is_gone_with_its_family_and_has_failed(spec: OpenSpec) -> None:
    said = await run(
        Shell(shell=True, timeout=1.5, grace=0.2), spec, "trap '' TERM; echo part; setsid sleep 60 & sleep 60"
    )
    error = error_of(said)
    assert (error.code, error.details) == ("command_failed", {"exit_code": 124, "timed_out": True})
    assert (end_of(said).output["timed_out"], end_of(said).text) == (True, "part\n")
    assert bodies(said)[-1] == ev.MessageReceived(
        role="tool",
        content="part\n",
        message_id=bodies(said)[0].tool_call_id,  # type: ignore[attr-defined]
        parent_tool_call_id=bodies(said)[0].tool_call_id,  # type: ignore[attr-defined]
        partial=True,
    )


async def test_a_silent_command_that_closed_its_output_still_runs_out_of_time(spec: OpenSpec) -> None:
    said = await run(Shell(shell=True, timeout=0.3, grace=0.1), spec, "exec >&- 2>&-; sleep 60")
    assert end_of(said).output["timed_out"]


async def interrupted(connection: Connection, command: str) -> list[Said]:
    said: list[Said] = []
    async for batch in connection.prompt(Prompt(text=command)):
        said += batch
        if types(batch) == ["message_streamed"]:
            await connection.interrupt()
    return said


async def test_an_interrupt_stops_the_command_and_the_next_one_runs(spec: OpenSpec) -> None:
    async with Shell(shell=True).open(spec) as connection:
        await connection.interrupt()  # Idle: does nothing.
        said = await interrupted(connection, "echo part; sleep 60 & sleep 60; echo never")
        assert (end_of(said).status, end_of(said).text, end_of(said).error) == ("interrupted", "part\n", None)
        failed = [body for body in bodies(said) if isinstance(body, ev.ToolCallFailed)]
        assert [body.reason for body in failed] == ["interrupted"]
        assert end_of(await said_in(connection.prompt(Prompt(text="echo on")))).text == "on\n"


async def test_an_interrupted_command_that_calls_it_success_was_interrupted_all_the_same(spec: OpenSpec) -> None:
    async with Shell(shell=True).open(spec) as connection:
        said = await interrupted(connection, "trap 'exit 0' TERM; echo part; sleep 60 & wait")
    assert (end_of(said).status, end_of(said).output["exit_code"]) == ("interrupted", 0)
    assert [body.reason for body in bodies(said) if isinstance(body, ev.ToolCallFailed)] == ["interrupted"]


async def test_an_interrupt_before_the_start_means_it_never_ran(spec: OpenSpec) -> None:
    async with Shell().open(spec) as connection:
        said: list[Said] = []
        async for batch in connection.prompt(Prompt(text="touch ran")):
            said += batch
            await connection.interrupt()
    assert end_of(said).status == "interrupted"
    assert types(said) == ["tool_call_started", "tool_call_failed"]
    assert not (spec.workspace / "ran").exists()


async def test_leaving_the_connection_ends_the_command_and_its_turn(spec: OpenSpec) -> None:
    errors: list[ProviderError] = []
    begun = anyio.Event()

    async def read() -> None:
        try:
            async for batch in connection.prompt(Prompt(text="echo $$; sleep 60")):
                if "message_streamed" in types(batch):
                    begun.set()
        except ProviderError as error:
            errors.append(error)

    async with anyio.create_task_group() as group, Shell(shell=True).open(spec) as connection:
        group.start_soon(read)
        await begun.wait()
        with pytest.raises(StateError):
            await said_in(connection.prompt(Prompt(text="echo second")))
    assert [error.code for error in errors] == ["agent_crashed"]
    assert not connection.alive
    with pytest.raises(ProviderError):
        await said_in(connection.prompt(Prompt(text="echo late")))


async def test_what_a_command_left_in_the_background_is_gone_with_its_turn(spec: OpenSpec) -> None:
    said = await run(Shell(shell=True), spec, "setsid sleep 60 & sleep 60 & echo done")
    assert (end_of(said).status, end_of(said).text) == ("completed", "done\n")


async def test_a_command_has_no_input_and_an_allow_listed_environment(
    spec: OpenSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "hush")
    shell = Shell(shell=True, env={"MINE": "yes"})
    said = await run(shell, spec, 'cat; echo "$MINE" "$SECRET_KEY" "$PWD"')
    assert end_of(said).text == f"yes  {spec.workspace}\n"


@pytest.mark.parametrize(
    ("shell", "prompt"),
    [
        (Shell(denied_commands=["touch"]), ["/usr/bin/touch", "ran"]),
        (Shell(allowed_commands=["ls"]), "touch ran"),
        (Shell(allowed_commands=["touch"], denied_commands=["touch"]), "touch ran"),
        (Shell(shell=True, allowed_commands=["ls"]), "ls; touch ran"),
        (Shell(shell=True, allowed_commands=["ls"]), "ls $(touch ran)"),
        (Shell(shell=True, denied_commands=["touch"]), ["touch", "ran"]),
    ],
)
async def test_a_command_that_may_not_run_does_not_run(spec: OpenSpec, shell: Shell, prompt: str | list[str]) -> None:
    async with shell.open(spec) as connection:
        with pytest.raises(ProviderError) as caught:
            await said_in(connection.prompt(prompt_of(prompt)))
        assert connection.alive
    assert caught.value.code == "tool_permission_denied"
    assert not (spec.workspace / "ran").exists()


@pytest.mark.parametrize(
    ("decision", "status", "ran"),
    [
        (Decision(allow=True), "completed", True),
        (Decision(allow=False, message="no"), "failed", False),
        (Decision(allow=False, interrupt=True), "interrupted", False),
        (None, "interrupted", False),
    ],
)
async def test_a_shell_that_asks_runs_only_what_is_allowed(
    spec: OpenSpec, decision: Decision | None, status: str, ran: bool
) -> None:
    shell = Shell(ask=True)
    assert shell.capabilities.permissions == "gate"
    said: list[Said] = []
    async with shell.open(spec) as connection:
        async for batch in connection.prompt(Prompt(text="touch ran")):
            said += batch
            for body in bodies(batch):
                if isinstance(body, ev.PermissionRequested):
                    if decision is None:
                        await connection.interrupt()
                    else:
                        await connection.answer("another", Decision(allow=not decision.allow))
                        await connection.answer(body.request_id, decision)
                        await connection.answer(body.request_id, Decision(allow=not decision.allow))
    assert end_of(said).status == status
    assert (spec.workspace / "ran").exists() == ran
    if status == "failed":
        assert error_of(said).code == "tool_permission_denied"
    assert ("permission_resolved" in types(said)) == (decision is None)


async def test_in_plan_mode_every_command_asks(spec: OpenSpec) -> None:
    plan = OpenSpec(session_id=spec.session_id, workspace=spec.workspace, scratch=spec.scratch, permission_mode="plan")
    async with Shell().open(plan) as connection:
        async for batch in connection.prompt(Prompt(text="touch ran")):
            if "permission_requested" in types(batch):
                await connection.interrupt()
    assert not (spec.workspace / "ran").exists()


async def test_options_without_meaning_are_refused() -> None:
    for options in ({"timeout": 0}, {"max_output_bytes": -1}, {"grace": -1}, {"allowed_commands": "ls"}):
        with pytest.raises(ValidationError):
            Shell(**options)  # type: ignore[arg-type]


async def test_it_can_be_probed_without_a_process() -> None:
    assert (await Shell().probe()).installed
    probe = await Shell(shell=True).probe()
    assert (probe.installed, probe.executable) == (True, "/bin/sh")

"""A scripted provider says what its script says, hears answers and interrupts, and remembers what it was asked."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentkeel.core import events as ev
from agentkeel.core.capabilities import Capabilities
from agentkeel.core.content import Prompt
from agentkeel.core.events import Draft
from agentkeel.core.ids import SessionId
from agentkeel.core.usage import Usage
from agentkeel.errors import Error, ProviderError, ProviderRateLimited, ProviderTimeout, ProviderUnavailable, StateError
from agentkeel.ports.provider import Began, Connection, Decision, Ended, OpenSpec, Provider, Said
from agentkeel.testing.clock import VirtualClock
from agentkeel.testing.scripted import (
    Crash,
    CutOff,
    Deaf,
    Emit,
    Fail,
    Hang,
    Say,
    ScriptedConnection,
    ScriptedProvider,
    Spend,
    Stop,
    Think,
    Use,
    Wait,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def spec(tmp_path: Path) -> OpenSpec:
    return OpenSpec(session_id=SessionId("ses_1"), workspace=tmp_path, scratch=tmp_path)


async def said_in(batches: AsyncIterator[Sequence[Said]]) -> list[Said]:
    return [said async for batch in batches for said in batch]


async def turn(provider: Provider, spec: OpenSpec, text: str = "go") -> list[Said]:
    async with provider.open(spec) as connection:
        return await said_in(connection.prompt(Prompt(text=text)))


def bodies(said: Sequence[Said]) -> list[ev.Body]:
    return [one.data for one in said if isinstance(one, Draft)]


def end_of(said: Sequence[Said]) -> Ended:
    assert isinstance(said[-1], Ended)
    return said[-1]


def types(said: Sequence[Said]) -> list[str]:
    return [body.type for body in bodies(said)]


async def test_a_turn_begins_says_its_steps_and_ends(spec: OpenSpec) -> None:
    provider = ScriptedProvider([Think("hm", chunks=2), Say("Hello", chunks=2), Spend(input_tokens=3, cost_usd="0.01")])
    said = await turn(provider, spec)
    assert said[0] == Began(
        model="scripted-model", provider_session_id="scripted-1", tools=provider.tools, agent_version="scripted"
    )
    assert types(said) == [
        "reasoning_streamed",
        "reasoning_streamed",
        "message_streamed",
        "message_streamed",
        "message_received",
        "token_usage_updated",
    ]
    end = end_of(said)
    assert (end.status, end.stop_reason, end.text, end.cost_usd) == ("completed", "end_turn", "Hello", "0.01")
    assert end.usage == Usage(input_tokens=3)


async def test_a_text_is_a_turn_and_stop_gives_the_end(spec: OpenSpec) -> None:
    provider = ScriptedProvider("first", ["second", Stop("max_tokens", output={"n": 1}), Say("never")])
    async with provider.open(spec) as connection:
        first = await said_in(connection.prompt(Prompt(text="a")))
        second = await said_in(connection.prompt(Prompt(text="b")))
    assert end_of(first).text == "first"
    assert (end_of(second).text, end_of(second).stop_reason, end_of(second).output) == (
        "second",
        "max_tokens",
        {"n": 1},
    )


async def test_a_tool_acts_on_the_workspace_and_an_exit_code_is_a_failure(spec: OpenSpec) -> None:
    async def later(workspace: Path) -> None:
        await anyio.lowlevel.checkpoint()
        (workspace / "later").touch()

    provider = ScriptedProvider(
        [
            Use("Write", {"path": "a"}, output="ok", effect=lambda at: (at / "a").write_text("A")),
            Use("bash", "false", output="bad", exit_code=1),
            Use("LSP", effect=later, kind="search"),
            Use("LSP"),
        ]
    )
    said = bodies(await turn(provider, spec))
    assert [type(body) for body in said[:4]] == [
        ev.ToolCallStarted,
        ev.ToolCallCompleted,
        ev.ToolCallStarted,
        ev.ToolCallFailed,
    ]
    assert [body.kind for body in said] == ["write"] * 2 + ["bash"] * 2 + ["search"] * 2 + ["other"] * 2  # type: ignore[attr-defined]
    assert said[3] == ev.ToolCallFailed(
        tool_call_id="call-2", tool_name="bash", kind="bash", tool_input="false", tool_output="bad", exit_code=1
    )
    assert (spec.workspace / "a").read_text() == "A"
    assert (spec.workspace / "later").exists()


async def converse(connection: Connection, decision: Decision | None) -> list[Said]:
    """One turn; each permission request gets `decision`, or an interrupt for None."""
    said: list[Said] = []
    async for batch in connection.prompt(Prompt(text="go")):
        said += batch
        for body in bodies(batch):
            if isinstance(body, ev.PermissionRequested):
                if decision is None:
                    await connection.interrupt()
                else:
                    await connection.answer(body.request_id, decision)
    return said


ASKING = [Use("bash", {"command": "rm x"}, ask=True, effect=lambda at: (at / "done").touch()), Say("after")]


@pytest.mark.parametrize(
    ("decision", "kinds", "status", "ran"),
    [
        (Decision(allow=True), ["tool_call_completed", "message_streamed", "message_received"], "completed", True),
        (
            Decision(allow=False, message="no"),
            ["tool_call_failed", "message_streamed", "message_received"],
            "completed",
            False,
        ),
        (Decision(allow=False, interrupt=True), ["tool_call_failed"], "interrupted", False),
        (None, ["permission_resolved", "tool_call_failed"], "interrupted", False),
    ],
)
async def test_a_tool_that_asks_runs_only_if_allowed(
    spec: OpenSpec, decision: Decision | None, kinds: list[str], status: str, ran: bool
) -> None:
    async with ScriptedProvider(ASKING).open(spec) as connection:
        said = await converse(connection, decision)
        assert connection.alive
    assert types(said) == ["tool_call_started", "permission_requested", *kinds]
    assert end_of(said).status == status
    assert (spec.workspace / "done").exists() == ran
    for body in bodies(said):
        if isinstance(body, ev.ToolCallFailed):
            assert (body.reason, body.tool_output) == (
                ("interrupted", None) if decision is None else ("denied", decision.message)
            )


async def test_an_answer_changes_the_input_and_late_answers_do_nothing(spec: OpenSpec) -> None:
    provider = ScriptedProvider(ASKING)
    async with provider.open(spec) as connection:
        said = await converse(connection, Decision(allow=True, updated_input={"command": "rm y"}))
        await connection.answer("ask-1", Decision(allow=False))
    assert [b.tool_input for b in bodies(said) if isinstance(b, ev.ToolCallCompleted)] == [{"command": "rm y"}]
    assert [(one, decision.allow) for one, decision in provider.answers] == [("ask-1", True), ("ask-1", False)]


async def interrupted_while(connection: Connection, *, after: int) -> list[Said]:
    said: list[Said] = []

    async def read() -> None:
        async for batch in connection.prompt(Prompt(text="go")):
            said.extend(batch)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        while len(said) < after:
            await anyio.lowlevel.checkpoint()
        await connection.interrupt()
    return said


async def test_an_interrupt_ends_a_hang_and_the_connection_serves_on(spec: OpenSpec) -> None:
    provider = ScriptedProvider([Hang(), Say("never")], "again")
    async with provider.open(spec) as connection:
        await connection.interrupt()  # Idle: does nothing.
        said = await interrupted_while(connection, after=1)
        assert (end_of(said).status, types(said)) == ("interrupted", [])
        assert end_of(await said_in(connection.prompt(Prompt(text="b")))).text == "again"
    assert provider.interrupts == 2


async def test_an_interrupted_message_is_kept_as_partial(spec: OpenSpec) -> None:
    async with ScriptedProvider([Say("abcd", chunks=4)]).open(spec) as connection:
        said: list[Said] = []
        async for batch in connection.prompt(Prompt(text="go")):
            said += batch
            if types(said) == ["message_streamed"] * 2:
                await connection.interrupt()
    assert bodies(said)[-1] == ev.MessageReceived(content="ab", message_id="msg-1", partial=True)
    assert (end_of(said).status, end_of(said).text) == ("interrupted", "ab")


async def test_a_deaf_turn_hears_no_interrupt_and_ends_with_its_connection(spec: OpenSpec) -> None:
    provider = ScriptedProvider([Deaf(), Say("x"), Hang()])
    said: list[Said] = []
    errors: list[Error] = []

    async def read() -> None:
        try:
            async for batch in connection.prompt(Prompt(text="go")):
                said.extend(batch)
        except ProviderError as error:
            errors.append(error)

    async with anyio.create_task_group() as group, provider.open(spec) as connection:
        group.start_soon(read)
        while len(said) < 3:
            await anyio.lowlevel.checkpoint()
        for _ in range(10):
            await connection.interrupt()
        assert connection.alive
        assert not any(isinstance(one, Ended) for one in said)
    assert [error.code for error in errors] == ["agent_crashed"]
    assert provider.closed == ["scripted-1"]


async def test_waits_pass_on_the_given_clock_and_end_by_interrupt(spec: OpenSpec) -> None:
    clock = VirtualClock()
    provider = ScriptedProvider([Wait(60), Say("late")], [Wait(60)], clock=clock)
    said: list[Said] = []

    async def read() -> None:
        said.extend(await said_in(connection.prompt(Prompt(text="go"))))

    async with provider.open(spec) as connection:
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await clock.advance(59)
            assert not said
            await clock.advance(1)
        assert end_of(said).text == "late"
        assert end_of(await interrupted_while(connection, after=1)).status == "interrupted"
    assert clock.sleepers == 0


async def test_failing_is_an_end_and_crashing_is_an_error(spec: OpenSpec) -> None:
    provider = ScriptedProvider(
        [Say("a"), Fail("provider_rate_limited", "slow down", retry_after=30)], [Say("b"), Crash(), Say("never")]
    )
    async with provider.open(spec) as connection:
        end = end_of(await said_in(connection.prompt(Prompt(text="1"))))
        assert (end.status, end.text) == ("failed", "a")
        assert isinstance(end.error, ProviderRateLimited)
        assert end.error.retry_after == 30
        said: list[Said] = []
        with pytest.raises(ProviderError) as caught:  # noqa: PT012 - what it said before counts
            async for batch in connection.prompt(Prompt(text="2")):
                said += batch
        assert caught.value.code == "agent_crashed"
        assert types(said) == ["message_streamed", "message_received"]
        assert not connection.alive
        with pytest.raises(ProviderError):
            await said_in(connection.prompt(Prompt(text="3")))


async def test_a_turn_that_is_cut_off_has_no_end(spec: OpenSpec) -> None:
    async with ScriptedProvider([Say("a"), CutOff(), Say("never")]).open(spec) as connection:
        said = await said_in(connection.prompt(Prompt(text="go")))
        assert not connection.alive
    assert types(said) == ["message_streamed", "message_received"]
    assert not any(isinstance(one, Ended) for one in said)


async def test_bodies_and_drafts_are_emitted_together_as_they_are(spec: OpenSpec) -> None:
    own = Draft(data=ev.TurnCompleted(turns=1), key="k", raw=b"{}")
    async with ScriptedProvider([Emit(ev.ErrorRecovered(), own)]).open(spec) as connection:
        batches = [batch async for batch in connection.prompt(Prompt(text="go"))]
    assert batches[1] == (Draft(data=ev.ErrorRecovered(), source="agent"), own)


async def test_a_function_sees_the_prompt_and_what_happened_before(spec: OpenSpec) -> None:
    def answer(prompt: Prompt, connection: ScriptedConnection) -> Any:
        yield f"{prompt.text} is number {len(connection.prompts)}"
        yield Use("bash", ask=True)
        yield "allowed" if connection.provider.answers[-1][1].allow else "refused"

    provider = ScriptedProvider(always=answer)
    async with provider.open(spec) as connection:
        assert end_of(await converse(connection, Decision(allow=True))).text == "allowed"
        said = await converse(connection, Decision(allow=False))
    assert bodies(said)[1] == ev.MessageReceived(content="go is number 2", message_id="msg-3")
    assert end_of(said).text == "refused"


async def test_an_ended_script_says_so(spec: OpenSpec) -> None:
    provider = ScriptedProvider("one")
    async with provider.open(spec) as connection:
        await said_in(connection.prompt(Prompt(text="1")))
        assert provider.turns_left == 0
        with pytest.raises(ProviderError, match=r"has 1 turns and this is prompt 2 \('more'\)") as caught:
            await said_in(connection.prompt(Prompt(text="more")))
    assert caught.value.details == {"turns": 1, "prompts": 2}


async def test_what_is_no_step_is_refused_by_name(spec: OpenSpec) -> None:
    with pytest.raises(TypeError, match="42 is no step"):
        await turn(ScriptedProvider([42]), spec)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="is no error code"):
        Fail("no_such_code")
    with pytest.raises(ValueError, match="1 or more"):
        Say("x", chunks=0)


async def test_it_records_prompts_and_connections_and_resumes(spec: OpenSpec) -> None:
    provider = ScriptedProvider("a", "b", name="fake")
    async with provider.open(spec) as connection:
        await said_in(connection.prompt(Prompt(text="1")))
        known = connection.provider_session_id
    again = OpenSpec(session_id=spec.session_id, workspace=spec.workspace, scratch=spec.scratch, resume=known)
    assert end_of(await turn(provider, again, "2")).provider_session_id == known == "fake-1"
    assert [prompt.text for prompt in provider.prompts] == ["1", "2"]
    assert provider.opened == [spec, again]
    assert provider.closed == ["fake-1", "fake-1"]


async def test_declared_limits_are_kept(spec: OpenSpec) -> None:
    poor = ScriptedProvider("a", [Hang()], capabilities=Capabilities())
    async with poor.open(spec) as connection:
        assert types(await said_in(connection.prompt(Prompt(text="1")))) == ["message_received"]
        assert not connection.alive
    again = OpenSpec(session_id=spec.session_id, workspace=spec.workspace, scratch=spec.scratch, resume="scripted-1")
    async with poor.open(again) as connection:
        assert connection.provider_session_id == "scripted-2"
        assert end_of(await interrupted_while(connection, after=1)).status == "interrupted"
        assert not connection.alive


async def test_opening_can_fail_and_can_take_too_long(spec: OpenSpec) -> None:
    clock = VirtualClock()
    with pytest.raises(ProviderUnavailable):
        await turn(ScriptedProvider(opening=Fail("provider_unavailable")), spec)
    slow = ScriptedProvider("up", opening=lambda spec: [Wait(59)], clock=clock)
    never = ScriptedProvider(opening=[Wait(1), Hang()], clock=clock)
    ends: list[Ended] = []

    async def use_slow() -> None:
        ends.append(end_of(await turn(slow, spec)))

    async def use_never() -> None:
        with pytest.raises(ProviderTimeout) as caught:
            await turn(never, spec)
        assert caught.value.details == {"deadline": "startup", "seconds": 60.0}

    async with anyio.create_task_group() as group:
        group.start_soon(use_slow)
        group.start_soon(use_never)
        await clock.advance(60)
    assert ends[0].text == "up"
    assert (never.opened, never.closed) == ([spec], [])


async def test_one_turn_at_a_time_also_after_its_reader_left(spec: OpenSpec) -> None:
    async with ScriptedProvider("one", "two").open(spec) as connection:
        async with aclosing(connection.prompt(Prompt(text="1"))) as batches:  # type: ignore[type-var]
            await anext(batches)
            with pytest.raises(StateError):
                await said_in(connection.prompt(Prompt(text="2")))
        with pytest.raises(StateError):
            await said_in(connection.prompt(Prompt(text="2")))
        await connection.interrupt()
        assert end_of(await said_in(connection.prompt(Prompt(text="2")))).text == "two"


async def test_it_can_be_probed() -> None:
    probe = await ScriptedProvider(name="fake").probe()
    assert (probe.name, probe.installed, probe.problem) == ("fake", True, None)

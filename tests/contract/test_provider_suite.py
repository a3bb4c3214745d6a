"""The provider suite catches providers that break the port's promises."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from agentkeel.core import events as ev
from agentkeel.core.content import Prompt
from agentkeel.core.events import Draft
from agentkeel.core.ids import SessionId
from agentkeel.core.usage import Usage
from agentkeel.errors import ProviderError
from agentkeel.ports.provider import Began, Ended, OpenSpec, Said
from agentkeel.testing import scripted
from agentkeel.testing.provider_suite import check_turn

pytestmark = pytest.mark.anyio


def said(*bodies: ev.Body) -> list[Said]:
    return [Began(), *(Draft(data=body, source="agent") for body in bodies), Ended(status="completed")]


def started(call_id: str = "1") -> ev.ToolCallStarted:
    return ev.ToolCallStarted(tool_call_id=call_id, tool_name="bash", kind="bash")


def completed(call_id: str = "1") -> ev.ToolCallCompleted:
    return ev.ToolCallCompleted(tool_call_id=call_id, tool_name="bash", kind="bash")


def request(request_id: str = "r", call_id: str | None = None) -> ev.PermissionRequested:
    return ev.PermissionRequested(request_id=request_id, tool_name="bash", tool_call_id=call_id)


async def check(turn: Sequence[Said], tmp_path: Path) -> None:
    provider = scripted.ScriptedProvider()
    spec = OpenSpec(session_id=SessionId("ses_1"), workspace=tmp_path, scratch=tmp_path)
    async with provider.open(spec) as connection:
        check_turn(turn, provider, connection)


GOOD: dict[str, list[Said]] = {
    "an empty turn": said(),
    "text": said(
        ev.MessageStreamed(delta="a", message_id="m"),
        ev.MessageStreamed(delta="b", message_id="m"),
        ev.MessageReceived(content="ab", message_id="m"),
    ),
    "a sub-agent's text": said(started(), ev.MessageReceived(content="x", parent_tool_call_id="1"), completed()),
    "tools side by side": said(started("1"), started("2"), request(call_id="2"), completed("2"), completed("1")),
    "usage": [
        *said(ev.TokenUsageUpdated(usage=Usage(input_tokens=1)))[:-1],
        Ended(status="completed", usage=Usage(input_tokens=1)),
    ],
    "a failure": [Began(), Ended(status="failed", error=ProviderError("no"))],
}

BAD: dict[str, list[Said]] = {
    "no Began": said()[1:],
    "no Ended": said()[:-1],
    "two Begans": [Began(), *said()],
    "two Endeds": [*said(), Ended(status="completed")],
    "something after Ended": [*said(), Draft(data=ev.ErrorRecovered(), source="agent")],
    "lifecycle": said(ev.RunCompleted(stop_reason="end_turn")),
    "the engine's voice": [Began(), Draft(data=ev.ErrorRecovered()), Ended(status="completed")],
    "a call without an end": said(started()),
    "an end without a call": said(completed()),
    "a call that ends twice": said(started(), completed(), completed()),
    "a call that starts twice": said(started(), completed(), started(), completed()),
    "a call that changes its tool": said(
        started(), ev.ToolCallCompleted(tool_call_id="1", tool_name="rm", kind="bash")
    ),
    "a request for no call": said(request(call_id="9")),
    "a request twice": said(request(), request()),
    "deltas that differ": said(
        ev.MessageStreamed(delta="a", message_id="m"), ev.MessageReceived(content="b", message_id="m")
    ),
    "deltas without a message": said(ev.MessageStreamed(delta="a", message_id="m")),
    "a message without deltas": said(ev.MessageReceived(content="b", message_id="m")),
    "an empty delta": said(ev.MessageStreamed(delta=""), ev.MessageReceived(content="")),
    "negative usage": said(ev.TokenUsageUpdated(usage=Usage(input_tokens=2, output_tokens=-1))),
    "empty usage": said(ev.TokenUsageUpdated(usage=Usage())),
    "cumulative usage": [
        *said(
            ev.TokenUsageUpdated(usage=Usage(input_tokens=1)),
            ev.TokenUsageUpdated(usage=Usage(input_tokens=3)),
        )[:-1],
        Ended(status="completed", usage=Usage(input_tokens=3)),
    ],
    "a failure without a reason": [Began(), Ended(status="failed")],
    "a success with an error": [Began(), Ended(status="completed", error=ProviderError("no"))],
    "another conversation": [Began(provider_session_id="other"), Ended(status="completed")],
}


@pytest.mark.parametrize("turn", GOOD.values(), ids=GOOD)
async def test_a_turn_that_keeps_the_promises_passes(turn: list[Said], tmp_path: Path) -> None:
    await check(turn, tmp_path)


@pytest.mark.parametrize("turn", BAD.values(), ids=BAD)
async def test_a_turn_that_breaks_a_promise_is_caught(turn: list[Said], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        await check(turn, tmp_path)


async def test_a_scripted_turn_keeps_the_promises_whatever_its_steps(tmp_path: Path) -> None:
    steps = [
        "a",
        scripted.Think("b", chunks=9),
        scripted.Use("bash", exit_code=1),
        scripted.Spend(reasoning_tokens=1, output_tokens=2),
        scripted.Say("", chunks=3),
        scripted.Say("c", chunks=7),
        scripted.Stop("max_tokens"),
    ]
    provider = scripted.ScriptedProvider(steps)
    spec = OpenSpec(session_id=SessionId("ses_1"), workspace=tmp_path, scratch=tmp_path)
    async with provider.open(spec) as connection:
        turn = [one async for batch in connection.prompt(Prompt(text="go")) for one in batch]
        check_turn(turn, provider, connection)

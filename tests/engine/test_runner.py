"""One run, from its slot to its one terminal event, whatever its agent does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path

import anyio
import pytest

import agentkeel
from agentkeel import Decision, Manager
from agentkeel.core.content import Prompt
from agentkeel.core.events import TERMINAL_TYPES, PermissionRequested
from agentkeel.ports.provider import Said
from agentkeel.testing import ScriptedProvider, VirtualClock
from agentkeel.testing.scripted import Crash, CutOff, Deaf, Fail, Hang, Say, ScriptedConnection, Spend, Think, Use, Wait

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def manager_of(
    *turns: object, clock: VirtualClock | None = None, **options: object
) -> AsyncIterator[tuple[Manager, ScriptedProvider]]:
    clock = clock or VirtualClock()
    provider = ScriptedProvider(*turns, clock=clock)
    async with agentkeel.open("memory:", providers=[provider], clock=clock, **options) as manager:
        yield manager, provider


async def types_of(session: agentkeel.Session) -> list[str]:
    return [event.type for event in await session.events()]


async def test_a_run_tells_its_life_in_order() -> None:
    async with manager_of([Think("hm"), Say("hello", chunks=2), Use("bash", {"command": "ls"}, output="x")]) as (m, _):
        session = await m.start_session()
        result = await session.run("hi")
        types = await types_of(session)
        assert [kind for kind, _ in groupby(types)] == [
            "session_created",
            "session_started",
            "run_queued",
            "message_sent",
            "route_selected",
            "continuity_prepared",
            "run_started",
            "reasoning_streamed",
            "message_streamed",
            "message_received",
            "tool_call_started",
            "tool_call_completed",
            "run_completed",
            "session_idle",
        ]
        assert result.text == "hello"
        assert [(call.name, call.kind, call.status, call.output) for call in result.tool_calls] == [
            ("bash", "bash", "completed", "x")
        ]
        assert result.route is not None
        assert result.route.provider == "scripted"


async def test_sequences_are_dense_from_one_and_every_event_of_a_run_names_it() -> None:
    async with manager_of("one", "two") as (m, _):
        session = await m.start_session()
        first = await session.run("1")
        second = await session.run("2")
        events = await session.events()
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert {event.run_id for event in events} == {None, first.run_id, second.run_id}


async def test_a_failed_turn_fails_the_run_and_keeps_what_was_said_and_used() -> None:
    turn = [Say("half"), Spend(input_tokens=7, output_tokens=3), Fail("provider_rate_limited", "slow down", 9.0)]
    async with manager_of(turn) as (m, _):
        with pytest.raises(agentkeel.ProviderRateLimited) as caught:
            await m.run("hi")
        error = caught.value
        assert error.retry_after == 9.0
        assert error.result is not None
        assert error.result.text == "half"
        assert error.result.usage.total_tokens == 10
        assert error.result.status == "failed"
        [state] = await m.sessions()
        assert state.status == "failed"
        assert state.error_code == "provider_rate_limited"


async def test_a_turn_that_stops_without_an_end_is_not_a_success() -> None:
    async with manager_of([Say("almost"), CutOff()]) as (m, _):
        with pytest.raises(agentkeel.ProviderError) as caught:
            await m.run("hi")
        assert caught.value.code == "turn_cut_off"


async def test_a_crash_fails_the_run_and_the_next_prompt_gets_a_new_agent() -> None:
    async with manager_of([Say("so f"), Crash()], "fine") as (m, provider):
        session = await m.start_session()
        with pytest.raises(agentkeel.ProviderError) as caught:
            await session.run("hi")
        assert caught.value.code == "agent_crashed"
        assert (await session.run("again")).text == "fine"
        assert len(provider.opened) == 2
        assert len(provider.closed) >= 1


async def test_a_warm_agent_serves_the_next_prompt_of_its_session() -> None:
    async with manager_of("one", "two", "three") as (m, provider):
        session = await m.start_session()
        assert (await session.run("1")).continuity == "new"
        assert (await session.run("2")).continuity == "warm"
        assert len(provider.opened) == 1
        await m.run("3")
        assert len(provider.opened) == 2
    assert len(provider.closed) == 2


async def test_continuity_off_gives_every_run_a_fresh_agent() -> None:
    async with manager_of("one", "two") as (m, provider):
        session = await m.start_session(continuity="off")
        await session.run("1")
        await session.run("2")
        assert [spec.resume for spec in provider.opened] == [None, None]


async def test_another_model_gets_another_agent_that_takes_up_the_conversation() -> None:
    async with manager_of("one", "two") as (m, provider):
        session = await m.start_session()
        first = await session.run("1", model="small")
        assert (await session.run("2", model="large")).continuity == "native"
        state = await (await m.run_handle(first.run_id)).info()
        assert [spec.resume for spec in provider.opened] == [None, state.provider_session_id]


async def test_an_agent_that_cannot_be_opened_fails_the_run() -> None:
    clock = VirtualClock()
    provider = ScriptedProvider("never", clock=clock, opening=Fail("provider_unavailable", "no such program"))
    async with agentkeel.open("memory:", providers=[provider], clock=clock) as manager:
        with pytest.raises(agentkeel.ProviderUnavailable, match="no such program"):
            await manager.run("hi")
        [run] = await manager.runs()
        assert run.status == "failed"


async def test_cancel_interrupts_the_agent_and_keeps_its_last_words() -> None:
    async with manager_of([Say("working"), Spend(output_tokens=2), Hang()], "next") as (m, provider):
        session = await m.start_session()
        run = await session.submit("hi")
        await _until(session, "token_usage_updated")
        await run.cancel("enough")
        with pytest.raises(agentkeel.RunCancelled, match="enough") as caught:
            await run.result()
        assert caught.value.result is not None
        assert caught.value.result.text == "working"
        assert caught.value.result.usage.output_tokens == 2
        assert (await session.run("go on")).text == "next"
        assert len(provider.opened) == 1, "an interrupted agent stays usable"


async def test_a_cancel_while_the_prompt_is_on_its_way_needs_no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that is told to stop before it has the prompt is told again when it begins."""
    on_its_way = anyio.Event()
    prompt = ScriptedConnection.prompt

    async def slowly(self: ScriptedConnection, words: Prompt) -> AsyncIterator[Sequence[Said]]:
        on_its_way.set()
        await anyio.sleep(0.05)
        async for batch in prompt(self, words):
            yield batch

    monkeypatch.setattr(ScriptedConnection, "prompt", slowly)
    async with manager_of([Hang()]) as (m, _):
        session = await m.start_session()
        run = await session.submit("hi")
        await on_its_way.wait()
        await run.cancel()
        with anyio.fail_after(2), pytest.raises(agentkeel.RunCancelled):
            await run.result()  # the clock stands still: a grace would never end


async def test_a_run_that_is_stopped_before_its_prompt_gets_none() -> None:
    clock = VirtualClock()
    opening = anyio.Event()
    provider = ScriptedProvider("never", clock=clock, opening=lambda spec: opening.set() or [Wait(1)])
    async with agentkeel.open("memory:", providers=[provider], clock=clock) as manager:
        session = await manager.start_session()
        run = await session.submit("hi")
        await opening.wait()
        await run.cancel()
        await clock.advance(1)
        with pytest.raises(agentkeel.RunCancelled):
            await run.result()
        assert provider.prompts == []


async def test_an_agent_deaf_to_the_interrupt_is_ended_after_the_grace() -> None:
    clock = VirtualClock()
    async with manager_of([Deaf(), Say("la la"), Hang()], clock=clock, grace=5) as (m, provider):
        session = await m.start_session()
        run = await session.submit("hi")
        await _until(session, "message_received")
        await run.cancel()
        assert (await run.info()).status == "running"
        await clock.advance(5)
        with pytest.raises(agentkeel.RunCancelled):
            await run.result()
        assert len(provider.closed) == 1


async def test_cancelling_twice_or_after_the_end_changes_nothing() -> None:
    async with manager_of("done") as (m, _):
        session = await m.start_session()
        run = await session.submit("hi")
        await run.result()
        await run.cancel()
        await run.cancel()
        assert (await run.info()).status == "completed"
        assert len([t for t in await types_of(session) if t in TERMINAL_TYPES]) == 1


@pytest.mark.parametrize(
    ("options", "advance", "deadline"),
    [({"timeout": 30}, 30, "total"), ({"idle_timeout": 20, "timeout": None}, 21, "idle")],
)
async def test_a_silent_agent_meets_its_deadline(options: dict[str, float], advance: float, deadline: str) -> None:
    clock = VirtualClock()
    async with manager_of([Say("hm"), Hang()], clock=clock) as (m, _):
        session = await m.start_session(**options)
        run = await session.submit("hi")
        await _until(session, "message_received")
        await clock.advance(advance)
        with pytest.raises(agentkeel.RunTimeout) as caught:
            await run.result()
        assert caught.value.details["deadline"] == deadline
        assert caught.value.result is not None
        assert caught.value.result.text == "hm"


async def test_an_agent_that_talks_is_not_idle() -> None:
    clock = VirtualClock()
    turn = [step for n in range(5) for step in (Say(f"{n}"), Wait(15))]
    async with manager_of(turn, clock=clock, idle_timeout=20, timeout=None) as (m, _):
        session = await m.start_session()
        run = await session.submit("hi")
        for _ in range(5):
            await clock.wait_for_sleepers(3)  # the heartbeat, the idle deadline, and the agent in its wait
            await clock.advance(15)
        assert (await run.result()).status == "completed"


async def test_wall_time_that_jumps_moves_no_deadline() -> None:
    clock = VirtualClock()
    async with manager_of([Say("hm"), Wait(10), Say("done")], clock=clock, timeout=60) as (m, _):
        session = await m.start_session()
        run = await session.submit("hi")
        await _until(session, "message_received")
        clock.jump_wall(86_400)
        await clock.advance(10)
        assert (await run.result()).text == "done"


async def test_a_deadline_that_passes_while_the_agent_comes_up_ends_the_run() -> None:
    clock = VirtualClock()
    provider = ScriptedProvider("never", clock=clock, opening=Wait(1000))
    async with agentkeel.open("memory:", providers=[provider], clock=clock, timeout=10) as manager:
        session = await manager.start_session()
        run = await session.submit("hi")
        await clock.wait_for_sleepers(2)
        await clock.advance(10)
        with pytest.raises(agentkeel.RunTimeout):
            await run.result()


async def test_nobody_to_ask_means_no_and_the_model_is_told(tmp_path: Path) -> None:
    turn = [Use("bash", {"command": "rm -rf x"}, ask=True, effect=lambda folder: (folder / "ran").touch())]
    async with manager_of(turn) as (m, _):
        session = await m.start_session(workspace=tmp_path)
        result = await session.run("hi")
        assert result.tool_calls[0].status == "denied"
        assert not (tmp_path / "ran").exists()
        resolved = next(e for e in await session.events() if e.type == "permission_resolved")
        assert (resolved.data.decision, resolved.data.by) == ("deny", "nobody")


async def test_the_caller_is_asked_and_the_log_has_the_answer_before_the_agent(tmp_path: Path) -> None:
    asked: list[PermissionRequested] = []

    async def approve(request: PermissionRequested) -> Decision:
        asked.append(request)
        return Decision(allow=True)

    turn = [Use("bash", {"command": "make"}, ask=True, effect=lambda folder: (folder / "ran").touch())]
    async with manager_of(turn) as (m, _):
        session = await m.start_session(workspace=tmp_path, on_permission=approve)
        await session.run("hi")
        assert [(request.tool_name, request.tool_input) for request in asked] == [("bash", {"command": "make"})]
        assert (tmp_path / "ran").exists()
        types = await types_of(session)
        assert types.index("permission_resolved") < types.index("tool_call_completed")


async def test_an_approver_that_fails_denies_and_the_run_goes_on() -> None:
    async def broken(request: PermissionRequested) -> Decision:
        raise KeyError(request.tool_name)

    async with manager_of([Use("bash", ask=True), Say("ok")], on_permission=broken) as (m, _):
        result = await m.run("hi")
        assert result.text == "ok"
        assert result.tool_calls[0].status == "denied"


async def test_an_approver_that_is_too_slow_denies() -> None:
    async def asleep(request: PermissionRequested) -> Decision:
        await anyio.sleep_forever()
        raise AssertionError

    async with manager_of([Use("bash", ask=True)], on_permission=asleep, permission_timeout=0.05) as (m, _):
        session = await m.start_session()
        await session.run("hi")
        resolved = next(e for e in await session.events() if e.type == "permission_resolved")
        assert (resolved.data.by, resolved.data.decision) == ("deadline", "deny")


@pytest.mark.parametrize(
    ("mode", "kind", "asked", "allowed"),
    [
        ("full_auto", "bash", {"command": "make"}, True),
        ("accept_edits", "edit", {"file_path": "src/a.py"}, True),
        ("accept_edits", "edit", {"changes": [{"path": "a"}, {"path": "b/c"}]}, True),
        ("accept_edits", "edit", {"changes": [{"path": "a"}, {"path": "../c"}]}, False),
        ("accept_edits", "write", {"file_path": "/etc/passwd"}, False),
        ("accept_edits", "write", {"file_path": "way-out/x"}, False),
        ("accept_edits", "edit", {}, False),
        ("accept_edits", "bash", {"command": "make"}, False),
        ("plan", "read", {"path": "a"}, True),
        ("plan", "edit", {"path": "a"}, False),
        ("default", "read", {"path": "a"}, False),
        (None, "read", {"path": "a"}, False),
    ],
)
async def test_the_permission_mode_answers_first(
    mode: str | None, kind: str, asked: dict[str, object], tmp_path: Path, *, allowed: bool
) -> None:
    (tmp_path / "way-out").symlink_to("/tmp")
    async with manager_of([Use("it", asked, ask=True, kind=kind)], permission_mode=mode) as (m, _):
        result = await m.run("hi", workspace=tmp_path)
        assert (result.tool_calls[0].status == "completed") is allowed


async def test_a_secret_split_over_streamed_pieces_is_in_no_event() -> None:
    secret = "sk-ant-api03-" + "x" * 40
    turn = [Say(f"the key is {secret} ok", chunks=9), Use("bash", {"command": f"echo {secret}"}, output=secret)]
    async with manager_of(turn) as (m, _):
        session = await m.start_session()
        result = await session.run(f"remember {secret}")
        stored = "".join(repr(event) for event in await session.events())
        assert secret not in stored
        assert "x" * 12 not in stored
        assert "[REDACTED]" in result.text
        streamed = "".join(e.data.delta for e in await session.events(types=["message_streamed"]))
        assert streamed == "the key is [REDACTED] ok"


async def test_a_key_that_the_agent_was_given_is_in_no_event_whatever_it_looks_like() -> None:
    key = "correct horse battery staple"
    clock = VirtualClock()
    provider = ScriptedProvider([Say(f"it is {key}.", chunks=7), Use("bash", output={"env": key})], clock=clock)
    provider.secrets = frozenset({key})
    async with agentkeel.open("memory:", providers=[provider], clock=clock) as manager:
        session = await manager.start_session()
        await session.run(f"what is {key}?")
        stored = repr(await session.events())
        assert "battery" not in stored
        assert stored.count("[REDACTED]") >= 3


async def test_leaving_the_manager_calls_off_what_still_runs() -> None:
    clock = VirtualClock()
    store = agentkeel.manager.open_store
    memory = await store("memory:")
    provider = ScriptedProvider([Say("x"), Hang()], "never", clock=clock)
    async with agentkeel.open(memory, providers=[provider], clock=clock) as manager:
        session = await manager.start_session()
        first = await session.submit("1")
        second = await session.submit("2")
        await _until(session, "message_received")
        runs = [first.id, second.id]
        closing = memory.aclose
        memory.aclose = _nothing  # keep it readable after the manager
    memory.aclose = closing
    assert [(await memory.run(run)).status for run in runs] == ["cancelled", "cancelled"]
    assert len(provider.closed) == 1


async def test_the_run_survives_its_caller() -> None:
    async with manager_of([Say("x"), Hang()], "b") as (m, _):
        session = await m.start_session()
        with anyio.move_on_after(0.05):
            await session.run("hi")
        status = await session.status()
        assert status.in_flight_count == 1
        await session.interrupt()
        await session.drain()
        assert (await session.status()).in_flight_count == 0


async def _nothing() -> None: ...


async def _until(session: agentkeel.Session, type_: str) -> None:
    with anyio.fail_after(5):
        async for event in session.subscribe():
            if event.type == type_:
                return

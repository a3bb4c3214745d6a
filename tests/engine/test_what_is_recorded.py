"""What the log keeps of sessions and runs, field by field, and what is refused before anything is kept."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import anyio
import msgspec
import pytest

import agentkeel
from agentkeel.core.pricing import Cost
from agentkeel.core.usage import Usage
from agentkeel.testing import ScriptedProvider, VirtualClock
from agentkeel.testing.scripted import CAPABILITIES, Fail, Hang, Say, Spend, Use, Wait

pytestmark = pytest.mark.anyio


class Prices:
    """One dollar a token for the model `known`; nothing is known of others."""

    def price(self, usage: Usage, *, provider: str, model: str | None) -> Cost | None:
        if model != "known":
            return None
        return Cost(usd=Decimal(usage.total_tokens), source="table", version="1")


async def test_a_status_that_is_none_is_refused_where_sessions_and_runs_are_listed() -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider("x")]) as manager:
        for listed in (manager.sessions, manager.runs):
            with pytest.raises(agentkeel.ValidationError) as caught:
                await listed(status="dead")
            assert caught.value.code == "invalid_status"


async def test_the_provider_in_a_sessions_metadata_is_the_one_it_has() -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider("x")]) as manager:
        session = await manager.start_session(metadata={"provider": "mine", "team": "a"})
        assert (await session.info()).metadata == {"provider": "scripted", "team": "a"}


async def test_the_ends_of_sessions_say_what_happened() -> None:
    error = agentkeel.ProviderRateLimited("slow down", details={"a": 1})
    async with agentkeel.open("memory:", providers=[ScriptedProvider("x")]) as manager:
        good, bad, broken = [await manager.start_session() for _ in range(3)]
        await good.complete()
        await bad.fail(error)
        await broken.fail(KeyError("x"))
        ends = [(await session.events())[-1] for session in (good, bad, broken)]
        assert [end.type for end in ends] == ["session_completed", "session_failed", "session_failed"]
        said = ends[1].data
        assert (said.error_code, said.error_message, said.details) == ("provider_rate_limited", "slow down", {"a": 1})
        assert ends[2].data.error_code == "internal_error"
        assert [(await s.info()).status for s in (good, bad, broken)] == ["completed", "failed", "failed"]


async def test_the_start_of_a_run_names_model_tools_and_the_agents_own_conversation() -> None:
    provider = ScriptedProvider("x", model="large", tools=["bash", "edit"])
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        session = await manager.start_session()
        await session.run("hi")
        [begun] = await session.events(types=["run_started"])
        assert (begun.data.model, begun.data.tools) == ("large", ("bash", "edit"))
        state = await session.info()
        assert state.provider_sessions == {"scripted": begun.data.provider_session_id}


@pytest.mark.parametrize(
    ("turn", "cost", "source"),
    [
        ([Spend(input_tokens=3, model="known")], "3", "table"),
        ([Spend(input_tokens=3, model="known"), Spend(input_tokens=3, model="other")], None, None),
        ([Spend(input_tokens=3, model="other")], None, None),
        ([Say("free of tokens")], None, None),
    ],
)
async def test_a_cost_is_the_tables_where_it_knows_all_and_nothing_where_it_does_not(
    turn: list[object], cost: str | None, source: str | None
) -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider(turn)], pricing=Prices()) as manager:
        result = await manager.run("hi")
        assert (result.cost_usd, result.cost_source) == (None if cost is None else Decimal(cost), source)


async def test_what_the_vendor_says_of_the_cost_comes_before_the_table() -> None:
    turn = [Spend(input_tokens=3, model="known", cost_usd="0.5")]
    async with agentkeel.open("memory:", providers=[ScriptedProvider(turn)], pricing=Prices()) as manager:
        assert (await manager.run("hi")).cost_usd == Decimal("0.5")


@pytest.mark.parametrize("mode", ["replay", "maybe", True, "", 1])
async def test_a_continuity_that_is_none_is_refused(mode: object) -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider("x")]) as manager:
        with pytest.raises(agentkeel.ValidationError, match="continuity"):
            await manager.run("hi", continuity=mode)


async def test_native_continuity_is_refused_where_the_agent_cannot_and_auto_is_not() -> None:
    forgetful = msgspec.structs.replace(CAPABILITIES, resume=False, warm=False)
    async with agentkeel.open("memory:", providers=[ScriptedProvider("a", "b", capabilities=forgetful)]) as manager:
        session = await manager.start_session()
        with pytest.raises(agentkeel.CapabilityNotSupported, match="auto"):
            await session.run("hi", continuity="native")
        assert await session.runs() == []
        assert [(await session.run("hi", continuity="auto")).continuity for _ in range(2)] == ["new", "new"]


async def test_a_runs_duration_counts_the_start_of_its_agent() -> None:
    clock = VirtualClock()
    begun = [anyio.Event(), anyio.Event()]
    provider = ScriptedProvider(
        lambda *_: begun[1].set() or [Wait(2), Say("x")],
        clock=clock,
        opening=lambda spec: begun[0].set() or Wait(3),
    )
    async with agentkeel.open("memory:", providers=[provider], clock=clock) as manager:
        session = await manager.start_session()
        run = await session.submit("hi")
        for event, seconds in zip(begun, (3, 2), strict=True):
            await event.wait()
            await anyio.wait_all_tasks_blocked()
            await clock.advance(seconds)
        assert (await run.result()).duration == 5.0


async def test_times_may_be_durations() -> None:
    clock = VirtualClock()
    provider = ScriptedProvider([Hang()], clock=clock)
    async with agentkeel.open("memory:", providers=[provider], clock=clock, timeout=timedelta(minutes=2)) as manager:
        session = await manager.start_session()
        run = await session.submit("hi")
        assert (await run.info()).timeout == 120.0


async def test_a_runs_correlation_id_is_on_every_event_of_it() -> None:
    turn = [Say("x", chunks=3), Use("bash", ask=True)]
    async with agentkeel.open("memory:", providers=[ScriptedProvider(turn)]) as manager:
        session = await manager.start_session()
        run = await session.run("hi", correlation_id="req-1")
        own = await session.events(run_id=run.run_id)
        assert {event.correlation_id for event in own} == {"req-1"}
        assert {event.provider for event in own} == {"scripted"}


async def test_an_agent_that_never_stops_talking_meets_the_total_deadline_once() -> None:
    clock = VirtualClock()
    provider = ScriptedProvider([step for n in range(100) for step in (Say(f"{n}"), Wait(5))], clock=clock)
    async with agentkeel.open("memory:", providers=[provider], clock=clock, timeout=60, idle_timeout=30) as manager:
        session = await manager.start_session()
        run = await session.submit("hi")
        for _ in range(12):
            await clock.wait_for_sleepers(3)
            await clock.advance(5)
        with pytest.raises(agentkeel.RunTimeout) as caught:
            await run.result()
        assert caught.value.details["deadline"] == "total"


async def test_an_agent_that_cannot_be_opened_is_asked_nothing() -> None:
    provider = ScriptedProvider("never", opening=Fail("provider_unavailable", "gone"))
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        with pytest.raises(agentkeel.ProviderUnavailable):
            await manager.run("hi")
    assert provider.prompts == []


async def test_stopping_a_session_twice_or_after_its_agent_died_is_well() -> None:
    provider = ScriptedProvider([Say("x")])
    async with agentkeel.open("memory:", providers=[provider]) as manager:
        session = await manager.start_session()
        await session.run("hi")
        await session.stop()
        await session.stop()
        assert len(provider.closed) == 1


async def test_without_an_audit_log_nothing_is_audited() -> None:
    async with agentkeel.open("memory:", providers=[ScriptedProvider([Use("bash", ask=True)])]) as manager:
        session = await manager.start_session()
        await session.run("hi")
        assert not [event for event in await session.events() if "audit" in repr(event.data)]

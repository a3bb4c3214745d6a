"""Runs without an end: what the next owner of a log may say of them, and when it must not touch them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

import agentkeel
from agentkeel.adapters.notifiers.local import LocalNotifier
from agentkeel.adapters.stores.memory import MemoryStore
from agentkeel.core import events as ev
from agentkeel.core.events import Body, Draft
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.redact import Redactor
from agentkeel.engine.log import Log
from agentkeel.engine.recovery import recover
from agentkeel.testing import ScriptedProvider
from agentkeel.testing.scripted import Hang, Say

pytestmark = pytest.mark.anyio

S, R = SessionId("ses_dead"), RunId("run_dead")
PREPARED = ev.ContinuityPrepared(mode="new", process={"pid": 7, "start_time": 1, "token": "abc"})
STARTED = ev.RunStarted(provider="scripted")


async def a_log_of(*bodies: Body) -> Log:
    log = Log(MemoryStore(), LocalNotifier(), Redactor())
    await log.append(S, [Draft(data=ev.SessionCreated(agent_id="a")), Draft(data=ev.SessionStarted())])
    await log.append(S, [Draft(data=body, run_id=R) for body in (ev.RunQueued(provider="scripted"), *bodies)])
    return log


async def nothing(process: Mapping[str, Any]) -> None: ...


@pytest.mark.parametrize(
    ("bodies", "outcome"),
    [
        ((), "not_started"),
        ((ev.RouteSelected(provider="scripted"),), "not_started"),
        ((PREPARED,), "unknown"),
        ((PREPARED, STARTED), "unknown"),
    ],
)
async def test_a_run_whose_agent_may_have_had_the_prompt_is_not_called_not_started(
    bodies: tuple[Body, ...], outcome: str
) -> None:
    log = await a_log_of(*bodies)
    [run] = await recover(log, owner="me", reap=nothing)
    assert run.id == R
    state = await log.store.run(R)
    assert (state.status, state.error_details["outcome"]) == ("interrupted", outcome)
    assert [event.type for event in await log.store.read(S)][-2:] == ["run_interrupted", "session_idle"]
    assert await recover(log, owner="me", reap=nothing) == []


async def test_an_agent_that_cannot_be_ended_is_told_of_and_its_run_is_ended_all_the_same() -> None:
    log = await a_log_of(PREPARED, STARTED)

    async def reap(process: Mapping[str, Any]) -> None:
        raise PermissionError("not ours")

    await recover(log, owner="me", reap=reap)
    *_, told, ended, _idle = await log.store.read(S)
    assert (told.type, ended.type) == ("error_occurred", "run_interrupted")
    assert "not ours" in told.data.error_message
    assert "process 7" in told.data.error_message


async def test_a_live_owner_keeps_its_run_and_its_agent() -> None:
    log = await a_log_of(PREPARED, STARTED)
    reaped: list[object] = []

    async def reap(process: Mapping[str, Any]) -> None:
        reaped.append(process)

    # The owner claims between the look for orphans and the look at this one.
    orphans = await log.store.orphans("me")
    fence = await log.store.claim(R, owner="other", ttl=60)
    log.store.orphans = lambda _: _given(orphans)  # type: ignore[method-assign, assignment]
    assert await recover(log, owner="me", reap=reap) == []
    assert reaped == []
    await log.append(S, [Draft(data=ev.MessageReceived(content="alive"), run_id=R)], fence=fence)
    assert (await log.store.run(R)).status == "running"


async def test_an_owner_that_was_thought_dead_can_write_no_more() -> None:
    log = await a_log_of(PREPARED, STARTED)
    fence = await log.store.claim(R, owner="slow", ttl=0)

    async def reap(process: Mapping[str, Any]) -> None:
        with pytest.raises(agentkeel.Fenced):
            await log.append(S, [Draft(data=ev.MessageReceived(content="late"), run_id=R)], fence=fence)

    await recover(log, owner="me", reap=reap)
    assert (await log.store.run(R)).status == "interrupted"


async def test_a_run_that_somebody_else_ended_gives_its_callers_that_end() -> None:
    store = MemoryStore()
    provider = ScriptedProvider([Say("x"), Hang()])
    async with agentkeel.open(store, providers=[provider]) as manager:
        session = await manager.start_session()
        run = await session.submit("go")
        while not await session.events(types=["message_received"]):
            await anyio.lowlevel.checkpoint()
        await store.append(session.id, [Draft(data=ev.RunInterrupted(outcome="unknown"), run_id=run.id)])
        await run.cancel()
        with pytest.raises(agentkeel.RunInterrupted):
            await run.result()


async def _given(value: object) -> object:
    return value

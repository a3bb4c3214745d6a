"""States: what sessions and runs become, and what they cannot become."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agentkeel.core import events as ev
from agentkeel.core.events import Body, Draft
from agentkeel.core.ids import RunId, SessionId
from agentkeel.core.run import RunStatus
from agentkeel.core.session import SessionStatus
from agentkeel.core.usage import Usage
from agentkeel.errors import (
    InvalidTransition,
    RunTerminal,
    StateError,
)
from agentkeel.ports.store import EventFilter, EventStore
from agentkeel.testing.store_cases.common import (
    R,
    S,
    StoreCases,
    created,
    of_run,
    running,
    said,
    started,
)

__all__ = ["StateCases"]


class StateCases(StoreCases):
    """What `append` promises of sessions and runs."""

    # -- states (B-01, B-02, B-03, B-05, B-07) ----------------------------------------------------------------------

    @pytest.mark.parametrize("end", sorted(ev.TERMINAL_TYPES))
    async def test_the_first_terminal_event_wins_and_nothing_follows_it(self, store: EventStore, end: str) -> None:
        await started(store)
        await running(store)
        ends: dict[str, Body] = {
            "run_completed": ev.RunCompleted(stop_reason="end_turn"),
            "run_failed": ev.RunFailed(error_code="provider_error", error_message="broke"),
            "run_cancelled": ev.RunCancelled(reason="enough"),
            "run_timeout": ev.RunTimeout(deadline="total", seconds=1),
            "run_interrupted": ev.RunInterrupted(outcome="unknown"),
        }
        await store.append(S, [of_run(ends[end])])
        head = await store.head(S)
        later: list[Body] = [*ends.values(), ev.MessageReceived(content="late"), ev.RunStarted(provider="x")]
        for data in later:
            with pytest.raises(RunTerminal):
                await store.append(S, [of_run(data)])
        with pytest.raises(RunTerminal):
            await store.append(S, [said("of the session"), of_run(ev.MessageReceived(content="late"))])
        assert await store.head(S) == head
        run = await store.run(R)
        assert run.status == end.removeprefix("run_")
        assert run.ended_at is not None
        assert run.last_sequence == head

    async def test_of_many_terminal_events_at_once_one_is_stored(self, store: EventStore) -> None:
        await started(store)
        await running(store)
        refused: list[str] = []

        async def end(data: Body) -> None:
            try:
                await store.append(S, [of_run(data)])
            except RunTerminal:
                refused.append(data.type)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(end, ev.RunCompleted(stop_reason="end_turn"))
                group.start_soon(end, ev.RunCancelled())
        assert len(refused) == 9
        assert len(await store.read(S, where=EventFilter(types=ev.TERMINAL_TYPES))) == 1

    async def test_a_batch_cannot_end_a_run_twice(self, store: EventStore) -> None:
        await started(store)
        await running(store)
        with pytest.raises(RunTerminal):
            await store.append(S, [of_run(ev.RunCancelled()), of_run(ev.RunCompleted(stop_reason="end_turn"))])
        assert (await store.run(R)).status is RunStatus.RUNNING

    async def test_moves_outside_the_tables_are_refused(self, store: EventStore) -> None:
        await store.append(S, created())
        with pytest.raises(StateError) as caught:
            await store.append(S, [of_run(ev.RunQueued())])
        assert caught.value.code == "invalid_status"
        for data in (ev.SessionPaused(), ev.SessionResumed(), ev.SessionCompleted(), ev.SessionCreated(agent_id="b")):
            with pytest.raises(InvalidTransition):
                await store.append(S, [Draft(data=data)])
        await store.append(S, [Draft(data=ev.SessionStarted())])
        await store.append(S, [of_run(ev.RunQueued())])
        for move in (ev.RunQueued(), ev.RunCompleted(stop_reason="end_turn")):
            with pytest.raises(InvalidTransition):
                await store.append(S, [of_run(move)])
        await store.append(S, [Draft(data=ev.SessionCompleted())])
        with pytest.raises(StateError):
            await store.append(S, [of_run(ev.RunQueued(), RunId("run_2"))])
        await store.append(S, [of_run(ev.RunStarted(provider="x"))])
        assert (await store.session(S)).status is SessionStatus.COMPLETED

    async def test_a_run_belongs_to_one_session(self, store: EventStore) -> None:
        await started(store)
        await running(store)
        other = await started(store, SessionId("ses_2"))
        for data in (ev.MessageReceived(content="x"), ev.RunQueued(), ev.RunCancelled()):
            with pytest.raises(StateError) as caught:
                await store.append(other, [of_run(data)])
            assert caught.value.code == "run_mismatch"
        assert await store.head(other) == 2

    async def test_states_are_what_the_events_tell(self, store: EventStore) -> None:
        await started(store, provider="scripted", metadata={"a": 1}, tags=("x", "y"), system_prompt="Be kind.")
        await running(store, key="q1", options={"prompt": "do"}, metadata={"m": [1, None]}, timeout=2.5)
        await store.append(
            S,
            [
                of_run(ev.RouteSelected(provider="scripted", order=("scripted", "b"), skipped={"c": "no"})),
                of_run(ev.RunStarted(provider="scripted", model="m1", provider_session_id="native", attempt=2)),
                of_run(ev.ToolCallStarted(tool_call_id="t1", tool_name="Bash")),
                of_run(ev.TokenUsageUpdated(usage=Usage(input_tokens=3, output_tokens=4), cost_usd="0.5")),
                of_run(ev.TokenUsageUpdated(usage=Usage(input_tokens=1), cost_usd="0.25")),
                of_run(ev.TurnCompleted(turns=2)),
            ],
        )
        run = await store.run(R)
        assert (run.status, run.key, run.options, run.timeout) == (RunStatus.RUNNING, "q1", {"prompt": "do"}, 2.5)
        assert (run.attempt, run.model, run.order, run.skipped) == (2, "m1", ("scripted", "b"), {"c": "no"})
        assert (run.usage, run.cost_usd) == (Usage(input_tokens=4, output_tokens=4), "0.75")
        assert (run.turns, run.tool_calls, run.open_tool_calls) == (2, 1, ("t1",))
        assert run.metadata == {"m": [1, None]}
        session = await store.session(S)
        assert (session.metadata, session.tags, session.system_prompt) == ({"a": 1}, ("x", "y"), "Be kind.")
        assert session.provider_sessions == {"scripted": "native"}

    async def test_concurrent_edits_of_one_session_all_survive(self, store: EventStore) -> None:
        await started(store, max_concurrent_runs=8)

        async def work(n: int) -> None:
            run_id = RunId(f"run_{n}")
            await running(store, run_id)
            provider = f"p{n}"
            await store.append(S, [of_run(ev.RunStarted(provider=provider, provider_session_id=f"native {n}"), run_id)])
            await store.append(S, [of_run(ev.RunCompleted(stop_reason="end_turn"), run_id)])

        async with anyio.create_task_group() as group:
            for n in range(8):
                group.start_soon(work, n)
            group.start_soon(store.append, S, [Draft(data=ev.SessionPaused())])
        session = await store.session(S)
        assert session.provider_sessions == {f"p{n}": f"native {n}" for n in range(8)}
        assert session.status is SessionStatus.PAUSED

    @pytest.mark.parametrize(
        "end",
        [
            ev.RunFailed(error_code="timeout", error_message="m"),
            ev.RunCancelled(),
            ev.RunInterrupted(outcome="unknown"),
        ],
    )
    async def test_a_run_that_ends_badly_keeps_what_it_used(self, store: EventStore, end: Body) -> None:
        await started(store)
        await running(store)
        used = Usage(input_tokens=7, output_tokens=5)
        native = ev.RunStarted(provider="scripted", provider_session_id="native")
        usage = ev.TokenUsageUpdated(usage=used, cost_usd="0.5", price_source="table")
        await store.append(S, [of_run(native), of_run(usage)])
        await store.append(S, [of_run(end)])
        run = await store.run(R)
        assert (run.usage, run.cost_usd, run.cost_source) == (used, "0.5", "table")
        assert run.provider_session_id == "native"

    async def test_a_draft_that_is_changed_later_changes_nothing(self, store: EventStore) -> None:
        mutable: dict[str, Any] = {"a": [1]}
        await started(store, metadata=mutable)
        await running(store, options=mutable)
        await store.append(S, [Draft(data=ev.ToolCallStarted(tool_call_id="t", tool_name="n", tool_input=mutable))])
        mutable["a"].append(2)
        assert (await store.session(S)).metadata == {"a": [1]}
        assert (await store.run(R)).options == {"a": [1]}
        last = (await store.read(S))[-1]
        assert isinstance(last.data, ev.ToolCallStarted)
        assert last.data.tool_input == {"a": [1]}

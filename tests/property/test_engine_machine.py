"""Whatever agents do and whenever somebody cancels, pauses, or lets time pass: the log stays true.

One terminal event for every run and nothing after it, sequences dense from 1, slots never exceeded, one agent in one
conversation at a time, no agent left behind, and states that equal the fold of their events.
"""

from __future__ import annotations

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

import agentkeel
from agentkeel.core import run as runs
from agentkeel.core.events import TERMINAL_TYPES, Event
from agentkeel.core.run import RunState
from agentkeel.testing import ScriptedProvider, VirtualClock
from agentkeel.testing.scripted import Crash, CutOff, Deaf, Fail, Hang, Say, Spend, Step, Use, Wait

SLOTS = 2

steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(Say, st.sampled_from(["a", "words", "sk-ant-api03-" + "q" * 30]), st.integers(1, 3)),
    st.builds(Wait, st.sampled_from([1, 7])),
    st.builds(Use, st.sampled_from(["bash", "edit"]), ask=st.booleans()),
    st.builds(Spend, input_tokens=st.integers(0, 5), output_tokens=st.integers(0, 5)),
    st.just(Hang()),
    st.just(Deaf()),
    st.just(Crash()),
    st.just(CutOff()),
    st.builds(Fail, st.sampled_from(["provider_unavailable", "provider_rate_limited"])),
)
turns = st.lists(st.lists(steps, max_size=5), min_size=1, max_size=5)
actions = st.lists(
    st.one_of(
        st.just(("submit", 0)),
        st.tuples(st.just("cancel"), st.integers(0, 4)),
        st.tuples(st.just("advance"), st.sampled_from([1, 3, 8, 40])),
        st.tuples(st.just("turns"), st.integers(1, 30)),
        st.just(("interrupt", 0)),
        st.just(("pause", 0)),
        st.just(("resume", 0)),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=100, deadline=None)
@given(turns, actions)
def test_the_log_stays_true(script: list[list[Step]], plan: list[tuple[str, int]]) -> None:
    anyio.run(_play, script, plan)


async def _play(script: list[list[Step]], plan: list[tuple[str, int]]) -> None:
    clock = VirtualClock()
    provider = ScriptedProvider(*script, always="fallback", clock=clock)
    async with agentkeel.open("memory:", providers=[provider], clock=clock, timeout=30, grace=2) as manager:
        session = await manager.start_session(max_concurrent_runs=SLOTS)
        submitted: list[agentkeel.Run] = []
        for action, argument in plan:
            await _act(session, submitted, clock, action, argument)
            assert (await session.status()).in_flight_count <= SLOTS
        if (await session.info()).status == "paused":
            await session.resume()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_drain, session, tasks)
                while True:
                    await clock.advance(5)
        events = await session.events()
        states = [await run.info() for run in submitted]
        await session.stop()
        assert len(provider.closed) == len(provider.opened)
    _check(events, states)


async def _drain(session: agentkeel.Session, tasks: anyio.abc.TaskGroup) -> None:
    await session.drain()
    tasks.cancel_scope.cancel()


async def _act(
    session: agentkeel.Session, submitted: list[agentkeel.Run], clock: VirtualClock, action: str, argument: int
) -> None:
    match action:
        case "submit":
            submitted.append(await session.submit("go"))
        case "cancel" if submitted:
            await submitted[argument % len(submitted)].cancel()
        case "advance":
            await clock.advance(argument)
        case "turns":
            for _ in range(argument):
                await anyio.lowlevel.checkpoint()
        case "interrupt":
            await session.interrupt()
        case "pause" if (await session.info()).status == "active":
            await session.pause()
        case "resume" if (await session.info()).status == "paused":
            await session.resume()
        case _:
            pass


def _check(events: list[Event], states: list[RunState]) -> None:
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert "q" * 12 not in repr(events)
    for state in states:
        own = [event for event in events if event.run_id == state.id]
        assert [event.type in TERMINAL_TYPES for event in own] == [False] * (len(own) - 1) + [True]
        folded: RunState | None = None
        for event in own:
            if type(event.data) in runs.EVOLVING:
                folded = runs.evolve(folded, event)
        assert folded is not None
        assert folded.status == state.status
        assert (folded.usage, folded.text, folded.error_code) == (state.usage, state.text, state.error_code)
        used = sum(e.data.usage.total_tokens for e in own if e.type == "token_usage_updated")
        assert state.usage.total_tokens == used
    if states:
        told = [event.type for event in events if event.type not in {"session_paused", "session_resumed"}]
        assert told[-1] == "session_idle"
